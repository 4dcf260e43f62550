"""What a sweep needs to know of a task."""

from typing import Any, NamedTuple, Protocol

import optax
from flax import nnx
from jax import Array

from clockwork.nn import Network


class Cell(NamedTuple):
    """All runs of one network on one piece of data: what is trained, stored and tabled as one.

    Attributes:
        network: a key of the task's networks, such as ``"cwrnn"``.
        size: the nominal number of parameters.
        data: the name of the data, such as a clip's.
        learning_rate: of its optimiser.
    """

    network: str
    size: int
    data: str
    learning_rate: float

    @property
    def name(self) -> str:
        """What its results are stored under, such as ``"cwrnn-1000-choir-0.0003"``."""
        return f"{self.network}-{self.size}-{self.data}-{self.learning_rate!r}"


class Task(Protocol):
    """Data, networks, loss, metric and protocol of one experiment: all that `clockwork.training.sweep` asks of one.

    A task of one's own need not inherit from this class. What it computes must depend on its `settings` alone.
    """

    @property
    def name(self) -> str:
        """What the task is called in ``runs.csv`` and ``config.json``."""
        ...

    @property
    def runs(self) -> int:
        """``R``, the runs of each cell."""
        ...

    @property
    def epochs(self) -> int:
        """Updates of each run; one epoch is one update."""
        ...

    @property
    def seed(self) -> int:
        """Run i draws its weights from ``fold_in(key(seed), i)``."""
        ...

    def cells(self) -> list[Cell]:
        """All cells, in the order of the table; those of one network and size follow one another."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that decides the results, by name, as values that JSON can hold."""
        ...

    def network(self, name: str, size: int, rngs: nnx.Rngs) -> Network:
        """A network with fresh weights.

        Args:
            name: of a cell's network.
            size: of a cell.
            rngs: the source of the keys, stream ``params``.
        """
        ...

    def data(self, cell: Cell) -> Array:
        """What the runs of a cell are trained on: an array, of one shape for all cells of a network and size."""
        ...

    def rate(self, cell: Cell) -> int:
        """Samples per second of a cell's data."""
        ...

    def optimizer(self, learning_rate: Array) -> optax.GradientTransformation:
        """The optimiser of one run.

        Args:
            learning_rate: ``()``, float32; the structure of the optimiser's state must not depend on it.
        """
        ...

    def loss(self, network: Network, target: Array) -> tuple[Array, Array]:
        """The loss whose gradient is taken, and the error that is reported, both ``()``; it is traced by JAX.

        Args:
            network: of one run.
            target: the cell's `data`.
        """
        ...

    def outputs(self, network: Network, target: Array) -> Array:
        """What a trained network puts out, ``(T,)``, to be kept in `clockwork.training.CellResult`.

        Args:
            network: of one run.
            target: the cell's `data`.
        """
        ...

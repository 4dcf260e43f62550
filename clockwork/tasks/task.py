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
        """A file name."""
        return f"{self.network}-{self.size}-{self.data}-{self.learning_rate!r}"


class Task(Protocol):
    """Data, networks, loss, metric and protocol of one experiment."""

    @property
    def name(self) -> str:
        """What the task is called."""
        ...

    @property
    def runs(self) -> int:
        """Runs of each cell."""
        ...

    @property
    def epochs(self) -> int:
        """Updates of each run."""
        ...

    @property
    def seed(self) -> int:
        """Run i is a function of this and i."""
        ...

    def cells(self) -> list[Cell]:
        """All cells, in the order of the table."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that decides the results, as JSON-able values."""
        ...

    def network(self, name: str, size: int, rngs: nnx.Rngs) -> Network:
        """A network with fresh weights."""
        ...

    def data(self, cell: Cell) -> Array:
        """What the runs of a cell are trained on."""
        ...

    def rate(self, cell: Cell) -> int:
        """Samples per second of a cell's data."""
        ...

    def optimizer(self, learning_rate: Array) -> optax.GradientTransformation:
        """The optimiser of one run; its state's structure does not depend on the rate."""
        ...

    def loss(self, network: Network, target: Array) -> tuple[Array, Array]:
        """The loss whose gradient is taken, and the error that is reported."""
        ...

    def outputs(self, network: Network, target: Array) -> Array:
        """What a trained network is remembered by."""
        ...

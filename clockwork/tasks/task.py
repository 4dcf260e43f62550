"""What a sweep needs to know of a task."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import optax
from flax import nnx
from jax import Array

from clockwork.nn import Network

PyTree = Any
# What a key holds: `jax.random.key` takes 32 bits of a seed and `fold_in` as many of a run's number.
MOST_SEED = 2**32 - 1
MOST_RUNS = 2**32
MOST_EPOCHS = 2**31 - 1  # they are counted in int32


class Cell(NamedTuple):
    """All runs of one network on one piece of data: what is trained, stored and tabled as one.

    Attributes:
        network: a key of the task's networks, such as ``"cwrnn"``.
        size: the nominal number of parameters.
        data: the name of the data, such as a clip's.
        learning_rate: of its optimiser.

    Example:
        >>> Cell("cwrnn", 100, "choir", 3e-4).name
        'cwrnn-100-choir-0.0003'
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
    def columns(self) -> tuple[str, str]:
        """What a cell's data and a run's error are called in ``runs.csv``."""
        ...

    @property
    def runs(self) -> int:
        """``R``, the runs of each cell."""
        ...

    @property
    def epochs(self) -> int:
        """How many epochs a run is trained, at most."""
        ...

    @property
    def updates(self) -> int:
        """``U``, the updates of an epoch."""
        ...

    @property
    def patience(self) -> int | None:
        """A run stops so many epochs after the last at which `watched` was lower than ever; None: it never does."""
        ...

    @property
    def seed(self) -> int:
        """Run i draws its weights, and whatever else is random in it, from ``fold_in(key(seed), i)``."""
        ...

    def cells(self) -> list[Cell]:
        """All cells, in the order of the table; those of one group follow one another."""
        ...

    def group(self, cell: Cell) -> tuple[str, ...]:
        """What cells must have in common to be trained side by side: network, size, and perhaps data."""
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

    def data(self, cell: Cell) -> PyTree:
        """What the runs of a cell are trained on: arrays, of the same shapes for all cells of a group."""
        ...

    def record(self, cell: Cell) -> dict[str, np.ndarray]:
        """What a report needs to know of a cell's data; it is stored with the results."""
        ...

    def optimizer(self, learning_rate: Array) -> optax.GradientTransformation:
        """The optimiser of one run.

        Args:
            learning_rate: ``()``, float32; the structure of the optimiser's state must not depend on it.
        """
        ...

    def batches(self, data: PyTree, epoch: Array | int) -> PyTree:
        """What the updates of an epoch are made with: arrays ``(U, ...)``; None where there is one update, on all data.

        Args:
            data: the cell's `data`.
            epoch: ``()``, int32, how many there were before.
        """
        ...

    def loss(self, network: Network, data: PyTree, batch: PyTree, key: Array) -> tuple[Array, PyTree]:
        """The loss whose gradient is taken, ``()``, and errors as of `watch`; it is traced by JAX.

        Args:
            network: of one run.
            data: the cell's `data`.
            batch: of one update, or None.
            key: of this run and update, for what is random in the loss.
        """
        ...

    def watch(self, network: Network, data: PyTree) -> Array | None:
        """The errors that learning curves are made of, before each epoch; None: those that `loss` gives.

        Args:
            network: of one run.
            data: the cell's `data`.
        """
        ...

    def watched(self, errors: Array) -> Array:
        """Of the errors of `watch`, the one that tells when to stop, ``()``."""
        ...

    def result(self, network: Network, data: PyTree) -> tuple[Array, Array]:
        """The error of a trained network, ``()``, and its outputs, to be kept in `clockwork.training.CellResult`.

        Args:
            network: of one run.
            data: the cell's `data`.
        """
        ...

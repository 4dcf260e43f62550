"""The placement of a group's runs on the devices."""

import copy
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clockwork.training.program import Data, Runs
from clockwork.training.task import Condition, Task
from clockwork.training.train_state import TrainState

# Each device trains a multiple of this many runs, since what is left over is computed one by one; unless more than
# this share of them would be there to fill up.
SIMD = 8
MAX_PADDING = 1 / 4
# Once fewer than this share of the runs in training are active, the others having stopped or diverged, they go on in
# a smaller program.
MIN_ACTIVE = 1 / 4


class Placement:
    """Which runs of a group are trained side by side: the i-th run of condition c is number ``c R + i``.

    Args:
        task: what is trained.
        conditions: of the group.
        mesh: of one axis, ``"runs"``.
        block: the ``R`` runs of each condition, in a row; all of the task's if None.
    """

    def __init__(self, task: Task, conditions: list[Condition], mesh: Mesh, block: range | None = None) -> None:
        self.task, self.conditions, self.devices = task, conditions, mesh.size
        self.block = range(task.runs) if block is None else block
        self.spreading, everywhere = NamedSharding(mesh, PartitionSpec("runs")), NamedSharding(mesh, PartitionSpec())
        names = list(dict.fromkeys(condition.data for condition in conditions))
        first = {condition.data: condition for condition in reversed(conditions)}
        leaves, structures = zip(*(jax.tree.flatten(task.data(first[name])) for name in names), strict=True)
        columns = list(zip(*leaves, strict=True))
        self.layout = Data(structures[0], tuple(any(x is not column[0] for x in column) for column in columns))
        stacked = [
            np.stack([np.asarray(x) for x in column]) if own else column[0]
            for own, column in zip(self.layout.by_piece, columns, strict=True)
        ]
        self.data = [jax.device_put(x, everywhere) for x in stacked]
        self.piece = np.asarray([names.index(condition.data) for condition in conditions], np.int32)
        self.hyperparameters = {
            name: np.asarray([dict(condition.hyperparameters)[name] for condition in conditions], np.float32)
            for name, _ in conditions[0].hyperparameters
        }
        self._place(np.arange(len(conditions) * len(self.block)))

    def of(self, chosen: np.ndarray) -> "Placement":
        """A placement of the chosen runs alone.

        Args:
            chosen: ``(C R,)``, bool.
        """
        fewer = copy.copy(self)
        fewer._place(np.flatnonzero(chosen))
        return fewer

    @property
    def width(self) -> int:
        """The number of runs in the program, including those that fill up the devices."""
        return len(self.numbers)

    def _place(self, numbers: np.ndarray) -> None:
        width = padded(len(numbers), self.devices)
        # The last run fills up the last device.
        self.numbers = numbers = numbers[np.minimum(np.arange(width), len(numbers) - 1)]
        condition_of, run_of = numbers // len(self.block), self.block.start + numbers % len(self.block)
        fold = functools.partial(jax.random.fold_in, jax.random.key(self.task.seed))
        put = functools.partial(jax.device_put, device=self.spreading)
        self.runs = Runs(
            put(jax.vmap(fold)(jnp.asarray(run_of))),
            {name: put(values[condition_of]) for name, values in self.hyperparameters.items()},
            put(self.piece[condition_of]),
            self.data,
        )

    def to_devices(self, whole: TrainState) -> TrainState:
        """The states of these runs, on the devices."""
        return jax.device_put(jax.tree.map(lambda x: x[self.numbers], whole), self.spreading)

    def to_host(self, whole: Any, state: Any) -> Any:
        """Arrays of all runs, those of ``whole`` with the values of the runs in training replaced by ``state``."""

        def put(old: np.ndarray, new: Array) -> np.ndarray:
            filled = old.copy()
            filled[self.numbers] = np.asarray(new)
            return filled

        return jax.tree.map(put, whole, state)

    def spread(self, latest: np.ndarray, active: np.ndarray, errors: list[np.ndarray], count: int) -> np.ndarray:
        """The errors of all ``R`` runs, ``(E, R, ...)``; those of a run that is not active are its last ones.

        Args:
            latest: errors of the runs in training, ``(width, E, ...)``.
            active: whether they were active, ``(width, E)``.
            errors: of all runs before, each ``(E', R, ...)``.
            count: ``R``.
        """
        latest, active = np.moveaxis(latest, 0, 1), active.T
        last = errors[-1][-1] if errors else np.full((count, *latest.shape[2:]), np.nan, latest.dtype)
        filled = np.repeat(last[None], len(latest), 0)
        filled[:, self.numbers] = latest
        went_on = np.zeros((len(latest), count), bool)
        went_on[:, self.numbers] = active
        for epoch, running in enumerate(went_on):
            before = filled[epoch - 1] if epoch else last
            filled[epoch, ~running] = before[~running]
        return filled

    def should_compact(self, active: np.ndarray) -> bool:
        """Whether so few runs are active that compiling a smaller program pays off."""
        return (
            bool(active.any())
            and active.sum() <= MIN_ACTIVE * self.width
            and self.width >= SIMD * self.devices / MIN_ACTIVE
        )


def padded(count: int, devices: int) -> int:
    """The number of runs in the program for ``count`` runs, so that every device has equally many.

    A multiple of `SIMD` on each, unless more than `MAX_PADDING` of them would only fill up.

    Example:
        >>> padded(100, 2), padded(9, 2)
        (112, 10)
    """
    each = math.ceil(count / devices)
    full = math.ceil(each / SIMD) * SIMD
    return devices * (full if full - each <= MAX_PADDING * full else each)

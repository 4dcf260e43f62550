"""The static schedule of one call of ``unroll``: the ticks of each module.

A module's value, and all that it sends, changes only at the module's own ticks. An array of a module's values over time
therefore has ``ticks + 1`` rows: the value before the first tick, then the value from each tick on.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from clockwork.clock import Clock


class TickGrid(NamedTuple):
    """The ticks of one period within a sequence; all in absolute steps of the clock.

    Attributes:
        period: steps between two ticks.
        first: the first tick.
        ticks: the number of ticks.
    """

    period: int
    first: int
    ticks: int

    @classmethod
    def of(cls, period: int, start: int, steps: int) -> "TickGrid":
        """The ticks of a period in ``[start, start + steps)``."""
        first = -(-start // period) * period
        return cls(period, first, max(0, -(-(start + steps - first) // period)))

    def row_after(self, times: np.ndarray) -> np.ndarray:
        """The row of an array on this grid that is valid just after each of the given steps."""
        rows = (times - self.first) // self.period + 1
        return np.clip(rows, 0, self.ticks).astype(np.int32)

    @property
    def times(self) -> np.ndarray:
        """The steps of the ticks."""
        return self.first + self.period * np.arange(self.ticks, dtype=object)


class Group(NamedTuple):
    """Neighbouring modules that are evaluated as one, or a single module.

    A group ticks whenever any of its members may; members that do not tick then keep their value.

    Attributes:
        members: the indices of the modules.
        start: the first unit.
        size: the number of units.
        own: the ticks of the group.
        before: the ticks of all slower groups together; None for the slowest group.
        after: the ticks of this group and all slower ones together.
    """

    members: range
    start: int
    size: int
    own: TickGrid
    before: TickGrid | None
    after: TickGrid


class Schedule(NamedTuple):
    """The ticks of a layer's modules over one sequence; static.

    Attributes:
        clock: the layer's clock.
        start: the clock's value at the first step.
        steps: ``T``.
    """

    clock: Clock
    start: int
    steps: int

    def grid(self, period: int) -> TickGrid:
        """The ticks of a period."""
        return TickGrid.of(period, self.start, self.steps)

    def group(self, members: range, before: TickGrid | None = None) -> Group:
        """Neighbouring modules as one group.

        Args:
            members: the indices of the modules.
            before: the ticks of all slower groups together.
        """
        start = self.clock.starts[members[0]]
        size = sum(self.clock.sizes[m] for m in members)
        period = math.gcd(*(self.clock.periods[m] for m in members))
        after = self.grid(math.gcd(period, before.period) if before else period)
        return Group(members, start, size, self.grid(period), before, after)

    def slowest_first(self, partition: Sequence[range] | None = None) -> list[Group]:
        """The groups of a partition, slowest first; every module is a group of its own if there is no partition."""
        order: list[Group] = []
        for members in reversed(partition or [range(j, j + 1) for j in range(self.clock.modules)]):
            order.append(self.group(members, order[-1].after if order else None))
        return order

    def inputs_at(self, ticks: TickGrid, inputs: Array) -> Array:
        """The inputs at the ticks of a grid, ``(S, I)``."""
        return inputs[ticks.first - self.start :: ticks.period]

    def active(self, group: Group) -> np.ndarray | None:
        """Which units of a group update at each of its ticks, ``(S, k)``; None if all units always do."""
        periods = self.clock.unit_periods[group.start : group.start + group.size].astype(object)
        active = (group.own.times[:, None] % periods == 0).astype(bool)
        return None if active.all() else active

"""The choice, by cost, of which neighbouring modules are evaluated as one group.

Each step of a time loop has an overhead, however little it computes. Neighbours evaluated as one group share the steps;
in return, they compute products with the zeros between them and mask the members that do not tick.
"""

import functools
from typing import NamedTuple, Protocol

from clockwork.recurrence.schedule import Group, Schedule


class CostModel(Protocol):
    """The cost of the time loop of a group, in any unit."""

    @property
    def per_loop(self) -> float:
        """Cost of a loop, however short."""
        ...

    def per_tick(self, group: Group, outputs: int, batch: int) -> float:
        """Cost of one step of a group's loop.

        Args:
            group: one module, or several neighbours whose changes are masked.
            outputs: ``O``, the columns of the readout; 0 for none.
            batch: the number of runs or sequences.
        """
        ...


class MultiplyAdds(NamedTuple):
    """A `CostModel` in multiply-adds.

    Attributes:
        per_loop: overhead of a loop.
        per_step: overhead of each step of a loop over a single module.
        per_masked_step: overhead of each step of a loop over several modules, whose changes are masked.
    """

    per_loop: int
    per_step: int
    per_masked_step: int

    def per_tick(self, group: Group, outputs: int, batch: int) -> float:
        """The overhead of a step plus its multiply-adds."""
        overhead = self.per_step if len(group.members) == 1 else self.per_masked_step
        return overhead + batch * group.size * (group.size + group.start + outputs)


@functools.lru_cache(maxsize=512)
def cheapest_partition(schedule: Schedule, outputs: int, batch: int, cost: CostModel) -> tuple[range, ...]:
    """The cheapest partition of the modules into groups of neighbours.

    A group of ``k`` units with ``a`` faster units takes ``k (k + a + O)`` multiply-adds for each run or sequence
    and tick, and it ticks whenever one of its members may.

    Args:
        schedule: the layer's schedule.
        outputs: ``O``, the columns of the readout; 0 for none.
        batch: the number of runs or sequences.
        cost: the cost of the time loops.
    """
    cheapest: list[tuple[float, tuple[range, ...]]] = [(0.0, ())]
    for end in range(1, schedule.clock.modules + 1):
        options = []
        for first in range(end):
            group = schedule.group(range(first, end))
            ticks = group.own.ticks * cost.per_tick(group, outputs, batch)
            options.append((cheapest[first][0] + cost.per_loop + ticks, (*cheapest[first][1], group.members)))
        cheapest.append(min(options, key=lambda option: option[0]))
    return cheapest[-1][1]

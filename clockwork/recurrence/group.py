"""A group's part of a layer: its weights from the sender blocks, and its members' values from the group's rows."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from clockwork.clock import Clock
from clockwork.recurrence.resample import Assemble, by_copies, pad_rows, upsample
from clockwork.recurrence.schedule import Group, Schedule
from clockwork.weights import Weights


class Member(NamedTuple):
    """The position of a module's units and ticks within its group.

    Attributes:
        units: the module's units among those of the group.
        rows: the group's rows at the module's ticks.
        same_ticks: whether the group ticks exactly when the module does.
    """

    units: slice
    rows: slice
    same_ticks: bool

    def values(self, rows: Array, assemble: Assemble = by_copies) -> Array:
        """Select the row before the module's first tick and the row at each tick from the group's rows of its units."""
        return rows if self.same_ticks else assemble([(rows[:1], 0), (rows[self.rows], 1)], 0)


def members(schedule: Schedule, group: Group) -> dict[int, Member]:
    """The modules of a group by index, fastest first."""
    found = {}
    for j in group.members:
        own = schedule.grid(schedule.clock.periods[j])
        stride, first = own.period // group.own.period, (own.first - group.own.first) // group.own.period + 1
        unit = schedule.clock.starts[j] - group.start
        rows = slice(first, first + own.ticks * stride, stride)
        found[j] = Member(slice(unit, unit + schedule.clock.sizes[j]), rows, own == group.own)
    return found


class Residuals(NamedTuple):
    """The arrays of each module that are saved for the backward pass, fastest first.

    All back ends and partitions give the same structure, so that a ``cond`` under ``vmap`` may fill it with zeros.

    Attributes:
        values: ``(S_j + 1, k_j)`` each.
        slopes: ``f'`` at each tick, ``(S_j, k_j)`` each; None where it follows from the value, as for tanh.
    """

    values: tuple[Array, ...]
    slopes: tuple[Array | None, ...]


def group_residuals(
    schedule: Schedule, group: Group, residuals: Residuals, axis: int, assemble: Assemble = by_copies
) -> tuple[Array, Array | None]:
    """The values and slopes of a group on its own ticks, ``(S + 1, k)``; row 0 of the slopes is zero.

    Args:
        schedule: the layer's schedule.
        group: a group of the layer.
        residuals: the residuals of all modules.
        axis: the axis of the units.
        assemble: how arrays are put together.
    """
    values, slopes = [], []
    for j in group.members:
        own, unit = schedule.grid(schedule.clock.periods[j]), schedule.clock.starts[j] - group.start
        values.append((upsample(residuals.values[j], own, group.own), unit))
        slope = residuals.slopes[j]
        if slope is not None:
            slopes.append((upsample(pad_rows(slope, 1, 0), own, group.own), unit))
    return assemble(values, axis), assemble(slopes, axis) if slopes else None


def outgoing_weights(weights: Weights, readout: Array | None, group: Group) -> Array:
    """The weights from a group to others, ``(k, O + a)``: to the readout, then to the faster units."""
    rows = [weights.recurrent[j][:, : group.start] for j in group.members]
    outgoing = rows[0] if len(rows) == 1 else jnp.concatenate(rows)
    if readout is None:
        return outgoing
    return jnp.concatenate([readout[group.start : group.start + group.size], outgoing], axis=1)


def feedback_weights(weights: Weights, group: Group) -> Array:
    """The weights from a group to itself, ``(k, k)``."""
    blocks = [weights.recurrent[j][:, group.start :] for j in group.members]
    if len(blocks) == 1:
        return blocks[0]
    widths = [[(0, 0), (0, group.size - b.shape[1])] + [(0, 0)] * (b.ndim - 2) for b in blocks]
    return jnp.concatenate([jnp.pad(b, width) for b, width in zip(blocks, widths, strict=True)])


def sender_blocks(clock: Clock, group: Group, outgoing_bar: Array, feedback_bar: Array) -> list[Array]:
    """The gradient of each member's sender block.

    This is the transpose of `outgoing_weights` (without the readout) and `feedback_weights`.

    Args:
        clock: the layer's clock.
        group: a group of the layer.
        outgoing_bar: ``(k, a)``.
        feedback_bar: ``(k, k)``.
    """
    blocks = []
    for j in group.members:
        first = clock.starts[j] - group.start
        end = first + clock.sizes[j]
        blocks.append(jnp.concatenate([outgoing_bar[first:end], feedback_bar[first:end, :end]], axis=1))
    return blocks

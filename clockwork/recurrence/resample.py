"""Resampling of arrays from one tick grid to another, and the transposes of these maps.

An array on a grid has ``ticks + 1`` rows: the value before the first tick, then the value from each tick on.
"""

import functools
from collections.abc import Sequence
from typing import Protocol

import jax.numpy as jnp
from jax import Array, lax

from clockwork.recurrence.schedule import TickGrid

# Up to this many rows are added one by one; a longer sum is split into this many parts. XLA's own sum over a short axis
# is many times slower.
UNROLLED_SUM_MAX_ROWS = 8


def upsample(rows: Array, coarse: TickGrid, fine: TickGrid) -> Array:
    """Convert rows on a coarse grid to a finer one, whose period divides the coarse grid's, by repeating each row."""
    if coarse.period == fine.period:
        return rows
    ratio, offset = _repeats(coarse, fine)
    repeated = jnp.broadcast_to(rows[:, None], (rows.shape[0], ratio, *rows.shape[1:]))
    return repeated.reshape(rows.shape[0] * ratio, *rows.shape[1:])[offset : offset + fine.ticks + 1]


def upsample_transpose(rows: Array, coarse: TickGrid, fine: TickGrid) -> Array:
    """The transpose of `upsample`: sums of the fine rows over the span of each coarse row."""
    if coarse.period == fine.period:
        return rows
    ratio, offset = _repeats(coarse, fine)
    total = (coarse.ticks + 1) * ratio
    padded = pad_rows(rows, offset, total - offset - rows.shape[0])
    return _sum_spans(padded.reshape(coarse.ticks + 1, ratio, *rows.shape[1:]))


def before_ticks(rows: Array, grid: TickGrid, ticks: TickGrid) -> Array:
    """The rows on a grid that are valid just before each tick of another, whose period is a multiple of the grid's."""
    stride = ticks.period // grid.period
    first = (ticks.first - grid.first) // grid.period
    return rows[first : first + ticks.ticks * stride : stride]


def before_ticks_transpose(rows: Array, grid: TickGrid, ticks: TickGrid) -> Array:
    """The transpose of `before_ticks`."""
    stride = ticks.period // grid.period
    first = (ticks.first - grid.first) // grid.period
    if ticks.ticks == 0:
        return jnp.zeros((grid.ticks + 1, *rows.shape[1:]), rows.dtype)
    return pad_rows(rows, first, grid.ticks - first - (ticks.ticks - 1) * stride, stride - 1)


def pad_rows(rows: Array, low: int, high: int, between: int = 0) -> Array:
    """The rows with rows of zeros before, after and between them."""
    config = [(low, high, between)] + [(0, 0, 0)] * (rows.ndim - 1)
    return lax.pad(rows, jnp.zeros((), rows.dtype), config)


class Assemble(Protocol):
    """A way to put arrays together along an axis: `by_copies` or `by_concatenation`."""

    def __call__(self, placed: Sequence[tuple[Array, int]], axis: int) -> Array:
        """Put arrays together.

        Args:
            placed: arrays, each with the index at which it begins, in any order.
            axis: the axis along which they are put together.
        """
        ...


def by_concatenation(placed: Sequence[tuple[Array, int]], axis: int) -> Array:
    """One concatenation, which stays one under ``vmap``; for a GPU."""
    arrays = [array for array, _ in sorted(placed, key=lambda item: item[1])]
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis)


def by_copies(placed: Sequence[tuple[Array, int]], axis: int) -> Array:
    """A fill and copies, which are faster on a CPU than XLA's concatenation."""
    (first, _), *others = placed
    if not others:
        return first
    axis %= first.ndim
    size = sum(array.shape[axis] for array, _ in placed)
    whole = jnp.zeros((*first.shape[:axis], size, *first.shape[axis + 1 :]), first.dtype)
    for array, start in placed:
        whole = lax.dynamic_update_slice_in_dim(whole, array, start, axis)
    return whole


def _sum_spans(spans: Array) -> Array:
    """The sum over the second axis, a few rows at a time."""
    count = spans.shape[1]
    if count <= UNROLLED_SUM_MAX_ROWS:
        return functools.reduce(jnp.add, [spans[:, i] for i in range(count)])
    groups, rest = divmod(count, UNROLLED_SUM_MAX_ROWS)
    grouped = spans[:, : groups * UNROLLED_SUM_MAX_ROWS].reshape(
        spans.shape[0], UNROLLED_SUM_MAX_ROWS, groups, *spans.shape[2:]
    )
    total = _sum_spans(functools.reduce(jnp.add, [grouped[:, i] for i in range(UNROLLED_SUM_MAX_ROWS)]))
    return total + _sum_spans(spans[:, groups * UNROLLED_SUM_MAX_ROWS :]) if rest else total


def _repeats(coarse: TickGrid, fine: TickGrid) -> tuple[int, int]:
    """How often a row repeats on the finer grid, and how many repeats of the first row to leave out."""
    rows = fine.ticks + 1  # no more repeats than there are rows, however long the period
    first = 1 + (coarse.first - fine.first) // fine.period
    ratio = min(coarse.period // fine.period, rows)
    return ratio, ratio - min(first, rows)

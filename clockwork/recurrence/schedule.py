"""When what happens: the ticks of every module, and arrays that hold a row for each.

The values of a module, and all that it sends, change at its own ticks alone. They are kept as
arrays with ``ticks + 1`` rows: the one before the first tick, then one from each tick on.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.clock import Clock
from clockwork.ops.linalg import Activation
from clockwork.weights import Weights

# Rows of a span are added one by one, so many at a time: XLA's own sum over a short axis is many times slower.
FEW = 8


class Grid(NamedTuple):
    """The ticks in ``[start, start + steps)`` of one period; all in absolute steps."""

    period: int
    first: int
    ticks: int

    @classmethod
    def of(cls, period: int, start: int, steps: int) -> "Grid":
        """The ticks of a period."""
        first = -(-start // period) * period
        return cls(period, first, max(0, -(-(start + steps - first) // period)))

    def held(self, times: np.ndarray) -> np.ndarray:
        """The row that holds just after each of some steps: how many ticks there were up to then."""
        rows = (times - self.first) // self.period + 1
        return np.clip(rows, 0, self.ticks).astype(np.int32)

    @property
    def times(self) -> np.ndarray:
        """The steps of the ticks."""
        return self.first + self.period * np.arange(self.ticks, dtype=object)


class Module(NamedTuple):
    """A module, or several neighbours that are evaluated as one, and where what they send lands."""

    members: range
    start: int
    size: int
    own: Grid
    before: Grid | None  # the grid of all slower modules
    after: Grid  # the same, this module included


class Plan(NamedTuple):
    """All that is static in one call of ``unroll``."""

    clock: Clock
    start: int
    steps: int
    activation: Activation

    def grid(self, period: int) -> Grid:
        """The ticks of a period."""
        return Grid.of(period, self.start, self.steps)

    def module(self, members: range, before: Grid | None = None) -> Module:
        """Modules that follow each other, as one that ticks whenever any of them may."""
        start = self.clock.starts[members[0]]
        size = sum(self.clock.sizes[m] for m in members)
        period = math.gcd(*(self.clock.periods[m] for m in members))
        after = self.grid(math.gcd(period, before.period) if before else period)
        return Module(members, start, size, self.grid(period), before, after)

    def order(self, parts: Sequence[range] | None = None) -> list[Module]:
        """The modules, or the given parts of them, slowest first."""
        order: list[Module] = []
        for members in reversed(parts or [range(j, j + 1) for j in range(self.clock.modules)]):
            order.append(self.module(members, order[-1].after if order else None))
        return order

    def at_ticks(self, inputs: Array, ticks: Grid) -> Array:
        """The inputs that a module reads, ``(S, I)``."""
        return inputs[ticks.first - self.start :: ticks.period]

    def active(self, module: Module) -> np.ndarray | None:
        """Which units change at which tick, ``(S, k)``; None if always all."""
        periods = self.clock.unit_periods[module.start : module.start + module.size].astype(object)
        active = (module.own.times[:, None] % periods == 0).astype(bool)
        return None if active.all() else active


class Pricing(Protocol):
    """What a loop costs, in any unit."""

    @property
    def loop(self) -> float:
        """Of a loop, however short."""
        ...

    def tick(self, part: Module, columns: int, count: int) -> float:
        """Of each of its steps.

        Args:
            part: a module, or several neighbours that are evaluated as one, whose changes are masked.
            columns: of the readout.
            count: runs or sequences.
        """
        ...


class Price(NamedTuple):
    """What a loop costs besides its multiply-adds, as so many of them.

    Attributes:
        loop: of a loop.
        step: of each of its steps.
        joined: the same, of neighbours that are evaluated as one, whose changes are masked.
    """

    loop: int
    step: int
    joined: int

    def tick(self, part: Module, columns: int, count: int) -> float:
        """Of a step, its multiply-adds included: `Pricing.tick`."""
        step = self.step if len(part.members) == 1 else self.joined
        return step + count * part.size * (part.size + part.start + columns)


@functools.lru_cache(maxsize=512)
def cheapest_parts(plan: Plan, columns: int, count: int, price: Pricing) -> tuple[range, ...]:
    """Which neighbours are evaluated as one module: the cheapest of all partitions.

    A part of ``k`` units with ``a`` faster ones takes ``k (k + a + O)`` multiply-adds for each run or sequence
    and tick, and it ticks whenever one of its members may.

    Args:
        plan: of the layer.
        columns: ``O``.
        count: runs or sequences.
        price: of loops.
    """
    cheapest: list[tuple[float, tuple[range, ...]]] = [(0.0, ())]
    for end in range(1, plan.clock.modules + 1):
        options = []
        for first in range(end):
            part = plan.module(range(first, end))
            ticks = part.own.ticks * price.tick(part, columns, count)
            options.append((cheapest[first][0] + price.loop + ticks, (*cheapest[first][1], part.members)))
        cheapest.append(min(options, key=lambda option: option[0]))
    return cheapest[-1][1]


class Member(NamedTuple):
    """A module in the part that it is evaluated in.

    Attributes:
        units: its units among those of the part.
        rows: the part's rows from each of the module's ticks on.
        all: whether the part ticks whenever the module does, and never else.
    """

    units: slice
    rows: slice
    all: bool

    def values(self, rows: Array) -> Array:
        """Of the part's rows of its units, those that the module keeps: before the first tick, and from each on."""
        return rows if self.all else put_together([(rows[:1], 0), (rows[self.rows], 1)], 0)


def members(plan: Plan, part: Module) -> dict[int, Member]:
    """The modules of a part, fastest first."""
    found = {}
    for j in part.members:
        own = plan.grid(plan.clock.periods[j])
        stride, first = own.period // part.own.period, (own.first - part.own.first) // part.own.period + 1
        unit = plan.clock.starts[j] - part.start
        rows = slice(first, first + own.ticks * stride, stride)
        found[j] = Member(slice(unit, unit + plan.clock.sizes[j]), rows, own == part.own)
    return found


class Residuals(NamedTuple):
    """What the backward pass needs: the values at ticks, and the slopes where they do not follow from those.

    The same for `wide` and `lanes`, so that ``vmap`` may choose between them anywhere.
    """

    values: tuple[Array, ...]  # (S_j + 1, k_j) each, fastest first
    slopes: tuple[Array | None, ...]  # (S_j, k_j) each


def kept(plan: Plan, part: Module, residuals: Residuals, axis: int) -> tuple[Array, Array | None]:
    """Values and slopes of a part, ``(S + 1, k)``; slopes have nothing in row 0. The units are on the given axis."""
    values, slopes = [], []
    for j in part.members:
        own, unit = plan.grid(plan.clock.periods[j]), plan.clock.starts[j] - part.start
        values.append((hold(residuals.values[j], own, part.own), unit))
        tilts = residuals.slopes[j]
        if tilts is not None:
            slopes.append((hold(pad_rows(tilts, 1, 0), own, part.own), unit))
    return put_together(values, axis), put_together(slopes, axis) if slopes else None


def put_together(pieces: Sequence[tuple[Array, int]], axis: int) -> Array:
    """Arrays, each from an index on: what a concatenation makes, which XLA's is slower at than a fill and copies."""
    (first, _), *others = pieces
    if not others:
        return first
    axis %= first.ndim
    size = sum(piece.shape[axis] for piece, _ in pieces)
    whole = jnp.zeros((*first.shape[:axis], size, *first.shape[axis + 1 :]), first.dtype)
    for piece, start in pieces:
        whole = lax.dynamic_update_slice_in_dim(whole, piece, start, axis)
    return whole


def onwards(weights: Weights, readout: Array | None, module: Module) -> Array:
    """All that a module sends to others, ``(k, O + a)``: to the readout first, then to the faster units."""
    rows = [weights.recurrent[j][:, : module.start] for j in module.members]
    sent = rows[0] if len(rows) == 1 else jnp.concatenate(rows)
    if readout is None:
        return sent
    return jnp.concatenate([readout[module.start : module.start + module.size], sent], axis=1)


def within(weights: Weights, module: Module) -> Array:
    """All that a module sends to itself, ``(k, k)``."""
    blocks = [weights.recurrent[j][:, module.start :] for j in module.members]
    if len(blocks) == 1:
        return blocks[0]
    widths = [[(0, 0), (0, module.size - b.shape[1])] + [(0, 0)] * (b.ndim - 2) for b in blocks]
    return jnp.concatenate([jnp.pad(b, width) for b, width in zip(blocks, widths, strict=True)])


def sender_blocks(clock: Clock, module: Module, onwards_bar: Array, within_bar: Array) -> list[Array]:
    """The transpose of `onwards` (without the readout) and `within`: a gradient for each member's weights."""
    blocks = []
    for j in module.members:
        first = clock.starts[j] - module.start
        end = first + clock.sizes[j]
        blocks.append(jnp.concatenate([onwards_bar[first:end], within_bar[first:end, :end]], axis=1))
    return blocks


def hold(rows: Array, coarse: Grid, fine: Grid) -> Array:
    """Rows on a coarse grid as rows on a fine one whose period divides the coarse one's."""
    if coarse.period == fine.period:
        return rows
    ratio, offset = _offset(coarse, fine)
    repeated = jnp.broadcast_to(rows[:, None], (rows.shape[0], ratio, *rows.shape[1:]))
    return repeated.reshape(rows.shape[0] * ratio, *rows.shape[1:])[offset : offset + fine.ticks + 1]


def hold_transpose(rows: Array, coarse: Grid, fine: Grid) -> Array:
    """Sums of the fine rows over the spans of the coarse ones."""
    if coarse.period == fine.period:
        return rows
    ratio, offset = _offset(coarse, fine)
    total = (coarse.ticks + 1) * ratio
    padded = pad_rows(rows, offset, total - offset - rows.shape[0])
    return _sum_spans(padded.reshape(coarse.ticks + 1, ratio, *rows.shape[1:]))


def _sum_spans(spans: Array) -> Array:
    """The sum over the second axis, a few rows at a time."""
    count = spans.shape[1]
    if count <= FEW:
        return functools.reduce(jnp.add, [spans[:, i] for i in range(count)])
    groups, rest = divmod(count, FEW)
    grouped = spans[:, : groups * FEW].reshape(spans.shape[0], FEW, groups, *spans.shape[2:])
    total = _sum_spans(functools.reduce(jnp.add, [grouped[:, i] for i in range(FEW)]))
    return total + _sum_spans(spans[:, groups * FEW :]) if rest else total


def _offset(coarse: Grid, fine: Grid) -> tuple[int, int]:
    """How often a row repeats on the finer grid, and how many repeats of the first row to leave out."""
    rows = fine.ticks + 1  # no more repeats than there are rows, however long the period
    first = 1 + (coarse.first - fine.first) // fine.period
    ratio = min(coarse.period // fine.period, rows)
    return ratio, ratio - min(first, rows)


def seen(rows: Array, grid: Grid, ticks: Grid) -> Array:
    """What a module sees at its ticks of rows on a grid whose period divides its own."""
    stride = ticks.period // grid.period
    first = (ticks.first - grid.first) // grid.period
    return rows[first : first + ticks.ticks * stride : stride]


def seen_transpose(rows: Array, grid: Grid, ticks: Grid) -> Array:
    """The transpose of `seen`."""
    stride = ticks.period // grid.period
    first = (ticks.first - grid.first) // grid.period
    if ticks.ticks == 0:
        return jnp.zeros((grid.ticks + 1, *rows.shape[1:]), rows.dtype)
    return pad_rows(rows, first, grid.ticks - first - (ticks.ticks - 1) * stride, stride - 1)


def pad_rows(rows: Array, low: int, high: int, between: int = 0) -> Array:
    """Rows of zeros before, after and between."""
    config = [(low, high, between)] + [(0, 0, 0)] * (rows.ndim - 1)
    return lax.pad(rows, jnp.zeros((), rows.dtype), config)

"""The cascade: module by module, slowest first, each on its own decimated time.

A module never reads a faster one, so a layer needs no step that visits all of its modules. For
each module in turn, slowest first:

1. its drive at its own ticks: the input there, the bias, and what slower modules sent;
2. a scan over those ticks alone with its own small block (`lanes.module_scan`);
3. its values, and the one before the first tick, times all that it sends to: every faster module
   and, if there is one, the readout. One product, once for each change of value.

What has been sent so far is kept in one array, whose rows are the spans of time over which it
is constant. With slower modules of periods T_j, T_{j+1}, ... these lie on a uniform grid of
period gcd(T_j, T_{j+1}, ...), whether or not the periods nest and wherever the sequence starts,
so that going to a finer grid is a plain repeat (`_hold`). Its first columns are the
readout, then the units from fastest to slowest: what is still to be read is always a prefix.

The result is the same function as the masked scan. No step computes an inactive row.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork.clock import Clock
from clockwork.recurrence import lanes
from clockwork.weights import Weights


class Plan(NamedTuple):
    """All that is static in one call."""

    clock: Clock
    start: int
    steps: int
    activation: lanes.Activation


class Grid(NamedTuple):
    """The ticks in ``[start, start + steps)`` of one period; all in absolute steps.

    An array on a grid has ``ticks + 1`` rows: the value before the first tick, then the value
    from each tick on. At a tick, row i is what step i of the grid sees; row i + 1 what it makes.
    """

    period: int
    first: int
    ticks: int


def _grid(plan: Plan, period: int) -> Grid:
    first = -(-plan.start // period) * period
    end = plan.start + plan.steps
    return Grid(period, first, max(0, -(-(end - first) // period)))


class Sent(NamedTuple):
    """What a module sends, and where it lands."""

    module: int
    start: int
    size: int
    own: Grid
    before: Grid | None  # the grid of all slower modules
    after: Grid  # the same, this module included


def _order(plan: Plan) -> list[Sent]:
    """The modules, slowest first."""
    order: list[Sent] = []
    before = None
    for j in reversed(range(plan.clock.modules)):
        period = plan.clock.periods[j]
        after = _grid(plan, math.gcd(period, before.period) if before else period)
        order.append(Sent(j, plan.clock.starts[j], plan.clock.sizes[j], _grid(plan, period), before, after))
        before = after
    return order


def _offset(coarse: Grid, fine: Grid) -> tuple[int, int]:
    """How often a row repeats on the finer grid, and how many repeats of the first row to leave out."""
    rows = fine.ticks + 1  # no more repeats than there are rows, however long the period
    first = 1 + (coarse.first - fine.first) // fine.period
    ratio = min(coarse.period // fine.period, rows)
    return ratio, ratio - min(first, rows)


def _hold(rows: Array, coarse: Grid, fine: Grid) -> Array:
    """Rows on a coarse grid as rows on a fine one whose period divides the coarse one's."""
    if coarse.period == fine.period:
        return rows
    ratio, offset = _offset(coarse, fine)
    repeated = jnp.broadcast_to(rows[:, None], (rows.shape[0], ratio, *rows.shape[1:]))
    return repeated.reshape(-1, *rows.shape[1:])[offset : offset + fine.ticks + 1]


def _hold_transpose(rows: Array, coarse: Grid, fine: Grid) -> Array:
    """Sums of the fine rows over the spans of the coarse ones."""
    if coarse.period == fine.period:
        return rows
    ratio, offset = _offset(coarse, fine)
    total = (coarse.ticks + 1) * ratio
    padded = _pad_rows(rows, offset, total - offset - rows.shape[0])
    return padded.reshape(coarse.ticks + 1, ratio, *rows.shape[1:]).sum(1)


def _seen(rows: Array, grid: Grid, ticks: Grid) -> Array:
    """What a module sees at its ticks of rows on a grid whose period divides its own."""
    stride = ticks.period // grid.period
    first = (ticks.first - grid.first) // grid.period
    return rows[first : first + ticks.ticks * stride : stride]


def _seen_transpose(seen: Array, grid: Grid, ticks: Grid) -> Array:
    stride = ticks.period // grid.period
    first = (ticks.first - grid.first) // grid.period
    if ticks.ticks == 0:
        return jnp.zeros((grid.ticks + 1, *seen.shape[1:]), seen.dtype)
    return _pad_rows(seen, first, grid.ticks - first - (ticks.ticks - 1) * stride, stride - 1)


def _pad_rows(rows: Array, low: int, high: int, between: int = 0) -> Array:
    config = [(low, high, between)] + [(0, 0, 0)] * (rows.ndim - 1)
    return lax.pad(rows, jnp.zeros((), rows.dtype), config)


def _input_ticks(plan: Plan, inputs: Array, ticks: Grid) -> Array:
    return inputs[ticks.first - plan.start :: ticks.period]


def _block(weights: Weights, readout: Array | None, sent: Sent) -> Array:
    """All that a module sends to others, ``(k_j, O + a_j)``: readout first, then the faster units."""
    block = weights.recurrent[sent.module][:, : sent.start]
    if readout is None:
        return block
    return jnp.concatenate([readout[sent.start : sent.start + sent.size], block], axis=1)


class Residuals(NamedTuple):
    """What the backward pass needs: the values at ticks, and the slopes where they do not follow from those."""

    values: tuple[Array, ...]  # (S_j + 1, k_j) each, in the order of the modules
    slopes: tuple[Array | None, ...]


def _forward(
    plan: Plan, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[tuple[Array, Array], Residuals]:
    """Plain or with runs last."""
    columns = 0 if readout is None else readout.shape[1]
    every = _grid(plan, 1)
    values: dict[int, Array] = {}
    slopes: dict[int, Array | None] = {}
    held = None
    order = _order(plan)
    for sent in order:
        j, a, k = sent.module, sent.start, sent.size
        drive = None
        if held is not None and sent.before is not None:
            held = _hold(held, sent.before, sent.after)  # (ticks of `after` + 1, O + a + k)
            drive = _seen(held[:, columns + a : columns + a + k], sent.after, sent.own)  # (S, k)
            held = held[:, : columns + a]
        if inputs is not None:
            driven = lanes.matmul(_input_ticks(plan, inputs, sent.own), weights.input[:, a : a + k])
            drive = driven if drive is None else drive + driven
        within, bias, before = weights.recurrent[j][:, a:], weights.bias[a : a + k], hidden[a : a + k]
        new, slopes[j] = lanes.module_scan(plan.activation, drive, bias, within, before, sent.own.ticks)
        values[j] = jnp.concatenate([before[None], new])  # (S + 1, k)
        if columns + a:
            sends = _hold(lanes.matmul(values[j], _block(weights, readout, sent)), sent.own, sent.after)
            held = sends if held is None else held + sends
    if readout is None:
        outputs = jnp.concatenate([_hold(values[s.module], s.own, every)[1:] for s in reversed(order)], axis=1)
    else:
        assert held is not None
        outputs = _hold(held, order[-1].after, every)[1:].astype(hidden.dtype)
    last = jnp.concatenate([values[s.module][-1] for s in reversed(order)])
    indices = range(plan.clock.modules)
    return (outputs, last), Residuals(tuple(values[j] for j in indices), tuple(slopes[j] for j in indices))


def _backward(
    plan: Plan,
    weights: Weights,
    inputs: Array | None,
    readout: Array | None,
    residuals: Residuals,
    cotangents: tuple[Array, Array],
) -> tuple[Weights, Array | None, Array, Array | None]:
    """The transpose of `_forward`, line by line from the last to the first."""
    outputs_bar, last_bar = cotangents
    accumulator = lanes.accumulator(outputs_bar.dtype)
    outputs_bar, last_bar = outputs_bar.astype(accumulator), last_bar.astype(accumulator)
    columns = 0 if readout is None else readout.shape[1]
    every = _grid(plan, 1)
    order = _order(plan)
    outputs_bar = _pad_rows(outputs_bar, 1, 0)  # row 0: the value before the first step is no output
    held_bar = None if readout is None else _hold_transpose(outputs_bar, order[-1].after, every)
    input_bars, recurrent_bars, bias_bars, hidden_bars, readout_bars = [], [], [], [], []
    sequence_bar = None
    for sent in reversed(order):
        j, a, k = sent.module, sent.start, sent.size
        values, within = residuals.values[j], weights.recurrent[j][:, a:]
        values_bar = _pad_rows(last_bar[a : a + k][None], sent.own.ticks, 0)
        if readout is None:
            values_bar = values_bar + _hold_transpose(outputs_bar[:, a : a + k], sent.own, every)
        sends_bar = None
        if held_bar is not None and columns + a:
            sends_bar = _hold_transpose(held_bar, sent.own, sent.after)  # (S + 1, O + a)
            block = lanes.transpose(_block(weights, readout, sent)).astype(accumulator)
            values_bar = values_bar + lanes.matmul(sends_bar, block)
        delta = lanes.module_scan_transpose(values[1:], residuals.slopes[j], within, values_bar[1:])  # (S, k)
        before_bar = values_bar[0]
        if sent.own.ticks:
            before_bar = before_bar + lanes.vecmat(delta[0], lanes.transpose(within).astype(accumulator))
        # One product for all that the module sends: to the readout, to faster units, to itself.
        within_bar = _pad_rows(delta, 0, 1)
        landed = within_bar if sends_bar is None else jnp.concatenate([sends_bar, within_bar], axis=1)
        block_bar = lanes.gram(values.astype(accumulator), landed)  # (k, O + a + k)
        readout_bars.append(block_bar[:, :columns])
        recurrent_bars.append(block_bar[:, columns:])
        bias_bars.append(delta.sum(0))
        hidden_bars.append(before_bar)
        if inputs is not None:
            seen = _input_ticks(plan, inputs, sent.own)
            input_bars.append(lanes.gram(seen.astype(accumulator), delta))
            into = lanes.transpose(weights.input[:, a : a + k]).astype(accumulator)
            seen_bar = _seen_transpose(lanes.matmul(delta, into), every, sent.own)[:-1]
            sequence_bar = seen_bar if sequence_bar is None else sequence_bar + seen_bar
        if sent.before is not None:
            drive_bar = _seen_transpose(delta, sent.after, sent.own)
            held_bar = drive_bar if held_bar is None else jnp.concatenate([held_bar[:, : columns + a], drive_bar], 1)
            held_bar = _hold_transpose(held_bar, sent.before, sent.after)
    weights_bar = Weights(
        jnp.concatenate(input_bars, 1) if input_bars else jnp.zeros(weights.input.shape, accumulator),
        tuple(recurrent_bars),
        jnp.concatenate(bias_bars),
    )
    readout_bar = None if readout is None else jnp.concatenate(readout_bars)
    return weights_bar, sequence_bar, jnp.concatenate(hidden_bars), readout_bar


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def cascade(
    plan: Plan, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate a clockwork layer module by module.

    Args:
        plan: the static part.
        weights: of one layer, in the dtype of ``hidden``.
        inputs: ``(T, I)`` or None.
        hidden: ``(N,)``, the state before the first step.
        readout: ``(N, O)`` or None.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last state ``(N,)``.
    """
    return _cascade_forward(plan, weights, inputs, hidden, readout)[0]


def _cascade_forward(
    plan: Plan, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[tuple[Array, Array], tuple]:
    forward = lanes.runs_last(functools.partial(_forward, plan))
    results, residuals = forward(weights, inputs, hidden, readout)
    return results, (weights, inputs, readout, residuals)


def _cascade_backward(plan: Plan, saved: tuple, cotangents: tuple[Array, Array]) -> tuple:
    weights, inputs, readout, residuals = saved
    backward = lanes.runs_last(functools.partial(_backward, plan))
    bars = backward(weights, inputs, readout, residuals, cotangents)
    return jax.tree.map(lambda bar: bar.astype(weights.bias.dtype), bars)


cascade.defvjp(_cascade_forward, _cascade_backward)

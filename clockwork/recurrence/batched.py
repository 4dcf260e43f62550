"""The cascade for large modules: matrix products over time and batch.

For each module in turn, slowest first:

1. its drive at its own ticks: the input there, the bias, and what slower modules sent;
2. a scan over those ticks alone with its own small block;
3. its values, and the one before the first tick, times all that it sends to: every faster module
   and, if there is one, the readout. One product, once for each change of value.

What has been sent so far is kept in one array, whose rows are the spans of time over which it
is constant. With slower modules of periods T_j, T_{j+1}, ... these lie on a uniform grid of
period gcd(T_j, T_{j+1}, ...), whether or not the periods nest and wherever the sequence starts,
so that going to a finer grid is a plain repeat (`hold`). Its first columns are the readout,
then the units from fastest to slowest: what is still to be read is always a prefix.

A step of a loop has its price, however little is in it, so neighbours are evaluated as one module, their own
products masked, where that is cheaper (`cheapest_parts`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.ops.linalg import Activation, accumulator, activate, below, gram, matmul, put, row
from clockwork.recurrence.schedule import (
    Module,
    Plan,
    Price,
    Pricing,
    Residuals,
    cheapest_parts,
    hold,
    hold_transpose,
    kept,
    members,
    onwards,
    pad_rows,
    put_together,
    seen,
    seen_transpose,
    sender_blocks,
    within,
)
from clockwork.weights import Weights

# The batch that is reckoned with where it is not known.
USUAL = 16


class Loops(NamedTuple):
    """What the recurrence of a module is evaluated with.

    Attributes:
        forward: as `_scan`.
        backward: as `_scan_transpose`.
        price: of them.
    """

    forward: Callable[..., tuple[Array, Array | None]]
    backward: Callable[..., Array]
    price: Pricing


def forward(
    plan: Plan,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    hidden: Array,
    loops: Loops | None = None,
) -> tuple[tuple[Array, Array], Residuals]:
    """Outputs and last state, and what `backward` needs; with `LOOPS` if none are given."""
    dtype, loops = accumulator(hidden.dtype), loops or LOOPS
    columns = 0 if readout is None else readout.shape[1]
    every, order = plan.grid(1), _order(plan, columns, hidden, loops.price)
    values: dict[int, Array] = {}
    slopes: dict[int, Array | None] = {}
    outputs, ends = [], []
    held = None
    for module in order:
        a, k, own = module.start, module.size, module.own
        before = hidden[..., a : a + k]
        drive = below(weights.bias[a : a + k].astype(dtype), before)[None]
        if held is not None and module.before is not None:
            held = hold(held, module.before, module.after)  # (ticks of `after` + 1, O + a + k)
            drive = drive + seen(held[..., columns + a :], module.after, own)
            held = held[..., : columns + a]
        if inputs is not None:
            drive = drive + matmul(plan.at_ticks(inputs, own), weights.input[:, a : a + k])
        drive = jnp.broadcast_to(drive, (own.ticks, *before.shape))  # (S, k)
        rows = jnp.concatenate([before.astype(dtype)[None], drive])
        rows, tilts = loops.forward(plan.activation, rows, within(weights, module), plan.active(module))
        rows = rows.astype(hidden.dtype)  # (S + 1, k)
        for j, member in members(plan, module).items():
            values[j] = member.values(rows[..., member.units])
            slopes[j] = None if tilts is None else pad_rows(tilts, 1, 0)[member.rows][..., member.units]
        ends.append(rows[-1])
        if readout is None:
            outputs.append((hold(rows, own, every)[1:], a))
        if columns + a:
            sends = hold(matmul(rows, onwards(weights, readout, module)), own, module.after)
            held = sends if held is None else held + sends
    if readout is None:
        result = put_together(outputs, -1)
    else:
        assert held is not None
        result = hold(held, order[-1].after, every)[1:].astype(hidden.dtype)
    last = jnp.concatenate(ends[::-1], -1)
    indices = range(plan.clock.modules)
    return (result, last), Residuals(tuple(values[j] for j in indices), tuple(slopes[j] for j in indices))


def backward(
    plan: Plan,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    residuals: Residuals,
    outputs_bar: Array,
    last_bar: Array,
    loops: Loops | None = None,
) -> tuple[Weights, Array | None, Array | None, Array]:
    """The gradients of weights, readout, inputs and hidden state: `forward` transposed, line by line."""
    dtype, loops = outputs_bar.dtype, loops or LOOPS
    columns = 0 if readout is None else readout.shape[1]
    every = plan.grid(1)
    fastest_first = _order(plan, columns, last_bar, loops.price)[::-1]
    held_bar = None
    if readout is not None:  # row 0: the value before the first step is no output
        held_bar = hold_transpose(pad_rows(outputs_bar, 1, 0), fastest_first[0].after, every)
    input_bars, recurrent_bars, bias_bars, hidden_bars, readout_bars = [], [], [], [], []
    inputs_bar = None
    for module in fastest_first:
        a, k, own = module.start, module.size, module.own
        values, slopes = kept(plan, module, residuals, -1)
        values_bar = pad_rows(last_bar[None, ..., a : a + k], own.ticks, 0)
        if readout is None:
            values_bar = values_bar + hold_transpose(pad_rows(outputs_bar[..., a : a + k], 1, 0), own, every)
        sends_bar = None
        if held_bar is not None and columns + a:
            sends_bar = hold_transpose(held_bar, own, module.after)  # (S + 1, O + a)
            values_bar = values_bar + matmul(sends_bar, onwards(weights, readout, module).T.astype(dtype))
        errors = loops.backward(values, slopes, within(weights, module), plan.active(module), values_bar)
        delta = errors[1:]  # (S, k)
        # One product for all that the module sends: to the readout, to faster units, to itself.
        landed = pad_rows(delta, 0, 1)
        if sends_bar is not None:
            landed = jnp.concatenate([sends_bar, landed], -1)
        block_bar = gram(values.astype(dtype), landed, runs=False)  # (k, O + a + k)
        readout_bars.append(block_bar[:, :columns])
        recurrent_bars += sender_blocks(
            plan.clock, module, block_bar[:, columns : columns + a], block_bar[:, columns + a :]
        )
        # The sum as a product, which XLA is faster at.
        bias_bars.append(gram(jnp.ones((*delta.shape[:-1], 1), dtype), delta, runs=False)[0])
        hidden_bars.append(errors[0])
        if inputs is not None:
            x = plan.at_ticks(inputs, own)
            input_bars.append(gram(x.astype(dtype), delta, runs=False))
            x_bar = matmul(delta, weights.input[:, a : a + k].T.astype(dtype))
            x_bar = seen_transpose(x_bar, every, own)[:-1]
            inputs_bar = x_bar if inputs_bar is None else inputs_bar + x_bar
        if module.before is not None:
            drive_bar = seen_transpose(delta, module.after, own)
            if held_bar is not None:
                drive_bar = jnp.concatenate([held_bar[..., : columns + a], drive_bar], -1)
            held_bar = hold_transpose(drive_bar, module.before, module.after)
    weights_bar = Weights(
        jnp.concatenate(input_bars, 1) if input_bars else jnp.zeros(weights.input.shape, dtype),
        tuple(recurrent_bars),
        jnp.concatenate(bias_bars),
    )
    readout_bar = None if readout is None else jnp.concatenate(readout_bars)
    return weights_bar, readout_bar, inputs_bar, jnp.concatenate(hidden_bars, -1)


def _order(plan: Plan, columns: int, state: Array, price: Pricing) -> list[Module]:
    """The parts to be evaluated, slowest first."""
    count = math.prod(state.shape[:-1])
    if not isinstance(count, int):  # a batch of any size, in `jax.export`
        count = USUAL
    return plan.order(cheapest_parts(plan, columns, count, price))


def _scan(
    activation: Activation, rows: Array, feedback: Array, active: np.ndarray | None, unroll: int = 1
) -> tuple[Array, Array | None]:
    """The recurrence of one module: ``h_s = f(h_{s-1} W + d_s)`` where active, else ``h_{s-1}``.

    In place: each value takes the place of its drive, so that the loop fills no second array.

    Args:
        activation: ``f``, elementwise.
        rows: ``(S + 1, k)``: the value before the first tick, then the drive at each.
        feedback: ``(k, k)``; values are rounded to its dtype.
        active: ``(S, k)``; None for always.
        unroll: steps in an iteration of the compiled loop.

    Returns:
        The values ``(S + 1, k)``, and the slopes ``(S, k)`` where needed.
    """

    def tick(carry: tuple[Array, Array], s: Array) -> tuple[tuple[Array, Array], Array | None]:
        h_tm1, rows = carry
        h_t, slope = activate(activation, matmul(h_tm1, feedback) + row(rows, s))
        h_t = h_t.astype(h_tm1.dtype)
        if active is not None:
            h_t = jnp.where(_mask(active, s, h_t), h_t, h_tm1)
        return (h_t, put(rows, h_t, s)), slope

    ticks = jnp.arange(1, rows.shape[0], dtype=jnp.int32)
    (_, values), slopes = lax.scan(tick, (rows[0].astype(feedback.dtype), rows), ticks, unroll=unroll)
    return values, slopes


def _scan_transpose(
    values: Array,
    slopes: Array | None,
    feedback: Array,
    active: np.ndarray | None,
    values_bar: Array,
    unroll: int = 1,
) -> Array:
    """The errors of one module: ``δ_s = (h̄_s + W δ_{s+1}) f'(z_s)``, in place as well.

    Where a unit was not active it has no δ, and its error goes on to the row before. The loop carries no sums:
    weight gradients are one product after it.

    Args:
        values: ``(S + 1, k)``.
        slopes: ``(S + 1, k)``, with nothing in row 0; None for those of tanh.
        feedback: ``(k, k)``.
        active: ``(S, k)``; None for always.
        values_bar: errors of the values, ``(S + 1, k)``.
        unroll: steps in an iteration of the compiled loop.

    Returns:
        ``(S + 1, k)``: the error of the value before the first tick, then ``δ``.
    """
    dtype, last = values_bar.dtype, values.shape[0] - 1
    back = feedback.T.astype(dtype)

    def factor(s: Array) -> Array:
        return 1 - jnp.square(row(values, s).astype(dtype)) if slopes is None else row(slopes, s)

    def tick(carry: tuple[Array, Array], s: Array) -> tuple[tuple[Array, Array], None]:
        later, rows = carry
        if active is None:
            delta = (row(rows, s) + matmul(later, back)) * factor(s)
            return (delta, put(rows, delta, s)), None
        # The whole error is carried, and what becomes of it computed where it is used: with δ and the rest as two
        # results of one kernel, XLA would copy all rows at every step.
        error = row(rows, s) + passed_on(later, jnp.minimum(s + 1, last))
        return (error, put(rows, jnp.where(_mask(active, s, error), error * factor(s), 0), s)), None

    def passed_on(error: Array, s: Array) -> Array:
        assert active is not None
        on = _mask(active, s, error)
        return matmul(jnp.where(on, error * factor(s), 0), back) + jnp.where(on, 0, error)

    ticks = jnp.arange(1, values.shape[0], dtype=jnp.int32)
    start = (jnp.zeros_like(values_bar[0]), values_bar)
    (later, rows), _ = lax.scan(tick, start, ticks, reverse=True, unroll=unroll)
    if active is None:
        return rows.at[0].add(matmul(later, back))
    return rows.at[0].add(passed_on(later, jnp.int32(1))) if last else rows


def _mask(active: np.ndarray, s: Array, like: Array) -> Array:
    """The units that are active at tick s, from 1 on, in the shape of a state."""
    return jnp.broadcast_to(below(row(jnp.asarray(active), s - 1), like), like.shape)


# About 20 and 0.75 µs on a processor that does 60 multiply-adds in a nanosecond, as two cores do in small products.
LOOPS = Loops(_scan, _scan_transpose, Price(loop=1_200_000, step=45_000, joined=55_000))

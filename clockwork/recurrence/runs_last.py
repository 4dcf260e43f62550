"""The cascade for small modules of many runs: everything at a tick happens in one loop.

Runs are the last axis of every array, so that they fill the SIMD lanes. Products are then
elementwise, and XLA would fuse them with all that comes before, and compute that again for each
use; a loop over the ticks is what keeps them apart. So a module is one loop forwards and one
backwards: at each tick

1. ``h_s = f(h_{s-1} W + W_I x_s + b + what slower modules sent)``;
2. what it sends to the readout and to faster modules, ``h_s`` times its block, plus what those
   slower modules sent there whose ticks are all ticks of this one too: with nested periods a
   module so reads a single array, that of the next slower one.

Which row of a slower module's array a tick reads is known beforehand (`Grid.held`): its own drive
is what was there before the tick, what it passes on is what is there after it.

Every loop has its price, so neighbours are evaluated as one module, their own products masked,
where that is cheaper (`cheapest_parts`).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.ops.linalg import accumulator, activate, below, gram, matmul, outer, put, row, transpose
from clockwork.recurrence.schedule import (
    Module,
    Plan,
    Price,
    Residuals,
    cheapest_parts,
    hold,
    hold_transpose,
    kept,
    members,
    onwards,
    pad_rows,
    seen_transpose,
    sender_blocks,
    within,
)
from clockwork.weights import Weights

# A loop's price is mostly for its compilation: joined neighbours take a third less of that in the smallest of
# the paper's networks and a tenth in the largest, at the same speed. About 15 and 0.5 µs on a processor that does
# ten multiply-adds in a nanosecond.
PRICE = Price(loop=150_000, step=5_000, joined=10_000)


class Source(NamedTuple):
    """An array of a slower module, as a module reads it."""

    position: int
    module: Module
    seen: np.ndarray  # (S + 1,): the row that the drive of each tick is in; that of row 0 has no meaning
    passed: np.ndarray | None  # (S + 1,): the row that each row here includes; None if it stays apart


def _sources(order: list[Module]) -> tuple[list[list[Source]], list[int]]:
    """What each module reads, and whose arrays hold all that was sent to the readout in the end."""
    sources: list[list[Source]] = []
    apart: list[int] = []
    for i, module in enumerate(order):
        times = module.own.times
        reads = []
        for j in apart:
            source = order[j]
            nested = source.own.period % module.own.period == 0
            passed = np.append(np.int32(0), source.own.held(times)) if nested else None
            reads.append(Source(j, source, np.append(np.int32(0), source.own.held(times - 1)), passed))
        sources.append(reads)
        apart = [source.position for source in reads if source.passed is None] + [i]
    return sources, apart


def forward(
    plan: Plan, weights: Weights, readout: Array | None, inputs: Array | None, hidden: Array
) -> tuple[tuple[Array, Array], Residuals]:
    """Outputs and last state, and what `backward` needs."""
    columns = 0 if readout is None else readout.shape[1]
    every, order = plan.grid(1), plan.order(cheapest_parts(plan, columns, hidden.shape[-1], PRICE))
    sources, apart = _sources(order)
    values: dict[int, Array] = {}
    slopes: dict[int, Array | None] = {}
    sent: list[Array] = []
    ends: list[Array] = []
    for module, reads in zip(order, sources, strict=True):
        rows, tilts, sends = _forwards(plan, module, reads, sent, weights, readout, inputs, hidden)
        sent.append(sends)
        ends.append(rows[-1])
        for j, member in members(plan, module).items():
            values[j] = member.values(rows[..., member.units, :])
            slopes[j] = None if tilts is None else tilts[member.rows][..., member.units, :]
    indices = range(plan.clock.modules)
    if readout is None:
        outputs = jnp.concatenate([hold(values[j], plan.grid(plan.clock.periods[j]), every)[1:] for j in indices], -2)
    else:
        held = [hold(sent[i][..., :columns, :], order[i].own, every)[1:] for i in apart]
        outputs = functools.reduce(jnp.add, held).astype(hidden.dtype)
    last = jnp.concatenate(ends[::-1], -2)
    return (outputs, last), Residuals(tuple(values[j] for j in indices), tuple(slopes[j] for j in indices))


def _forwards(
    plan: Plan,
    module: Module,
    sources: list[Source],
    sent: list[Array],
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    hidden: Array,
) -> tuple[Array, Array | None, Array]:
    """One module.

    Returns:
        Its values and its slopes (or None), ``(S + 1, k)``; all that was sent on its ticks, ``(S + 1, O + a)``.
    """
    a, k, ticks = module.start, module.size, module.own.ticks
    dtype = accumulator(hidden.dtype)
    before = hidden[..., a : a + k, :]
    feedback, forwards = within(weights, module), onwards(weights, readout, module)
    bias = below(weights.bias[a : a + k].astype(dtype), before)
    columns = forwards.shape[1]
    active = plan.active(module)
    passing = [source for source in sources if source.passed is not None]

    def send(h: Array, s: Array | int) -> Array:
        total = matmul(h, forwards)
        for source in passing:
            total = total + row(sent[source.position], jnp.asarray(source.passed)[s])[..., :columns, :]
        return total

    def tick(s: Array, carry: tuple[Array, Array, Array | None, Array]) -> tuple[Array, Array, Array | None, Array]:
        h_tm1, values, slopes, sends = carry
        z_t = matmul(h_tm1, feedback) + bias
        for source in sources:
            z_t = z_t + row(sent[source.position], jnp.asarray(source.seen)[s])[..., columns : columns + k, :]
        if inputs is not None:
            time = module.own.first - plan.start + (s - 1) * module.own.period
            z_t = z_t + matmul(row(inputs, time), weights.input[:, a : a + k])
        h_t, slope = activate(plan.activation, z_t)
        h_t = h_t.astype(h_tm1.dtype)
        if active is not None:
            h_t = jnp.where(_mask(active, s - 1, h_t), h_t, h_tm1)
        if slopes is not None and slope is not None:
            slopes = put(slopes, slope, s)
        if columns:
            sends = put(sends, send(h_t, s), s)
        return h_t, put(values, h_t, s), slopes, sends

    # A fill and one row put in: XLA writes a concatenation or a padding of constants element by element.
    values = put(jnp.zeros((ticks + 1, *before.shape), before.dtype), before, jnp.int32(0))
    slopes = None if plan.activation is jnp.tanh else jnp.zeros((ticks + 1, *before.shape), dtype)
    first = send(before, 0)
    sends = put(jnp.zeros((ticks + 1, *first.shape), dtype), first, jnp.int32(0))
    _, values, slopes, sends = _loop(1, ticks + 1, tick, (before, values, slopes, sends))
    return values, slopes, sends


def backward(
    plan: Plan,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    residuals: Residuals,
    outputs_bar: Array,
    last_bar: Array,
) -> tuple[Weights, Array | None, Array | None, Array]:
    """The gradients of weights, readout, inputs and hidden state: `forward` transposed."""
    dtype, runs = outputs_bar.dtype, last_bar.shape[-1]
    columns = 0 if readout is None else readout.shape[1]
    every, order = plan.grid(1), plan.order(cheapest_parts(plan, columns, runs, PRICE))
    sources, apart = _sources(order)
    outputs_bar = pad_rows(outputs_bar, 1, 0)  # row 0: the value before the first step is no output
    # The errors of what each module sent. What is passed on by a faster module comes from there.
    sent_bars: list[Array] = [jnp.zeros(())] * len(order)
    for i in apart:
        shape = (order[i].own.ticks + 1, *last_bar.shape[:-2], columns, runs)
        sent_bars[i] = hold_transpose(outputs_bar, order[i].own, every) if columns else jnp.zeros(shape, dtype)
    input_bars, recurrent_bars, bias_bars, hidden_bars, readout_bars = [], [], [], [], []
    inputs_bar = None
    for i, module in reversed(list(enumerate(order))):
        a, k, own, sent_bar = module.start, module.size, module.own, sent_bars[i]
        values_bar = matmul(sent_bar, transpose(onwards(weights, readout, module)).astype(dtype))
        if readout is None:
            values_bar = values_bar + hold_transpose(outputs_bar[..., a : a + k, :], own, every)
        values_bar = values_bar.at[-1].add(last_bar[..., a : a + k, :])
        values, slopes = kept(plan, module, residuals, -2)
        errors, onwards_bar, within_bar, bias_bar = _backwards(
            within(weights, module), plan.active(module), values, slopes, sent_bar, values_bar
        )
        delta = errors[1:]
        for source in sources[i]:
            slower = source.module.own
            passed = source.passed is not None
            bar = hold_transpose(sent_bar, slower, own) if passed else sent_bars[source.position]
            fine = plan.grid(math.gcd(slower.period, own.period))
            drive_bar = hold_transpose(seen_transpose(delta, fine, own), slower, fine)
            sent_bars[source.position] = jnp.concatenate([bar, drive_bar], -2)
        recurrent_bars += sender_blocks(plan.clock, module, onwards_bar[:, columns:], within_bar)
        readout_bars.append(onwards_bar[:, :columns])
        bias_bars.append(bias_bar)
        hidden_bars.append(errors[0])
        if inputs is not None:
            x = plan.at_ticks(inputs, own)
            input_bars.append(gram(x.astype(dtype), delta, runs=True))
            x_bar = matmul(delta, transpose(weights.input[:, a : a + k]).astype(dtype))
            x_bar = seen_transpose(x_bar, every, own)[:-1]
            inputs_bar = x_bar if inputs_bar is None else inputs_bar + x_bar
    weights_bar = Weights(
        jnp.concatenate(input_bars, 1) if input_bars else jnp.zeros(weights.input.shape, dtype),
        tuple(recurrent_bars),
        jnp.concatenate(bias_bars),
    )
    readout_bar = None if readout is None else jnp.concatenate(readout_bars)
    return weights_bar, readout_bar, inputs_bar, jnp.concatenate(hidden_bars, -2)


def _backwards(
    feedback: Array, active: np.ndarray | None, values: Array, slopes: Array | None, sent_bar: Array, values_bar: Array
) -> tuple[Array, Array, Array, Array]:
    """One module backwards: ``δ_s = (h̄_s + δ_{s+1} @ feedback.T) f'(z_s)``, in place, and its gradients.

    Row s is a value that was sent on, and was the module's own past at tick s + 1. Row 0, the
    value before the first tick, has no slope. Where a unit was not active it has no δ, and its
    error goes on to the row before.

    Args:
        feedback: ``(k, k)``.
        active: ``(S, k)``, or None for always.
        values: ``(S + 1, k)``.
        slopes: ``(S + 1, k)``, or None.
        sent_bar: errors of what was sent, ``(S + 1, O + a)``.
        values_bar: errors of the values, ``(S + 1, k)``.

    Returns:
        The error of the value before the first tick and ``δ``, ``(S + 1, k)``; the gradients of what
        the module sends onwards ``(k, O + a)``, of its feedback ``(k, k)`` and of its bias ``(k,)``.
    """
    dtype, last, (k, _, runs) = values_bar.dtype, values.shape[0] - 1, feedback.shape
    back = transpose(feedback).astype(dtype)
    factors = keeps = None
    if active is not None:
        on = np.concatenate([np.ones_like(active[:1]), active])  # (S + 1, k)
        factors = (
            _slopes(values.astype(dtype), slopes, jnp.arange(last + 1))
            * jnp.asarray(on, dtype)[(slice(None), *(None,) * (values.ndim - 3), slice(None), None)]
        )
        keeps = jnp.asarray(~on, dtype)

    # A unit that is always 1 after the others: its feedback's gradient is that of the bias. Put in place, since
    # XLA writes a concatenation element by element.
    one = (jnp.arange(k + 1) == k).astype(dtype)[:, None]
    senders = jnp.broadcast_to(one, (*values.shape[:-2], k + 1, runs))
    senders = lax.dynamic_update_slice(senders, values.astype(dtype), (0,) * values.ndim)

    # XLA runs a loop of more than eight kernels as a graph of tasks, which costs more than the kernels. So the
    # bias has no sum of its own; and masked errors are carried as one array, and δ and what goes on are
    # computed from it where they are used.
    def tick(s: Array, carry: tuple) -> tuple:
        error_tp1, errors, onwards_bar, within_bar = carry
        value = row(senders, s)
        h = value[..., :k, :]
        error = row(errors, s)
        if factors is None or keeps is None:
            delta_tp1 = error_tp1
            error = delta = (error + matmul(delta_tp1, back)) * _slopes(h, slopes, s)
        else:
            after = jnp.minimum(s + 1, last)  # the first error_tp1 is zero
            delta_tp1 = error_tp1 * row(factors, after)
            error = error + matmul(delta_tp1, back) + error_tp1 * below(row(keeps, after)[:, None], error_tp1)
            delta = error * row(factors, s)
        if sent_bar.shape[-2]:
            onwards_bar = onwards_bar + outer(h, row(sent_bar, s))
        return error, put(errors, delta, s), onwards_bar, within_bar + outer(value, delta_tp1)

    start = (
        jnp.zeros_like(values_bar[0]),
        values_bar,
        jnp.zeros((k, sent_bar.shape[-2], runs), dtype),
        jnp.zeros((k + 1, k, runs), dtype),
    )
    _, errors, onwards_bar, within_bar = _loop(last, -1, tick, start)
    return errors, onwards_bar, within_bar[:k], within_bar[k]


def _mask(active: np.ndarray, s: Array, like: Array) -> Array:
    """The units that are active at a tick, in the shape of a state."""
    return jnp.broadcast_to(below(row(jnp.asarray(active), s)[:, None], like), like.shape)


def _slopes(values: Array, slopes: Array | None, s: Array) -> Array:
    """``f'`` at row s or rows s; 1 at row 0."""
    slope = 1 - jnp.square(values) if slopes is None else slopes if s.ndim else row(slopes, s)
    return jnp.where(s.reshape(s.shape + (1,) * (slope.ndim - s.ndim)) == 0, 1, slope)


Carry = TypeVar("Carry")


def _loop(first: int, end: int, body: Callable[[Array, Carry], Carry], carry: Carry) -> Carry:
    """``lax.fori_loop``, up or down, with one counter in the compiled loop and not two."""
    step = 1 if first <= end else -1
    return lax.while_loop(
        lambda state: state[0] != end, lambda state: (state[0] + step, body(*state)), (jnp.int32(first), carry)
    )[1]

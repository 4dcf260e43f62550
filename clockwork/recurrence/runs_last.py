"""The cascade for many runs of small modules: one loop computes everything at a tick.

Runs are the last axis of every array, so that they fill the SIMD units of the CPU. Products are then elementwise, and
XLA would fuse them with all that comes before and compute that again for each use; a loop over the ticks prevents it.
So a group of modules has one forward and one backward loop. The forward loop computes at each tick

1. ``h_s = f(h_{s-1} W + W_I x_s + b + r_s)``, where ``r_s`` is what slower groups sent;
2. what the group sends to the readout and to faster modules: ``h_s`` times its block, plus what slower groups sent
   there, if all their ticks are ticks of this group too. With nested periods, a group therefore reads a single array,
   that of the next slower group.

Which row of a slower group's array a tick reads is known before compilation (`TickGrid.row_after`): the row that is
valid before the tick for the group's own drive, and the row that is valid after it for what the group passes on.

`cheapest_partition` decides by cost which neighbours form a group.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.ops.linalg import (
    Activation,
    accumulator,
    activate,
    broadcast_batch,
    get_row,
    gram,
    matmul,
    outer,
    set_row,
    transpose,
)
from clockwork.recurrence.group import (
    Residuals,
    feedback_weights,
    group_residuals,
    members,
    outgoing_weights,
    sender_blocks,
)
from clockwork.recurrence.partition import MultiplyAdds, cheapest_partition
from clockwork.recurrence.resample import before_ticks_transpose, pad_rows, upsample, upsample_transpose
from clockwork.recurrence.schedule import Group, Schedule
from clockwork.weights import Weights

# The overhead of a loop models mostly its compile time: merging neighbours saves a third of it in the smallest of the
# paper's networks and a tenth in the largest, at equal run time. On a CPU that does ten multiply-adds per nanosecond,
# the overheads are about 15 µs per loop and 0.5 µs per step.
COST = MultiplyAdds(per_loop=150_000, per_step=5_000, per_masked_step=10_000)


class Source(NamedTuple):
    """How a group reads the array of what a slower group sent.

    Attributes:
        position: the index of the slower group, counted from the slowest.
        group: the slower group.
        row_before: ``(S + 1,)``, the row that is valid before each tick, for the drive; entry 0 has no meaning.
        row_after: ``(S + 1,)``, the row that is valid after each tick, which this group adds to what it sends; None if
            not all ticks of the slower group are ticks of this one: then the two arrays stay separate.
    """

    position: int
    group: Group
    row_before: np.ndarray
    row_after: np.ndarray | None


def _sources(order: list[Group]) -> tuple[list[list[Source]], list[int]]:
    """The sources of each group, and the positions of the groups whose arrays together hold all that was sent."""
    sources: list[list[Source]] = []
    apart: list[int] = []
    for i, group in enumerate(order):
        times = group.own.times
        reads = []
        for j in apart:
            source = order[j]
            nested = source.own.period % group.own.period == 0
            after = np.append(np.int32(0), source.own.row_after(times)) if nested else None
            reads.append(Source(j, source, np.append(np.int32(0), source.own.row_after(times - 1)), after))
        sources.append(reads)
        apart = [source.position for source in reads if source.row_after is None] + [i]
    return sources, apart


def forward(
    schedule: Schedule,
    activation: Activation,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    hidden: Array,
) -> tuple[tuple[Array, Array], Residuals]:
    """Outputs and last state, and the residuals for `backward`."""
    o = 0 if readout is None else readout.shape[1]  # O
    every, order = schedule.grid(1), schedule.slowest_first(cheapest_partition(schedule, o, hidden.shape[-1], COST))
    sources, apart = _sources(order)
    values: dict[int, Array] = {}
    slopes: dict[int, Array | None] = {}
    sent: list[Array] = []
    ends: list[Array] = []
    for group, reads in zip(order, sources, strict=True):
        rows, slope_rows, sent_here = _forwards(
            schedule, activation, group, reads, sent, weights, readout, inputs, hidden
        )
        sent.append(sent_here)
        ends.append(rows[-1])
        for j, member in members(schedule, group).items():
            values[j] = member.values(rows[..., member.units, :])
            slopes[j] = None if slope_rows is None else slope_rows[member.rows][..., member.units, :]
    indices = range(schedule.clock.modules)
    if readout is None:
        outputs = jnp.concatenate(
            [upsample(values[j], schedule.grid(schedule.clock.periods[j]), every)[1:] for j in indices], -2
        )
    else:
        readouts = [upsample(sent[i][..., :o, :], order[i].own, every)[1:] for i in apart]
        outputs = functools.reduce(jnp.add, readouts).astype(hidden.dtype)
    last = jnp.concatenate(ends[::-1], -2)
    return (outputs, last), Residuals(tuple(values[j] for j in indices), tuple(slopes[j] for j in indices))


def _forwards(
    schedule: Schedule,
    activation: Activation,
    group: Group,
    sources: list[Source],
    sent: list[Array],
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    hidden: Array,
) -> tuple[Array, Array | None, Array]:
    """Evaluate one group.

    Returns:
        The group's values and its slopes (or None), ``(S + 1, k)``; all that was sent at its ticks, ``(S + 1, O + a)``.
    """
    a, k, ticks = group.start, group.size, group.own.ticks
    dtype = accumulator(hidden.dtype)
    before = hidden[..., a : a + k, :]
    feedback, forwards = feedback_weights(weights, group), outgoing_weights(weights, readout, group)
    bias = broadcast_batch(weights.bias[a : a + k].astype(dtype), before)
    columns = forwards.shape[1]
    active = schedule.active(group)
    passed_on = [source for source in sources if source.row_after is not None]

    def send(h: Array, s: Array | int) -> Array:
        total = matmul(h, forwards)
        for source in passed_on:
            total = total + get_row(sent[source.position], jnp.asarray(source.row_after)[s])[..., :columns, :]
        return total

    def tick(s: Array, carry: tuple[Array, Array, Array | None, Array]) -> tuple[Array, Array, Array | None, Array]:
        h_tm1, values, slopes, sent_here = carry
        z_t = matmul(h_tm1, feedback) + bias
        for source in sources:
            z_t = z_t + get_row(sent[source.position], jnp.asarray(source.row_before)[s])[..., columns : columns + k, :]
        if inputs is not None:
            time = group.own.first - schedule.start + (s - 1) * group.own.period
            z_t = z_t + matmul(get_row(inputs, time), weights.input[:, a : a + k])
        h_t, slope = activate(activation, z_t)
        h_t = h_t.astype(h_tm1.dtype)
        if active is not None:
            h_t = jnp.where(_mask(active, s - 1, h_t), h_t, h_tm1)
        if slopes is not None and slope is not None:
            slopes = set_row(slopes, slope, s)
        if columns:
            sent_here = set_row(sent_here, send(h_t, s), s)
        return h_t, set_row(values, h_t, s), slopes, sent_here

    # Fill the array, then set one row: XLA writes a concatenation or a padding of constants element by element.
    values = set_row(jnp.zeros((ticks + 1, *before.shape), before.dtype), before, jnp.int32(0))
    slopes = None if activation is jnp.tanh else jnp.zeros((ticks + 1, *before.shape), dtype)
    first = send(before, 0)
    sent_here = set_row(jnp.zeros((ticks + 1, *first.shape), dtype), first, jnp.int32(0))
    _, values, slopes, sent_here = _fori_loop(1, ticks + 1, tick, (before, values, slopes, sent_here))
    return values, slopes, sent_here


def backward(
    schedule: Schedule,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    residuals: Residuals,
    outputs_bar: Array,
    last_bar: Array,
) -> tuple[Weights, Array | None, Array | None, Array]:
    """The gradients of weights, readout, inputs and hidden state: `forward` transposed."""
    dtype, runs = outputs_bar.dtype, last_bar.shape[-1]
    o = 0 if readout is None else readout.shape[1]  # O
    every, order = schedule.grid(1), schedule.slowest_first(cheapest_partition(schedule, o, runs, COST))
    sources, apart = _sources(order)
    outputs_bar = pad_rows(outputs_bar, 1, 0)  # row 0: the value before the first step is not an output
    # The errors of what each group sent. For an array that a faster group passes on, they come from that group.
    sent_bars: list[Array] = [jnp.zeros(())] * len(order)
    for i in apart:
        shape = (order[i].own.ticks + 1, *last_bar.shape[:-2], o, runs)
        sent_bars[i] = upsample_transpose(outputs_bar, order[i].own, every) if o else jnp.zeros(shape, dtype)
    input_bars, recurrent_bars, bias_bars, hidden_bars, readout_bars = [], [], [], [], []
    inputs_bar = None
    for i, group in reversed(list(enumerate(order))):
        a, k, own, sent_bar = group.start, group.size, group.own, sent_bars[i]
        values_bar = matmul(sent_bar, transpose(outgoing_weights(weights, readout, group)).astype(dtype))
        if readout is None:
            values_bar = values_bar + upsample_transpose(outputs_bar[..., a : a + k, :], own, every)
        values_bar = values_bar.at[-1].add(last_bar[..., a : a + k, :])
        values, slopes = group_residuals(schedule, group, residuals, -2)
        errors, outgoing_bar, feedback_bar, bias_bar = _backwards(
            feedback_weights(weights, group), schedule.active(group), values, slopes, sent_bar, values_bar
        )
        delta = errors[1:]
        for source in sources[i]:
            slower = source.group.own
            passed = source.row_after is not None
            bar = upsample_transpose(sent_bar, slower, own) if passed else sent_bars[source.position]
            fine = schedule.grid(math.gcd(slower.period, own.period))
            drive_bar = upsample_transpose(before_ticks_transpose(delta, fine, own), slower, fine)
            sent_bars[source.position] = jnp.concatenate([bar, drive_bar], -2)
        recurrent_bars += sender_blocks(schedule.clock, group, outgoing_bar[:, o:], feedback_bar)
        readout_bars.append(outgoing_bar[:, :o])
        bias_bars.append(bias_bar)
        hidden_bars.append(errors[0])
        if inputs is not None:
            x = schedule.inputs_at(own, inputs)
            input_bars.append(gram(x.astype(dtype), delta, runs=True))
            x_bar = matmul(delta, transpose(weights.input[:, a : a + k]).astype(dtype))
            x_bar = before_ticks_transpose(x_bar, every, own)[:-1]
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
    """The errors of one group, ``δ_s = (h̄_s + δ_{s+1} @ feedback.T) f'(z_s)``, in place, and its gradients.

    The value in row s was sent to others, and was the group's own past at tick s + 1. Row 0, the
    value before the first tick, has no slope. A unit that was not active has no δ, and its error
    moves to the row before.

    Args:
        feedback: ``(k, k)``.
        active: ``(S, k)``, or None if all units are active at every tick.
        values: ``(S + 1, k)``.
        slopes: ``(S + 1, k)``, or None.
        sent_bar: errors of what was sent, ``(S + 1, O + a)``.
        values_bar: errors of the values, ``(S + 1, k)``.

    Returns:
        The error of the value before the first tick and ``δ``, ``(S + 1, k)``; the gradients of what
        the group sends to others ``(k, O + a)``, of its feedback ``(k, k)`` and of its bias ``(k,)``.
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

    # Append a unit that is always 1: the gradient of its feedback is that of the bias. The values are copied in
    # place, since XLA writes a concatenation element by element.
    one = (jnp.arange(k + 1) == k).astype(dtype)[:, None]
    senders = jnp.broadcast_to(one, (*values.shape[:-2], k + 1, runs))
    senders = lax.dynamic_update_slice(senders, values.astype(dtype), (0,) * values.ndim)

    # XLA runs a loop of more than eight kernels as a graph of tasks, which costs more than the kernels. So the
    # bias has no separate sum, and masked errors are carried as one array, from which δ and the error that
    # is passed on are computed where they are used.
    def tick(s: Array, carry: tuple) -> tuple:
        error_tp1, errors, outgoing_bar, feedback_bar = carry
        value = get_row(senders, s)
        h = value[..., :k, :]
        error = get_row(errors, s)
        if factors is None or keeps is None:
            delta_tp1 = error_tp1
            error = delta = (error + matmul(delta_tp1, back)) * _slopes(h, slopes, s)
        else:
            after = jnp.minimum(s + 1, last)  # the first error_tp1 is zero
            delta_tp1 = error_tp1 * get_row(factors, after)
            error = (
                error + matmul(delta_tp1, back) + error_tp1 * broadcast_batch(get_row(keeps, after)[:, None], error_tp1)
            )
            delta = error * get_row(factors, s)
        if sent_bar.shape[-2]:
            outgoing_bar = outgoing_bar + outer(h, get_row(sent_bar, s))
        return error, set_row(errors, delta, s), outgoing_bar, feedback_bar + outer(value, delta_tp1)

    start = (
        jnp.zeros_like(values_bar[0]),
        values_bar,
        jnp.zeros((k, sent_bar.shape[-2], runs), dtype),
        jnp.zeros((k + 1, k, runs), dtype),
    )
    _, errors, outgoing_bar, feedback_bar = _fori_loop(last, -1, tick, start)
    return errors, outgoing_bar, feedback_bar[:k], feedback_bar[k]


def _mask(active: np.ndarray, s: Array, like: Array) -> Array:
    """The units that are active at a tick, in the shape of a state."""
    return jnp.broadcast_to(broadcast_batch(get_row(jnp.asarray(active), s)[:, None], like), like.shape)


def _slopes(values: Array, slopes: Array | None, s: Array) -> Array:
    """``f'`` at row s or rows s; 1 at row 0."""
    slope = 1 - jnp.square(values) if slopes is None else slopes if s.ndim else get_row(slopes, s)
    return jnp.where(s.reshape(s.shape + (1,) * (slope.ndim - s.ndim)) == 0, 1, slope)


Carry = TypeVar("Carry")


def _fori_loop(first: int, end: int, body: Callable[[Array, Carry], Carry], carry: Carry) -> Carry:
    """``lax.fori_loop``, up or down, with one counter in the compiled loop instead of two."""
    step = 1 if first <= end else -1
    return lax.while_loop(
        lambda state: state[0] != end, lambda state: (state[0] + step, body(*state)), (jnp.int32(first), carry)
    )[1]

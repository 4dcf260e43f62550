"""The cascade for one run, or run by run: matrix products over time and batch.

For each group of modules in turn, slowest first, it computes

1. the group's drive at its ticks: the input there, the bias, and what slower groups sent;
2. a scan over these ticks only, with the group's own small block of weights;
3. one product of the group's values, including the one before the first tick, with its weights to all faster modules
   and, if there is one, to the readout: one row for each change of value.

The array ``received`` holds what the groups evaluated so far have sent; each row is a span of time over which this is
constant. With slower groups of periods T_j, T_{j+1}, ... the spans lie on a uniform grid of period
gcd(T_j, T_{j+1}, ...), whether or not the periods nest and wherever the sequence starts, so that moving to a finer grid
is a plain repeat (`upsample`). The first columns are the readout, then the units from fastest to slowest: the part that
is still to be read is always a prefix.

`cheapest_partition` decides by cost which neighbours form a group.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.ops.linalg import Activation, accumulator, activate, broadcast_batch, get_row, gram, matmul, set_row
from clockwork.recurrence.group import (
    Residuals,
    feedback_weights,
    group_residuals,
    members,
    outgoing_weights,
    sender_blocks,
)
from clockwork.recurrence.partition import CostModel, MultiplyAdds, cheapest_partition
from clockwork.recurrence.resample import (
    Assemble,
    before_ticks,
    before_ticks_transpose,
    by_copies,
    pad_rows,
    upsample,
    upsample_transpose,
)
from clockwork.recurrence.schedule import Group, Schedule
from clockwork.weights import Weights

# The batch size that the cost of a partition assumes if it is not known before compilation.
BATCH_IF_UNKNOWN = 16


class GroupScan(NamedTuple):
    """The functions that evaluate the recurrence of one group over its ticks.

    Attributes:
        forward: called like `_scan`.
        backward: called like `_scan_transpose`.
        cost: the cost of both together.
        assemble: how arrays are put together on the device where it runs.
    """

    forward: Callable[..., tuple[Array, Array | None]]
    backward: Callable[..., Array]
    cost: CostModel
    assemble: Assemble


def forward(
    schedule: Schedule,
    activation: Activation,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    hidden: Array,
    scan: GroupScan,
) -> tuple[tuple[Array, Array], Residuals]:
    """Outputs and last state, and the residuals for `backward`."""
    dtype = accumulator(hidden.dtype)
    o = 0 if readout is None else readout.shape[1]  # O
    every, order = schedule.grid(1), _slowest_first(schedule, o, hidden, scan.cost)
    values: dict[int, Array] = {}
    slopes: dict[int, Array | None] = {}
    outputs, ends = [], []
    received = None
    for group in order:
        a, k, own = group.start, group.size, group.own
        before = hidden[..., a : a + k]
        drive = broadcast_batch(weights.bias[a : a + k].astype(dtype), before)[None]
        if received is not None and group.before is not None:
            received = upsample(received, group.before, group.after)  # (ticks of `after` + 1, O + a + k)
            drive = drive + before_ticks(received[..., o + a :], group.after, own)
            received = received[..., : o + a]
        if inputs is not None:
            drive = drive + matmul(schedule.inputs_at(own, inputs), weights.input[:, a : a + k])
        drive = jnp.broadcast_to(drive, (own.ticks, *before.shape))  # (S, k)
        rows = jnp.concatenate([before.astype(dtype)[None], drive])
        rows, slope_rows = scan.forward(activation, rows, feedback_weights(weights, group), schedule.active(group))
        rows = rows.astype(hidden.dtype)  # (S + 1, k)
        for j, member in members(schedule, group).items():
            values[j] = member.values(rows[..., member.units], scan.assemble)
            slopes[j] = None if slope_rows is None else pad_rows(slope_rows, 1, 0)[member.rows][..., member.units]
        ends.append(rows[-1])
        if readout is None:
            outputs.append((upsample(rows, own, every)[1:], a))
        if o + a:
            sent = upsample(matmul(rows, outgoing_weights(weights, readout, group)), own, group.after)
            received = sent if received is None else received + sent
    if readout is None:
        result = scan.assemble(outputs, -1)
    else:
        assert received is not None
        result = upsample(received, order[-1].after, every)[1:].astype(hidden.dtype)
    last = jnp.concatenate(ends[::-1], -1)
    indices = range(schedule.clock.modules)
    return (result, last), Residuals(tuple(values[j] for j in indices), tuple(slopes[j] for j in indices))


def backward(
    schedule: Schedule,
    weights: Weights,
    readout: Array | None,
    inputs: Array | None,
    residuals: Residuals,
    outputs_bar: Array,
    last_bar: Array,
    scan: GroupScan,
) -> tuple[Weights, Array | None, Array | None, Array]:
    """The gradients of weights, readout, inputs and hidden state: `forward` transposed, line by line."""
    dtype = outputs_bar.dtype
    o = 0 if readout is None else readout.shape[1]  # O
    every = schedule.grid(1)
    fastest_first = _slowest_first(schedule, o, last_bar, scan.cost)[::-1]
    received_bar = None
    if readout is not None:  # row 0: the value before the first step is not an output
        received_bar = upsample_transpose(pad_rows(outputs_bar, 1, 0), fastest_first[0].after, every)
    input_bars, recurrent_bars, bias_bars, hidden_bars, readout_bars = [], [], [], [], []
    inputs_bar = None
    for group in fastest_first:
        a, k, own = group.start, group.size, group.own
        values, slopes = group_residuals(schedule, group, residuals, -1, scan.assemble)
        values_bar = pad_rows(last_bar[None, ..., a : a + k], own.ticks, 0)
        if readout is None:
            values_bar = values_bar + upsample_transpose(pad_rows(outputs_bar[..., a : a + k], 1, 0), own, every)
        sent_bar = None
        if received_bar is not None and o + a:
            sent_bar = upsample_transpose(received_bar, own, group.after)  # (S + 1, O + a)
            values_bar = values_bar + matmul(sent_bar, outgoing_weights(weights, readout, group).T.astype(dtype))
        errors = scan.backward(values, slopes, feedback_weights(weights, group), schedule.active(group), values_bar)
        delta = errors[1:]  # (S, k)
        # One product for all that the group sends: to the readout, to faster units, to itself.
        receivers_bar = pad_rows(delta, 0, 1)
        if sent_bar is not None:
            receivers_bar = jnp.concatenate([sent_bar, receivers_bar], -1)
        block_bar = gram(values.astype(dtype), receivers_bar, runs=False)  # (k, O + a + k)
        readout_bars.append(block_bar[:, :o])
        recurrent_bars += sender_blocks(schedule.clock, group, block_bar[:, o : o + a], block_bar[:, o + a :])
        # XLA is faster at a product than at a sum.
        bias_bars.append(gram(jnp.ones((*delta.shape[:-1], 1), dtype), delta, runs=False)[0])
        hidden_bars.append(errors[0])
        if inputs is not None:
            x = schedule.inputs_at(own, inputs)
            input_bars.append(gram(x.astype(dtype), delta, runs=False))
            x_bar = matmul(delta, weights.input[:, a : a + k].T.astype(dtype))
            x_bar = before_ticks_transpose(x_bar, every, own)[:-1]
            inputs_bar = x_bar if inputs_bar is None else inputs_bar + x_bar
        if group.before is not None:
            drive_bar = before_ticks_transpose(delta, group.after, own)
            if received_bar is not None:
                drive_bar = jnp.concatenate([received_bar[..., : o + a], drive_bar], -1)
            received_bar = upsample_transpose(drive_bar, group.before, group.after)
    weights_bar = Weights(
        jnp.concatenate(input_bars, 1) if input_bars else jnp.zeros(weights.input.shape, dtype),
        tuple(recurrent_bars),
        jnp.concatenate(bias_bars),
    )
    readout_bar = None if readout is None else jnp.concatenate(readout_bars)
    return weights_bar, readout_bar, inputs_bar, jnp.concatenate(hidden_bars, -1)


def _slowest_first(schedule: Schedule, outputs: int, state: Array, cost: CostModel) -> list[Group]:
    """The groups of the cheapest partition, slowest first."""
    batch = math.prod(state.shape[:-1])
    if not isinstance(batch, int):  # a batch of any size, in `jax.export`
        batch = BATCH_IF_UNKNOWN
    return schedule.slowest_first(cheapest_partition(schedule, outputs, batch, cost))


def _scan(
    activation: Activation, rows: Array, feedback: Array, active: np.ndarray | None, unroll: int = 1
) -> tuple[Array, Array | None]:
    """The recurrence of one group: ``h_s = f(h_{s-1} W + d_s)`` where active, else ``h_{s-1}``.

    The scan works in place: each value replaces its drive, so that the loop fills no second array.

    Args:
        activation: ``f``, elementwise.
        rows: ``(S + 1, k)``: the value before the first tick, then the drive at each.
        feedback: ``(k, k)``; values are rounded to its dtype.
        active: ``(S, k)``; None if all units are active at every tick.
        unroll: the number of steps in an iteration of the compiled loop.

    Returns:
        The values ``(S + 1, k)``, and the slopes ``(S, k)`` where needed.
    """

    def tick(carry: tuple[Array, Array], s: Array) -> tuple[tuple[Array, Array], Array | None]:
        h_tm1, rows = carry
        h_t, slope = activate(activation, matmul(h_tm1, feedback) + get_row(rows, s))
        h_t = h_t.astype(h_tm1.dtype)
        if active is not None:
            h_t = jnp.where(_mask(active, s, h_t), h_t, h_tm1)
        return (h_t, set_row(rows, h_t, s)), slope

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
    """The errors of one group: ``δ_s = (h̄_s + W δ_{s+1}) f'(z_s)``, in place as well.

    A unit that was not active has no δ, and its error moves to the row before. The loop carries no sums:
    the weight gradients are one product after it.

    Args:
        values: ``(S + 1, k)``.
        slopes: ``(S + 1, k)``, where row 0 is not used; None for tanh.
        feedback: ``(k, k)``.
        active: ``(S, k)``; None if all units are active at every tick.
        values_bar: errors of the values, ``(S + 1, k)``.
        unroll: the number of steps in an iteration of the compiled loop.

    Returns:
        ``(S + 1, k)``: the error of the value before the first tick, then ``δ``.
    """
    dtype, last = values_bar.dtype, values.shape[0] - 1
    back = feedback.T.astype(dtype)

    def factor(s: Array) -> Array:
        return 1 - jnp.square(get_row(values, s).astype(dtype)) if slopes is None else get_row(slopes, s)

    def tick(carry: tuple[Array, Array], s: Array) -> tuple[tuple[Array, Array], None]:
        later, rows = carry
        if active is None:
            delta = (get_row(rows, s) + matmul(later, back)) * factor(s)
            return (delta, set_row(rows, delta, s)), None
        # The whole error is carried, and split into δ and the rest where it is used: with these as two results of
        # one kernel, XLA would copy all rows at every step.
        error = get_row(rows, s) + passed_on(later, jnp.minimum(s + 1, last))
        return (error, set_row(rows, jnp.where(_mask(active, s, error), error * factor(s), 0), s)), None

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
    return jnp.broadcast_to(broadcast_batch(get_row(jnp.asarray(active), s - 1), like), like.shape)


# On a CPU that does 60 multiply-adds per nanosecond, as two cores do in small products, the overheads are about 20 µs
# per scan and 0.75 µs per step.
XLA_SCAN = GroupScan(
    _scan, _scan_transpose, MultiplyAdds(per_loop=1_200_000, per_step=45_000, per_masked_step=55_000), by_copies
)

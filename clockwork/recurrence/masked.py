"""The reference back end: a dense product at every step, and a mask that selects the units that update."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork.ops import linalg
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.sharded import equally_varying
from clockwork.recurrence.call import Call
from clockwork.weights import Weights


def masked_step(activation: linalg.Activation, active: Array, drive: Array, recurrent: Array, h_tm1: Array) -> Array:
    """``h_t = f(W_H h_{t-1} + W_I x_t + b)`` where active, else ``h_{t-1}`` (Koutník et al. 2014, eqs. 1 and 4).

    Args:
        activation: ``f``.
        active: ``(N,)`` booleans.
        drive: ``W_I x_t + b``, ``(N,)``.
        recurrent: ``(N, N)``, applied as ``h @ W``.
        h_tm1: ``(N,)``.
    """
    z_t = linalg.matmul(h_tm1, recurrent) + drive
    return jnp.where(active, activation(z_t).astype(h_tm1.dtype), h_tm1)


def evaluate(
    call: Call, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Scan `masked_step` over time.

    Args:
        call: the call of ``unroll``.
        weights: the layer's weights.
        inputs: ``(T, I)`` or None.
        hidden: ``(N,)``, the state before the first step.
        readout: ``(N, O)`` or None.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last state ``(N,)``.
    """
    input_weights, recurrent, bias = (w.astype(call.dtype) for w in weights.dense(call.clock))
    dense, start = (input_weights, recurrent, bias), call.start
    others = jax.tree.leaves((dense, inputs, None if isinstance(start, int) else start))
    hidden = equally_varying([hidden, *others])[0]  # required for the carry of a loop
    drive = bias.astype(linalg.accumulator(bias.dtype))
    drives = None if inputs is None else linalg.matmul(inputs, input_weights) + drive[None]
    periods = jnp.asarray(call.clock.unit_periods, jnp.int32)
    if isinstance(start, int):
        first_ticks = jnp.asarray([-start % period for period in call.clock.unit_periods.tolist()], jnp.int32)
    else:
        first_ticks = _until_tick(start, periods)

    def tick(h_tm1: Array, xs: tuple[Array, Array | None]) -> tuple[Array, Array]:
        t, drive_t = xs
        active = (t - first_ticks) % periods == 0
        h_t = masked_step(call.activation, active, drive if drive_t is None else drive_t, recurrent, h_tm1)
        return h_t, h_t

    last, outputs = lax.scan(tick, hidden, (jnp.arange(call.steps, dtype=jnp.int32), drives))
    if readout is not None:
        outputs = linalg.matmul(outputs, readout).astype(hidden.dtype)
    return outputs, last


def _until_tick(start: Array, periods: Array) -> Array:
    """The number of steps from ``start`` to each unit's next tick, int32, for any integer dtype of ``start``."""
    start = start.astype(jnp.int32) if start.dtype.itemsize < 4 else start  # periods must fit, also if it is unsigned
    since = start % periods.astype(start.dtype)
    return -since.astype(jnp.int32) % periods


# For fewer units times steps than this, the masked scan is expected to be faster than the cascade.
#
# The cascade runs a dozen small programs for each module, whose overhead does not pay off for a very short sequence of
# a small layer. Time of the masked scan divided by the time of the cascade, for loss and gradient on two cores:
#
# - N = 40, g = 9, for one sequence, a batch of 32, and 100 runs: T = 16: 0.5, 1.1, 1.4; T = 48: 0.7, 1.5, 2.7;
#   T = 128: 1.1, 1.6, 3.2;
# - N = 128, g = 4, for the same: T = 16: 0.7, 1.9, 0.9; T = 48: 1.1, 2.2, 1.6;
# - N = 512, g = 8, for one sequence and a batch of 32: T = 16: 3.0, 4.8.
#
# The number of sequences or runs is not known here, so the masked scan is chosen only where it is hardly ever slower.
MASKED_MAX_WORK = 800


def _cost(call: Call) -> Cost:
    work = call.clock.width * call.steps
    short = work < MASKED_MAX_WORK
    found = (
        f"{call.clock.width} units times {call.steps} steps is {'less than' if short else 'at least'} {MASKED_MAX_WORK}"
    )
    return Cost(work, f"{found}, so {'this' if short else 'the cascade'} is expected to be faster")


BACKEND = Backend("masked", evaluate, lambda call: None, _cost)

"""The reference: one pure step, the dense product, and a mask that says who keeps the new value."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork.clock import Clock
from clockwork.ops import linalg
from clockwork.ops.sharded import equally_varying


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


def masked(
    activation: linalg.Activation,
    clock: Clock,
    start: int | Array,
    steps: int,
    inputs: Array | None,
    dense: tuple[Array, Array, Array],
    hidden: Array,
    readout: Array | None,
) -> tuple[Array, Array]:
    """Scan `masked_step` over time.

    Args:
        activation: ``f``.
        clock: the layer's clock.
        start: the clock's value at the first step.
        steps: ``T``.
        inputs: ``(T, I)`` or None.
        dense: input ``(I, N)``, recurrent ``(N, N)`` and bias ``(N,)``, from ``Weights.dense``.
        hidden: ``(N,)``, the state before the first step.
        readout: ``(N, O)`` or None.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last state ``(N,)``.
    """
    input_weights, recurrent, bias = dense
    others = jax.tree.leaves((dense, inputs, None if isinstance(start, int) else start))
    hidden = equally_varying([hidden, *others])[0]  # as the carry of a loop must be
    drive = bias.astype(linalg.accumulator(bias.dtype))
    drives = None if inputs is None else linalg.matmul(inputs, input_weights) + drive[None]
    periods = jnp.asarray(clock.unit_periods, jnp.int32)
    if isinstance(start, int):
        first_ticks = jnp.asarray([-start % period for period in clock.unit_periods.tolist()], jnp.int32)
    else:
        first_ticks = _until_tick(start, periods)

    def tick(h_tm1: Array, xs: tuple[Array, Array | None]) -> tuple[Array, Array]:
        t, drive_t = xs
        active = (t - first_ticks) % periods == 0
        h_t = masked_step(activation, active, drive if drive_t is None else drive_t, recurrent, h_tm1)
        return h_t, h_t

    last, outputs = lax.scan(tick, hidden, (jnp.arange(steps, dtype=jnp.int32), drives))
    if readout is not None:
        outputs = linalg.matmul(outputs, readout).astype(hidden.dtype)
    return outputs, last


def _until_tick(start: Array, periods: Array) -> Array:
    """How many steps from ``start`` on each unit waits for its tick, int32, whatever integer ``start`` is."""
    start = start.astype(jnp.int32) if start.dtype.itemsize < 4 else start  # periods must fit, unsigned ones too
    since = start % periods.astype(start.dtype)
    return -since.astype(jnp.int32) % periods

"""The cascade with each module's time loop as one kernel of a CUDA GPU (`gpu`): its ``Loops``."""

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.ops.linalg import Activation, below, matmul_each
from clockwork.ops.mosaic import BLOCK, Loop, Thread, Way, columns, filled, launch, loop, width_of
from clockwork.recurrence import batched
from clockwork.recurrence.schedule import Module

AHEAD = 4  # rows that are read ahead of time


class Price(NamedTuple):
    """What a loop costs, forwards and backwards, in microseconds of an H200: reckoned, not measured.

    Attributes:
        loop: the dozen kernels of XLA that every loop brings with it.
        step: of its steps, the least.
        unit: more for each unit, whose products wait for each other.
        lane: more for each thread of all sequences, whose rows are written and read some sixteen times.
        least: sequences that are reckoned with if there are fewer: how many runs there are is not known.
    """

    loop: float = 25
    step: float = 0.1
    unit: float = 0.006
    lane: float = 16e-6
    least: int = 100

    def tick(self, part: Module, columns: int, count: int) -> float:
        """Of a step: `clockwork.recurrence.schedule.Pricing.tick`."""
        del columns
        if part.size > BLOCK:
            return math.inf
        return self.step + self.unit * part.size + self.lane * width_of(part.size) * max(count, self.least)


PRICE = Price()


@functools.cache
def loops(interpret: bool) -> batched.Loops:
    """What `wide` evaluates modules with.

    Args:
        interpret: by Pallas' interpreter, on any machine, not as kernels of CUDA.
    """
    return batched.Loops(functools.partial(_scan, interpret), functools.partial(_scan_transpose, interpret), PRICE)


def _scan(
    interpret: bool, activation: Activation, rows: Array, feedback: Array, active: np.ndarray | None
) -> tuple[Array, None]:
    """`batched.LOOPS`' forward."""
    if rows.shape[0] == 1:
        return rows, None
    del activation  # tanh: no other gets here
    way = Way(feedback.shape[0], feedback.dtype, interpret)
    start, drive = _sequences(rows[:1])[:, 0], _sequences(rows[1:])
    values = FORWARD(way, feedback[None], (drive, start), None if active is None else jnp.asarray(active, jnp.float32))
    return jnp.concatenate([rows[:1], _rows(values, rows)]), None


def _scan_transpose(
    interpret: bool, values: Array, slopes: None, feedback: Array, active: np.ndarray | None, values_bar: Array
) -> Array:
    """`batched.LOOPS`' backward.

    ``δ_s = (h̄_s + W δ_{s+1} + kept_{s+1}) factor_s``; row 0, the value before the first tick, has the factor 1.
    """
    del slopes
    way = Way(feedback.shape[0], jnp.dtype(jnp.float32), interpret)
    factors = 1 - jnp.square(values.astype(jnp.float32))
    keeps = None
    if active is not None:
        on = jnp.asarray(active, jnp.float32)
        keeps = jnp.concatenate([jnp.zeros_like(on[:1]), 1 - on])
        factors = factors * jnp.concatenate([jnp.ones_like(on[:1]), on]).reshape(
            -1, *(1,) * (values.ndim - 2), on.shape[1]
        )
    factors = factors.at[0].set(1)
    back = feedback.T.astype(jnp.float32)
    deltas = BACKWARD(way, back[None], (_sequences(values_bar), _sequences(factors)), keeps)
    return _rows(deltas, values_bar)


def _sequences(rows: Array) -> Array:
    """``(S, *B, k)`` as ``(M, S, k)``."""
    return jnp.swapaxes(rows.reshape(rows.shape[0], math.prod(rows.shape[1:-1]), rows.shape[-1]), 0, 1)


def _rows(sequences: Array, like: Array) -> Array:
    """The inverse of `_sequences`."""
    return jnp.swapaxes(sequences, 0, 1).reshape(sequences.shape[1], *like.shape[1:]).astype(like.dtype)


def _forward_kernel(way: Way, feedback: Array, own: tuple[Array, Array], active: Array | None) -> Array:
    drive, start = own
    sequences, steps = drive.shape[:2]
    masks = [] if active is None else [way.mask(filled(active, AHEAD))]

    def body(thread: Thread, drive: Any, start: Any, weights: Any, *rest: Any) -> None:
        *masks, values = rest
        column = [thread.read(weights, i) for i in range(way.units)]

        def read(s: Array) -> tuple[Array, ...]:
            return thread.read(drive, s), *(thread.read(mask, s, everywhere=True) for mask in masks)

        def step(s: Array, turn: int, row: tuple[Array, ...], h_tm1: Array) -> Array:
            (sent,) = thread.senders([h_tm1], turn)
            h_t = thread.rounded(jnp.tanh(thread.product(sent, column, row[0])))
            if len(row) > 1:
                h_t = jnp.where(row[1] > 0.5, h_t, h_tm1)
            thread.write(values, h_t, s)
            return h_t

        loop(drive.shape[0], AHEAD, read, step, thread.read(start))

    rows = way.spread(filled(jnp.swapaxes(drive, 0, 1), AHEAD))
    arrays = [rows, way.spread(start), columns(way, feedback, sequences), *masks]
    (values,) = launch(body, way, arrays, [rows.shape], shared=1)
    return jnp.swapaxes(way.gather(values[:steps], sequences), 0, 1)


def _backward_kernel(way: Way, back: Array, own: tuple[Array, Array], keeps: Array | None) -> Array:
    sequences, count = own[0].shape[:2]
    rows, factors = (way.spread(filled(jnp.swapaxes(x, 0, 1), AHEAD)) for x in own)
    masks = [] if keeps is None else [way.mask(filled(keeps, AHEAD))]

    def body(thread: Thread, rows: Any, factors: Any, weights: Any, *rest: Any) -> None:
        *masks, deltas = rest
        column = [thread.read(weights, i) for i in range(way.units)]

        def read(s: Array) -> tuple[Array, ...]:
            own = thread.read(rows, s), thread.read(factors, s)
            return *own, *(thread.read(mask, s, everywhere=True) for mask in masks)

        def step(s: Array, turn: int, row: tuple[Array, ...], carry: tuple[Array, ...]) -> tuple[Array, ...]:
            delta, *held = carry
            (sent,) = thread.senders([delta], turn)
            error = thread.product(sent, column, sum(held, start=row[0]))
            delta = error * row[1]
            thread.write(deltas, delta, s)
            return delta, *(error * keep for keep in row[2:])

        loop(rows.shape[0], AHEAD, read, step, (thread.zeros(),) * (1 + len(masks)), reverse=True)

    (deltas,) = launch(body, way, [rows, factors, columns(way, back, sequences), *masks], [rows.shape], shared=1)
    return jnp.swapaxes(way.gather(deltas[:count], sequences), 0, 1)


def _forward_plain(way: Way, feedback: Array, own: tuple[Array, Array], active: Array | None) -> Array:
    drive, start = own
    split = (feedback.shape[0], drive.shape[0] // feedback.shape[0], way.units)

    def tick(h_tm1: Array, xs: tuple[Array, Array | None]) -> tuple[Array, Array]:
        drive_t, on = xs
        z_t = matmul_each(h_tm1.reshape(split), feedback).reshape(drive_t.shape) + drive_t
        h_t = jnp.tanh(z_t).astype(h_tm1.dtype)
        h_t = h_t if on is None else jnp.where(below(on, h_t) > 0.5, h_t, h_tm1)
        return h_t, h_t

    values = lax.scan(tick, start.astype(way.dtype), (jnp.swapaxes(drive, 0, 1), active))[1]
    return jnp.swapaxes(values, 0, 1).astype(jnp.float32)


def _backward_plain(way: Way, back: Array, own: tuple[Array, Array], keeps: Array | None) -> Array:
    split = (back.shape[0], own[0].shape[0] // back.shape[0], way.units)

    def tick(carry: tuple[Array, Array], xs: tuple[Array, Array, Array | None]) -> tuple[tuple[Array, Array], Array]:
        delta, held = carry
        row, factor, keep = xs
        error = row + matmul_each(delta.reshape(split), back).reshape(row.shape) + held
        delta = error * factor
        return (delta, held if keep is None else error * below(keep, error)), delta

    rows, factors = (jnp.swapaxes(x, 0, 1) for x in own)
    zero = jnp.zeros_like(rows[0])
    return jnp.swapaxes(lax.scan(tick, (zero, zero), (rows, factors, keeps), reverse=True)[1], 0, 1)


FORWARD = Loop(_forward_kernel, _forward_plain)
BACKWARD = Loop(_backward_kernel, _backward_plain)

"""The cascade with each group's time loop as one GPU kernel: the back end ``"fused"``.

Its kernels evaluate what the scans of `clockwork.recurrence.batched` evaluate, group by group.
"""

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.ops import mosaic
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.linalg import Activation, broadcast_batch, matmul_each
from clockwork.ops.mosaic import (
    Kernel,
    Thread,
    ThreadMap,
    launch,
    over_rows,
    pad_to_multiple,
    weights_to_threads,
    width_of,
)
from clockwork.recurrence import cascade
from clockwork.recurrence.batched import GroupScan
from clockwork.recurrence.call import Call, start_refusal
from clockwork.recurrence.schedule import Group
from clockwork.weights import Weights

MAX_UNITS = mosaic.BLOCK_THREADS  # of a module: a unit is a thread of a block
ROWS_AHEAD = 4  # rows that are read ahead of time


class CudaCost(NamedTuple):
    """The cost of a time loop, forwards and backwards, in microseconds of an H200: estimated, not measured.

    Attributes:
        per_loop: a dozen of XLA's own kernels around every time loop.
        per_step: at least, of each step.
        per_unit: more for each unit, since the multiply-adds of a product wait for each other.
        per_thread: more for each thread of all sequences: about 16 reads and writes a row.
        min_sequences: assume at least this many sequences, since the number of runs is not known.
    """

    per_loop: float = 25
    per_step: float = 0.1
    per_unit: float = 0.006
    per_thread: float = 16e-6
    min_sequences: int = 100

    def per_tick(self, group: Group, outputs: int, batch: int) -> float:
        """Cost of one step of a group's loop: `clockwork.recurrence.partition.CostModel.per_tick`."""
        del outputs
        if group.size > MAX_UNITS:
            return math.inf
        sequences = max(batch, self.min_sequences)
        return self.per_step + self.per_unit * group.size + self.per_thread * width_of(group.size) * sequences


COST = CudaCost()


@functools.cache
def group_scan(interpret: bool) -> GroupScan:
    """What evaluates the recurrence of a group.

    Args:
        interpret: by Pallas' interpreter, on any machine, not as kernels of CUDA.
    """
    return GroupScan(functools.partial(_scan, interpret), functools.partial(_scan_transpose, interpret), COST)


def evaluate(
    call: Call, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate the cascade with GPU kernels, where the program runs on a GPU: `cascade.evaluate`."""
    return cascade.evaluate(call, weights, inputs, hidden, readout, group_scan(mosaic.INTERPRET))


def _refusal(call: Call) -> str | None:
    largest = max(call.clock.sizes)
    if not isinstance(call.start, int):
        return start_refusal(call, "fused")
    if largest > MAX_UNITS:
        return f'method "fused" takes modules of up to {MAX_UNITS} units, got one of {largest}'
    if call.activation is not jnp.tanh:
        return f'method "fused" takes the activation jnp.tanh, got {call.activation!r}'
    return mosaic.dtype_refusal(call.dtype, "fused")


def _cost(call: Call) -> Cost:
    del call
    refusal = mosaic.device_refusal()
    return Cost(0, "every time loop is one GPU kernel") if refusal is None else Cost(math.inf, refusal)


BACKEND = Backend("fused", evaluate, _refusal, _cost, lambda: "cascade" if mosaic.older_gpu() else None)


def _scan(
    interpret: bool, activation: Activation, rows: Array, feedback: Array, active: np.ndarray | None
) -> tuple[Array, None]:
    """`GroupScan.forward`."""
    if rows.shape[0] == 1:
        return rows, None
    del activation  # tanh: no other gets here
    threads = ThreadMap(feedback.shape[0], feedback.dtype, interpret)
    start, drive = _sequences_first(rows[:1])[:, 0], _sequences_first(rows[1:])
    values = FORWARD(
        threads, feedback[None], (drive, start), None if active is None else jnp.asarray(active, jnp.float32)
    )
    return jnp.concatenate([rows[:1], _time_first(values, rows)]), None


def _scan_transpose(
    interpret: bool, values: Array, slopes: None, feedback: Array, active: np.ndarray | None, values_bar: Array
) -> Array:
    """`GroupScan.backward`.

    ``δ_s = (h̄_s + W δ_{s+1} + kept_{s+1}) factor_s``; row 0, the value before the first tick, has the factor 1.
    """
    del slopes
    threads = ThreadMap(feedback.shape[0], jnp.dtype(jnp.float32), interpret)
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
    deltas = BACKWARD(threads, back[None], (_sequences_first(values_bar), _sequences_first(factors)), keeps)
    return _time_first(deltas, values_bar)


def _sequences_first(rows: Array) -> Array:
    """``(S, *B, k)`` as ``(M, S, k)``."""
    return jnp.swapaxes(rows.reshape(rows.shape[0], math.prod(rows.shape[1:-1]), rows.shape[-1]), 0, 1)


def _time_first(sequences: Array, like: Array) -> Array:
    """The inverse of `_sequences_first`."""
    return jnp.swapaxes(sequences, 0, 1).reshape(sequences.shape[1], *like.shape[1:]).astype(like.dtype)


def _forward_kernel(threads: ThreadMap, feedback: Array, own: tuple[Array, Array], active: Array | None) -> Array:
    drive, start = own
    sequences, steps = drive.shape[:2]
    masks = [] if active is None else [threads.mask_to_block(pad_to_multiple(active, ROWS_AHEAD))]

    def body(thread: Thread, drive: Any, start: Any, weights: Any, *rest: Any) -> None:
        *masks, values = rest
        column = [thread.read(weights, i) for i in range(threads.units)]

        def read(s: Array) -> tuple[Array, ...]:
            return thread.read(drive, s), *(thread.read(mask, s, everywhere=True) for mask in masks)

        def step(s: Array, buffer: int, row: tuple[Array, ...], h_tm1: Array) -> Array:
            (sent,) = thread.from_units([h_tm1], buffer)
            h_t = thread.rounded(jnp.tanh(thread.product(sent, column, row[0])))
            if len(row) > 1:
                h_t = jnp.where(row[1] > 0.5, h_t, h_tm1)
            thread.write(values, h_t, s)
            return h_t

        over_rows(drive.shape[0], ROWS_AHEAD, read, step, thread.read(start))

    rows = threads.to_threads(pad_to_multiple(jnp.swapaxes(drive, 0, 1), ROWS_AHEAD))
    arrays = [rows, threads.to_threads(start), weights_to_threads(threads, feedback, sequences), *masks]
    (values,) = launch(body, threads, arrays, [rows.shape], shared=1)
    return jnp.swapaxes(threads.from_threads(values[:steps], sequences), 0, 1)


def _backward_kernel(threads: ThreadMap, back: Array, own: tuple[Array, Array], keeps: Array | None) -> Array:
    sequences, count = own[0].shape[:2]
    rows, factors = (threads.to_threads(pad_to_multiple(jnp.swapaxes(x, 0, 1), ROWS_AHEAD)) for x in own)
    masks = [] if keeps is None else [threads.mask_to_block(pad_to_multiple(keeps, ROWS_AHEAD))]

    def body(thread: Thread, rows: Any, factors: Any, weights: Any, *rest: Any) -> None:
        *masks, deltas = rest
        column = [thread.read(weights, i) for i in range(threads.units)]

        def read(s: Array) -> tuple[Array, ...]:
            own = thread.read(rows, s), thread.read(factors, s)
            return *own, *(thread.read(mask, s, everywhere=True) for mask in masks)

        def step(s: Array, buffer: int, row: tuple[Array, ...], carry: tuple[Array, ...]) -> tuple[Array, ...]:
            delta, *passed_on = carry
            (sent,) = thread.from_units([delta], buffer)
            error = thread.product(sent, column, sum(passed_on, start=row[0]))
            delta = error * row[1]
            thread.write(deltas, delta, s)
            return delta, *(error * keep for keep in row[2:])

        over_rows(rows.shape[0], ROWS_AHEAD, read, step, (thread.zeros(),) * (1 + len(masks)), reverse=True)

    (deltas,) = launch(
        body, threads, [rows, factors, weights_to_threads(threads, back, sequences), *masks], [rows.shape], shared=1
    )
    return jnp.swapaxes(threads.from_threads(deltas[:count], sequences), 0, 1)


def _forward_plain(threads: ThreadMap, feedback: Array, own: tuple[Array, Array], active: Array | None) -> Array:
    drive, start = own
    split = (feedback.shape[0], drive.shape[0] // feedback.shape[0], threads.units)

    def tick(h_tm1: Array, xs: tuple[Array, Array | None]) -> tuple[Array, Array]:
        drive_t, on = xs
        z_t = matmul_each(h_tm1.reshape(split), feedback).reshape(drive_t.shape) + drive_t
        h_t = jnp.tanh(z_t).astype(h_tm1.dtype)
        h_t = h_t if on is None else jnp.where(broadcast_batch(on, h_t) > 0.5, h_t, h_tm1)
        return h_t, h_t

    values = lax.scan(tick, start.astype(threads.dtype), (jnp.swapaxes(drive, 0, 1), active))[1]
    return jnp.swapaxes(values, 0, 1).astype(jnp.float32)


def _backward_plain(threads: ThreadMap, back: Array, own: tuple[Array, Array], keeps: Array | None) -> Array:
    split = (back.shape[0], own[0].shape[0] // back.shape[0], threads.units)

    def tick(carry: tuple[Array, Array], xs: tuple[Array, Array, Array | None]) -> tuple[tuple[Array, Array], Array]:
        delta, passed_on = carry
        row, factor, keep = xs
        error = row + matmul_each(delta.reshape(split), back).reshape(row.shape) + passed_on
        delta = error * factor
        return (delta, passed_on if keep is None else error * broadcast_batch(keep, error)), delta

    rows, factors = (jnp.swapaxes(x, 0, 1) for x in own)
    zero = jnp.zeros_like(rows[0])
    return jnp.swapaxes(lax.scan(tick, (zero, zero), (rows, factors, keeps), reverse=True)[1], 0, 1)


FORWARD = Kernel(_forward_kernel, _forward_plain)
BACKWARD = Kernel(_backward_kernel, _backward_plain)

"""The cascade with each group's time loop as one GPU kernel: the back end ``"fused"``.

Its kernels replace the scans of `clockwork.recurrence.batched`, group by group.
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
    weights_to_threads,
    width_of,
)
from clockwork.recurrence import cascade
from clockwork.recurrence.batched import GroupScan
from clockwork.recurrence.call import Call, start_refusal
from clockwork.recurrence.resample import by_concatenation
from clockwork.recurrence.schedule import Group
from clockwork.weights import Weights

MAX_UNITS = mosaic.BLOCK_THREADS  # per module, since each unit is a thread of one block
ROWS_AHEAD = 4  # rows to prefetch


class CudaCost(NamedTuple):
    """The cost of a time loop, forwards and backwards, in microseconds on an H200: estimated, not measured.

    Attributes:
        per_loop: cost of the dozen XLA kernels around every time loop.
        per_step: minimum cost of a step.
        per_unit: additional cost of a step per unit, since the multiply-adds of a product wait for each other.
        per_thread: additional cost of a step per thread of all sequences: about 16 reads and writes per row.
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
    """The functions that evaluate the recurrence of a group.

    Args:
        interpret: whether Pallas' interpreter evaluates the kernels, on any machine, instead of CUDA.
    """
    return GroupScan(
        functools.partial(_scan, interpret), functools.partial(_scan_transpose, interpret), COST, by_concatenation
    )


def evaluate(
    call: Call, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate the cascade, with GPU kernels if the program runs on a GPU; see `cascade.evaluate`."""
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
    del activation  # always tanh here
    threads = ThreadMap(feedback.shape[0], feedback.dtype, interpret)
    mask = None if active is None else _mask(threads, active, ticks=active.shape[0])
    values = FORWARD(threads, feedback[None], _one_batch(rows), mask)
    return values.reshape(rows.shape).astype(rows.dtype), None


def _scan_transpose(
    interpret: bool, values: Array, slopes: None, feedback: Array, active: np.ndarray | None, values_bar: Array
) -> Array:
    """`GroupScan.backward`.

    ``δ_s = (h̄_s + W δ_{s+1} + kept_{s+1}) factor_s``; row 0, the value before the first tick, has the factor 1.
    """
    del slopes
    threads = ThreadMap(feedback.shape[0], jnp.dtype(jnp.float32), interpret)
    factors = 1 - jnp.square(values.astype(jnp.float32))
    by_row = (-1, *(1,) * (values.ndim - 2))
    keeps = None
    if active is not None:
        on = np.concatenate([np.ones_like(active[:1]), active])
        keeps = _mask(threads, ~on, ticks=on.shape[0])
        factors = factors * jnp.asarray(on.reshape(*by_row, on.shape[1]), jnp.float32)
    first = np.arange(values.shape[0]).reshape(*by_row, 1) == 0
    factors = jnp.where(first, 1, factors)
    rows = _one_batch(values_bar), _one_batch(factors)
    return BACKWARD(threads, feedback[None].astype(jnp.float32), rows, keeps).reshape(values_bar.shape)


def _one_batch(rows: Array) -> Array:
    """``(S, *B, k)`` as ``(S, M, k)``."""
    return rows.reshape(rows.shape[0], math.prod(rows.shape[1:-1]), rows.shape[-1])


def _mask(threads: ThreadMap, mask: np.ndarray, ticks: int) -> Array:
    return jnp.asarray(threads.mask_to_block(mask, -ticks % ROWS_AHEAD))


def _forward_kernel(threads: ThreadMap, feedback: Array, rows: Array, active: Array | None) -> Array:
    """The values, ``(S + 1, M, k)``.

    Args:
        threads: static.
        feedback: ``(R, k, k)``.
        rows: the value before the first tick, then the drive at each, ``(S + 1, M, k)``.
        active: which units update at each tick, from `_mask`; None if all units always do.
    """
    masks = [] if active is None else [active]

    def body(thread: Thread, rows: Any, weights: Any, *rest: Any) -> None:
        *masks, values = rest
        column = [thread.read(weights, i) for i in range(threads.units)]

        def read(s: Array) -> tuple[Array, ...]:
            return thread.read(rows, s + 1), *(thread.read(mask, s, everywhere=True) for mask in masks)

        def step(s: Array, buffer: int, row: tuple[Array, ...], h_tm1: Array) -> Array:
            (sent,) = thread.from_units([h_tm1], buffer)
            h_t = thread.rounded(jnp.tanh(thread.product(sent, column, row[0])))
            if len(row) > 1:
                h_t = jnp.where(row[1] > 0.5, h_t, h_tm1)
            thread.write(values, h_t, s + 1)
            return h_t

        start = thread.read(rows, 0)
        thread.write(values, start, 0)
        over_rows(rows.shape[0] - 1, ROWS_AHEAD, read, step, start)

    laid_out = threads.to_threads(rows, rows=-(rows.shape[0] - 1) % ROWS_AHEAD)
    arrays = [laid_out, weights_to_threads(threads, feedback, rows.shape[1]), *masks]
    (values,) = launch(body, threads, arrays, [laid_out.shape], shared=1)
    return threads.from_threads(values, rows.shape)


def _backward_kernel(threads: ThreadMap, feedback: Array, own: tuple[Array, Array], keeps: Array | None) -> Array:
    """The errors, ``(S + 1, M, k)``.

    Args:
        threads: static.
        feedback: ``(R, k, k)``.
        own: errors of the values, and the factors of the whole errors, ``(S + 1, M, k)`` each.
        keeps: which units keep their value at each row, from `_mask`; None if no unit ever does.
    """
    shape = own[0].shape
    rows, factors = (threads.to_threads(x, rows=-shape[0] % ROWS_AHEAD) for x in own)
    masks = [] if keeps is None else [keeps]

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

    weights = weights_to_threads(threads, feedback, shape[1], transposed=True)
    (deltas,) = launch(body, threads, [rows, factors, weights, *masks], [rows.shape], shared=1)
    return threads.from_threads(deltas, shape)


def _forward_plain(threads: ThreadMap, feedback: Array, rows: Array, active: Array | None) -> Array:
    """`_forward_kernel` in plain JAX."""
    runs, ticks = feedback.shape[0], rows.shape[0] - 1
    split = (runs, rows.shape[1] // runs, threads.units)
    on = None if active is None else active[:ticks, : threads.units]

    def tick(h_tm1: Array, xs: tuple[Array, Array | None]) -> tuple[Array, Array]:
        drive_t, on_t = xs
        z_t = matmul_each(h_tm1.reshape(split), feedback).reshape(drive_t.shape) + drive_t
        h_t = jnp.tanh(z_t).astype(h_tm1.dtype)
        h_t = h_t if on_t is None else jnp.where(broadcast_batch(on_t, h_t) > 0.5, h_t, h_tm1)
        return h_t, h_t

    values = lax.scan(tick, rows[0].astype(threads.dtype), (rows[1:], on))[1]
    return jnp.concatenate([rows[:1].astype(jnp.float32), values.astype(jnp.float32)])


def _backward_plain(threads: ThreadMap, feedback: Array, own: tuple[Array, Array], keeps: Array | None) -> Array:
    """`_backward_kernel` in plain JAX."""
    rows, factors = own
    runs = feedback.shape[0]
    split, back = (runs, rows.shape[1] // runs, threads.units), jnp.swapaxes(feedback, 1, 2)

    def tick(carry: tuple[Array, Array], xs: tuple[Array, Array, Array | None]) -> tuple[tuple[Array, Array], Array]:
        delta, passed_on = carry
        row, factor, keep = xs
        error = row + matmul_each(delta.reshape(split), back).reshape(row.shape) + passed_on
        delta = error * factor
        return (delta, passed_on if keep is None else error * broadcast_batch(keep, error)), delta

    zero = jnp.zeros_like(rows[0])
    keep = None if keeps is None else keeps[: rows.shape[0], : threads.units]
    return lax.scan(tick, (zero, zero), (rows, factors, keep), reverse=True)[1]


FORWARD = Kernel(_forward_kernel, _forward_plain)
BACKWARD = Kernel(_backward_kernel, _backward_plain)

"""The recurrence of an LSTM layer with each time loop as one GPU kernel: the back end ``"fused"``."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from clockwork.lstm import scan
from clockwork.lstm.scan import XLA_SCAN, LSTMCall, LSTMScan, gates_of
from clockwork.lstm.weights import LSTMWeights
from clockwork.ops import mosaic
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.linalg import broadcast_batch, matmul
from clockwork.ops.mosaic import Kernel, Thread, ThreadMap, launch, over_rows, pad_to_multiple, weights_to_threads

MAX_CELLS = 44  # four weights of each sender are registers of a thread, which has 255
ROWS_AHEAD = 2  # rows that are read ahead of time


@functools.cache
def lstm_scan(interpret: bool) -> LSTMScan:
    """What evaluates the recurrence of a layer.

    Args:
        interpret: by Pallas' interpreter, on any machine, not as kernels of CUDA.
    """
    return LSTMScan(functools.partial(_scan, interpret), functools.partial(_scan_transpose, interpret))


def evaluate(
    call: LSTMCall, weights: LSTMWeights, inputs: Array | None, hidden: tuple[Array, Array], readout: Array | None
) -> tuple[Array, tuple[Array, Array]]:
    """Evaluate a layer with GPU kernels, where the program runs on a GPU: `clockwork.lstm.scan.evaluate`."""
    return scan.evaluate(call, weights, inputs, hidden, readout, lstm_scan(mosaic.INTERPRET))


def _refusal(call: LSTMCall) -> str | None:
    if call.cells > MAX_CELLS:
        return f'method "fused" takes up to {MAX_CELLS} cells, got {call.cells}'
    return mosaic.dtype_refusal(call.dtype, "fused")


def _cost(call: LSTMCall) -> Cost:
    del call
    refusal = mosaic.device_refusal()
    return Cost(0, "every time loop is one GPU kernel") if refusal is None else Cost(math.inf, refusal)


BACKEND = Backend("fused", evaluate, _refusal, _cost, lambda: "scan" if mosaic.older_gpu() else None)


def _scan(
    interpret: bool, weights: LSTMWeights, drive: Array | None, steps: int, h_0: Array, c_0: Array
) -> tuple[Array, Array, Array, Array]:
    """`LSTMScan.forward`."""
    batch, n = h_0.shape[:-1], h_0.shape[-1]
    drives = broadcast_batch(weights.bias.astype(jnp.float32), h_0)[None]
    drives = jnp.broadcast_to(drives if drive is None else drive + drives, (steps, *batch, 4 * n))
    threads = ThreadMap(n, jnp.dtype(h_0.dtype), interpret)
    count = math.prod(batch)
    own = jnp.moveaxis(drives.reshape(steps, count, 4, n), 1, 0), h_0.reshape(count, n), c_0.reshape(count, n)
    found = FORWARD(threads, (weights.recurrent[None], weights.peepholes[None]), own)
    slopes, factors, cells, hidden = (jnp.moveaxis(x, 0, 1).reshape(steps, *batch, *x.shape[2:]) for x in found)
    return slopes, factors, cells.astype(c_0.dtype), hidden.astype(h_0.dtype)


def _scan_transpose(
    interpret: bool,
    back: Array,
    onwards: Array | None,
    slopes: Array,
    factors: Array,
    outputs_bar: Array,
    h_bar: Array,
    c_bar: Array,
) -> tuple[Array, Array]:
    """`LSTMScan.backward`."""
    steps, n, sequences = slopes.shape[0], h_bar.shape[-1], math.prod(h_bar.shape[:-1])
    errors = outputs_bar if onwards is None else matmul(outputs_bar, onwards)
    errors = errors.at[-1].add(h_bar)
    threads = ThreadMap(n, jnp.dtype(jnp.float32), interpret)
    rows = [x.reshape(steps, sequences, count, n) for x, count in ((slopes, 4), (factors, 3), (errors, 1))]
    own = [jnp.moveaxis(x, 1, 0) for x in rows]
    deltas, c_bar_0 = BACKWARD(threads, back[None], (*own, c_bar.reshape(sequences, n)))
    return jnp.moveaxis(deltas, 0, 1).reshape(slopes.shape), c_bar_0.reshape(c_bar.shape)


def _forward_kernel(
    threads: ThreadMap, shared: tuple[Array, Array], own: tuple[Array, Array, Array], fixed: None
) -> tuple:
    del fixed
    recurrent, peepholes = shared
    drive, h_0, c_0 = own
    sequences, steps, k = drive.shape[0], drive.shape[1], threads.units

    def body(thread: Thread, drive: Any, h_0: Any, c_0: Any, weights: Any, peepholes: Any, found: Any) -> None:
        column = [[thread.read(weights, 4 * i + gate) for i in range(k)] for gate in range(4)]
        p = [thread.read(peepholes, gate) for gate in range(3)]

        def step(s: Array, buffer: int, row: list[Array], carry: tuple[Array, Array]) -> tuple[Array, Array]:
            h_tm1, c_tm1 = carry
            (sent,) = thread.from_units([h_tm1], buffer)
            z = [thread.product(sent, weights, more) for weights, more in zip(column, row, strict=True)]
            gates = gates_of(z, p, c_tm1)
            h_t, c_t = thread.rounded(gates.h), thread.rounded(gates.c)
            for i, x in enumerate((*gates.slopes, *gates.factors, c_t, h_t)):
                thread.write(found, x, s, i)
            return h_t, c_t

        def read(s: Array) -> list[Array]:
            return [thread.read(drive, s, gate) for gate in range(4)]

        over_rows(drive.shape[0], ROWS_AHEAD, read, step, (thread.read(h_0), thread.read(c_0)))

    rows = threads.to_threads(pad_to_multiple(jnp.moveaxis(drive, 0, 2), ROWS_AHEAD))  # (T, 4, threads)
    senders = weights_to_threads(threads, recurrent.reshape(-1, 4 * k, k), sequences)
    arrays = [
        rows,
        threads.to_threads(h_0),
        threads.to_threads(c_0),
        senders,
        weights_to_threads(threads, peepholes, sequences),
    ]
    (found,) = launch(body, threads, arrays, [(rows.shape[0], 9, rows.shape[-1])], shared=1)
    found = jnp.moveaxis(threads.from_threads(found[:steps], sequences), 2, 0)  # (M, T, 9, N)
    return found[:, :, :4], found[:, :, 4:7], found[:, :, 7], found[:, :, 8]


def _backward_kernel(
    threads: ThreadMap, back: Array, own: tuple[Array, Array, Array, Array], fixed: None
) -> tuple[Array, Array]:
    del fixed
    *rows, c_bar = own
    sequences, steps, k = rows[0].shape[0], rows[0].shape[1], threads.units

    def body(thread: Thread, slopes: Any, factors: Any, errors: Any, c_bar: Any, weights: Any, *found: Any) -> None:
        deltas, first = found
        column = [[thread.read(weights, gate * k + i) for i in range(k)] for gate in range(4)]

        def read(s: Array) -> tuple[list[Array], list[Array], Array]:
            slope = [thread.read(slopes, s, gate) for gate in range(4)]
            return slope, [thread.read(factors, s, i) for i in range(3)], thread.read(errors, s, 0)

        def step(s: Array, buffer: int, row: tuple, carry: tuple[list[Array], Array]) -> tuple[list[Array], Array]:
            delta, c_bar = carry
            slope, (one_over_o, e, d), error = row
            sums = [error, *(thread.zeros() for _ in range(3))]
            for gate, sent in enumerate(thread.from_units(delta, buffer)):
                sums[gate] = thread.product(sent, column[gate], sums[gate])
            u = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / one_over_o
            c_bar = c_bar + u * e
            delta = [(u if gate == 3 else c_bar) * slope[gate] for gate in range(4)]
            for gate in range(4):
                thread.write(deltas, delta[gate], s, gate)
            return delta, c_bar * d

        start = [thread.zeros() for _ in range(4)], thread.read(c_bar)
        _, last = over_rows(slopes.shape[0], ROWS_AHEAD, read, step, start, reverse=True)
        thread.write(first, last)

    # Padded rows and threads change nothing: with factors of 1 the cells' error passes as it is.
    fills = (0, 1, 0)
    rows = [
        pad_to_multiple(threads.to_threads(jnp.moveaxis(x, 0, 2), v), ROWS_AHEAD, v)
        for x, v in zip(rows, fills, strict=True)
    ]
    arrays = [*rows, threads.to_threads(c_bar), weights_to_threads(threads, back, sequences)]
    deltas, first = launch(body, threads, arrays, [rows[0].shape, rows[0].shape[-1:]], shared=4)
    return jnp.moveaxis(threads.from_threads(deltas[:steps], sequences), 2, 0), threads.from_threads(first, sequences)


def _forward_plain(
    threads: ThreadMap, shared: tuple[Array, Array], own: tuple[Array, Array, Array], fixed: None
) -> tuple:
    del fixed

    def run(recurrent: Array, peepholes: Array, drive: Array, h_0: Array, c_0: Array) -> tuple[Array, ...]:
        n = threads.units
        weights = LSTMWeights(jnp.zeros((0, 4 * n)), recurrent, peepholes, jnp.zeros(4 * n))
        rows = jnp.swapaxes(drive, 0, 1).reshape(drive.shape[1], drive.shape[0], 4 * n)
        found = XLA_SCAN.forward(weights, rows, drive.shape[1], h_0.astype(threads.dtype), c_0.astype(threads.dtype))
        return tuple(jnp.swapaxes(x, 0, 1).astype(jnp.float32) for x in found)

    return _each(run, shared, own)


def _backward_plain(threads: ThreadMap, back: Array, own: tuple[Array, Array, Array, Array], fixed: None) -> tuple:
    del threads, fixed

    def run(back: Array, slopes: Array, factors: Array, errors: Array, c_bar: Array) -> tuple[Array, Array]:
        slopes, factors, errors = (jnp.swapaxes(x, 0, 1) for x in (slopes, factors, errors))
        deltas, first = XLA_SCAN.backward(back, None, slopes, factors, errors[:, :, 0], jnp.zeros_like(c_bar), c_bar)
        return jnp.swapaxes(deltas, 0, 1), first

    return _each(run, (back,), own)


def _each(run: Any, shared: tuple, own: tuple) -> tuple:
    """A function of each run and its sequences."""
    runs = shared[0].shape[0]
    found = jax.vmap(run)(*shared, *(x.reshape(runs, x.shape[0] // runs, *x.shape[1:]) for x in own))
    return tuple(x.reshape(own[0].shape[0], *x.shape[2:]) for x in found)


FORWARD = Kernel(_forward_kernel, _forward_plain)
BACKWARD = Kernel(_backward_kernel, _backward_plain)

"""The recurrence of an LSTM layer with each time loop as one GPU kernel: the back end ``"fused"``."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from clockwork.lstm import scan
from clockwork.lstm.scan import LANES, LSTMCall, LSTMScan, Slopes, gates_of
from clockwork.lstm.weights import LSTMWeights
from clockwork.ops import mosaic
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.linalg import broadcast_batch, matmul
from clockwork.ops.mosaic import Kernel, Thread, ThreadMap, launch, over_rows, weights_to_threads

MAX_CELLS = 44  # a thread holds four weights of each sender in registers, of which it has 255
ROWS_AHEAD = 2  # rows to prefetch


@functools.cache
def lstm_scan(interpret: bool) -> LSTMScan:
    """The recurrence of a layer, forwards and backwards, as GPU kernels.

    Args:
        interpret: whether Pallas' interpreter evaluates the kernels, on any machine, instead of CUDA.
    """
    return LSTMScan(functools.partial(_scan, interpret), functools.partial(_scan_transpose, interpret))


def evaluate(
    call: LSTMCall, weights: LSTMWeights, inputs: Array | None, hidden: tuple[Array, Array], readout: Array | None
) -> tuple[Array, tuple[Array, Array]]:
    """Evaluate a layer, with GPU kernels if the program runs on a GPU; see `clockwork.lstm.scan.evaluate`."""
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
) -> tuple[Slopes, Array, Array]:
    """`LSTMScan.forward`."""
    batch, n = h_0.shape[:-1], h_0.shape[-1]
    drives = broadcast_batch(weights.bias.astype(jnp.float32), h_0)[None]
    drives = jnp.broadcast_to(drives if drive is None else drive + drives, (steps, *batch, 4 * n))
    threads, sequences = ThreadMap(n, jnp.dtype(h_0.dtype), interpret), math.prod(batch)
    own = _gates_outside(drives.reshape(steps, *batch, 4, n)), h_0.reshape(sequences, n), c_0.reshape(sequences, n)
    found = _gates_inside(FORWARD(threads, (weights.recurrent[None], weights.peepholes[None]), own), batch)
    cells, hidden = found[..., 7, :].astype(c_0.dtype), found[..., 8, :].astype(h_0.dtype)
    cells, hidden = jnp.concatenate([c_0[None], cells]), jnp.concatenate([h_0[None], hidden])
    return Slopes(found[..., :4, :], found[..., 4:7, :]), cells, hidden


def _scan_transpose(
    interpret: bool,
    weights: LSTMWeights,
    readout: Array | None,
    local: Slopes,
    cells: Array,
    outputs_bar: Array,
    h_bar: Array,
    c_bar: Array,
) -> tuple[Array, Array, Array]:
    """`LSTMScan.backward`."""
    del cells
    slopes, factors = local
    n, batch = h_bar.shape[-1], h_bar.shape[:-1]
    back = weights.recurrent.T.astype(slopes.dtype)
    errors = outputs_bar if readout is None else matmul(outputs_bar, readout.T.astype(slopes.dtype))
    errors = errors.at[-1].add(h_bar)
    threads, sequences = ThreadMap(n, jnp.dtype(jnp.float32), interpret), math.prod(batch)
    errors, c_bar = errors.reshape(errors.shape[0], sequences, n), c_bar.reshape(sequences, n)
    own = _gates_outside(slopes), _gates_outside(factors), errors, c_bar
    deltas, c_bar_0 = BACKWARD(threads, back[None], own)
    deltas = _gates_inside(deltas, batch)
    return deltas, matmul(deltas[0].reshape(*batch, -1), back), c_bar_0.reshape(h_bar.shape)


def _gates_outside(rows: Array) -> Array:
    """``(T, *B, n, k)`` as ``(T, n, M, k)``."""
    steps, *batch, n, k = rows.shape
    if not batch:
        return rows[:, :, None]
    return jnp.swapaxes(rows.reshape(steps, math.prod(batch), n, k), 1, 2)


def _gates_inside(rows: Array, batch: tuple[int, ...]) -> Array:
    """The inverse of `_gates_outside`."""
    if not batch:
        return rows[:, :, 0]
    return jnp.swapaxes(rows, 1, 2).reshape(rows.shape[0], *batch, rows.shape[1], rows.shape[3])


def _forward_kernel(
    threads: ThreadMap, shared: tuple[Array, Array], own: tuple[Array, Array, Array], fixed: None
) -> Array:
    """Slopes, factors, cells and hidden values ``(T, 9, M, N)`` from drive ``(T, 4, M, N)`` and states ``(M, N)``."""
    del fixed
    recurrent, peepholes = shared
    drive, h_0, c_0 = own
    steps, _, sequences, k = drive.shape

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

    rows = threads.to_threads(drive, rows=-steps % ROWS_AHEAD)  # (T, 4, threads)
    senders = weights_to_threads(threads, recurrent.reshape(-1, 4 * k, k), sequences)
    arrays = [
        rows,
        threads.to_threads(h_0),
        threads.to_threads(c_0),
        senders,
        weights_to_threads(threads, peepholes, sequences),
    ]
    (found,) = launch(body, threads, arrays, [(rows.shape[0], 9, rows.shape[-1])], shared=1)
    return threads.from_threads(found, (steps, 9, sequences, k))


def _backward_kernel(
    threads: ThreadMap, back: Array, own: tuple[Array, Array, Array, Array], fixed: None
) -> tuple[Array, Array]:
    """Deltas ``(T, 4, M, N)`` and the error of the first cells ``(M, N)``.

    Args:
        threads: static.
        back: ``(R, 4 N, N)``.
        own: slopes ``(T, 4, M, N)``, factors ``(T, 3, M, N)``, errors ``(T, M, N)``, and the errors of the last cells
            ``(M, N)``.
        fixed: not used.
    """
    del fixed
    *rows, c_bar = own
    shape, k = rows[0].shape, threads.units

    def body(thread: Thread, slopes: Any, factors: Any, errors: Any, c_bar: Any, weights: Any, *found: Any) -> None:
        deltas, first = found
        column = [[thread.read(weights, gate * k + i) for i in range(k)] for gate in range(4)]

        def read(s: Array) -> tuple[list[Array], list[Array], Array]:
            slope = [thread.read(slopes, s, gate) for gate in range(4)]
            return slope, [thread.read(factors, s, i) for i in range(3)], thread.read(errors, s)

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

    # Padded rows and threads change nothing: with factors of 1, the cells' error passes unchanged.
    fills = (0, 1, 0)
    rows = [threads.to_threads(x, v, rows=-shape[0] % ROWS_AHEAD) for x, v in zip(rows, fills, strict=True)]
    arrays = [*rows, threads.to_threads(c_bar), weights_to_threads(threads, back, shape[2])]
    deltas, first = launch(body, threads, arrays, [rows[0].shape, rows[0].shape[-1:]], shared=4)
    return threads.from_threads(deltas, shape), threads.from_threads(first, shape[2:])


def _forward_plain(
    threads: ThreadMap, shared: tuple[Array, Array], own: tuple[Array, Array, Array], fixed: None
) -> Array:
    """`_forward_kernel` in plain JAX."""
    del fixed

    def run(recurrent: Array, peepholes: Array, drive: Array, h_0: Array, c_0: Array) -> tuple[Array]:
        n, steps = threads.units, drive.shape[0]
        weights = LSTMWeights(jnp.zeros((0, 4 * n)), recurrent, peepholes, jnp.zeros(4 * n))
        rows = jnp.swapaxes(drive, 1, 2).reshape(steps, drive.shape[2], 4 * n)
        found = LANES.forward(weights, rows, steps, h_0.astype(threads.dtype), c_0.astype(threads.dtype))
        (slopes, factors), cells, hidden = jax.tree.map(lambda x: x.astype(jnp.float32), found)
        together = jnp.concatenate([slopes, factors, cells[1:, :, None], hidden[1:, :, None]], 2)
        return (jnp.swapaxes(together, 1, 2),)

    return _each(run, shared, own)[0]


def _backward_plain(
    threads: ThreadMap, back: Array, own: tuple[Array, Array, Array, Array], fixed: None
) -> tuple[Array, Array]:
    """`_backward_kernel` in plain JAX."""
    del threads, fixed

    def run(back: Array, slopes: Array, factors: Array, errors: Array, c_bar: Array) -> tuple[Array, Array]:
        slopes, factors = jnp.swapaxes(slopes, 1, 2), jnp.swapaxes(factors, 1, 2)
        n = c_bar.shape[-1]
        weights = LSTMWeights(jnp.zeros((0, 4 * n)), back.T, jnp.zeros((3, n)), jnp.zeros(4 * n))
        h_bar = jnp.zeros_like(c_bar)
        deltas, _, first = LANES.backward(weights, None, Slopes(slopes, factors), c_bar, errors, h_bar, c_bar)
        return jnp.swapaxes(deltas, 1, 2), first

    deltas, first = _each(run, (back,), own)
    return deltas, first


def _each(run: Any, shared: tuple, own: tuple) -> tuple:
    """Apply a function to each run and its sequences, which are the second-last axis of all arrays."""
    runs, sequences = shared[0].shape[0], own[0].shape[-2]
    split = [x.reshape(*x.shape[:-2], runs, sequences // runs, x.shape[-1]) for x in own]
    found = jax.vmap(run)(*shared, *(jnp.moveaxis(x, -3, 0) for x in split))
    return tuple(jnp.moveaxis(x, 0, -3).reshape(*x.shape[1:-2], sequences, x.shape[-1]) for x in found)


FORWARD = Kernel(_forward_kernel, _forward_plain)
BACKWARD = Kernel(_backward_kernel, _backward_plain)

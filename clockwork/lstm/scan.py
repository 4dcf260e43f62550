"""The recurrence of an LSTM layer as XLA scans with a hand-written gradient: the back end ``"scan"``.

It is optimised like the clockwork layer: the input projection is one product before the scan, the weight gradients
are one product after it, and many runs of few cells are SIMD arithmetic. Layers of more cells are evaluated in place
(`clockwork.lstm.in_place`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from clockwork.lstm import in_place
from clockwork.lstm.weights import LSTMWeights
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.chunked import in_chunks
from clockwork.ops.layout import Layout
from clockwork.ops.linalg import (
    accumulator,
    broadcast_batch,
    gram,
    matmul,
    outer,
    sum_over_time,
    total,
    transpose,
    units_axis,
)
from clockwork.ops.operation import apply

PyTree = Any

# Many runs are laid in the last axis up to this many cells; larger layers are evaluated run by run. With 16 runs and up
# to 101 steps, 17 cells take 1.8 times as long with the runs last, 41 take 3.6 times.
RUNS_LAST_MAX_CELLS = 16


class LSTMCall(NamedTuple):
    """A call of ``lstm_unroll``, as its back ends see it.

    Attributes:
        steps: ``T``.
        cells: ``N``.
        dtype: the dtype of the computation.
    """

    steps: int
    cells: int
    dtype: DTypeLike


class Slopes(NamedTuple):
    """Local derivatives.

    With ``h̄`` the error of ``h_t`` and ``c̄`` that of ``c_t`` from later on,
    ``u = h̄ o``, ``c̄_t = c̄ + u e``, ``δ = (c̄_t, c̄_t, c̄_t, u) slopes``, and ``c̄_t d`` goes on to ``c_{t-1}``.
    """

    slopes: Array  # (T, 4, N): g i (1 - i), c_{t-1} f (1 - f), i (1 - g²), tanh(c_t) (1 - o)
    factors: Array  # (T, 3, N): 1 / o, e = 1 - tanh(c_t)² + slopes_o p_o, d = f + slopes_i p_i + slopes_f p_f


class Residuals(NamedTuple):
    """The arrays that are saved for the backward pass."""

    local: PyTree  # sequences for the transpose of the recurrence: `Slopes`, or pre-activations (T, 4, N)
    cells: Array  # (T + 1, N)
    hidden: Array  # (T + 1, N)


class LSTM(NamedTuple):
    """The `clockwork.ops.operation.Operation` of an LSTM layer; parameters are weights and readout.

    Attributes:
        steps: ``T``.
        cells: ``N``.
        scan: evaluates the recurrence, run by run; None for XLA's scans, with many runs of few cells in the last axis.
    """

    steps: int
    cells: int
    scan: "LSTMScan | None" = None

    @property
    def runs_last(self) -> bool:
        """Whether many runs are laid in the last axis."""
        return self.scan is None and self.cells <= RUNS_LAST_MAX_CELLS

    @property
    def recurrence(self) -> "LSTMScan":
        """The functions that evaluate the recurrence."""
        return self.scan or (LANES if self.runs_last or self.steps == 1 else ROWS)

    def forward(
        self,
        layout: Layout,
        parameters: tuple[LSTMWeights, Array | None],
        inputs: Array | None,
        hidden: tuple[Array, Array],
    ) -> tuple[tuple[Array, tuple[Array, Array]], Residuals]:
        """Outputs and last state."""
        del layout
        weights, readout = parameters
        h_0, c_0 = hidden
        drive = None if inputs is None else matmul(inputs, weights.input)
        local, cells, hiddens = self.recurrence.forward(weights, drive, self.steps, h_0, c_0)
        outputs = hiddens[1:]
        outputs = outputs if readout is None else matmul(outputs, readout).astype(h_0.dtype)
        return (outputs, (hiddens[-1], cells[-1])), Residuals(local, cells, hiddens)

    def backward(
        self,
        layout: Layout,
        parameters: tuple[LSTMWeights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, tuple[Array, Array]],
    ) -> tuple[tuple[LSTMWeights, Array | None], Array | None, tuple[Array, Array]]:
        """The transpose of `forward`."""
        weights, readout = parameters
        local, cells, hidden = residuals
        dtype, axis, runs = accumulator(hidden.dtype), units_axis(weights.bias), layout.runs_last
        outputs_bar, (h_bar, c_bar) = jax.tree.map(lambda x: x.astype(dtype), cotangents)
        errors = (outputs_bar, h_bar, c_bar)
        deltas, h_bar, c_bar = self.recurrence.backward(weights, readout, local, cells, *errors)
        cells, hidden = cells.astype(dtype), hidden.astype(dtype)
        flat = _flat(deltas, deltas.ndim - 1 + axis)

        def sums(h_tm1: Array, delta: Array, c_tm1: Array, c_t: Array) -> tuple[Array, Array, Array]:
            """The gradients of recurrent weights, biases and peepholes, of one step of many runs."""
            over = tuple(range(delta.ndim - 1 + axis))
            peepholes = delta * _by_gate(c_t, c_tm1, axis)
            recurrent = outer(h_tm1, _flat(delta, delta.ndim - 1 + axis))
            return recurrent, _flat(delta.sum(over), 0), peepholes.sum(over)

        if runs:
            recurrent, bias, peepholes = sum_over_time(sums, hidden[:-1], deltas, cells[:-1], cells[1:])
            peepholes = jnp.concatenate([peepholes[:2], peepholes[3:]])
        else:
            recurrent, bias = gram(hidden[:-1], flat, runs=False), total(flat, runs=False)
            seen = [deltas[..., k, :] * c for k, c in ((0, cells[:-1]), (1, cells[:-1]), (3, cells[1:]))]
            peepholes = jnp.stack([total(x, runs=False) for x in seen])
        weights_bar = LSTMWeights(
            input=jnp.zeros(weights.input.shape, dtype)
            if inputs is None
            else gram(inputs.astype(dtype), flat, runs=runs),
            recurrent=recurrent,
            peepholes=peepholes,
            bias=bias,
        )
        readout_bar = None if readout is None else gram(hidden[1:], outputs_bar, runs=runs)
        inputs_bar = None if inputs is None else matmul(flat, transpose(weights.input).astype(dtype))
        bars = ((weights_bar, readout_bar), inputs_bar, (h_bar, c_bar))
        return jax.tree.map(lambda bar: bar.astype(cotangents[0].dtype), bars)


class LSTMScan(NamedTuple):
    """The two functions that evaluate the recurrence over time.

    Attributes:
        forward: maps weights, drive, steps and the first hidden values and cells to `Residuals.local`, cells and hidden
            values, like `clockwork.lstm.in_place.forward`.
        backward: maps weights, readout, `Residuals.local`, cells and the errors of outputs, last hidden values and last
            cells to ``δ`` and the errors of the first hidden values and cells, like `clockwork.lstm.in_place.backward`.
    """

    forward: Callable[..., tuple[PyTree, Array, Array]]
    backward: Callable[..., tuple[Array, Array, Array]]


class Gates(NamedTuple):
    """One step of a cell, and the local derivatives for its transpose (`Slopes`)."""

    h: Array
    c: Array
    slopes: tuple[Array, Array, Array, Array]
    factors: tuple[Array, Array, Array]


def gates_of(z: Sequence[Array], peepholes: Sequence[Array], c: Array) -> Gates:
    """A step of the cells, elementwise.

    Args:
        z: the pre-activations of the gates without peepholes: input, forget, cell, output.
        peepholes: the peepholes of the input, forget and output gates.
        c: the cells before the step.
    """
    z_i, z_f, z_g, z_o = z
    p_i, p_f, p_o = peepholes
    i = jax.nn.sigmoid(z_i + p_i * c)
    f = jax.nn.sigmoid(z_f + p_f * c)
    g = jnp.tanh(z_g)
    cell = f * c + i * g
    o = jax.nn.sigmoid(z_o + p_o * cell)
    squashed = jnp.tanh(cell)
    to_i, to_f, to_o = g * i * (1 - i), c * f * (1 - f), squashed * (1 - o)
    slopes = (to_i, to_f, i * (1 - jnp.square(g)), to_o)
    factors = (1 / o, 1 - jnp.square(squashed) + to_o * p_o, f + to_i * p_i + to_f * p_f)
    return Gates(o * squashed, cell, slopes, factors)


def forward(
    weights: LSTMWeights, drive: Array | None, steps: int, h_0: Array, c_0: Array
) -> tuple[Slopes, Array, Array]:
    """The recurrence, also with the runs in the last axis.

    Args:
        weights: the layer's weights.
        drive: the contribution of the inputs, ``(T, 4 N)``; None for no inputs.
        steps: ``T``.
        h_0: the first hidden values, ``(N,)``.
        c_0: the first cells, ``(N,)``.

    Returns:
        The local derivatives, and cells and hidden values, before the first step and after each, ``(T + 1, N)``.
    """
    dtype, axis = accumulator(h_0.dtype), units_axis(weights.bias)
    bias = broadcast_batch(weights.bias.astype(dtype), h_0)
    peepholes = [broadcast_batch(p, h_0) for p in weights.peepholes.astype(dtype)]

    def tick(carry: tuple[Array, Array], d_t: Array | None) -> tuple[tuple[Array, Array], tuple]:
        h_tm1, c_tm1 = carry
        z = matmul(h_tm1, weights.recurrent) + bias
        if d_t is not None:
            z = z + d_t
        step = gates_of(jnp.split(z, 4, z.ndim + axis), peepholes, c_tm1.astype(dtype))
        h_t, c_t = step.h.astype(h_tm1.dtype), step.c.astype(c_tm1.dtype)
        return (h_t, c_t), (*(jnp.stack(x, h_t.ndim + axis) for x in (step.slopes, step.factors)), c_t, h_t)

    slopes, factors, cells, hidden = lax.scan(tick, (h_0, c_0), drive, length=steps)[1]
    cells, hidden = jnp.concatenate([c_0[None], cells]), jnp.concatenate([h_0[None], hidden])
    return Slopes(slopes, factors), cells, hidden


def backward(
    weights: LSTMWeights,
    readout: Array | None,
    local: Slopes,
    cells: Array,
    outputs_bar: Array,
    h_bar: Array,
    c_bar: Array,
) -> tuple[Array, Array, Array]:
    """The recurrence, backwards.

    Args:
        weights: the layer's weights.
        readout: ``(N, O)``, or None.
        local: the local derivatives.
        cells: not used.
        outputs_bar: the errors of the outputs, ``(T, O)``, or ``(T, N)`` without a readout.
        h_bar: the errors of the last hidden values, ``(N,)``.
        c_bar: the errors of the last cells, ``(N,)``.

    Returns:
        ``δ (T, 4, N)``, and the errors of the first hidden values and cells, ``(N,)`` each.
    """
    del cells
    slopes, factors = local
    axis = units_axis(weights.bias)
    back = transpose(weights.recurrent).astype(slopes.dtype)
    readout_back = None if readout is None else transpose(readout).astype(slopes.dtype)
    gates, last = c_bar.ndim + axis, slopes.shape[0] - 1

    def tick(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple[Array, Array], Array]:
        delta_tp1, c_bar = carry
        t, slopes_t, factors_t, output_bar = xs
        one_over_o, e, d = (lax.index_in_dim(factors_t, i, gates, keepdims=False) for i in range(3))
        if readout_back is not None:
            output_bar = matmul(output_bar, readout_back)
        output_bar = output_bar + jnp.where(t == last, h_bar, 0)
        # h̄ o is used several times. XLA regards a division as expensive and computes it once; it would fuse a
        # product into each of its uses and compute it again there.
        u = (output_bar + matmul(_flat(delta_tp1, gates), back)) / one_over_o
        c_bar = c_bar + u * e
        delta_t = _by_gate(u, c_bar, axis) * slopes_t
        return (delta_t, c_bar * d), delta_t

    steps = jnp.arange(last + 1, dtype=jnp.int32)
    start = (jnp.zeros_like(slopes[0]), c_bar)
    (_, c_bar), deltas = lax.scan(tick, start, (steps, slopes, factors, outputs_bar), reverse=True)
    return deltas, matmul(_flat(deltas[0], gates), back), c_bar


# Many runs of few cells are SIMD lanes in the last axis, where products in place would be many small operations.
LANES = LSTMScan(forward, backward)
ROWS = LSTMScan(in_place.forward, in_place.backward)


def evaluate(
    call: LSTMCall,
    weights: LSTMWeights,
    inputs: Array | None,
    hidden: tuple[Array, Array],
    readout: Array | None,
    scan: LSTMScan | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Evaluate a layer.

    Args:
        call: the call of ``lstm_unroll``.
        weights: the layer's weights.
        inputs: ``(T, I)`` or None.
        hidden: ``h`` and ``c`` before the first step, ``(N,)`` each.
        readout: ``(N, O)`` or None.
        scan: GPU kernels that evaluate the recurrence; None for XLA's scans.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last ``h`` and ``c``.
    """
    operation = in_chunks(LSTM(call.steps, call.cells, scan), call.steps, cached=scan is None)
    return apply(operation, (weights, readout), inputs, hidden)


BACKEND = Backend("scan", evaluate, lambda call: None, lambda call: Cost(1, "one scan over time"))


def _by_gate(output: Array, others: Array, axis: int) -> Array:
    """``(..., 4, N)``: the first array for the output gate, the second for the other three."""
    of_output = (jnp.arange(4) == 3).reshape(4, *(1,) * -axis)
    output, others = (jnp.expand_dims(x, x.ndim + axis) for x in (output, others))
    shape = list(output.shape)
    shape[axis - 1] = 4
    return jnp.where(jnp.broadcast_to(broadcast_batch(of_output, output), shape), output, others)


def _flat(x: Array, gates: int) -> Array:
    """``(4, N)`` as ``(4 N,)``."""
    return x.reshape(*x.shape[:gates], -1, *x.shape[gates + 2 :])

"""The recurrence of a layer of gated recurrent units, and its gradient by hand.

The input projection is one product before the scan over time, and each gradient of weights is one product after it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork.gru.weights import GRUWeights
from clockwork.ops.chunked import in_chunks
from clockwork.ops.layout import Layout
from clockwork.ops.linalg import (
    accumulator,
    broadcast_batch,
    gram,
    matmul,
    total,
    transpose,
    units_axis,
)
from clockwork.ops.operation import apply

# Many runs are laid in the last axis up to this many units; larger layers are evaluated run by run.
RUNS_LAST_MAX_CELLS = 16


class Residuals(NamedTuple):
    """The arrays that are saved for the backward pass.

    Attributes:
        gates: ``r``, ``z`` and ``n`` of each step, ``(T, 3 N)``.
        received: ``R_n h_{t-1} + c_n``, ``(T, N)``.
        hidden: the state before the first step and after each, ``(T + 1, N)``.
    """

    gates: Array
    received: Array
    hidden: Array


class GRU(NamedTuple):
    """The `clockwork.ops.operation.Operation` of a layer of gated recurrent units; parameters are weights and readout.

    Attributes:
        steps: ``T``.
        cells: ``N``.
    """

    steps: int
    cells: int

    @property
    def runs_last(self) -> bool:
        """Whether many runs are laid in the last axis."""
        return self.cells <= RUNS_LAST_MAX_CELLS

    def forward(
        self, layout: Layout, parameters: tuple[GRUWeights, Array | None], inputs: Array | None, hidden: Array
    ) -> tuple[tuple[Array, Array], Residuals]:
        """Outputs and last state."""
        del layout
        weights, readout = parameters
        dtype, axis = accumulator(hidden.dtype), units_axis(weights.bias)
        bias, extra = (broadcast_batch(b.astype(dtype), hidden) for b in (weights.bias, weights.recurrent_bias))
        drive = None if inputs is None else matmul(inputs, weights.input)

        def tick(h_tm1: Array, drive_t: Array | None) -> tuple[Array, tuple[Array, Array, Array]]:
            x_r, x_z, x_n = self._split(bias if drive_t is None else drive_t + bias, axis)
            s_r, s_z, s_n = self._split(matmul(h_tm1, weights.recurrent), axis)
            r, z, s_n = jax.nn.sigmoid(x_r + s_r), jax.nn.sigmoid(x_z + s_z), s_n + extra
            n = jnp.tanh(x_n + r * s_n)
            h_t = (n + z * (h_tm1.astype(dtype) - n)).astype(h_tm1.dtype)
            return h_t, (jnp.concatenate([r, z, n], r.ndim + axis), s_n, h_t)

        last, (gates, received, hiddens) = lax.scan(tick, hidden, drive, length=self.steps)
        hiddens = jnp.concatenate([hidden[None], hiddens])
        outputs = hiddens[1:]
        outputs = outputs if readout is None else matmul(outputs, readout).astype(hidden.dtype)
        return (outputs, last), Residuals(gates, received, hiddens)

    def backward(
        self,
        layout: Layout,
        parameters: tuple[GRUWeights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, Array],
    ) -> tuple[tuple[GRUWeights, Array | None], Array | None, Array]:
        """The transpose of `forward`.

        With ``e`` the error of ``h_t``: ``δ_n = e (1 - z) (1 - n²)``, ``δ_z = e (h_{t-1} - n) z (1 - z)``,
        ``δ_r = δ_n s_n r (1 - r)``, and ``e z + (δ_r, δ_z, δ_n r) Rᵀ`` goes on to ``h_{t-1}``.
        """
        weights, readout = parameters
        gates, received, hidden = residuals
        dtype, axis, runs = gates.dtype, units_axis(weights.bias), layout.runs_last
        outputs_bar, last_bar = (x.astype(dtype) for x in cotangents)
        hidden = hidden.astype(dtype)
        back = transpose(weights.recurrent).astype(dtype)
        to_outputs = None if readout is None else transpose(readout).astype(dtype)

        def tick(error: Array, xs: tuple[Array, Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            gates_t, s_n, h_tm1, output_bar = xs
            error = error + (output_bar if to_outputs is None else matmul(output_bar, to_outputs))
            r, z, n = self._split(gates_t, axis)
            d_n = error * (1 - z) * (1 - jnp.square(n))
            d_z = error * (h_tm1 - n) * z * (1 - z)
            d_r = d_n * s_n * r * (1 - r)
            delta, sent_n = jnp.concatenate([d_r, d_z, d_n], d_n.ndim + axis), d_n * r
            sent = jnp.concatenate([d_r, d_z, sent_n], d_n.ndim + axis)
            return error * z + matmul(sent, back), (delta, sent_n)

        xs = (gates, received, hidden[:-1], outputs_bar)
        hidden_bar, (deltas, sent) = lax.scan(tick, last_bar, xs, reverse=True)
        before = hidden[:-1]
        to_gates = lax.slice_in_dim(deltas, 0, 2 * self.cells, axis=deltas.ndim + axis)
        weights_bar = GRUWeights(
            input=jnp.zeros(weights.input.shape, dtype)
            if inputs is None
            else gram(inputs.astype(dtype), deltas, runs=runs),
            recurrent=jnp.concatenate([gram(before, to_gates, runs=runs), gram(before, sent, runs=runs)], 1),
            bias=total(deltas, runs=runs),
            recurrent_bias=total(sent, runs=runs),
        )
        readout_bar = None if readout is None else gram(hidden[1:], outputs_bar, runs=runs)
        inputs_bar = None if inputs is None else matmul(deltas, transpose(weights.input).astype(dtype))
        bars = ((weights_bar, readout_bar), inputs_bar, hidden_bar)
        return jax.tree.map(lambda bar: bar.astype(cotangents[0].dtype), bars)

    def _split(self, x: Array, axis: int) -> list[Array]:
        """The parts for the reset gate, the update gate and the candidate."""
        n = self.cells
        return [lax.slice_in_dim(x, i * n, (i + 1) * n, axis=x.ndim + axis) for i in range(3)]


def evaluate(
    steps: int, weights: GRUWeights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate a layer.

    Args:
        steps: ``T``.
        weights: the layer's weights.
        inputs: ``(T, I)`` or None.
        hidden: ``(N,)``, the state before the first step.
        readout: ``(N, O)`` or None.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last state ``(N,)``.
    """
    operation = in_chunks(GRU(steps, weights.recurrent.shape[0]), steps)
    return apply(operation, (weights, readout), inputs, hidden)

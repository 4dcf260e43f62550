"""The LSTM with peepholes and a forget gate, the paper's stronger baseline.

It gets the same care as the clockwork layer: the input projection is one product before the
loop, the weight gradients are one product after it, runs are SIMD arithmetic.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from clockwork.recurrence import arithmetic, check_steps
from clockwork.recurrence.kernel import run

# Layers of up to this many cells of many runs are evaluated side by side, larger ones each by itself.
SMALL = 64


class LSTMWeights(NamedTuple):
    """Weights of a layer of ``N`` peephole LSTM cells; gates in the order input, forget, cell, output.

    Attributes:
        input: ``(I, 4 N)``; I is 0 for a layer without inputs.
        recurrent: ``(N, 4 N)``, applied as ``h @ W``.
        peepholes: ``(3, N)``, of the input, forget and output gates.
        bias: ``(4 N,)``.
    """

    input: Array
    recurrent: Array
    peepholes: Array
    bias: Array


def lstm_init(
    key: Array,
    cells: int,
    inputs: int = 0,
    stddev: float = 0.1,
    forget_bias: float | None = None,
    dtype: DTypeLike = jnp.float32,
) -> LSTMWeights:
    """Draw all weights and biases from N(0, stddev²).

    Args:
        key: a JAX random key.
        cells: ``N``, the number of cells.
        inputs: ``I``, the number of inputs; 0 for none.
        stddev: the standard deviation.
        forget_bias: the initial bias of every forget gate; None to draw it like all others. The
            paper sets 5 "to encourage the long-term memory" (Koutník et al. 2014, sec. 4.1).
        dtype: of the weights.

    Raises:
        ValueError: if there is no cell, or ``inputs`` or ``stddev`` is negative.

    Example:
        >>> import jax
        >>> weights = lstm_init(jax.random.key(0), cells=15, forget_bias=5.0)
        >>> weights.recurrent.shape, float(weights.bias[15])
        ((15, 60), 5.0)
    """
    if cells < 1:
        raise ValueError(f"cells must be at least 1, got {cells}")
    if inputs < 0:
        raise ValueError(f"inputs must be at least 0, got {inputs}")
    if stddev < 0:
        raise ValueError(f"stddev must be at least 0, got {stddev}")
    shapes = ((inputs, 4 * cells), (cells, 4 * cells), (3, cells), (4 * cells,))
    keys = jax.random.split(key, len(shapes))
    drawn = [stddev * jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)]
    weights = LSTMWeights(*drawn)
    if forget_bias is not None:
        weights = weights._replace(bias=weights.bias.at[cells : 2 * cells].set(forget_bias))
    return weights


def lstm_unroll(
    weights: LSTMWeights,
    inputs: ArrayLike | None = None,
    *,
    steps: int | None = None,
    hidden: tuple[ArrayLike, ArrayLike] | None = None,
    readout: ArrayLike | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Run a layer of peephole LSTM cells over a sequence (Graves 2008; Gers et al. 2002).

    ``i_t = σ(W_i x_t + R_i h_{t-1} + p_i c_{t-1} + b_i)``,
    ``f_t = σ(W_f x_t + R_f h_{t-1} + p_f c_{t-1} + b_f)``,
    ``c_t = f_t c_{t-1} + i_t tanh(W_c x_t + R_c h_{t-1} + b_c)``,
    ``o_t = σ(W_o x_t + R_o h_{t-1} + p_o c_t + b_o)``, ``h_t = o_t tanh(c_t)``.

    Unbatched, pure and differentiable in reverse mode; batches and runs are the caller's
    ``jax.vmap``, which over weights puts the runs side by side as SIMD arithmetic.

    Args:
        weights: of one layer.
        inputs: ``(T, I)``; None for a layer without inputs, which takes ``steps`` instead.
        steps: ``T``, where there are no inputs; static.
        hidden: ``h`` and ``c``, ``(N,)`` each, before the first step; zeros if None.
        readout: ``(N, O)``: return ``h @ readout`` in place of the hidden values.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last ``h`` and ``c``.

    Raises:
        ValueError: if both or neither of ``inputs`` and ``steps`` are given, a shape does not
            fit, or there is no step.

    Example:
        >>> import jax
        >>> weights = lstm_init(jax.random.key(0), cells=15)
        >>> outputs, (h, c) = lstm_unroll(weights, steps=320)
        >>> outputs.shape, c.shape
        ((320, 15), (15,))
    """
    cells = weights.recurrent.shape[0]
    shapes = ((weights.input.shape[0], 4 * cells), (cells, 4 * cells), (3, cells), (4 * cells,))
    if tuple(w.shape for w in weights) != shapes:
        raise ValueError(f"weights must have shapes {shapes}, got {tuple(w.shape for w in weights)}")
    if (inputs is None) == (steps is None):
        raise ValueError(f"give either inputs or steps, got {'neither' if inputs is None else 'both'}")
    if inputs is not None:
        inputs = jnp.asarray(inputs)
        if inputs.ndim != 2 or inputs.shape[1] != weights.input.shape[0]:
            raise ValueError(
                f"inputs must have shape (T, {weights.input.shape[0]}), got {inputs.shape}; batch with jax.vmap"
            )
        steps = inputs.shape[0]
    elif weights.input.shape[0]:
        raise ValueError(f"weights are those of a layer with {weights.input.shape[0]} inputs, got none")
    steps = check_steps(steps)
    given = [jnp.asarray(x) for x in (*(hidden or ()), *((inputs,) if inputs is not None else ()))]
    dtype = jnp.result_type(weights.bias, *given)
    if hidden is None:
        hidden = (jnp.zeros(cells, dtype), jnp.zeros(cells, dtype))
    h, c = (jnp.asarray(x).astype(dtype) for x in hidden)
    if h.shape != (cells,) or c.shape != (cells,):
        raise ValueError(f"hidden must be two arrays of shape {(cells,)}, got {h.shape} and {c.shape}")
    if readout is not None:
        readout = jnp.asarray(readout).astype(dtype)
        if readout.ndim != 2 or readout.shape[0] != cells:
            raise ValueError(f"readout must have shape ({cells}, O), got {readout.shape}")
    weights = LSTMWeights(*(w.astype(dtype) for w in weights))
    inputs = None if inputs is None else inputs.astype(dtype)
    return run(LSTMKernel(steps, cells), (weights, readout), inputs, (h, c))


class Residuals(NamedTuple):
    """What the backward pass needs."""

    gates: Array  # (T, 4 N) after their nonlinearities
    cells: Array  # (T + 1, N)
    hidden: Array  # (T + 1, N)


class LSTMKernel(NamedTuple):
    """The `clockwork.recurrence.kernel.Kernel` of an LSTM layer; parameters are weights and readout."""

    steps: int
    cells: int

    @property
    def small(self) -> bool:
        """Whether runs are laid side by side."""
        return self.cells <= SMALL

    def forward(
        self, parameters: tuple[LSTMWeights, Array | None], inputs: Array | None, hidden: tuple[Array, Array]
    ) -> tuple[tuple[Array, tuple[Array, Array]], Residuals]:
        """Outputs and last state."""
        weights, readout = parameters
        h_0, c_0 = hidden
        axis = arithmetic.units_axis(weights.bias)
        accumulator = arithmetic.accumulator(h_0.dtype)
        bias = arithmetic.below(weights.bias.astype(accumulator), h_0)
        p_i, p_f, p_o = (arithmetic.below(p, h_0) for p in weights.peepholes.astype(accumulator))
        drive = None if inputs is None else arithmetic.matmul(inputs, weights.input)

        def tick(carry: tuple[Array, Array], d_t: Array | None) -> tuple[tuple[Array, Array], tuple]:
            h_tm1, c_tm1 = carry
            c_tm1 = c_tm1.astype(accumulator)
            z = arithmetic.matmul(h_tm1, weights.recurrent) + bias
            if d_t is not None:
                z = z + d_t
            z_i, z_f, z_g, z_o = jnp.split(z, 4, z.ndim + axis)
            i = jax.nn.sigmoid(z_i + p_i * c_tm1)
            f = jax.nn.sigmoid(z_f + p_f * c_tm1)
            g = jnp.tanh(z_g)
            c_t = f * c_tm1 + i * g
            o = jax.nn.sigmoid(z_o + p_o * c_t)
            h_t = (o * jnp.tanh(c_t)).astype(h_tm1.dtype)
            c_t = c_t.astype(h_tm1.dtype)
            return (h_t, c_t), (jnp.concatenate([i, f, g, o], z.ndim + axis), c_t, h_t)

        (h, c), (gates, cells, hiddens) = lax.scan(tick, (h_0, c_0), drive, length=self.steps)
        outputs = hiddens if readout is None else arithmetic.matmul(hiddens, readout).astype(h.dtype)
        residuals = Residuals(gates, jnp.concatenate([c_0[None], cells]), jnp.concatenate([h_0[None], hiddens]))
        return (outputs, (h, c)), residuals

    def backward(
        self,
        parameters: tuple[LSTMWeights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, tuple[Array, Array]],
    ) -> tuple[tuple[LSTMWeights, Array | None], Array | None, tuple[Array, Array]]:
        """The transpose of `forward`."""
        weights, readout = parameters
        dtype, accumulator = cotangents[0].dtype, residuals.gates.dtype
        axis = arithmetic.units_axis(weights.bias)
        runs = axis == -2
        outputs_bar, (h_bar, c_bar) = jax.tree.map(lambda x: x.astype(accumulator), cotangents)
        cells, hidden = residuals.cells.astype(accumulator), residuals.hidden.astype(accumulator)
        units = cells.ndim + axis
        i, f, g, o = jnp.split(residuals.gates, 4, units)
        p_i, p_f, p_o = (arithmetic.below(p, c_bar) for p in weights.peepholes.astype(accumulator))
        back = arithmetic.transpose(weights.recurrent).astype(accumulator)
        readout_bar = None
        if readout is not None:
            readout_bar = arithmetic.gram(hidden[1:], outputs_bar, runs=runs)
            outputs_bar = arithmetic.matmul(outputs_bar, arithmetic.transpose(readout).astype(accumulator))
        squashed = jnp.tanh(cells[1:])
        # What each error is a multiple of; all of it known before the loop. The output's error times o
        # is used three times. As a division by 1 / o, which XLA takes for expensive, it is computed once;
        # as a product it would be fused into, and computed again for, each of its uses.
        slopes = (
            g * i * (1 - i),
            cells[:-1] * f * (1 - f),
            i * (1 - jnp.square(g)),
            squashed * (1 - o),
            1 - jnp.square(squashed),
            1 / o,
        )

        def tick(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple[Array, Array], Array]:
            delta_tp1, cell_bar = carry
            output_bar, f_t, (to_i, to_f, to_g, to_o, to_c, one_over_o) = xs
            gated_bar = (output_bar + arithmetic.matmul(delta_tp1, back)) / one_over_o
            delta_o = gated_bar * to_o
            cell_bar = cell_bar + gated_bar * to_c + delta_o * p_o
            delta_i, delta_f = cell_bar * to_i, cell_bar * to_f
            delta_t = jnp.concatenate([delta_i, delta_f, cell_bar * to_g, delta_o], units - 1)
            return (delta_t, cell_bar * f_t + delta_i * p_i + delta_f * p_f), delta_t

        # The last state is an output as well: its error arrives with the last step's.
        outputs_bar = jnp.concatenate([outputs_bar[:-1], outputs_bar[-1:] + h_bar[None]])
        start = (jnp.concatenate([jnp.zeros_like(c_bar)] * 4, units - 1), c_bar)
        (delta, cell_bar), deltas = lax.scan(tick, start, (outputs_bar, f, slopes), reverse=True)
        delta_i, delta_f, _, delta_o = jnp.split(deltas, 4, units)
        pairs = ((delta_i, cells[:-1]), (delta_f, cells[:-1]), (delta_o, cells[1:]))
        weights_bar = LSTMWeights(
            input=jnp.zeros(weights.input.shape, accumulator)
            if inputs is None
            else arithmetic.gram(inputs.astype(accumulator), deltas, runs=runs),
            recurrent=arithmetic.gram(hidden[:-1], deltas, runs=runs),
            peepholes=jnp.stack([arithmetic.total(delta * cell, runs=runs) for delta, cell in pairs]),
            bias=arithmetic.total(deltas, runs=runs),
        )
        inputs_bar = None
        if inputs is not None:
            inputs_bar = arithmetic.matmul(deltas, arithmetic.transpose(weights.input).astype(accumulator))
        bars = ((weights_bar, readout_bar), inputs_bar, (arithmetic.matmul(delta, back), cell_bar))
        return jax.tree.map(lambda bar: bar.astype(dtype), bars)

"""The LSTM with peepholes and a forget gate, the paper's stronger baseline.

It gets the same care as the clockwork layer: the input projection is one product before the
loop, the weight gradients are one product after it, runs are SIMD arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import ArgumentError, finite, integer, shown
from clockwork.ops.chunked import in_pieces
from clockwork.ops.linalg import (
    accumulator,
    below,
    gram,
    matmul,
    outer,
    over_time,
    transpose,
    units_axis,
)
from clockwork.ops.operation import run
from clockwork.recurrence.layer import check_steps, takes_kernels

# Layers of up to this many cells of many runs are evaluated side by side, larger ones each by itself: with 16 runs and
# up to 101 steps, 17 cells take 1.8 times as long side by side, 41 take 3.6 times.
SMALL = 16
METHODS = ("auto", "scan", "fused")
# Cells that a fused kernel takes: four weights of each sender are registers of a thread, which has 255.
MOST = 44


class LSTMWeights(NamedTuple):
    """Weights of a layer of ``N`` peephole LSTM cells; gates in the order input, forget, cell, output.

    Arrays of one floating-point dtype; a pytree.

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
        ValueError: if there is no cell, ``inputs`` or ``stddev`` is negative, or a number is not finite.

    Example:
        >>> import jax
        >>> weights = lstm_init(jax.random.key(0), cells=15, forget_bias=5.0)
        >>> weights.recurrent.shape, float(weights.bias[15])
        ((15, 60), 5.0)
    """
    cells, inputs = integer("cells", cells, least=1), integer("inputs", inputs, least=0)
    stddev = finite("stddev", stddev, least=0)
    forget_bias = None if forget_bias is None else finite("forget_bias", forget_bias)
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
    method: Literal["auto", "scan", "fused"] = "auto",
) -> tuple[Array, tuple[Array, Array]]:
    """Run a layer of peephole LSTM cells over a sequence (Graves 2008; Gers et al. 2002).

    ``i_t = σ(W_i x_t + R_i h_{t-1} + p_i c_{t-1} + b_i)``,
    ``f_t = σ(W_f x_t + R_f h_{t-1} + p_f c_{t-1} + b_f)``,
    ``c_t = f_t c_{t-1} + i_t tanh(W_c x_t + R_c h_{t-1} + b_c)``,
    ``o_t = σ(W_o x_t + R_o h_{t-1} + p_o c_t + b_o)``, ``h_t = o_t tanh(c_t)``.

    Unbatched, pure and differentiable once; batches and runs are the caller's
    ``jax.vmap``, which over weights puts the runs side by side as SIMD lanes.

    Args:
        weights: of one layer.
        inputs: ``(T, I)``; None for a layer without inputs, which takes ``steps`` instead.
        steps: ``T``, where there are no inputs; static.
        hidden: ``h`` and ``c``, ``(N,)`` each, before the first step; zeros if None.
        readout: ``(N, O)``: return ``h @ readout`` in place of the hidden values.
        method: ``"scan"``; ``"fused"``: each time loop as one kernel, on NVIDIA's GPUs from Hopper on (the scan
            elsewhere), for float32 or bfloat16 and up to 44 cells; ``"auto"``: the latter where it can be.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last ``h`` and ``c``.

    Raises:
        ValueError: if both or neither of ``inputs`` and ``steps`` are given, a shape does not
            fit, there is no step, or the method is unknown or not for such a layer.

    Example:
        >>> import jax
        >>> weights = lstm_init(jax.random.key(0), cells=15)
        >>> outputs, (h, c) = lstm_unroll(weights, steps=320)
        >>> outputs.shape, c.shape
        ((320, 15), (15,))
    """
    if not isinstance(weights, LSTMWeights):
        raise ArgumentError("weights", f"must be LSTMWeights, such as lstm_init(key, cells), got {shown(weights)}")
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
    kernel = LSTMKernel(steps, cells, _loops(method, cells, dtype))
    return run(in_pieces(kernel, steps, fused=kernel.loops is not None), (weights, readout), inputs, (h, c))


def _loops(method: str, cells: int, dtype: DTypeLike) -> "Loops | None":
    """What the layer is evaluated with; None for the loops of XLA."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    refusal = f"up to {MOST} cells, got {cells}" if cells > MOST else None
    if not takes_kernels(method, refusal, dtype):
        return None
    from clockwork.lstm import cuda
    from clockwork.ops import mosaic

    return cuda.loops(mosaic.INTERPRET)


class Residuals(NamedTuple):
    """What the backward pass needs: what errors are multiplied with, all computed with the gates at hand.

    With ``h̄`` the error of ``h_t`` and ``c̄`` that of ``c_t`` from later on,
    ``u = h̄ o``, ``c̄_t = c̄ + u e``, ``δ = (c̄_t, c̄_t, c̄_t, u) slopes``, and ``c̄_t d`` goes on to ``c_{t-1}``.
    """

    slopes: Array  # (T, 4, N): g i (1 - i), c_{t-1} f (1 - f), i (1 - g²), tanh(c_t) (1 - o)
    factors: Array  # (T, 3, N): 1 / o, e = 1 - tanh(c_t)² + slopes_o p_o, d = f + slopes_i p_i + slopes_f p_f
    cells: Array  # (T + 1, N)
    hidden: Array  # (T + 1, N)


class LSTMKernel(NamedTuple):
    """The `clockwork.ops.operation.Kernel` of an LSTM layer; parameters are weights and readout."""

    steps: int
    cells: int
    loops: "Loops | None" = None  # None for those of XLA, many runs of few cells side by side

    @property
    def small(self) -> bool:
        """Whether runs are laid side by side."""
        return self.loops is None and self.cells <= SMALL

    def forward(
        self, parameters: tuple[LSTMWeights, Array | None], inputs: Array | None, hidden: tuple[Array, Array]
    ) -> tuple[tuple[Array, tuple[Array, Array]], Residuals]:
        """Outputs and last state."""
        weights, readout = parameters
        h_0, c_0 = hidden
        drive = None if inputs is None else matmul(inputs, weights.input)
        slopes, factors, cells, hiddens = (self.loops or LOOPS).forward(weights, drive, self.steps, h_0, c_0)
        outputs = hiddens if readout is None else matmul(hiddens, readout).astype(h_0.dtype)
        cells, hiddens = jnp.concatenate([c_0[None], cells]), jnp.concatenate([h_0[None], hiddens])
        return (outputs, (hiddens[-1], cells[-1])), Residuals(slopes, factors, cells, hiddens)

    def backward(
        self,
        parameters: tuple[LSTMWeights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, tuple[Array, Array]],
    ) -> tuple[tuple[LSTMWeights, Array | None], Array | None, tuple[Array, Array]]:
        """The transpose of `forward`."""
        weights, readout = parameters
        slopes, factors, cells, hidden = residuals
        dtype, axis = slopes.dtype, units_axis(weights.bias)
        outputs_bar, (h_bar, c_bar) = jax.tree.map(lambda x: x.astype(dtype), cotangents)
        cells, hidden = cells.astype(dtype), hidden.astype(dtype)
        back = transpose(weights.recurrent).astype(dtype)
        onwards = None if readout is None else transpose(readout).astype(dtype)
        gates = c_bar.ndim + axis  # the axis of the gates in (*B, 4, N, [R])
        deltas, c_bar = (self.loops or LOOPS).backward(back, onwards, slopes, factors, outputs_bar, h_bar, c_bar)

        def sums(h_tm1: Array, delta: Array, c_tm1: Array, c_t: Array) -> tuple[Array, Array, Array]:
            """The gradients of recurrent weights, biases and peepholes, of one step or of all."""
            over = tuple(range(delta.ndim - 1 + axis))
            peepholes = delta * _choose(c_t, c_tm1, axis)
            flat = _flat(delta, delta.ndim - 1 + axis)
            recurrent = outer(h_tm1, flat) if runs else gram(h_tm1, flat, runs=False)
            return recurrent, delta.sum(over), peepholes.sum(over)

        runs = axis == -2
        terms = (hidden[:-1], deltas, cells[:-1], cells[1:])
        recurrent, bias, peepholes = over_time(sums, *terms) if runs else sums(*terms)
        flat = _flat(deltas, gates + 1)
        weights_bar = LSTMWeights(
            input=jnp.zeros(weights.input.shape, dtype)
            if inputs is None
            else gram(inputs.astype(dtype), flat, runs=runs),
            recurrent=recurrent,
            peepholes=jnp.concatenate([peepholes[:2], peepholes[3:]]),
            bias=_flat(bias, 0),
        )
        readout_bar = None if readout is None else gram(hidden[1:], outputs_bar, runs=runs)
        inputs_bar = None if inputs is None else matmul(flat, transpose(weights.input).astype(dtype))
        bars = ((weights_bar, readout_bar), inputs_bar, (matmul(_flat(deltas[0], gates), back), c_bar))
        return jax.tree.map(lambda bar: bar.astype(cotangents[0].dtype), bars)


class Loops(NamedTuple):
    """What the recurrence is evaluated with.

    Attributes:
        forward: as `_scan`.
        backward: as `_scan_transpose`.
    """

    forward: Callable[..., tuple[Array, Array, Array, Array]]
    backward: Callable[..., tuple[Array, Array]]


class Gates(NamedTuple):
    """One step of a cell, and what its transpose needs (`Residuals`)."""

    h: Array
    c: Array
    slopes: tuple[Array, Array, Array, Array]
    factors: tuple[Array, Array, Array]


def gates_of(z: Sequence[Array], peepholes: Sequence[Array], c: Array) -> Gates:
    """A step of the cells, elementwise.

    Args:
        z: what each gate is sent: input, forget, cell, output.
        peepholes: of the input, forget and output gates.
        c: the cells before.
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


def _scan(
    weights: LSTMWeights, drive: Array | None, steps: int, h_0: Array, c_0: Array
) -> tuple[Array, Array, Array, Array]:
    """The recurrence.

    Args:
        weights: of the layer.
        drive: what the inputs send, ``(T, 4 N)``; None for no inputs.
        steps: ``T``.
        h_0: ``(N,)``.
        c_0: ``(N,)``.

    Returns:
        Slopes ``(T, 4, N)``, factors ``(T, 3, N)``, cells and hidden ``(T, N)``.
    """
    dtype, axis = accumulator(h_0.dtype), units_axis(weights.bias)
    bias = below(weights.bias.astype(dtype), h_0)
    peepholes = [below(p, h_0) for p in weights.peepholes.astype(dtype)]

    def tick(carry: tuple[Array, Array], d_t: Array | None) -> tuple[tuple[Array, Array], tuple]:
        h_tm1, c_tm1 = carry
        z = matmul(h_tm1, weights.recurrent) + bias
        if d_t is not None:
            z = z + d_t
        step = gates_of(jnp.split(z, 4, z.ndim + axis), peepholes, c_tm1.astype(dtype))
        h_t, c_t = step.h.astype(h_tm1.dtype), step.c.astype(c_tm1.dtype)
        return (h_t, c_t), (*(jnp.stack(x, h_t.ndim + axis) for x in (step.slopes, step.factors)), c_t, h_t)

    return lax.scan(tick, (h_0, c_0), drive, length=steps)[1]


def _scan_transpose(
    back: Array, onwards: Array | None, slopes: Array, factors: Array, outputs_bar: Array, h_bar: Array, c_bar: Array
) -> tuple[Array, Array]:
    """The recurrence, backwards.

    Args:
        back: ``(4 N, N)``, the recurrent weights transposed.
        onwards: ``(O, N)``, the readout transposed; None for none.
        slopes: ``(T, 4, N)``.
        factors: ``(T, 3, N)``.
        outputs_bar: ``(T, O)``, or ``(T, N)`` without a readout.
        h_bar: ``(N,)``, of the last hidden values.
        c_bar: ``(N,)``, of the last cells.

    Returns:
        ``δ (T, 4, N)``, and the error of the first cells ``(N,)``.
    """
    axis = units_axis(back[0])
    gates, last = c_bar.ndim + axis, slopes.shape[0] - 1

    def tick(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple[Array, Array], Array]:
        delta_tp1, c_bar = carry
        t, slopes_t, factors_t, output_bar = xs
        one_over_o, e, d = (lax.index_in_dim(factors_t, i, gates, keepdims=False) for i in range(3))
        if onwards is not None:
            output_bar = matmul(output_bar, onwards)
        output_bar = output_bar + jnp.where(t == last, h_bar, 0)
        # h̄ o is used several times. As a division, which XLA takes for expensive, it is computed once; as a
        # product it would be fused into, and computed again for, each of its uses.
        u = (output_bar + matmul(_flat(delta_tp1, gates), back)) / one_over_o
        c_bar = c_bar + u * e
        delta_t = _choose(u, c_bar, axis) * slopes_t
        return (delta_t, c_bar * d), delta_t

    steps = jnp.arange(last + 1, dtype=jnp.int32)
    start = (jnp.zeros_like(slopes[0]), c_bar)
    (_, c_bar), deltas = lax.scan(tick, start, (steps, slopes, factors, outputs_bar), reverse=True)
    return deltas, c_bar


LOOPS = Loops(_scan, _scan_transpose)


def _choose(output: Array, others: Array, axis: int) -> Array:
    """``(..., 4, N)``: one for the output gate, the other for the rest."""
    of_output = (jnp.arange(4) == 3).reshape(4, *(1,) * -axis)
    output, others = (jnp.expand_dims(x, x.ndim + axis) for x in (output, others))
    shape = list(output.shape)
    shape[axis - 1] = 4
    return jnp.where(jnp.broadcast_to(below(of_output, output), shape), output, others)


def _flat(x: Array, gates: int) -> Array:
    """``(4, N)`` as ``(4 N,)``."""
    return x.reshape(*x.shape[:gates], -1, *x.shape[gates + 2 :])

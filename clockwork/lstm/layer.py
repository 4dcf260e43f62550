"""The public functions of a layer of LSTM cells over a sequence, and the choice of the back end."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import shaped
from clockwork.lstm import cuda, scan
from clockwork.lstm.scan import LSTMCall
from clockwork.lstm.weights import LSTMWeights, check_lstm_weights
from clockwork.ops import backend
from clockwork.ops.backend import choose
from clockwork.ops.chunked import check_steps

Method = Literal["auto", "scan", "fused"]
BACKENDS = (scan.BACKEND, cuda.BACKEND)


def lstm_unroll(
    weights: LSTMWeights,
    inputs: ArrayLike | None = None,
    *,
    steps: int | None = None,
    hidden: tuple[ArrayLike, ArrayLike] | None = None,
    readout: ArrayLike | None = None,
    method: Method = "auto",
) -> tuple[Array, tuple[Array, Array]]:
    """Run a layer of peephole LSTM cells over a sequence (Graves 2008; Gers et al. 2002).

    ``i_t = σ(W_i x_t + R_i h_{t-1} + p_i c_{t-1} + b_i)``,
    ``f_t = σ(W_f x_t + R_f h_{t-1} + p_f c_{t-1} + b_f)``,
    ``c_t = f_t c_{t-1} + i_t tanh(W_c x_t + R_c h_{t-1} + b_c)``,
    ``o_t = σ(W_o x_t + R_o h_{t-1} + p_o c_t + b_o)``, ``h_t = o_t tanh(c_t)``.

    The function is unbatched, pure and differentiable once; use ``jax.vmap`` for batches and runs. A ``vmap`` over
    weights puts the runs of small layers side by side in the last axis, for SIMD arithmetic.

    Args:
        weights: the layer's weights.
        inputs: ``(T, I)``; None for a layer without inputs, which takes ``steps`` instead.
        steps: ``T``, for layers without inputs; static.
        hidden: ``h`` and ``c``, ``(N,)`` each, before the first step; zeros if None.
        readout: ``(N, O)``: return ``h @ readout`` in place of the hidden values.
        method: ``"scan"``, XLA's loops; ``"fused"``: each time loop as one kernel, on NVIDIA GPUs from Hopper on (the
            scan elsewhere), for float32 or bfloat16 and up to 44 cells; ``"auto"``: ``"fused"`` if there is such a
            GPU and it supports the layer, else ``"scan"``.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last ``h`` and ``c``.

    Raises:
        ValueError: if both or neither of ``inputs`` and ``steps`` are given, a shape does not
            fit, there is no step, or the method is unknown or does not support this layer.

    Example:
        >>> import jax
        >>> from clockwork.nn import lstm_init, lstm_unroll
        >>> weights = lstm_init(jax.random.key(0), cells=15)
        >>> outputs, (h, c) = lstm_unroll(weights, steps=320)
        >>> outputs.shape, c.shape
        ((320, 15), (15,))
    """
    check_lstm_weights(weights)
    cells = weights.recurrent.shape[0]
    if (inputs is None) == (steps is None):
        raise ValueError(f"give either inputs or steps, got {'neither' if inputs is None else 'both'}")
    if inputs is not None:
        inputs = jnp.asarray(inputs)
        shaped("inputs", inputs, "T I", I=weights.input.shape[0], hint="; batch with jax.vmap")
        steps = inputs.shape[0]
    elif weights.input.shape[0]:
        raise ValueError(f"weights are those of a layer with {weights.input.shape[0]} inputs, got none")
    steps = check_steps(steps)
    given = [jnp.asarray(x) for x in (*(hidden or ()), *((inputs,) if inputs is not None else ()))]
    dtype = jnp.result_type(weights.bias, *given)
    if hidden is None:
        hidden = (jnp.zeros(cells, dtype), jnp.zeros(cells, dtype))
    h, c = (jnp.asarray(x).astype(dtype) for x in hidden)
    for name, state in (("hidden[0]", h), ("hidden[1]", c)):
        shaped(name, state, "N", N=cells)
    if readout is not None:
        readout = jnp.asarray(readout).astype(dtype)
        shaped("readout", readout, "N O", N=cells)
    weights = LSTMWeights(*(w.astype(dtype) for w in weights))
    inputs = None if inputs is None else inputs.astype(dtype)
    call = LSTMCall(steps, cells, dtype)
    return choose(BACKENDS, call, method).backend.evaluate(call, weights, inputs, (h, c), readout)


def explain(cells: int, steps: int, dtype: DTypeLike = jnp.float32, method: Method = "auto") -> list[tuple[str, str]]:
    """Explain which back end evaluates an LSTM layer on this machine, and why.

    Args:
        cells: ``N``.
        steps: ``T``.
        dtype: the dtype of the computation.
        method: as in `lstm_unroll`.

    Returns:
        The name of each back end and the reason for or against it; the chosen one comes first.

    Raises:
        ValueError: if the method is unknown, or does not support this layer.

    Example:
        >>> from clockwork.lstm import explain
        >>> explain(cells=15, steps=320, method="scan")[0]
        ('scan', 'chosen: method="scan" is asked for')
    """
    return backend.explain(BACKENDS, LSTMCall(steps, cells, jnp.dtype(dtype)), method)

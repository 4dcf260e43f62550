"""The public function of a layer of gated recurrent units over a sequence."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from clockwork.checks import shaped
from clockwork.gru import scan
from clockwork.gru.weights import GRUWeights, check_gru_weights
from clockwork.ops.chunked import check_steps


def gru_unroll(
    weights: GRUWeights,
    inputs: ArrayLike | None = None,
    *,
    steps: int | None = None,
    hidden: ArrayLike | None = None,
    readout: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run a layer of gated recurrent units over a sequence (Cho et al. 2014, as in cuDNN, Flax and PyTorch).

    ``r_t = σ(W_r x_t + R_r h_{t-1} + b_r)``, ``z_t = σ(W_z x_t + R_z h_{t-1} + b_z)``,
    ``n_t = tanh(W_n x_t + b_n + r_t (R_n h_{t-1} + c_n))``, ``h_t = (1 - z_t) n_t + z_t h_{t-1}``.

    The function is unbatched, pure and differentiable once; use ``jax.vmap`` for batches and runs. A ``vmap`` over
    weights puts the runs of small layers side by side in the last axis, for SIMD arithmetic.

    Args:
        weights: the layer's weights.
        inputs: ``(T, I)``; None for a layer without inputs, which takes ``steps`` instead.
        steps: ``T``, for layers without inputs; static.
        hidden: ``(N,)``, the state before the first step; zeros if None.
        readout: ``(N, O)``: return ``h @ readout`` in place of the hidden values.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last hidden state ``(N,)``.

    Raises:
        ValueError: if both or neither of ``inputs`` and ``steps`` are given, a shape does not fit, or there is no step.

    Example:
        >>> import jax
        >>> from clockwork.nn import gru_init, gru_unroll
        >>> weights = gru_init(jax.random.key(0), cells=15)
        >>> outputs, hidden = gru_unroll(weights, steps=320)
        >>> outputs.shape, hidden.shape
        ((320, 15), (15,))
    """
    check_gru_weights(weights)
    cells = weights.recurrent.shape[0]
    if (inputs is None) == (steps is None):
        raise ValueError(f"give either inputs or steps, got {'neither' if inputs is None else 'both'}")
    if inputs is not None:
        inputs = jnp.asarray(inputs)
        shaped("inputs", inputs, "T I", I=weights.input.shape[0], hint="; batch with jax.vmap")
        steps = inputs.shape[0]
    elif weights.input.shape[0]:
        raise ValueError(f"weights are those of a layer with {weights.input.shape[0]} inputs, got none")
    given = [jnp.asarray(x) for x in (hidden, inputs) if x is not None]
    dtype = jnp.result_type(weights.bias, *given)
    h = jnp.zeros(cells, dtype) if hidden is None else jnp.asarray(hidden).astype(dtype)
    shaped("hidden", h, "N", N=cells)
    if readout is not None:
        readout = jnp.asarray(readout).astype(dtype)
        shaped("readout", readout, "N O", N=cells)
    weights = GRUWeights(*(w.astype(dtype) for w in weights))
    inputs = None if inputs is None else inputs.astype(dtype)
    return scan.evaluate(check_steps(steps), weights, inputs, h, readout)

"""A deep transition over a sequence, or one step of it: the contract, and which back end evaluates it."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import shaped
from clockwork.deep import scan
from clockwork.deep.scan import DeepCall, transition
from clockwork.deep.weights import DeepWeights, check_deep_weights, check_sizes
from clockwork.ops import backend
from clockwork.ops.backend import choose
from clockwork.ops.chunked import check_steps
from clockwork.ops.linalg import Activation

Method = Literal["auto", "reference", "scan"]
METHODS: tuple[Method, ...] = get_args(Method)
BACKENDS = (scan.REFERENCE, scan.BACKEND)


def deep_unroll(
    weights: DeepWeights,
    inputs: ArrayLike | None = None,
    *,
    steps: int | None = None,
    hidden: ArrayLike | None = None,
    readout: ArrayLike | None = None,
    method: Method = "auto",
    activation: Activation | Sequence[Activation] = jnp.tanh,
) -> tuple[Array, Array]:
    """Run a recurrent layer with a deep transition over a sequence (Pascanu et al. 2013, sec. 3.3.2).

    ``z_1 = f_1(W_1 h_{t-1} + U_1 x_t + b_1)``, ``z_k = f_k(W_k z_{k-1} + S_k h_{t-1} + U_k x_t + b_k)``,
    ``h_t = z_L``. Without shortcuts, ``S_k`` and ``U_k`` are absent for k > 1. All methods are the same function.

    Unbatched and pure: batches and runs are the caller's ``jax.vmap``, and ``jax.jit`` is the caller's too. The
    gradient is written by hand: it keeps the values of the layers alone, and computes the gradient of each matrix as
    one product after the loop over time. Forward mode works too; second derivatives need ``method="reference"``.

    Args:
        weights: of one layer; computation is in their dtype joined with that of ``inputs`` and ``hidden``, sums in at
            least float32.
        inputs: ``(T, I)``; None for a layer without inputs, which takes ``steps`` instead.
        steps: ``T``, where there are no inputs; static.
        hidden: ``(N,)``, the state before the first step; zeros if None.
        readout: ``(N, O)``: return ``h @ readout`` in place of the hidden values.
        method: ``"reference"``, a ``lax.scan`` of `deep_step` that JAX differentiates; ``"scan"``, the gradient by
            hand; ``"auto"``: the latter.
        activation: ``f``, elementwise, or one for each layer; static, so pass the same function objects again.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last hidden state ``(N,)``.

    Raises:
        ValueError: if both or neither of ``inputs`` and ``steps`` are given, a shape does not fit, there is no step,
            the activations are not functions or not one for each layer, or the method is unknown.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from clockwork.deep import deep_init, deep_unroll
        >>> weights = deep_init(jax.random.key(0), hidden=40, inputs=13, middle=(30,))
        >>> outputs, hidden = deep_unroll(weights, jnp.ones((320, 13)))
        >>> outputs.shape, hidden.shape
        ((320, 40), (40,))
    """
    check_deep_weights(weights)
    activations = check_activations(activation, len(weights.sizes))
    if (inputs is None) == (steps is None):
        raise ValueError(f"give either inputs or steps, got {'neither' if inputs is None else 'both'}")
    if inputs is not None:
        inputs = jnp.asarray(inputs)
        shaped("inputs", inputs, "T I", I=weights.input.shape[0], hint="; batch with jax.vmap")
        steps = inputs.shape[0]
    elif weights.input.shape[0]:
        raise ValueError(f"weights are those of a layer with {weights.input.shape[0]} inputs, got none")
    steps = check_steps(steps)
    width = weights.sizes[-1]
    given = [jnp.asarray(x) for x in (hidden, inputs) if x is not None]
    dtype = jnp.result_type(weights.bias, *given)
    hidden = jnp.zeros(width, dtype) if hidden is None else jnp.asarray(hidden).astype(dtype)
    shaped("hidden", hidden, "N", N=width)
    if readout is not None:
        readout = jnp.asarray(readout).astype(dtype)
        shaped("readout", readout, "N O", N=width)
    weights = jax.tree.map(lambda w: w.astype(dtype), weights)
    inputs = None if inputs is None else inputs.astype(dtype)
    call = DeepCall(steps, weights.sizes, activations, dtype)
    return choose(BACKENDS, call, method).backend.evaluate(call, weights, inputs, hidden, readout)


def deep_step(
    weights: DeepWeights,
    hidden: ArrayLike,
    x_t: ArrayLike | None = None,
    *,
    activation: Activation | Sequence[Activation] = jnp.tanh,
) -> Array:
    """One step of a recurrent layer with a deep transition; the equations are those of `deep_unroll`.

    Args:
        weights: of one layer.
        hidden: ``h_{t-1}``, ``(N,)``.
        x_t: ``(I,)``; None for a layer without inputs.
        activation: ``f``, elementwise, or one for each layer.

    Returns:
        ``h_t``, ``(N,)``.

    Raises:
        ValueError: if a shape does not fit, or the activations are not functions or not one for each layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from clockwork.deep import deep_init, deep_step
        >>> weights = deep_init(jax.random.key(0), hidden=40, inputs=13, middle=(30,))
        >>> deep_step(weights, jnp.zeros(40), jnp.ones(13)).shape
        (40,)
    """
    check_deep_weights(weights)
    activations = check_activations(activation, len(weights.sizes))
    h_tm1 = jnp.asarray(hidden)
    shaped("hidden", h_tm1, "N", N=weights.sizes[-1])
    x = None if x_t is None else jnp.asarray(x_t)
    if x is None:
        if weights.input.shape[0]:
            raise ValueError(f"weights are those of a layer with {weights.input.shape[0]} inputs, got none")
    else:
        shaped("x_t", x, "I", I=weights.input.shape[0])
    dtype = jnp.result_type(weights.bias, *jax.tree.leaves((h_tm1, x)))
    return transition(activations, *jax.tree.map(lambda x: x.astype(dtype), (weights, h_tm1, x)))


def explain(
    hidden: int,
    steps: int,
    middle: Sequence[int] = (),
    dtype: DTypeLike = jnp.float32,
    method: Method = "auto",
) -> list[tuple[str, str]]:
    """Which back end evaluates a deep transition here, and why.

    Args:
        hidden: ``N``.
        steps: ``T``.
        middle: the number of units of each layer between two hidden states.
        dtype: of the computation.
        method: as of `deep_unroll`.

    Returns:
        The name of each back end and what is said for or against it; the first is the one that is chosen.

    Raises:
        ValueError: if the method is unknown.

    Example:
        >>> from clockwork.deep import explain
        >>> explain(hidden=400, steps=100, middle=(400,))[0]
        ('scan', 'chosen: its gradient is written by hand')
    """
    sizes = check_sizes(hidden, middle)
    call = DeepCall(check_steps(steps), sizes, (jnp.tanh,) * len(sizes), jnp.dtype(dtype))
    return backend.explain(BACKENDS, call, method)


def check_activations(activation: Activation | Sequence[Activation], layers: int) -> tuple[Activation, ...]:
    """One activation for each layer; ``ValueError`` if these are not functions, or not as many as layers."""
    given: Any = tuple(activation) if isinstance(activation, Sequence) else (activation,) * layers
    wrong = [f for f in given if not callable(f)]
    if wrong:
        raise ValueError(f"activation must be a function such as jnp.tanh, or one for each layer, got {wrong[0]!r}")
    if len(given) != layers:
        raise ValueError(f"activation must be one function, or {layers}, one for each layer, got {len(given)}")
    return given

"""The arithmetic of one module, for one network or for many side by side as SIMD lanes.

Every function takes arrays either plain or with one more, LAST axis that all of them share:
the ``R`` runs of a sweep. Runs are independent, so with runs last a small recurrence is a
handful of elementwise multiply-adds over contiguous memory, which a processor does many times
faster than ``R`` tiny matrix products. `runs_last` makes ``jax.vmap`` use that layout.

Shapes below are the plain ones: ``S`` ticks, ``K`` senders, ``N`` receivers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

Activation = Callable[[Array], Array]

# Above this many terms a sum over senders is left to XLA: unrolled it would only compile slowly.
UNROLL = 64


def runs_last(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``fun(weights, *others)`` a batching rule that puts the batch axis last.

    Under a ``vmap`` that batches any array of ``weights``, all arguments get the batch as their
    last axis and ``fun`` is called once with those. Under any other ``vmap`` (a batch of
    sequences, one set of weights) ``fun`` is batched as usual, so that its products become
    products over the batch.

    ``fun`` must take and return pytrees of arrays, and accept them with and without the axis.
    It is not differentiable in reverse mode; wrap it in ``jax.custom_vjp``.
    """
    batchable = jax.custom_batching.custom_vmap(fun)

    def rule(size: int, batched: list[Any], *args: Any) -> tuple[Any, Any]:
        if not any(jax.tree.leaves(batched[0])):
            axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
            outputs = jax.vmap(fun, in_axes=axes, axis_size=size)(*args)
        else:
            last = jax.tree.map(
                lambda x, b: jnp.moveaxis(x, 0, -1) if b else jnp.broadcast_to(x[..., None], (*x.shape, size)),
                args,
                tuple(batched),
            )
            outputs = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), fun(*last))
        return outputs, jax.tree.map(lambda _: True, outputs)

    batchable.def_vmap(rule)
    return batchable


def accumulator(dtype: DTypeLike) -> DTypeLike:
    """The dtype in which sums are taken: at least float32."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def vecmat(x: Array, w: Array) -> Array:
    """``x @ w`` for ``x (K,)`` and ``w (K, N)``, accumulated in at least float32."""
    return _product(x, w, "kr,knr->nr", lambda x, w, k: x[k][None] * w[k])


def matmul(x: Array, w: Array) -> Array:
    """``x @ w`` for ``x (S, K)`` and ``w (K, N)``, accumulated in at least float32."""
    return _product(x, w, "skr,knr->snr", lambda x, w, k: x[:, k, None] * w[None, k])


def _product(x: Array, w: Array, subscripts: str, term: Callable[[Array, Array, int], Array]) -> Array:
    dtype = accumulator(w.dtype)
    if w.ndim == 2:
        return jnp.matmul(x, w, preferred_element_type=dtype)
    senders = w.shape[0]
    if not 0 < senders <= UNROLL:
        return jnp.einsum(subscripts, x, w, preferred_element_type=dtype)
    # Unrolled: XLA's own sum over a broadcast product is many times slower on a CPU.
    x, w = x.astype(dtype), w.astype(dtype)
    total = term(x, w, 0)
    for k in range(1, senders):
        total = total + term(x, w, k)
    return total


def gram(x: Array, y: Array) -> Array:
    """``x.T @ y`` for ``x (S, K)`` and ``y (S, N)``: the gradient of the weights in ``x @ w``."""
    dtype = accumulator(x.dtype)
    if x.ndim == 2:
        return jnp.matmul(x.T, y, preferred_element_type=dtype)
    x, y = x.astype(dtype), y.astype(dtype)

    # A scan that accumulates keeps the (K, N, R) sum in cache; XLA's sum over s does not.
    def add(total: Array, xy: tuple[Array, Array]) -> tuple[Array, None]:
        x_s, y_s = xy
        return total + x_s[:, None] * y_s[None, :], None

    return lax.scan(add, jnp.zeros((x.shape[1], *y.shape[1:]), dtype), (x, y))[0]


def transpose(w: Array) -> Array:
    """``w.T`` for ``w (K, N)``."""
    return jnp.swapaxes(w, 0, 1)


def module_scan(
    activation: Activation, drive: Array | None, bias: Array, recurrent: Array, hidden: Array, ticks: int
) -> tuple[Array, Array | None]:
    """The recurrence of one module on its own ticks.

    ``z_s = d_s + b + h_{s-1} W``, ``h_s = f(z_s)``.

    Args:
        activation: ``f``, elementwise.
        drive: ``(S, K)``, what inputs and slower modules send; None for nothing.
        bias: ``(K,)``.
        recurrent: ``(K, K)``.
        hidden: ``(K,)``, the value before the first tick.
        ticks: ``S``.

    Returns:
        The values ``(S, K)`` in the dtype of ``hidden``, and the slopes ``f'(z) (S, K)``, or
        None where ``f`` is tanh, whose slope follows from its value.
    """
    bias = bias.astype(accumulator(bias.dtype))

    def tick(h_tm1: Array, d_t: Array | None) -> tuple[Array, tuple[Array, Array | None]]:
        z_t = vecmat(h_tm1, recurrent) + bias
        if d_t is not None:
            z_t = z_t + d_t
        if activation is jnp.tanh:
            h_t, slope = jnp.tanh(z_t), None
        else:
            h_t, slope = jax.jvp(activation, (z_t,), (jnp.ones_like(z_t),))
        h_t = h_t.astype(h_tm1.dtype)
        return h_t, (h_t, slope)

    return lax.scan(tick, hidden, drive, length=ticks)[1]


def module_scan_transpose(values: Array, slopes: Array | None, recurrent: Array, cotangents: Array) -> Array:
    """The error at every tick of one module: the transpose of `module_scan`.

    ``δ_s = (h̄_s + W δ_{s+1}) f'(z_s)``. The loop carries δ and nothing else: weight gradients
    are one product after it (`gram`).

    Args:
        values: ``(S, K)`` from `module_scan`.
        slopes: from `module_scan`.
        recurrent: ``(K, K)``.
        cotangents: ``h̄ (S, K)``, of the values, in the accumulator's dtype.

    Returns:
        ``δ (S, K)``.
    """
    if slopes is None:
        slopes = 1 - jnp.square(values.astype(cotangents.dtype))
    backward = transpose(recurrent).astype(cotangents.dtype)

    def tick(delta_tp1: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        cotangent, slope = xs
        delta_t = (cotangent + vecmat(delta_tp1, backward)) * slope
        return delta_t, delta_t

    last = jnp.zeros(cotangents.shape[1:], cotangents.dtype)
    return lax.scan(tick, last, (cotangents, slopes), reverse=True)[1]

"""Products and sums, for one network or for many runs of it side by side.

With many runs, every array has the runs as an additional LAST axis, and a product is a handful of
elementwise multiply-adds over contiguous memory: a CPU does those many times faster than one tiny
matrix product per run. The shapes below leave this axis out: ``S`` rows, ``K`` senders, ``N``
receivers; dots stand for a batch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

PyTree = Any
Activation = Callable[[Array], Array]

# A sum over senders is unrolled into this many partial sums, since each multiply-add waits for the previous one in its
# sum: with 31 senders and 100 runs, four partial sums take 0.8 of the time of one sum.
PARALLEL_SUMS = 4


def accumulator(dtype: DTypeLike) -> DTypeLike:
    """The dtype in which sums are taken: at least float32."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def precision() -> lax.Precision | None:
    """The precision of products: float32, on accelerators too, unless ``jax.default_matmul_precision`` is set."""
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return lax.Precision.HIGHEST if chosen is None else None


def matmul(x: Array, w: Array) -> Array:
    """``x @ w`` for ``x (..., K)`` and ``w (K, N)``, accumulated in at least float32."""
    dtype = accumulator(w.dtype)
    if w.ndim == 2:
        return jnp.matmul(x, w, preferred_element_type=dtype, precision=precision())
    senders = w.shape[0]
    if senders == 0:
        return jnp.zeros((*x.shape[:-2], *w.shape[1:]), dtype)
    x, w = x.astype(dtype), w.astype(dtype)
    batch = tuple(range(x.ndim - 2))
    terms = [x[..., k, None, :] * jnp.expand_dims(w[k], batch) for k in range(senders)]
    length = -(-senders // PARALLEL_SUMS)
    sums = [functools.reduce(jnp.add, terms[k : k + length]) for k in range(0, senders, length)]
    return functools.reduce(jnp.add, sums)


def matmul_each(x: Array, w: Array) -> Array:
    """``x @ w`` of each of ``R`` runs, ``x (R, B, K)`` and ``w (R, K, N)``, accumulated in at least float32."""
    return jnp.matmul(x, w, preferred_element_type=accumulator(w.dtype), precision=precision())


def gram(x: Array, y: Array, *, runs: bool) -> Array:
    """``x.T @ y`` for ``x (..., K)`` and ``y (..., N)``: the gradient of the weights in ``x @ w``."""
    if not runs:
        rows = math.prod(x.shape[:-1])
        x, y = x.reshape(rows, x.shape[-1]), y.reshape(rows, y.shape[-1])
        return jnp.matmul(x.T, y, preferred_element_type=accumulator(x.dtype), precision=precision())
    return sum_over_time(outer, x, y)


def total(rows: Array, *, runs: bool) -> Array:
    """The sum of rows ``(..., N)``: the gradient of the biases in ``x @ w + b``."""
    if runs:
        return rows.sum(tuple(range(rows.ndim - 2)))
    # XLA is faster at a product than at a sum.
    return gram(jnp.ones((*rows.shape[:-1], 1), rows.dtype), rows, runs=False)[0]


def outer(x: Array, y: Array) -> Array:
    """``x.T @ y`` of one step of many runs, ``x (..., K, R)`` and ``y (..., N, R)``: ``(K, N, R)``."""
    product = x[..., :, None, :] * y[..., None, :, :]
    return product.sum(tuple(range(product.ndim - 3)))


def sum_over_time(terms: Callable[..., PyTree], *rows: Array) -> PyTree:
    """The sum of ``terms`` of each row; zeros if there are no rows.

    A loop that adds keeps the sum in the cache; XLA's own sum over the first axis does not, and takes
    many times as long.
    """
    shapes = jax.eval_shape(terms, *(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in rows))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(lambda sums, xs: (jax.tree.map(jnp.add, sums, terms(*xs)), None), zeros, rows)[0]


def broadcast_batch(weights: Array, state: Array) -> Array:
    """The weights of units with an axis of size 1 for each batch axis of a state, so that the two broadcast."""
    return jnp.expand_dims(weights, tuple(range(state.ndim - weights.ndim)))


def units_axis(bias: Array) -> int:
    """The axis of the units, counted from the end: the last axis, or the one before it if the last axis is the runs."""
    return -bias.ndim


def transpose(w: Array) -> Array:
    """``w.T`` for ``w (K, N)``."""
    return jnp.swapaxes(w, 0, 1)


def activate(activation: Activation, z: Array) -> tuple[Array, Array | None]:
    """``f(z)`` and ``f'(z)``; the latter is None if it follows from ``f(z)``, as for tanh."""
    if activation is jnp.tanh:
        return jnp.tanh(z), None
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))


def get_row(rows: Array, s: Array) -> Array:
    """Row s, which must exist."""
    return lax.dynamic_index_in_dim(rows, s, keepdims=False, allow_negative_indices=False)


def set_row(rows: Array, new: Array, s: Array) -> Array:
    """The rows with row s replaced; a shorter row replaces only the first units."""
    start = (s, *(jnp.zeros_like(s),) * new.ndim)
    return lax.dynamic_update_slice(rows, new.astype(rows.dtype)[None], start, allow_negative_indices=False)

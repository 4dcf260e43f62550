"""The carry of a clockwork cell: its checks, and the time that it holds. This file uses no Flax API."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from clockwork.checks import static_integer
from clockwork.clock import Clock
from clockwork.recurrence import Method, advance, as_time, check_time

PyTree = Any


def check_carry(carry: PyTree, like: PyTree) -> None:
    """Raise ``ValueError`` unless the carry has the structure, the shapes and the integer leaves of ``like``."""

    def kind(leaf: Any) -> jax.ShapeDtypeStruct:
        integers = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.int32 if integers else jnp.float32)

    try:
        chex.assert_trees_all_equal_shapes_and_dtypes(jax.tree.map(kind, carry), jax.tree.map(kind, like))
    except AssertionError:
        raise ValueError(
            f"the carry must be {_describe(like)}, got {_describe(carry)}; does it belong to another clock?"
        ) from None


def _describe(tree: PyTree) -> str:
    described = jax.tree.map(lambda leaf: _Words(f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"), tree)
    return repr(described)


class _Words(str):
    """Text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def known_values(x: ArrayLike) -> np.ndarray | None:
    """The values of an array; None for a tracer."""
    return None if isinstance(x, Tracer) else np.asarray(x)


def start_for(clock: Clock, initial_carry: PyTree | None, start: int | None) -> int | None:
    """Check a layer's ``start`` against its ``initial_carry``; without a carry the start is 0.

    Args:
        clock: the layer's clock.
        initial_carry: the layer's argument.
        start: the layer's argument; None if the caller does not know the time.

    Raises:
        ValueError: if ``start`` is not a number of steps, is given without a carry, or if the dtype of the carry's time
            cannot hold the clock's cycle.
    """
    if start is not None:
        start = static_integer("start", start, least=0)
    if initial_carry is not None:
        time = getattr(initial_carry, "time", np.int32(0))  # check_carry refuses a carry without a time
        check_time(clock, np.dtype(getattr(time, "dtype", np.int32)))
        return start
    if start:
        raise ValueError(f"start must be 0 without an initial_carry, got {start}")
    return 0


def start_of(clock: Clock, time: ArrayLike, start: int | None, method: Method) -> int | Array:
    """The time of the first step: an integer if the kernels may be compiled for it, else an array ``(B,)``.

    Each integer compiles its own program. To compile few programs, the carry's time is used as an integer only at the
    beginning of the clock's cycle, or if the method needs a known time. The caller's ``start`` is always used as an
    integer.

    Args:
        clock: the layer's clock.
        time: the carry's time, ``(B, 1)``.
        start: the carry's time modulo ``clock.cycle``; None if the caller does not know it.
        method: the layer's method.

    Raises:
        ValueError: if the carry's time is not traced and differs from ``start`` modulo the cycle.
    """
    known = known_values(time)
    known = None if known is None else known.astype(object)  # a cycle may be longer than int32 can count
    if start is not None:
        if known is not None and ((known - start) % clock.cycle).any():
            wrong = known[(known - start) % clock.cycle != 0]
            raise ValueError(f"start must equal the carry's time, {wrong.flat[0]}, modulo clock.cycle, got {start}")
        return start % clock.cycle
    phases = None if known is None else set((known % clock.cycle).flat) or {0}
    if phases is not None and len(phases) == 1 and (method not in ("auto", "masked") or 0 in phases):
        return int(phases.pop())
    return as_time(clock, time)[:, 0]


def time_zero(batch: tuple[int, ...]) -> Any:
    """The time of a carry before the first step, ``(*batch, 1)``.

    It is a NumPy array, whose values are known under ``jit``, unless a size of the batch is symbolic (`jax.export`).
    """
    numpy = all(isinstance(size, int) for size in batch)
    return (np if numpy else jnp).zeros((*batch, 1), np.int32)


def time_after(clock: Clock, time: ArrayLike, steps: int, lengths: Array | None) -> Array:
    """The time of a carry ``(B, 1)`` after ``steps``, or after each sequence's length.

    Without lengths, the result is traced only if ``time`` is.
    """
    known = known_values(time)
    if known is not None and lengths is None:
        return advance(clock, known, steps)
    time = as_time(clock, time)
    return advance(clock, time, steps if lengths is None else lengths[:, None])


def last_of(y: Array, lengths: Array, first: Array) -> Array:
    """The rows of ``y (T, B, N)`` at each sequence's last step, ``(B, N)``; the row of ``first`` if its length is 0."""
    last = jax.vmap(lambda y, length: y[length - 1], in_axes=(1, 0))(y, lengths)
    return jnp.where(lengths[:, None] > 0, last, first)

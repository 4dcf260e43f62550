"""The carry of a clockwork cell: its checks, and the time that it holds. Independent of a Flax API."""

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
    """Raise ``ValueError`` unless a carry has the structure and shapes of another, and integers where that has."""

    def kind(leaf: Any) -> jax.ShapeDtypeStruct:
        integers = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.int32 if integers else jnp.float32)

    try:
        chex.assert_trees_all_equal_shapes_and_dtypes(jax.tree.map(kind, carry), jax.tree.map(kind, like))
    except AssertionError:
        raise ValueError(
            f"the carry must be {_describe(like)}, got {_describe(carry)}; is it that of another clock?"
        ) from None


def _describe(tree: PyTree) -> str:
    described = jax.tree.map(lambda leaf: _Words(f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"), tree)
    return repr(described)


class _Words(str):
    """Text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def known_values(x: ArrayLike) -> np.ndarray | None:
    """The values of an array, None while they are not known."""
    return None if isinstance(x, Tracer) else np.asarray(x)


def start_for(clock: Clock, initial_carry: PyTree | None, start: int | None) -> int | None:
    """What the caller says of the clock, if it is a number of steps: without a carry, that it stands at zero.

    Args:
        clock: the layer's clock.
        initial_carry: what the layer is called with; None for none.
        start: what the layer is called with; None for nothing said.

    Raises:
        ValueError: if ``start`` is not a number of steps or there is no carry that it is the time of, or if the time
            of the carry cannot count the clock's cycle.
    """
    if start is not None:
        start = static_integer("start", start, least=0)
    if initial_carry is not None:
        time = getattr(initial_carry, "time", np.int32(0))  # another carry is refused by its structure
        check_time(clock, np.dtype(getattr(time, "dtype", np.int32)))
        return start
    if start:
        raise ValueError(f"start is the time of initial_carry, which is not given, got {start}")
    return 0


def start_of(clock: Clock, time: ArrayLike, start: int | None, method: Method) -> int | Array:
    """Where the clock stands: a number if it is known and serves a compiled program again, else ``(B,)``.

    A program for each of the places that a sequence may be cut at would be compiled for each of them,
    so that only the beginning of the clock's cycle is taken as known, what the caller says, and any
    place where the caller insists on the cascade.

    Args:
        clock: the layer's clock.
        time: of the carry, ``(B, 1)``.
        start: what the caller says; None for nothing.
        method: how the layer is to be evaluated.

    Raises:
        ValueError: if the carry's time is known and is not ``start``, up to whole cycles.
    """
    known = known_values(time)
    known = None if known is None else known.astype(object)  # a cycle may be longer than int32 can count
    if start is not None:
        if known is not None and ((known - start) % clock.cycle).any():
            wrong = known[(known - start) % clock.cycle != 0]
            raise ValueError(f"start must be the time of the carry up to whole cycles, {wrong.flat[0]}, got {start}")
        return start % clock.cycle
    phases = None if known is None else set((known % clock.cycle).flat) or {0}
    if phases is not None and len(phases) == 1 and (method in ("cascade", "fused") or 0 in phases):
        return int(phases.pop())
    return as_time(clock, time)[:, 0]


def time_zero(batch: tuple[int, ...]) -> Any:
    """The time of a carry before the first step, ``(*batch, 1)``: known, but for a batch of any size (`jax.export`)."""
    numpy = all(isinstance(size, int) for size in batch)
    return (np if numpy else jnp).zeros((*batch, 1), np.int32)


def time_after(clock: Clock, time: ArrayLike, steps: int, lengths: Array | None) -> Array:
    """The time of a carry ``(B, 1)`` after ``steps``, or after each sequence's length; known if it was known."""
    known = known_values(time)
    if known is not None and lengths is None:
        return advance(clock, known, steps)
    time = as_time(clock, time)
    return advance(clock, time, steps if lengths is None else lengths[:, None])


def last_of(y: Array, lengths: Array, first: Array) -> Array:
    """The row of ``y (T, B, N)`` at each sequence's last step, ``(B, N)``; that of ``first`` where it has no step."""
    last = jax.vmap(lambda y, length: y[length - 1], in_axes=(1, 0))(y, lengths)
    return jnp.where(lengths[:, None] > 0, last, first)

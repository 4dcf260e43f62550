"""The call signature of ``RNN`` around a function of time-major batches. This file uses no Flax API."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.typing import ArrayLike

from clockwork.checks import shaped
from clockwork.nn.carry import check_carry, known_values
from clockwork.nn.short import warn_if_short
from clockwork.ops.sharded import spread, spread_over

PyTree = Any
# Integers (*batch): a type checker then finds lengths that are not integers.
Lengths = Array | npt.NDArray[np.integer[Any]] | Sequence[int] | int
# Maps inputs (T, B, I), a carry, and lengths (B,) or None, to the carry after each sequence's steps, and (T, B, N).
Unroll = Callable[[Array, PyTree, Array | None], tuple[PyTree, Array]]


def over_sequences(
    run: Unroll,
    initialize_carry: Callable[[tuple[int, ...]], PyTree],
    carry_like: Callable[[tuple[int, ...]], PyTree],
    inputs: ArrayLike,
    *,
    features: int,
    slowest: int | None,
    initial_carry: PyTree | None,
    seq_lengths: Lengths | None,
    return_carry: bool,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
    predict: Callable[[Array], Array] | None = None,
) -> Array | tuple[PyTree, Array]:
    """Call ``run`` like ``nnx.RNN`` or ``nn.RNN``: with any batch dimensions, lengths, direction and time axis.

    Steps beyond a sequence's length are ignored, even if they hold NaN, and their outputs are zeros.

    Args:
        run: an `Unroll`. Without batch dimensions, B is 1.
        initialize_carry: makes the carry before the first step from the shape of one step's inputs.
        carry_like: like ``initialize_carry``, but called for the shapes of its result only.
        inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` if ``time_major``.
        features: ``I``.
        slowest: the longest period, to warn if the sequence is shorter; None for no warning. A call that takes or
            returns a carry does not warn, since it may run a chunk of a longer sequence.
        initial_carry: the carry to continue from, leaves ``(*batch, ...)``; None to call ``initialize_carry``.
        seq_lengths: ``(*batch)``, integers from 0 to T; a sequence of length 0 returns its carry unchanged.
        return_carry: whether to return the carry after the last step of each sequence too.
        time_major: whether time is the first axis.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
        predict: maps the outputs to what is returned in their place; None to return them.

    Raises:
        ValueError: if the inputs have the wrong shape or no step, the carry belongs to another network, or a length is
            out of range. Traced lengths are not checked.
    """
    inputs = jnp.asarray(inputs)
    shaped("inputs", inputs, "T *batch I" if time_major else "*batch T I", I=features)
    x = inputs if time_major else jnp.moveaxis(inputs, -2, 0)
    steps, *batch, width = x.shape
    count = math.prod(batch)
    if steps < 1:
        raise ValueError(f"a sequence must have at least one step, got inputs of shape {inputs.shape}")
    lengths = None if seq_lengths is None else check_lengths(seq_lengths, tuple(batch), steps)
    if slowest is not None and initial_carry is None and not return_carry:
        warn_if_short(slowest, steps)
    if initial_carry is None:
        carry = initialize_carry((count, width))
    else:
        check_carry(initial_carry, jax.eval_shape(lambda: carry_like((*batch, width))))
        carry = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[len(batch) :]), initial_carry)
    x = x.reshape(steps, count, width)  # (T, B, I)
    over = spread_over(x, 1)  # place carry and lengths on the devices of the inputs
    carry = jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else spread(leaf, 0, over), carry)
    lengths = None if lengths is None else spread(lengths.reshape(count), 0, over)
    if reverse:
        x = reversed_in_time(x, lengths, time_major=True)
    valid = None if lengths is None else (jnp.arange(steps)[:, None] < lengths[None])[..., None]  # (T, B, 1)
    if valid is not None:
        x = jnp.where(valid, x, jnp.zeros((), x.dtype))
    carry, y = run(x, carry, lengths if return_carry else None)
    if valid is not None:
        y = jnp.where(valid, y, jnp.zeros((), y.dtype))
    if reverse and keep_order:
        y = reversed_in_time(y, lengths, time_major=True)
    y = y.reshape(steps, *batch, y.shape[-1])
    y = y if time_major else jnp.moveaxis(y, 0, -2)
    y = y if predict is None else predict(y)
    if not return_carry:
        return y
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), carry), y


def stacked(
    layers: Sequence[Callable[..., Any]],
    inputs: Array,
    *,
    skip: bool,
    initial_carry: Sequence[PyTree] | None,
    seq_lengths: Lengths | None,
    return_carry: bool,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
    options: Mapping[str, Any],
) -> Array | tuple[tuple[PyTree, ...], Array]:
    """Run a stack of layers; return the outputs of the last layer, or of all with ``skip``, and before them the carries
    with ``return_carry``."""
    carries: list[PyTree] = [None] * len(layers) if initial_carry is None else list(initial_carry)
    if len(carries) != len(layers):
        raise ValueError(f"initial_carry must have one carry for each of the {len(layers)} layers, got {len(carries)}")
    steps, *batch = inputs.shape[:-1] if time_major else (inputs.shape[-2], *inputs.shape[:-2])
    lengths = None if seq_lengths is None else check_lengths(seq_lengths, tuple(batch), steps)

    if reverse:
        inputs = reversed_in_time(inputs, lengths, time_major=time_major)
    below, outputs = inputs, []
    for i, layer in enumerate(layers):
        y = layer(
            below,
            initial_carry=carries[i],
            seq_lengths=seq_lengths,
            return_carry=return_carry,
            time_major=time_major,
            **options,
        )
        if return_carry:
            carries[i], y = y
        outputs.append(y)
        below = jnp.concatenate([inputs.astype(y.dtype), y], -1) if skip else y
    y = jnp.concatenate(outputs, -1) if skip else outputs[-1]
    y = reversed_in_time(y, lengths, time_major=time_major) if reverse and keep_order else y
    return (tuple(carries), y) if return_carry else y


def both_ways(
    layers: Sequence[Callable[..., Any]],
    merge: Callable[[Array, Array], Array],
    inputs: Array,
    *,
    initial_carry: Sequence[PyTree] | None,
    seq_lengths: Lengths | None,
    return_carry: bool,
    time_major: bool,
    options: Sequence[Mapping[str, Any]],
) -> Array | tuple[tuple[PyTree, PyTree], Array]:
    """Run one layer forwards and one backwards in time, with ``options`` for each; return their merged outputs, and
    before them the carries with ``return_carry``."""
    carries = (None, None) if initial_carry is None else tuple(initial_carry)
    if len(carries) != 2:
        raise ValueError(f"initial_carry must be a pair of carries, got {len(carries)}")
    order = ({"reverse": False}, {"reverse": True, "keep_order": True})
    found = [
        layer(
            inputs,
            initial_carry=carry,
            seq_lengths=None if seq_lengths is None else as_lengths(seq_lengths),
            return_carry=return_carry,
            time_major=time_major,
            **way,
            **given,
        )
        for layer, carry, way, given in zip(layers, carries, order, options, strict=True)
    ]
    if not return_carry:
        return merge(found[0], found[1])
    (forward, y_forward), (backward, y_backward) = found
    return (forward, backward), merge(y_forward, y_backward)


def as_lengths(seq_lengths: Lengths) -> Any:
    """The lengths as an array; NumPy arrays are kept, since their values are known under ``jit`` too."""
    return seq_lengths if isinstance(seq_lengths, np.ndarray) else jnp.asarray(seq_lengths)


def check_lengths(seq_lengths: Lengths, batch: tuple[int, ...], steps: int) -> Array:
    """Return the lengths; raise ``ValueError`` unless they are integers of this shape from 0 to ``steps``. Traced
    values are clipped."""
    given = as_lengths(seq_lengths)
    shaped("seq_lengths", given, "*batch", batch=batch, kind=int)
    known = known_values(given)
    if known is not None and known.size and (known.min() < 0 or known.max() > steps):
        wrong = known[(known < 0) | (known > steps)]
        raise ValueError(f"seq_lengths must be from 0 to the {steps} steps of the inputs, got {wrong.flat[0]}")
    lengths = jnp.asarray(given)
    return jnp.clip(lengths, 0, min(steps, int(jnp.iinfo(lengths.dtype).max))).astype(int)


def reversed_in_time(x: Array, lengths: Array | None, *, time_major: bool) -> Array:
    """Reverse each sequence in time; the padding beyond its length stays at the end.

    Args:
        x: ``(*batch, T, I)``, or ``(T, *batch, I)`` if ``time_major``.
        lengths: ``(*batch)``, integers from 0 to T; None if every sequence has T steps.
        time_major: whether time is the first axis.
    """
    axis = 0 if time_major else x.ndim - 2
    if lengths is None:
        return jnp.flip(x, axis)
    steps = x.shape[axis]
    last_to_first = jnp.arange(steps - 1, -1, -1).reshape(steps, *(1,) * lengths.ndim)
    rows = (last_to_first + lengths[None]) % steps  # (T, *batch)
    rows = rows if time_major else jnp.moveaxis(rows, 0, -1)
    return jnp.take_along_axis(x, rows[..., None], axis)

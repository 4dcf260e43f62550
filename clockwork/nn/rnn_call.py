"""The call of ``RNN``, around a function of time-major batches. Independent of a Flax API."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from clockwork.checks import shaped
from clockwork.nn.carry import check_carry, known_values
from clockwork.ops.sharded import spread, spread_over

PyTree = Any
# Inputs (T, B, I), a carry, lengths (B,) or None: to the carry after so many steps, None for all, and (T, B, N).
Unroll = Callable[[Array, PyTree, Array | None], tuple[PyTree, Array]]


def over_sequences(
    run: Unroll,
    initialize_carry: Callable[[tuple[int, ...]], PyTree],
    carry_like: Callable[[tuple[int, ...]], PyTree],
    inputs: ArrayLike,
    *,
    features: int,
    initial_carry: PyTree | None,
    seq_lengths: ArrayLike | None,
    return_carry: bool,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
) -> Array | tuple[PyTree, Array]:
    """The call of ``nnx.RNN`` and ``nn.RNN``: any batch dimensions, lengths, order and axis of time.

    What is beyond a sequence's length is not read, whatever is there, and the outputs there are zeros.

    Args:
        run: see `Unroll`; where there are no batch dimensions B is 1.
        initialize_carry: the shape of the inputs without time to a carry.
        carry_like: the same, for its shapes alone.
        inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` where ``time_major``.
        features: ``I``.
        initial_carry: leaves ``(*batch, ...)``; None for what ``initialize_carry`` makes.
        seq_lengths: ``(*batch)`` integers of 0 to T; a sequence of length 0 leaves its carry as it was.
        return_carry: whether to return the last carry too, that after the last step of each sequence.
        time_major: where the axis of time is.
        reverse: whether to go from the last step of each sequence to its first.
        keep_order: whether outputs are in the order of the inputs nonetheless.

    Raises:
        ValueError: if the inputs have another shape or no step, if the carry is another network's, or if a length
            is out of range (where its value is known, not under ``jit``).
    """
    inputs = jnp.asarray(inputs)
    shaped("inputs", inputs, "T *batch I" if time_major else "*batch T I", I=features)
    x = inputs if time_major else jnp.moveaxis(inputs, -2, 0)
    steps, *batch, width = x.shape
    count = math.prod(batch)
    if steps < 1:
        raise ValueError(f"a sequence must have at least one step, got inputs of shape {inputs.shape}")
    lengths = None if seq_lengths is None else check_lengths(seq_lengths, tuple(batch), steps)
    if initial_carry is None:
        carry = initialize_carry((count, width))
    else:
        check_carry(initial_carry, jax.eval_shape(lambda: carry_like((*batch, width))))
        carry = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[len(batch) :]), initial_carry)
    x = x.reshape(steps, count, width)  # (T, B, I)
    over = spread_over(x, 1)  # a carry and lengths go where the inputs are
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
    if not return_carry:
        return y
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), carry), y


def stacked(
    layers: Sequence[Callable[..., Any]],
    inputs: Array,
    *,
    skip: bool,
    initial_carry: Sequence[PyTree] | None,
    seq_lengths: ArrayLike | None,
    return_carry: bool,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
    options: Mapping[str, Any],
) -> Array | tuple[tuple[PyTree, ...], Array]:
    """Layers on layers: the outputs of the last, or with ``skip`` of all; before them their carries if asked for."""
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


def check_lengths(seq_lengths: ArrayLike, batch: tuple[int, ...], steps: int) -> Array:
    """The lengths, if they are integers of this shape from 0 to the steps, as far as is known, else ``ValueError``."""
    given = seq_lengths if isinstance(seq_lengths, np.ndarray) else jnp.asarray(seq_lengths)
    shaped("seq_lengths", given, "*batch", batch=batch, kind=int)
    known = known_values(given)
    if known is not None and known.size and (known.min() < 0 or known.max() > steps):
        wrong = known[(known < 0) | (known > steps)]
        raise ValueError(f"seq_lengths must be from 0 to the {steps} steps of the inputs, got {wrong.flat[0]}")
    lengths = jnp.asarray(given)
    return jnp.clip(lengths, 0, min(steps, int(jnp.iinfo(lengths.dtype).max))).astype(int)


def reversed_in_time(x: Array, lengths: Array | None, *, time_major: bool) -> Array:
    """Each sequence from its last step to its first; what is beyond its length stays there.

    Args:
        x: ``(*batch, T, I)``, or ``(T, *batch, I)`` where ``time_major``.
        lengths: ``(*batch)``, integers of 0 to T; None where each sequence has T steps.
        time_major: where the axis of time is.
    """
    axis = 0 if time_major else x.ndim - 2
    if lengths is None:
        return jnp.flip(x, axis)
    steps = x.shape[axis]
    last_to_first = jnp.arange(steps - 1, -1, -1).reshape(steps, *(1,) * lengths.ndim)
    rows = (last_to_first + lengths[None]) % steps  # (T, *batch)
    rows = rows if time_major else jnp.moveaxis(rows, 0, -1)
    return jnp.take_along_axis(x, rows[..., None], axis)

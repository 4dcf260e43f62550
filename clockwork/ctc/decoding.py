"""Decoding of outputs into labels, and the edit distance between labels."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from clockwork.checks import integer


def best_path(logits: ArrayLike, length: ArrayLike | None = None, *, blank: int = 0) -> Array:
    """The labels of the most likely path: repeats merged, blanks removed (Graves et al. 2006, eq. 4).

    Args:
        logits: ``(T, O)``, scores or probabilities; for batches, use ``jax.vmap``.
        length: ``()``, integer from 0 to T; later frames are ignored. None stands for T.
        blank: the index of the blank.

    Returns:
        ``(T,)``, int32, -1 after the last label.

    Raises:
        ValueError: if the logits are not ``(T, O)``, or ``blank`` is not from 0 to ``O - 1``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> best_path(jax.nn.one_hot(jnp.array([0, 2, 2, 0, 2, 1]), 3)).tolist()
        [2, 2, 1, -1, -1, -1]
    """
    logits = jnp.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits must be (T, O), got shape {logits.shape}; use jax.vmap for batches")
    blank = integer("blank", blank, 0, logits.shape[1] - 1)
    steps = logits.shape[0]
    path = jnp.argmax(logits, 1).astype(jnp.int32)
    new = jnp.concatenate([jnp.ones(min(1, steps), bool), path[1:] != path[:-1]]) & (path != blank)
    if length is not None:
        new &= jnp.arange(steps, dtype=jnp.int32) < length
    place = jnp.where(new, jnp.cumsum(new, dtype=jnp.int32) - 1, steps)
    return jnp.full(steps, -1, jnp.int32).at[place].set(path, mode="drop")


def edits(a: ArrayLike, a_length: ArrayLike, b: ArrayLike, b_length: ArrayLike) -> Array:
    """The fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein 1966).

    Args:
        a: ``(A,)``, integers; for batches, use ``jax.vmap``.
        a_length: ``()``, integer from 0 to A; later entries are ignored.
        b: ``(B,)``, integers. The time and memory of a batch are those of its longest ``a_length`` times B.
        b_length: ``()``, integer from 0 to B.

    Returns:
        ``()``, int32.

    Raises:
        ValueError: if a sequence does not have exactly one axis.

    Example:
        >>> import jax.numpy as jnp
        >>> kitten, sitting = (jnp.array([ord(letter) for letter in word]) for word in ("kitten", "sitting"))
        >>> edits(kitten, 6, sitting, 7).item()
        3
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"sequences must have one axis, got shapes {a.shape} and {b.shape}; use jax.vmap for batches")
    a_length, b_length = jnp.int32(a_length), jnp.int32(b_length)
    if not (a.size and b.size):
        return jnp.maximum(a_length, b_length)
    columns = jnp.arange(b.shape[0] + 1, dtype=jnp.int32)

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        i, row = state
        other = row[:-1] + (b != a[i]).astype(jnp.int32)
        least = jnp.concatenate([i[None] + 1, jnp.minimum(row[1:] + 1, other)])
        return i + 1, lax.cummin(least - columns) + columns  # a chain of insertions costs one each

    _, row = lax.while_loop(lambda state: state[0] < a_length, step, (jnp.int32(0), columns))
    return row[b_length]


def required_steps(labels: ArrayLike) -> int:
    """The minimum number of frames for these labels: one per label, and one per blank between equal neighbours.

    Args:
        labels: ``(L,)``, integers.

    Example:
        >>> required_steps([3, 1, 1, 2])
        5
    """
    labels = np.asarray(labels)
    return len(labels) + int((labels[1:] == labels[:-1]).sum())

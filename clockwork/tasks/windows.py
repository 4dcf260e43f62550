"""Long sequences cut into windows, for truncated back-propagation through time with the state carried on.

An update sees one window of each of ``B`` sequences side by side: ``L`` steps in and, one step later, ``L`` targets.
The windows of a sequence follow one another, and the last state of one is the first of the next.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

PyTree = Any
# Maps a carry and inputs (B, L, ...) to the next carry and the scores of each step.
Run = Callable[[PyTree, Array], tuple[PyTree, Array]]


class Windows(NamedTuple):
    """Sequences and the windows they are cut into.

    Attributes:
        rows: ``(S, ...)``, the steps of all sequences, one after the other.
        begin: ``(U, B)``, int32, the row of the first input of each window.
        counts: ``(U, B)``, int32, the number of predicted steps of each window, from 0 to L.
        fresh: ``(U,)``, bool, whether these windows are the first of their sequences, which begin with a zero state.
        sequence: ``(U, B)``, int32, the number of the sequence of each window.
    """

    rows: np.ndarray
    begin: np.ndarray
    counts: np.ndarray
    fresh: np.ndarray
    sequence: np.ndarray

    @property
    def predicted(self) -> int:
        """The number of predicted steps."""
        return int(self.counts.sum())


def windows_of(sequences: Sequence[np.ndarray], batch: int, length: int) -> Windows:
    """The windows of several sequences; every step but the first of a sequence is predicted.

    Sequences of like length are side by side, the longest first, so that few windows are partly empty.

    Args:
        sequences: arrays ``(T, ...)`` of one dtype.
        batch: ``B``, the number of sequences side by side; fewer if there are fewer sequences.
        length: ``L``, the number of steps of a window.

    Example:
        >>> windows = windows_of([np.arange(6), np.arange(3)], batch=2, length=4)
        >>> windows.counts.tolist(), windows.fresh.tolist(), windows.predicted
        ([[4, 2], [1, 0]], [True, False], 7)
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    batch = min(batch, len(sequences))
    order = np.argsort(-lengths, kind="stable")
    begin, count, fresh, numbers = [], [], [], []
    for first in range(0, len(order), batch):
        members = order[first : first + batch]
        filled = np.pad(members, (0, batch - len(members)), mode="edge")
        there = np.arange(batch) < len(members)
        steps = np.where(there, lengths[filled] - 1, 0)
        for window in range(max(1, -(-int(steps.max()) // length))):
            done = window * length
            left = np.clip(steps - done, 0, length)
            begin.append(np.where(left > 0, starts[filled] + done, starts[filled]))
            count.append(left)
            fresh.append(window == 0)
            numbers.append(filled)
    begin, count, numbers = (np.asarray(x, np.int32) for x in (begin, count, numbers))
    return Windows(np.concatenate(list(sequences)), begin, count, np.asarray(fresh), numbers)


def windows_of_text(symbols: np.ndarray, batch: int, length: int) -> Windows:
    """The windows of one long sequence, cut into columns of equal length that are read side by side.

    Every symbol but the first is predicted once. The first state of each column is zero.

    Args:
        symbols: ``(S,)``, integers.
        batch: ``B``, the number of columns; fewer where they would be shorter than a window.
        length: ``L``, the number of steps of a window.

    Example:
        >>> windows = windows_of_text(np.arange(12), batch=2, length=4)
        >>> windows.begin.tolist(), windows.counts.tolist()
        ([[0, 6], [4, 10]], [[4, 4], [2, 1]])
    """
    steps = len(symbols) - 1
    batch = max(1, min(batch, steps // length))
    column = -(-steps // batch)
    starts = np.arange(batch) * column
    sizes = np.clip(steps - starts, 0, column)
    done = np.arange(-(-column // length))[:, None] * length
    count = np.clip(sizes[None] - done, 0, length)
    begin = np.where(count > 0, starts[None] + done, 0)
    fresh = np.arange(len(count)) == 0
    numbers = np.zeros(count.shape, np.int32)
    return Windows(np.asarray(symbols), begin.astype(np.int32), count.astype(np.int32), fresh, numbers)


def shuffled(windows: Windows, key: Array) -> Array:
    """An order of the updates ``(U,)`` in which the windows of a sequence still follow one another."""
    group = jnp.cumsum(jnp.asarray(windows.fresh)) - 1
    place = jax.random.permutation(key, windows.fresh.shape[0])
    return jnp.argsort(place[group], stable=True)


def cut(windows: Windows, update: Array, length: int) -> tuple[Array, Array, Array]:
    """The inputs ``(B, L, ...)``, targets ``(B, L, ...)`` and predicted steps ``(B, L)`` of an update."""
    rows = jnp.asarray(windows.rows)
    begin, count = jnp.asarray(windows.begin)[update], jnp.asarray(windows.counts)[update]
    at = begin[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    there = jnp.arange(length)[None] < count[:, None]
    last = rows.shape[0] - 1
    return rows[jnp.clip(at, 0, last)], rows[jnp.clip(at + 1, 0, last)], there


def fresh_or(fresh: Array, zero: PyTree, carry: PyTree) -> PyTree:
    """The zero state where windows are the first of their sequences, else the state carried on."""
    return jax.tree.map(lambda zero, carry: jnp.where(fresh, jnp.asarray(zero), carry), zero, carry)


def total_loss(
    run: Run, losses: Callable[[Array, Array], Array], windows: Windows, zero: PyTree, length: int
) -> tuple[Array, Array]:
    """The loss summed over every sequence, and the number of its predicted steps.

    Args:
        run: of a trained model.
        losses: of scores and targets, ``(B, L)``.
        windows: of all sequences.
        zero: the first carry.
        length: ``L``.

    Returns:
        Two arrays, in the order of the sequences; zeros beyond the last.
    """

    def update(state: tuple[PyTree, Array, Array], number: Array) -> tuple[tuple[PyTree, Array, Array], None]:
        carry, sums, counts = state
        x, y, there = cut(windows, number, length)
        carry, scores = run(fresh_or(jnp.asarray(windows.fresh)[number], zero, carry), x)
        found = jnp.where(there, losses(scores, y), 0).sum(1)
        which = jnp.asarray(windows.sequence)[number]
        return (carry, sums.at[which].add(found), counts.at[which].add(there.sum(1).astype(found.dtype))), None

    zeros = jnp.zeros(windows.sequence.shape[0] * windows.sequence.shape[1])  # no more sequences than windows
    start = (jax.tree.map(jnp.asarray, zero), zeros, zeros)
    (_, sums, counts), _ = lax.scan(update, start, jnp.arange(len(windows.fresh), dtype=jnp.int32))
    return sums, counts

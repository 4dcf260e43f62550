"""From outputs to labels, and edit distances, against a few lines of Python."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clockwork import ctc

STEPS, LABELS = 9, 7
path_of = jax.jit(ctc.best_path)
edits = jax.jit(jax.vmap(ctc.edits))


@given(st.lists(st.integers(0, 3), min_size=STEPS, max_size=STEPS), st.integers(0, STEPS))
@settings(max_examples=50, deadline=None)
def test_the_best_path_is_merged_and_then_without_blanks(path, length):
    wanted = [label for label, _ in itertools.groupby(path[:length]) if label]
    found = path_of(np.eye(4, dtype=np.float32)[path], jnp.int32(length)).tolist()
    assert found == wanted + [-1] * (STEPS - len(wanted))


def test_any_output_may_be_the_blank():
    logits = np.eye(3, dtype=np.float32)[[2, 0, 0, 2, 0, 1]]
    assert ctc.best_path(logits, blank=2).tolist() == [0, 0, 1, -1, -1, -1]
    with pytest.raises(ValueError, match="blank must be an integer from 0 to 2, got 3"):
        ctc.best_path(logits, blank=3)
    with pytest.raises(ValueError, match=r"logits must be \(T, O\), got shape \(1, 6, 3\)"):
        ctc.best_path(logits[None])


def by_recursion(a, b):
    @functools.cache
    def distance(i, j):
        if not (i and j):
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return distance(len(a), len(b))


TEXT = st.lists(st.integers(0, 2), max_size=LABELS)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_edits_are_the_fewest(pairs):
    arrays = [np.full((6, LABELS), 1, np.int32) for _ in range(2)]  # what fills up may be equal and must not count
    for row, pair in enumerate(pairs):
        for array, text in zip(arrays, pair, strict=True):
            array[row, : len(text)] = text
    counts = [np.asarray([len(pair[side]) for pair in pairs], np.int32) for side in (0, 1)]
    found = edits(arrays[0], counts[0], arrays[1], counts[1])
    assert found.tolist() == [by_recursion(*pair) for pair in pairs]


def test_they_run_in_64_bits():
    with jax.enable_x64(True):
        assert ctc.best_path(np.eye(3)[[0, 2, 2, 1]]).tolist() == [2, 1, -1, -1]
        assert ctc.edits(jnp.arange(3), 3, jnp.arange(1, 4), 3) == 2


def test_edits_of_nothing_and_of_batches():
    empty = jnp.zeros(0, jnp.int32)
    assert ctc.edits(empty, 0, jnp.arange(3), 3) == 3
    assert ctc.edits(jnp.arange(3), 2, empty, 0) == 2
    with pytest.raises(ValueError, match=r"sequences must have one axis, got shapes \(2, 3\) and \(3,\)"):
        ctc.edits(jnp.zeros((2, 3)), 1, jnp.arange(3), 1)


@pytest.mark.parametrize(("labels", "steps"), [([], 0), ([5], 1), ([1, 2, 1], 3), ([1, 1, 1, 2, 2], 8)])
def test_required_steps_count_a_blank_between_equal_labels(labels, steps):
    assert ctc.required_steps(labels) == steps

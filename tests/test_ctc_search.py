"""The search for the likeliest labels, against every text there is, and the language model that it may use."""

import itertools
import math

import numpy as np
import pytest

from clockwork.ctc import NGram, beam_search
from clockwork.ctc.ngram import END

OUTPUTS, STEPS = 3, 5


def texts_of(scores, blank=0):
    """The probability of every text, as a sum over all paths."""
    shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    found = {}
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        text = tuple(label for label, _ in itertools.groupby(path) if label != blank)
        found[text] = found.get(text, 0.0) + float(np.prod(shares[np.arange(len(path)), path]))
    return found


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_finds_the_likeliest_text(blank):
    rng = np.random.default_rng(blank)
    differ = 0
    for _ in range(40):
        scores = rng.normal(size=(STEPS, OUTPUTS))
        found = texts_of(scores, blank)
        assert tuple(beam_search(scores, width=1000, blank=blank)) == max(found, key=lambda text: found[text])
        path = scores.argmax(1)
        differ += tuple(k for k, _ in itertools.groupby(path) if k != blank) != max(found, key=lambda text: found[text])
    assert differ > 5  # or else the best path would do


def test_with_a_language_a_wide_beam_finds_the_best_sum():
    rng, language = np.random.default_rng(3), NGram(3, [[1, 2, 1], [2, 2], [1]], labels=OUTPUTS)
    for weight, bonus in ((1.0, 0.0), (0.5, 0.7)):
        for _ in range(15):
            scores = rng.normal(size=(STEPS, OUTPUTS))
            total = {}
            for text, share in texts_of(scores).items():
                prior = sum(language.log_probability(text[:i], k) for i, k in enumerate([*text, END]))
                total[text] = math.log(share) + weight * prior + bonus * len(text)
            found = beam_search(scores, width=1000, language=language, weight=weight, bonus=bonus)
            assert tuple(found) == max(total, key=lambda text: total[text])


def test_a_narrow_beam_reads_what_is_certain():
    scores = np.full((6, 4), -20.0)
    scores[np.arange(6), [0, 3, 3, 0, 3, 1]] = 0
    assert beam_search(scores, width=1) == [3, 3, 1]
    assert beam_search(scores + 7.0, width=1) == [3, 3, 1]  # scores, not only log probabilities
    assert beam_search(np.zeros((0, 4))) == []


def test_probabilities_of_what_follows_sum_to_one():
    sequences = [[1, 2, 0, 1], [2, 2], [], [0, 1, 2, 0]]
    for order in (1, 2, 4):
        model = NGram(order, sequences, labels=4)
        for history in ([], [1], [0, 1], [3, 3, 3], [1, 2, 0, 1, 2]):
            total = sum(math.exp(model.log_probability(history, label)) for label in (*range(4), END))
            assert total == pytest.approx(1)


def test_counts_by_hand():
    model = NGram(2, [[0, 1], [0, 1], [0, 0]], labels=2)
    # Ends, zeros and ones: 3, 4 and 2 of 9, three kinds of label, and a uniform share of 1/3.
    zero, one, end = ((count + 3 / 3) / 12 for count in (4, 2, 3))
    assert math.exp(model.log_probability([], 0)) == pytest.approx(zero)
    # After a zero: a one twice, a zero once, the end once; three kinds.
    assert math.exp(model.log_probability([1, 0], 1)) == pytest.approx((2 + 3 * one) / 7)
    assert math.exp(model.log_probability([0], END)) == pytest.approx((1 + 3 * end) / 7)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: NGram(0, [[1]], 2), "order must be an integer, 1 or more, got 0"),
        (lambda: NGram(2, [], 2), "an n-gram must be counted in at least one sequence, got none"),
        (lambda: NGram(2, [[2]], 2), "labels must be from 0 to 1, got 2"),
        (lambda: beam_search(np.zeros(3)), r"logits must be numbers \(T, O\), got shape \(3,\)"),
        (lambda: beam_search(np.full((2, 2), np.nan)), r"got shape \(2, 2\), with NaN"),
        (lambda: beam_search(np.zeros((2, 2)), width=0), "width must be an integer, 1 or more, got 0"),
        (lambda: beam_search(np.zeros((2, 2)), blank=2), "blank must be an integer from 0 to 1, got 2"),
        (lambda: beam_search(np.zeros((2, 2)), language=NGram(1, [[0]], 3)), "must have 2 labels, .* got 3"),
    ],
)
def test_bad_input_is_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()

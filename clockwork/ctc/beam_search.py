"""The most likely labels, with or without a language model, by a search over prefixes."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from clockwork.checks import finite, integer
from clockwork.ctc.ngram import END, NGram

# The search starts no label at a frame where it is less likely than this: such labels take most of the time and hardly
# ever win.
LEAST = math.log(1e-4)

Text = tuple[int, ...]
Beam = dict[Text, tuple[float, float]]  # for each prefix, ln p of the paths that end with a blank, and of the others


def beam_search(
    logits: ArrayLike,
    *,
    width: int = 16,
    language: NGram | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
    blank: int = 0,
) -> list[int]:
    """The labels l with the highest ``ln p(l | x) + weight ln P(l) + bonus |l|`` that a beam search finds.

    p sums over all paths that read the labels, while `best_path` takes the most likely path only. P is the probability
    under the language model, 1 without one. At each frame the search keeps the ``width`` best prefixes (Hannun et al.
    2014). It runs on the host, in float64.

    Args:
        logits: ``(T, O)``, scores before the softmax, or log probabilities, of one sequence without padding.
        width: the number of prefixes to keep.
        language: a model of the labels, which have the same indices as the outputs.
        weight: the weight of the language model.
        bonus: the bonus for each label, since texts tend to be too short with a language model.
        blank: the index of the blank.

    Raises:
        ValueError: if the logits are not numbers ``(T, O)``, ``width`` is below 1, ``blank`` is out of range, or the
            language model does not have one label for each output.

    Example:
        >>> logits = np.log([[0.4, 0.0001, 0.5999], [0.4, 0.0001, 0.5999], [0.6, 0.3, 0.1]])
        >>> beam_search(logits)
        [2]
        >>> beam_search(logits, language=NGram(2, [[2, 1], [2, 1]], labels=3))
        [2, 1]
    """
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or not scores.shape[1] or np.isnan(scores).any():
        raise ValueError(f"logits must be numbers (T, O), got shape {scores.shape}{', with NaN' * (scores.ndim == 2)}")
    integer("width", width, least=1)
    blank = integer("blank", blank, 0, scores.shape[1] - 1)
    weight, bonus = finite("weight", weight), finite("bonus", bonus)
    if language is not None and language.labels != scores.shape[1]:
        raise ValueError(
            f"the language model must have {scores.shape[1]} labels, one for each output, got {language.labels}"
        )
    scores = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    prior: dict[Text, float] = {(): 0.0}

    def extended(text: Text, label: int) -> Text:
        longer = (*text, label)
        if longer not in prior:
            known = language.log_probability(text, label) if language else 0.0
            prior[longer] = prior[text] + weight * known + bonus
        return longer

    beam: Beam = {(): (0.0, -math.inf)}
    for frame in scores:
        beam = _best(_after(beam, frame, blank, extended), prior, width)

    def score(text: Text) -> float:
        end = language.log_probability(text, END) if language else 0.0
        return float(np.logaddexp(*beam[text])) + prior[text] + weight * end

    return list(max(beam, key=score))


def _after(beam: Beam, frame: np.ndarray, blank: int, extended: Callable[[Text, int], Text]) -> Beam:
    """Every prefix after one more frame, with its two sums over paths."""
    found: dict[Text, list[float]] = {}

    def collect(text: Text, side: int, value: float) -> None:
        sums = found.setdefault(text, [-math.inf, -math.inf])
        sums[side] = float(np.logaddexp(sums[side], value))

    likely = [(int(k), float(frame[k])) for k in np.flatnonzero(frame > LEAST) if k != blank]
    for text, (ending, going) in beam.items():
        whole = float(np.logaddexp(ending, going))
        collect(text, 0, whole + float(frame[blank]))
        if text:
            collect(text, 1, going + float(frame[text[-1]]))
        for label, score in likely:
            collect(extended(text, label), 1, (ending if text and label == text[-1] else whole) + score)
    return {text: (ending, going) for text, (ending, going) in found.items()}


def _best(found: Beam, prior: dict[Text, float], width: int) -> Beam:
    ranked = sorted(found, key=lambda text: float(np.logaddexp(*found[text])) + prior[text], reverse=True)
    return {text: found[text] for text in ranked[:width]}

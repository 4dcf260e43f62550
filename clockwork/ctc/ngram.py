"""A language model: the probability of each label given the labels before it."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from clockwork.checks import integer

END = -1  # stands for the end of a sequence, after its last label


class NGram:
    """The probability of a label given the labels before it, from counts with Witten-Bell smoothing.

    ``P(l | h) = (c(h l) + t(h) P(l | h')) / (c(h) + t(h))``, where c counts, t(h) is the number of different labels
    seen after the history h, and h' is h without its first label. Counts without a history are mixed with a uniform
    distribution (Witten and Bell 1991; Chen and Goodman 1999, sec. 2.5).

    Args:
        order: ``n``: a history has up to ``n - 1`` labels.
        sequences: sequences of labels, which are integers from 0.
        labels: the number of labels, not counting the end of a sequence.

    Raises:
        ValueError: if ``order`` or ``labels`` is below 1, there is no sequence, or a label is out of range.

    Example:
        >>> model = NGram(2, [[1, 2], [1, 2], [1, 1]], labels=3)
        >>> round(math.exp(model.log_probability([1], 2)), 3), round(math.exp(model.log_probability([2], END)), 3)
        (0.384, 0.771)
    """

    def __init__(self, order: int, sequences: Iterable[Sequence[int]], labels: int) -> None:
        self.order = integer("order", order, least=1)
        self.labels = integer("labels", labels, least=1)
        self._counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        found = [[*map(int, sequence), END] for sequence in sequences]
        if not found:
            raise ValueError("an n-gram must be counted in at least one sequence, got none")
        wrong = [label for sequence in found for label in sequence[:-1] if not 0 <= label < labels]
        if wrong:
            raise ValueError(f"labels must be from 0 to {labels - 1}, got {wrong[0]}")
        for sequence in found:
            for place, label in enumerate(sequence):
                for length in range(min(order - 1, place) + 1):
                    self._counts[tuple(sequence[place - length : place])][label] += 1
        self._totals = {history: sum(counts.values()) for history, counts in self._counts.items()}

    def log_probability(self, history: Sequence[int], label: int) -> float:
        """``ln P(label | history)``.

        Args:
            history: all labels before; only the last ``n - 1`` matter.
            label: from 0 to below ``labels``, or ``END``, -1, for the end of the sequence.
        """
        share = 1 / (self.labels + 1)
        for length in range(min(self.order - 1, len(history)) + 1):
            known = tuple(history[len(history) - length :])
            if known not in self._totals:
                break
            counts, total = self._counts[known], self._totals[known]
            share = (counts[label] + len(counts) * share) / (total + len(counts))
        return math.log(share)

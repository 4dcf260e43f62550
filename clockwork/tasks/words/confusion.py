"""Which word was taken for which."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.data.speech import PAPER_GROUPS, PAPER_WORDS
from clockwork.optional import require
from clockwork.report.aggregate import Row, largest_rows
from clockwork.report.drawing import canvas, save, say
from clockwork.report.fonts import columns, names
from clockwork.tasks.paper import LABELS
from clockwork.training import Results

WRITTEN = 10  # percent: answers that are as frequent are written into the matrix
CONDITION = 0.2  # inches, of a word's row, as long as the matrix is not larger than LARGEST
LARGEST = 12.0  # inches: with more words the rows become narrower and no numbers are written into them
LABELLED = 100  # rows that have a word beside them, at most: of more, every second, third, ... has one
WORD = 28  # letters of a word that are drawn


def draw_confusion(results: Results, path: str | Path) -> None:
    """A matrix for each network: the words said (rows), and the share of each answer (columns) in percent.

    It is of the network's largest size, and sums over all runs and splits that did not diverge. If the words are
    the paper's, those of each of its groups, which sound alike at the end, stand together in a square.
    If several learning rates were tried, the runs are those of the rate with the lowest mean training error.

    Args:
        results: of a sweep of `clockwork.tasks.Words`; at least one finished condition.
        path: as in `clockwork.report.draw_errors`, whose errors are raised here too.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_confusion(open_results("results/words"), "confusion.png")
    """
    rows = largest_rows(results, LABELS)
    words = [str(word) for word in next(iter(results.conditions.values())).data["words"]]
    groups = _groups(words)
    order = [words.index(word) for group in groups.values() for word in group] or list(range(len(words)))
    every = math.ceil(len(words) / LABELLED)
    ticks = range(0, len(words), every)
    labels = names([words[order[i]] for i in ticks], WORD)
    size = 8 if every == 1 and CONDITION * len(words) <= LARGEST else 6
    side = max(4.2, 1.2 + 0.07 * max(map(columns, labels)) + min(LARGEST, CONDITION * len(words)))
    figure, axes = canvas(1, len(rows), side - 0.2, side)
    image = None
    for axis, row in zip(axes[0], rows, strict=True):
        axis.set_title(f"{LABELS[row.network]}, {row.size} parameters", fontsize=11)
        if not row.converged.size:
            say(axis, "all runs diverged")
            axis.set(xticks=[], yticks=[], aspect="equal")
            continue
        shares = 100 * _shares(row, len(words))[np.ix_(order, order)]
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (said, answered), share in np.ndenumerate(
            shares if CONDITION * len(words) <= LARGEST else np.zeros((0, 0))
        ):
            if share >= WRITTEN:
                color = "white" if share > 55 else "black"
                axis.text(answered, said, f"{share:.0f}", ha="center", va="center", fontsize=6, color=color)
        axis.set_xticks(ticks, labels, rotation=90, fontsize=size)
        axis.set_yticks(ticks, labels, fontsize=size)
        axis.set_xlabel("word answered")
        axis.set_ylabel("word said")
        _draw_groups(axis, groups, len(words))
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.7, label="share of answers (%)")
    save(figure, results, path, [f"One word in {every} is named."] * (every > 1))


def _shares(row: Row, words: int) -> np.ndarray:
    """Of each answer to each word said, ``(O, O)``; a row of zeros for a word that was never said."""
    counts = np.zeros((words, words))
    for result in row.conditions.values():
        answers = result.outputs[~result.diverged[result.kept]].argmax(-1)  # (K, M)
        np.add.at(counts, (np.broadcast_to(result.data["labels"], answers.shape), answers), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _groups(words: list[str]) -> dict[str, list[str]]:
    """The paper's groups, by suffix, of the words that there are; none if there is a word that is not the paper's."""
    if not set(words) <= set(PAPER_WORDS):
        return {}
    groups = {suffix: [word for word in group if word in words] for suffix, group in PAPER_GROUPS.items()}
    return {suffix: group for suffix, group in groups.items() if group}


def _draw_groups(axis: Any, groups: dict[str, list[str]], words: int) -> None:
    patches = require("matplotlib.patches")
    start = 0
    for suffix, group in groups.items():
        corner, side = (start - 0.5, start - 0.5), len(group)
        axis.add_patch(patches.Rectangle(corner, side, side, fill=False, edgecolor="tab:red", linewidth=1.2))
        middle = start + (side - 1) / 2
        axis.text(words - 0.3, middle, f"-{suffix}", ha="left", va="center", fontsize=8, color="tab:red")
        start += side

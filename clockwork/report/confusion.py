"""Which word was taken for which."""

from pathlib import Path
from typing import Any

import numpy as np

from clockwork.data.speech import PAPER_GROUPS, PAPER_WORDS
from clockwork.extras import require
from clockwork.report.canvas import canvas, save
from clockwork.report.select import Row, best_rows, networks
from clockwork.tasks.experiment import LABELS
from clockwork.training import Results

WRITTEN = 10  # percent: answers that are as frequent are written into the matrix


def draw_confusion(results: Results, path: str | Path) -> None:
    """A matrix for each network: the words said (rows), and the share of each answer (columns) in percent.

    It is of the network's largest size, and sums over all runs and splits that did not diverge. Where the words are
    the paper's, those of each of its groups, which sound alike at the end, stand together in a square.
    Where several learning rates were tried, the runs are those of the rate with the lowest mean training error.

    Args:
        results: of a sweep of `clockwork.tasks.Words`; at least one finished cell.
        path: the file to write; its suffix says which format.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_confusion(open_results("results/words"), "confusion.png")
    """
    best, names = best_rows(results), networks(results)
    words = [str(word) for word in next(iter(results.cells.values())).data["words"]]
    groups = _groups(words)
    order = [words.index(word) for group in groups.values() for word in group] or list(range(len(words)))
    side = max(4.0, 2.0 + 0.2 * len(words))
    figure, axes = canvas(1, len(names), side - 0.2, side)
    image = None
    for axis, name in zip(axes[0], names, strict=True):
        row = best[name, max(size for network, size in best if network == name)]
        axis.set_title(f"{LABELS[name]}, {row.size} parameters", pad=16 if groups else None)
        if not row.converged.size:
            axis.text(0.5, 0.5, "all runs diverged", ha="center", va="center", transform=axis.transAxes)
            axis.set(xticks=[], yticks=[], aspect="equal")
            continue
        shares = 100 * _shares(row, len(words))[np.ix_(order, order)]
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (said, answered), share in np.ndenumerate(shares):
            if share >= WRITTEN:
                color = "white" if share > 55 else "black"
                axis.text(answered, said, f"{share:.0f}", ha="center", va="center", fontsize=6, color=color)
        shown = [words[i] for i in order]
        axis.set_xticks(range(len(shown)), shown, rotation=90, fontsize=8, parse_math=False)
        axis.set_yticks(range(len(shown)), shown, fontsize=8, parse_math=False)
        axis.set_xlabel("word answered")
        axis.set_ylabel("word said")
        _draw_groups(axis, groups)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.7, label="% of the times it was said")
    save(figure, results, path)


def _shares(row: Row, words: int) -> np.ndarray:
    """Of each answer to each word said, ``(O, O)``; a row of zeros for a word that was never said."""
    counts = np.zeros((words, words))
    for result in row.cells.values():
        answers = result.outputs[~result.diverged].argmax(-1)  # (R, M)
        np.add.at(counts, (np.broadcast_to(result.data["labels"], answers.shape), answers), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _groups(words: list[str]) -> dict[str, list[str]]:
    """The paper's groups, by suffix, of the words that there are; none if there is a word that is not the paper's."""
    if not set(words) <= set(PAPER_WORDS):
        return {}
    groups = {suffix: [word for word in group if word in words] for suffix, group in PAPER_GROUPS.items()}
    return {suffix: group for suffix, group in groups.items() if group}


def _draw_groups(axis: Any, groups: dict[str, list[str]]) -> None:
    patches = require("matplotlib.patches")
    start = 0
    for suffix, group in groups.items():
        corner = (start - 0.5, start - 0.5)
        axis.add_patch(
            patches.Rectangle(corner, len(group), len(group), fill=False, edgecolor="tab:red", linewidth=1.2)
        )
        middle = start + (len(group) - 1) / 2
        axis.text(middle, -0.8, f"-{suffix}", ha="center", va="bottom", fontsize=8, color="tab:red")
        start += len(group)

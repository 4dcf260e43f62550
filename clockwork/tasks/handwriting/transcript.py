"""A line of handwriting, its strokes coloured by what was read where, and the outputs that say so."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.checks import counted
from clockwork.report.aggregate import best_kept, largest_rows
from clockwork.report.drawing import canvas, save, say
from clockwork.tasks.handwriting.data import text_of
from clockwork.training import ConditionResult, Results

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
BLANK = {"color": "lightgray", "linewidth": 1}
WIDTH, HEIGHT = 9.0, 1.4  # inches, of each panel
LETTERS = 1.3  # how far the axis of probabilities goes, so that the letters stand above them


def draw_transcript(results: Results, path: str | Path) -> None:
    """For each network a test line in two panels: what was read where, and the outputs beneath.

    Above, the strokes have the colour of the character that was read nearest in time. Beneath are the probabilities of
    the blank (grey) and of each character that was read (in its colour) at every frame. The network is the best run at
    its largest size, and the line is the test line of median length.

    Args:
        results: of a sweep of `clockwork.tasks.Handwriting`; at least one finished condition.
        path: as in `clockwork.report.draw_errors`, whose errors are raised here too.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_transcript(open_results("results/handwriting"), "transcript.png")
    """
    labels: Mapping[str, str] = results.task.labels  # pyright: ignore[reportAttributeAccessIssue]
    rows = largest_rows(results, labels)
    figure, axes = canvas(2 * len(rows), 1, WIDTH, HEIGHT)
    for above, beneath, row in zip(axes[::2, 0], axes[1::2, 0], rows, strict=True):
        title = f"{labels[row.network]}, {row.size} parameters"
        above.set_title(title, loc="left", fontsize=10)
        above.set(xticks=[], yticks=[])
        beneath.set(ylim=(0, LETTERS), yticks=(0, 0.5, 1), ylabel="probability")
        if not row.converged.size:
            say(above, "all runs diverged")
            continue
        _draw(above, beneath, next(iter(row.conditions.values())))
    axes[-1, 0].set_xlabel("frame")
    remark = "Strokes have the colour of the character read nearest in time; grey: the probability of the blank."
    save(figure, results, path, [remark])


def _draw(above: Any, beneath: Any, result: ConditionResult) -> None:
    """The first example, as the run with the lowest error reads it."""
    data, characters = result.data, str(result.data["characters"])
    position = best_kept(result)
    length = int(data["example_lengths"][0])
    frames, probabilities = data["example_inputs"][0, :length], result.outputs["probabilities"][position][0, :length]
    labels, at = spikes(probabilities.astype(np.float32))
    read = text_of(result.outputs["labels"][position][data["examples"][0]], characters)
    above.set_title(f"written: {data['texts'][data['examples'][0]]}\nread: {read}", loc="right", fontsize=8)
    points = frames[:, :2] * data["sd"][:2] + data["mean"][:2]
    nearest = np.abs(np.arange(length)[:, None] - at[None]).argmin(1) if len(at) else np.full(length, -1)
    starts = np.concatenate([[0], np.flatnonzero(frames[:, 3] > 0) + 1])
    for first, last in itertools.pairwise(starts):
        for t in range(first, last):
            colour = COLOURS[nearest[t] % len(COLOURS)] if nearest[t] >= 0 else "gray"
            piece = points[t : min(t + 2, last)]
            above.plot(*piece.T, color=colour, linewidth=1.5, marker="." if last - first == 1 else None)
    above.invert_yaxis()
    above.set_aspect("equal", adjustable="datalim")
    beneath.plot(probabilities[:, 0], **BLANK)
    beneath.set_xlim(0, length - 1)
    for number, (label, t) in enumerate(zip(labels, at, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        around = slice(max(0, t - 8), t + 9)
        beneath.plot(np.arange(length)[around], probabilities[around, label], color=colour, linewidth=1.2)
        shown = characters[label - 1]
        beneath.text(t, 1.04, "␣" if shown == " " else shown, color=colour, ha="center", va="bottom", fontsize=8)
    above.set_xlabel(f"{counted(len(labels), 'character')} read in {length} frames", fontsize=7)


def spikes(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the best path through ``(T, O)``, and the frame at which each is likeliest.

    Example:
        >>> spikes(np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]))
        (array([1, 1]), array([2, 4]))
    """
    path = probabilities.argmax(1)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(path)) + 1, [len(path)]])
    runs = [(a, b) for a, b in itertools.pairwise(bounds) if path[a] != 0]
    labels = np.asarray([path[a] for a, _ in runs], int)
    return labels, np.asarray([a + probabilities[a:b, path[a]].argmax() for a, b in runs], int)

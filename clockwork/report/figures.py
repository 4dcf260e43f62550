"""The paper's figures, drawn from stored results."""

import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.optional import require
from clockwork.report.aggregate import Row, best_rows, best_run, networks
from clockwork.report.canvas import PANEL_WIDTH, Look, canvas, look_of, save, say, set_scale
from clockwork.report.fonts import names as drawn_names
from clockwork.tasks.paper import LABELS
from clockwork.training import Results

# Boxes that reach over a larger factor are drawn on a logarithmic axis: on a linear one the least were lines at 0.
LINEAR_FACTOR = 10
REMARK = 12  # letters of a line below a size
CLIPS_DRAWN = 40  # at most: a figure has a height
LINE = 16  # letters of a clip's name that fit beside its row
MEDIAN = {"color": "tab:orange", "linewidth": 1.5}
MEAN = {"marker": "D", "markersize": 4, "markerfacecolor": "tab:red", "markeredgecolor": "tab:red"}
OUTLIER = {"marker": "+", "markersize": 4, "markeredgecolor": "tab:blue"}
TARGET: dict[str, Any] = {"linestyle": ":", "color": "tab:blue", "linewidth": 1.4}
OUTPUT: dict[str, Any] = {"linestyle": "-", "color": "tab:green", "linewidth": 1}


def draw_errors(results: Results, path: str | Path) -> None:
    """Figures 3 and 4: a box and whiskers for each network and size, over all runs and pieces of data.

    The box spans the quartiles, the line in it is the median and the diamond the mean (the paper draws the mean as the
    line). Whiskers reach the last run within 1.5 box lengths; runs beyond are drawn as outliers. All panels share one
    scale. It is logarithmic, and the axis says so, if the boxes span more than a factor of ten and no error is 0.
    Runs that diverged are not drawn but counted below their size. So are NMSEs above 2, twice the
    variance of the target, where the axis ends unless a box reaches higher, and means above its end.
    If several learning rates were tried, the runs are those of the rate with the lowest mean training error.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; at least one finished condition.
        path: the file to write; its suffix says which format, such as ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        ValueError: if matplotlib knows no such format.
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_errors(open_results("results/words"), "figure4.png")
    """
    best, names, look = best_rows(results), networks(results), look_of(results)
    sizes = sorted({size for _, size in best})
    errors = {key: look.factor * row.converged for key, row in best.items()}
    drawn = [error for error in errors.values() if error.size]
    scale = _scale(drawn, look)
    figure, axes = canvas(1, len(names), PANEL_WIDTH if len(sizes) < 5 else 4.4, 3.9)
    for axis, name in zip(axes[0], names, strict=True):
        present = [size for size in sizes if (name, size) in best]
        axis.boxplot(
            [errors[name, size] for size in present],
            showmeans=True,
            widths=0.5,
            medianprops=MEDIAN,
            meanprops=MEAN,
            flierprops=OUTLIER,
        )
        labels = [_size_label(best[name, size], errors[name, size], scale.top) for size in present]
        axis.set_xticks(range(1, len(present) + 1), labels, fontsize=7)
        axis.set_title(LABELS[name])
        axis.set_xlabel("number of parameters")
        axis.grid(axis="y", alpha=0.3)
        axis.set_ylim(scale.low, scale.high)
        set_scale(axis, scale.log)
        if not any(errors[name, size].size for size in present):
            say(axis, "all runs diverged")
    axes[0][0].set_ylabel(look.label + " (log scale)" * scale.log)
    lines: Any = [(MEDIAN, "median"), ({"linestyle": "", **MEAN}, "mean"), ({"linestyle": "", **OUTLIER}, "outlier")]
    _legend(figure, lines)
    save(figure, results, path)


class _Scale(NamedTuple):
    """The axis of errors: whether it is logarithmic, its limits, and from where on errors are not drawn."""

    log: bool
    low: float
    high: float
    top: float


def _scale(errors: list[np.ndarray], look: Look) -> _Scale:
    if not errors:
        return _Scale(False, 0, 1, look.top)
    quartiles = np.asarray([np.quantile(error, [0.25, 0.75]) for error in errors])
    reached = float(quartiles.max())
    top = look.top if reached <= look.top else 10.0 ** math.ceil(math.log10(reached))
    every = np.concatenate(errors)
    lowest, highest = float(every.min()), float(every[every <= top].max())
    if lowest > 0 and reached > LINEAR_FACTOR * quartiles.min():
        return _Scale(True, lowest / 1.3, min(highest * 1.3, top), top)
    high = min(1.05 * highest, top) or 1.0
    return _Scale(False, -0.02 * high, high, top)


def _size_label(row: Row, errors: np.ndarray, top: float) -> str:
    lost, above = int(row.diverged.sum()), int((errors > top).sum())
    remarks = [f"{lost} diverged"] * (lost > 0) + [f"{above} above {top:g}"] * (above > 0)
    if errors.size and errors.mean() > top:
        remarks.append(f"mean {errors.mean():.0e}")
    return "\n".join([str(row.size), *(line for remark in remarks for line in textwrap.wrap(remark, REMARK))])


def _legend(figure: Any, lines: list[tuple[dict[str, Any], str]]) -> None:
    line = require("matplotlib.lines").Line2D
    handles = [line([], [], **style) for style, _ in lines]
    labels = [label for _, label in lines]
    figure.legend(handles, labels, loc="outside upper right", ncols=len(lines), fontsize=8)


def draw_outputs(results: Results, path: str | Path) -> None:
    """Figure 5: the best output of each network (column) on each clip (row), over its target.

    The best is the run with the lowest NMSE of all sizes and learning rates; its NMSE and size stand above it. Of many
    clips the first 40 are drawn.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished condition.
        path: as in `draw_errors`, whose errors are raised here too.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_outputs(open_results("results/generation"), "figure5.png")
    """
    names = networks(results)
    targets = {condition.data: result.data["target"] for condition, result in results.conditions.items()}
    clips = list(targets)
    shown = clips[:CLIPS_DRAWN]
    labels = drawn_names(shown, 2 * LINE)
    figure, axes = canvas(len(shown), len(names), PANEL_WIDTH, max(1.7, 3.6 / len(shown)), sharex=True, sharey=True)
    for column, name in enumerate(names):
        axes[0][column].set_title(LABELS[name], loc="left", pad=3)
        axes[-1][column].set_xlabel("sample")
        for row, clip in enumerate(shown):
            axis, best = axes[row][column], best_run(results, name, clip)
            axis.set_ylim(-1.15, 1.15)
            axis.plot(targets[clip], **TARGET)
            if best is not None:
                condition, output, error = best
                axis.plot(output, **OUTPUT)
                said = f"NMSE {error:.2g}, {condition.size} parameters"
            else:
                trained = any((condition.network, condition.data) == (name, clip) for condition in results.conditions)
                said = "all runs diverged" if trained else "not trained yet"
            axis.set_title(said, loc="right", fontsize=7, pad=3)
    for row, label in enumerate(labels):
        axes[row][0].set_ylabel("\n".join(label[i : i + LINE] for i in range(0, len(label), LINE)), fontsize=9)
    _legend(figure, [(TARGET, "target"), (OUTPUT, "output")])
    save(figure, results, path, [f"The first {len(shown)} of {len(clips)} clips."] * (len(shown) < len(clips)))


def draw_curves(results: Results, path: str | Path) -> None:
    """Learning curves: the median and the quartiles of the error over all runs and pieces of data that did not diverge.

    A panel for each network, a line for each size; the runs are those of `draw_errors`. Of the spoken words, the error
    on the training set is dashed, and a run that has stopped goes on with its last errors.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; at least one finished condition.
        path: as in `draw_errors`, whose errors are raised here too.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_curves(open_results("results/generation"), "curves.pdf")
    """
    best, names, look = best_rows(results), networks(results), look_of(results)
    figure, axes = canvas(1, len(names), PANEL_WIDTH, 3.6, sharey=True)
    colors = {size: f"C{i}" for i, size in enumerate(sorted({size for _, size in best}))}
    handles = {}
    for axis, name in zip(axes[0], names, strict=True):
        for (network, size), row in best.items():
            if network != name or not row.converged.size:
                continue
            epochs, curves = row.curves()
            curves = look.factor * curves.reshape(*curves.shape[:2], -1)
            for shown, number, style in look.lines:
                with np.errstate(invalid="ignore"):  # errors may be infinite for a while
                    low, middle, high = np.quantile(curves[..., number], [0.25, 0.5, 0.75], axis=1)
                (line,) = axis.plot(epochs, middle, style, color=colors[size])
                axis.fill_between(epochs, low, high, color=colors[size], alpha=0.2, linewidth=0)
                handles[size, shown] = line
        if not axis.lines:
            say(axis, "all runs diverged")
            axis.set_xticks([])
        axis.set_title(LABELS[name])
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    log = look.log and any((line.get_ydata() > 0).any() for axis in axes[0] for line in axis.lines)
    for axis in axes[0]:
        set_scale(axis, log)
    axes[0][0].set_ylabel((look.label if look.log else "error (%)") + " (log scale)" * log)
    if handles:
        ordered = sorted(handles)
        labels = [f"{size} {shown}".strip() for size, shown in ordered]
        lines = [handles[key] for key in ordered]
        figure.legend(lines, labels, title="parameters", fontsize=8, loc="outside right center")
    save(figure, results, path, ["Lines: median over the runs; bands: quartiles."])

"""The paper's figures, drawn from stored results."""

from pathlib import Path
from typing import Any

import numpy as np

from clockwork.extras import require
from clockwork.report.select import Row, best_rows, best_run
from clockwork.tasks.generation import LABELS
from clockwork.training import Results

DPI = 150
TOP = 2.0  # of the scale of errors


def _canvas(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> tuple[Any, np.ndarray]:
    """A figure that needs no display and no global state."""
    figure = require("matplotlib.figure").Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _networks(results: Results) -> list[str]:
    present = {cell.network for cell in results.cells}
    return [name for name in LABELS if name in present]


def draw_errors(results: Results, path: Path) -> None:
    """Figure 3: a box and whiskers for each network and size, over all runs and clips.

    The box spans the quartiles and the line in it is the mean, as in the paper; whiskers
    reach the last run within 1.5 box lengths, all others are drawn as outliers. Runs that diverged
    are not in the boxes; how many did is written below, and so is how many lie above 2, where the
    scale ends: they do worse than twice the variance of their target. The SRN has its own scale.
    Where several learning rates were tried, the runs are those of the rate with the lowest mean error.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished cell.
        path: the file to write; its suffix says which format, such as ``.png`` or ``.pdf``.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.
    """
    best, names = best_rows(results), _networks(results)
    sizes = sorted({size for _, size in best})
    figure, axes = _canvas(1, len(names), 3.6, 3.6)
    top = 0.0
    for axis, name in zip(axes[0], names, strict=True):
        present = [size for size in sizes if (name, size) in best]
        errors = [best[name, size].converged for size in present]
        axis.boxplot(
            errors,
            showmeans=True,
            meanline=True,
            widths=0.5,
            medianprops={"linestyle": "none"},
            meanprops={"linestyle": "-", "color": "tab:red", "linewidth": 1.5},
            flierprops={"marker": "+", "markersize": 4, "markeredgecolor": "tab:blue"},
        )
        axis.set_xticks(range(1, len(present) + 1), [_size_label(best[name, size]) for size in present], fontsize=7)
        axis.set_title(LABELS[name])
        axis.set_xlabel("number of parameters")
        axis.grid(axis="y", alpha=0.3)
        if name != "srn":
            top = max(top, *(_highest(e) for e in errors))
    for axis, name in zip(axes[0], names, strict=True):
        own = max(_highest(best[key].converged) for key in best if key[0] == name)
        axis.set_ylim(0, 1.05 * (own if name == "srn" else top) or None)
    axes[0][0].set_ylabel("NMSE")
    figure.savefig(path, dpi=DPI)


def _highest(errors: np.ndarray) -> float:
    return float(errors[errors <= TOP].max(initial=0.0))


def _size_label(row: Row) -> str:
    lost, above = int(row.diverged.sum()), int((row.converged > TOP).sum())
    notes = [f"{lost} diverged"] * (lost > 0) + [f"{above} above {TOP:g}"] * (above > 0)
    return "\n".join([str(row.size), *notes])


def draw_outputs(results: Results, path: Path) -> None:
    """Figure 5: the best output of each network (column) on each clip (row), over its target.

    The best is the run with the lowest error of all sizes and learning rates.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished cell.
        path: the file to write; its suffix says which format.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.
    """
    names = _networks(results)
    clips = list(dict.fromkeys(cell.data for cell in results.cells))
    figure, axes = _canvas(len(clips), len(names), 3.6, 1.5, sharex=True, sharey=True)
    for column, name in enumerate(names):
        axes[0][column].set_title(LABELS[name])
        axes[-1][column].set_xlabel("sample")
        for row, clip in enumerate(clips):
            axis, best = axes[row][column], best_run(results, name, clip)
            if best is None:
                axis.text(0.5, 0.5, "no run", ha="center", va="center", transform=axis.transAxes)
                continue
            cell, output, error = best
            axis.plot(results.cells[cell].target, ":", color="tab:blue", linewidth=1.4, label="target")
            axis.plot(output, "-", color="tab:green", linewidth=1, label="output")
            axis.text(0.99, 0.03, f"NMSE {error:.2g}", ha="right", va="bottom", fontsize=7, transform=axis.transAxes)
            axis.set_ylim(-1.35, 1.2)
    for row, clip in enumerate(clips):
        axes[row][0].set_ylabel(clip, parse_math=False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8)
    figure.savefig(path, dpi=DPI)


def draw_curves(results: Results, path: Path) -> None:
    """Learning curves: the median and the quartiles of the error over all runs and clips that did not diverge.

    A panel for each network, a line for each size; the runs are those of `draw_errors`.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished cell.
        path: the file to write; its suffix says which format.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.
    """
    best, names = best_rows(results), _networks(results)
    figure, axes = _canvas(1, len(names), 3.6, 3.2, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        for (network, size), row in best.items():
            if network != name or not row.converged.size:
                continue
            curve = np.concatenate([cell.curve for cell in row.cells.values()], axis=1)[:, ~row.diverged]
            low, middle, high = np.quantile(curve, [0.25, 0.5, 0.75], axis=1)
            epochs = next(iter(row.cells.values())).curve_epochs
            (line,) = axis.plot(epochs, middle, label=str(size))
            axis.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set_title(LABELS[name])
        axis.set_xlabel("epoch")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("NMSE")
    if best:
        axes[0][-1].legend(*axes[0][-1].get_legend_handles_labels(), title="parameters", fontsize=8)
    figure.savefig(path, dpi=DPI)

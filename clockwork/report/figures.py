"""The paper's figures, drawn from stored results."""

from pathlib import Path

import numpy as np

from clockwork.report.canvas import Look, canvas, look_of, save
from clockwork.report.select import Row, best_rows, best_run, networks
from clockwork.tasks.experiment import LABELS
from clockwork.training import Results


def draw_errors(results: Results, path: str | Path) -> None:
    """Figures 3 and 4: a box and whiskers for each network and size, over all runs and pieces of data.

    The box spans the quartiles and the line in it is the mean, as in the paper; whiskers
    reach the last run within 1.5 box lengths, all others are drawn as outliers. Runs that diverged
    are not in the boxes; how many did is written below. Of the sequence generation, so is how many lie above 2, where
    the scale ends: they do worse than twice the variance of their target; and the SRN has its own scale.
    Where several learning rates were tried, the runs are those of the rate with the lowest mean training error.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; at least one finished cell.
        path: the file to write; its suffix says which format, such as ``.png`` or ``.pdf``.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_errors(open_results("results/words"), "figure4.png")
    """
    best, names, look = best_rows(results), networks(results), look_of(results)
    sizes = sorted({size for _, size in best})
    figure, axes = canvas(1, len(names), 3.6 if len(sizes) < 5 else 4.4, 3.6)
    highest = dict.fromkeys(names, 0.0)
    for axis, name in zip(axes[0], names, strict=True):
        present = [best[name, size] for size in sizes if (name, size) in best]
        errors = [look.factor * row.converged for row in present]
        axis.boxplot(
            errors,
            showmeans=True,
            meanline=True,
            widths=0.5,
            medianprops={"linestyle": "none"},
            meanprops={"linestyle": "-", "color": "tab:red", "linewidth": 1.5},
            flierprops={"marker": "+", "markersize": 4, "markeredgecolor": "tab:blue"},
        )
        axis.set_xticks(range(1, len(present) + 1), [_size_label(row, look) for row in present], fontsize=7)
        axis.set_title(LABELS[name])
        axis.set_xlabel("number of parameters")
        axis.grid(axis="y", alpha=0.3)
        highest[name] = max(float(e[e <= look.top].max(initial=0)) for e in errors)
    shared = max((highest[name] for name in names if name not in look.own_scale), default=0.0)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_ylim(0, 1.05 * (highest[name] if name in look.own_scale else shared) or None)
    axes[0][0].set_ylabel(look.label)
    save(figure, results, path)


def _size_label(row: Row, look: Look) -> str:
    lost, above = int(row.diverged.sum()), int((look.factor * row.converged > look.top).sum())
    remarks = [f"{lost} diverged"] * (lost > 0) + [f"{above} above {look.top:g}"] * (above > 0)
    return "\n".join([str(row.size), *remarks])


def draw_outputs(results: Results, path: str | Path) -> None:
    """Figure 5: the best output of each network (column) on each clip (row), over its target.

    The best is the run with the lowest error of all sizes and learning rates.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished cell.
        path: the file to write; its suffix says which format.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_outputs(open_results("results/generation"), "figure5.png")
    """
    names = networks(results)
    clips = list(dict.fromkeys(cell.data for cell in results.cells))
    figure, axes = canvas(len(clips), len(names), 3.6, 1.5, sharex=True, sharey=True)
    for column, name in enumerate(names):
        axes[0][column].set_title(LABELS[name])
        axes[-1][column].set_xlabel("sample")
        for row, clip in enumerate(clips):
            axis, best = axes[row][column], best_run(results, name, clip)
            if best is None:
                axis.text(0.5, 0.5, "no run", ha="center", va="center", transform=axis.transAxes)
                continue
            cell, output, error = best
            axis.plot(results.cells[cell].data["target"], ":", color="tab:blue", linewidth=1.4, label="target")
            axis.plot(output, "-", color="tab:green", linewidth=1, label="output")
            axis.text(0.99, 0.03, f"NMSE {error:.2g}", ha="right", va="bottom", fontsize=7, transform=axis.transAxes)
            axis.set_ylim(-1.35, 1.2)
    for row, clip in enumerate(clips):
        axes[row][0].set_ylabel(clip, parse_math=False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8)
    save(figure, results, path)


def draw_curves(results: Results, path: str | Path) -> None:
    """Learning curves: the median and the quartiles of the error over all runs and pieces of data that did not diverge.

    A panel for each network, a line for each size; the runs are those of `draw_errors`. Of the spoken words, the error
    on the training set is dashed, and a run that has stopped goes on with its last errors.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; at least one finished cell.
        path: the file to write; its suffix says which format.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_curves(open_results("results/generation"), "curves.pdf")
    """
    best, names, look = best_rows(results), networks(results), look_of(results)
    figure, axes = canvas(1, len(names), 3.6, 3.2, sharey=True)
    colors = {size: f"C{i}" for i, size in enumerate(sorted({size for _, size in best}))}
    handles = {}
    for axis, name in zip(axes[0], names, strict=True):
        for (network, size), row in best.items():
            if network != name or not row.converged.size:
                continue
            epochs, curves = row.curves()
            curves = look.factor * curves.reshape(*curves.shape[:2], -1)
            for shown, number, style in look.lines:
                low, middle, high = np.quantile(curves[..., number], [0.25, 0.5, 0.75], axis=1)
                (line,) = axis.plot(epochs, middle, style, color=colors[size])
                axis.fill_between(epochs, low, high, color=colors[size], alpha=0.2, linewidth=0)
                handles[size, shown] = line
        axis.set_title(LABELS[name])
        axis.set_xlabel("epoch")
        axis.set_yscale("log" if look.log else "linear")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(look.label if look.log else "error (%)")
    if handles:
        ordered = sorted(handles)
        labels = [f"{size} {shown}".strip() for size, shown in ordered]
        beside = len(look.lines) > 1  # so many lines would be hidden below it
        place = {"loc": "outside right center"} if beside else {}
        legend = figure.legend if beside else axes[0][-1].legend
        legend([handles[key] for key in ordered], labels, title="parameters", fontsize=8, **place)
    save(figure, results, path)

"""The figures that serve any task: errors as box plots, learning curves, and the search of a hyper-parameter."""

import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.optional import require
from clockwork.report.aggregate import Row, best_rows, networks, rows, searched, watched_end
from clockwork.report.description import Description, Measure, description_of
from clockwork.report.drawing import PANEL_WIDTH, beside, canvas, legend, save, say, set_scale, set_values
from clockwork.report.fonts import names as drawn_names
from clockwork.training import Results
from clockwork.training.results import watched_errors

# Errors that span a larger factor are drawn on a logarithmic axis: on a linear one the least were lines at 0.
LINEAR_FACTOR = 10
REMARK = 12  # letters of a line below a box
BOX_WIDTH = 1.0  # inches, of a box with the name of a network below it
MEDIAN = {"color": "tab:orange", "linewidth": 1.5}
MEAN = {"marker": "D", "markersize": 4, "markerfacecolor": "tab:red", "markeredgecolor": "tab:red"}
OUTLIER = {"marker": "+", "markersize": 4, "markeredgecolor": "tab:blue"}


class _Panel(NamedTuple):
    """What is drawn into one panel: title, label of the x axis, and the rows of results with their names."""

    title: str
    label: str
    members: dict[tuple[str, int], str]


def draw_errors(results: Results, path: str | Path) -> None:
    """A box and whiskers for each network and size, over all runs and pieces of data.

    The box spans the quartiles, the line in it is the median and the diamond the mean. Whiskers reach the last run
    within 1.5 box lengths; runs beyond are drawn as outliers. All panels share one scale. It is logarithmic, and the
    axis says so, if the boxes span more than a factor of ten and no error is 0.
    Runs that diverged are not drawn but counted below their box. So are errors above the task's limit
    (`clockwork.report.Measure.top`), where the axis ends unless a box reaches higher, and means above its end.
    If several values of a hyper-parameter were trained, the runs are those of the value with the lowest mean
    watched error at the end of the training. There is a panel for each network, or one for all if they have no sizes.

    Args:
        results: of a sweep of any task; at least one finished condition.
        path: the file to write; its suffix says which format, such as ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        ValueError: if matplotlib knows no such format.
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_errors(open_results("results/words"), "figure4.png")
    """
    best, description = best_rows(results), description_of(results)
    measure, panels = description.measure, _panels(results, best, description)
    errors = {key: measure.factor * row.converged for key, row in best.items()}
    scale = _scale([error for error in errors.values() if error.size], measure)
    boxes = max(len(panel.members) for panel in panels)
    width = PANEL_WIDTH if len({size for _, size in best}) < 5 else 4.4
    figure, axes = canvas(1, len(panels), width if len(panels) > 1 else max(width, BOX_WIDTH * (boxes + 1)), 3.9)
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.boxplot(
            [errors[key] for key in panel.members],
            showmeans=True,
            widths=0.5,
            medianprops=MEDIAN,
            meanprops=MEAN,
            flierprops=OUTLIER,
        )
        labels = [_below(name, best[key], errors[key], scale.top) for key, name in panel.members.items()]
        axis.set_xticks(range(1, len(labels) + 1), labels, fontsize=7)
        axis.set_title(panel.title)
        axis.set_xlabel(panel.label)
        axis.grid(axis="y", alpha=0.3)
        axis.set_ylim(scale.low, scale.high)
        set_scale(axis, scale.log)
        if not any(errors[key].size for key in panel.members):
            say(axis, "all runs diverged")
    axes[0][0].set_ylabel(measure.label + " (log scale)" * scale.log)
    lines: Any = [(MEDIAN, "median"), ({"linestyle": "", **MEAN}, "mean"), ({"linestyle": "", **OUTLIER}, "outlier")]
    legend(figure, lines)
    save(figure, results, path)


def _panels(results: Results, best: dict[tuple[str, int], Row], description: Description) -> list[_Panel]:
    """A panel for each network with its sizes, or a single one with all networks if none has a size."""
    names = networks(results, description.labels)
    if not any(size for _, size in best):
        labels = drawn_names([description.label(name) for name in names], 2 * REMARK)
        return [_Panel("", "", {(name, 0): label for name, label in zip(names, labels, strict=True)})]
    sizes = sorted({size for _, size in best})
    return [
        _Panel(
            description.label(name),
            "number of parameters",
            {(name, size): str(size) for size in sizes if (name, size) in best},
        )
        for name in names
    ]


class _Scale(NamedTuple):
    """The axis of errors: whether it is logarithmic, its limits, and from where on errors are not drawn."""

    log: bool
    low: float
    high: float
    top: float


def _scale(errors: list[np.ndarray], measure: Measure) -> _Scale:
    if not errors:
        return _Scale(False, 0, 1, measure.top)
    quartiles = np.asarray([np.quantile(error, [0.25, 0.75]) for error in errors])
    reached = float(quartiles.max())
    top = measure.top if reached <= measure.top else 10.0 ** math.ceil(math.log10(reached))
    every = np.concatenate(errors)
    lowest, highest = float(every.min()), float(every[every <= top].max())
    if lowest > 0 and reached > LINEAR_FACTOR * quartiles.min():
        return _Scale(True, lowest / 1.3, min(highest * 1.3, top), top)
    if lowest < 0:  # such as a log likelihood
        margin = 0.05 * (highest - lowest) or 1.0
        return _Scale(False, lowest - margin, highest + margin, top)
    high = min(1.05 * highest, top) or 1.0
    return _Scale(False, -0.02 * high, high, top)


def _below(name: str, row: Row, errors: np.ndarray, top: float) -> str:
    """What stands below a box: its name, and what is not drawn."""
    lost, above = int(row.diverged.sum()), int((errors > top).sum())
    remarks = [f"{lost} diverged"] * (lost > 0) + [f"{above} above {top:g}"] * (above > 0)
    if errors.size and errors.mean() > top:
        remarks.append(f"mean {errors.mean():.0e}")
    return "\n".join(line for text in [name, *remarks] for line in textwrap.wrap(text, REMARK))


def draw_curves(results: Results, path: str | Path) -> None:
    """Learning curves: the median and the quartiles of the error over all runs and pieces of data that did not diverge.

    A panel for each network with a line for each size, or one panel with a line for each network if they have no
    sizes; the runs are those of `draw_errors`. A task may have several lines of each, such as the spoken words: the
    error on the training set is dashed there. A run that has stopped goes on with its last errors.

    Args:
        results: of a sweep of any task; at least one finished condition.
        path: as in `draw_errors`, whose errors are raised here too.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_curves(open_results("results/generation"), "curves.pdf")
    """
    best, description = best_rows(results), description_of(results)
    measure, panels = description.measure, _panels(results, best, description)
    figure, axes = canvas(1, len(panels), PANEL_WIDTH, 3.6, sharey=True)
    sized = any(size for _, size in best)
    colors = {key: f"C{i}" for i, key in enumerate(sorted({size for _, size in best}) if sized else panels[0].members)}
    handles = {}
    for axis, panel in zip(axes[0], panels, strict=True):
        for key, row in best.items():
            if key not in panel.members or not row.converged.size:
                continue
            member: Any = key[1] if sized else key
            epochs, curves = row.curves()
            for line in measure.lines:
                values = measure.factor * shown(results, curves, line.number)
                with np.errstate(invalid="ignore"):  # errors may be infinite for a while
                    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
                (drawn,) = axis.plot(epochs, middle, line.style, color=colors[member])
                axis.fill_between(epochs, low, high, color=colors[member], alpha=0.2, linewidth=0)
                handles[member, line.name, panel.members[key]] = drawn
        if not axis.lines:
            say(axis, "all runs diverged")
            axis.set_xticks([])
        axis.set_title(panel.title)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    log = _logarithmic(measure.log, [line.get_ydata() for axis in axes[0] for line in axis.lines])
    for axis in axes[0]:
        set_scale(axis, log)
    axes[0][0].set_ylabel((measure.label if measure.curves is None else measure.curves) + " (log scale)" * log)
    if handles:
        ordered = sorted(handles, key=lambda key: (list(colors).index(key[0]), key[1]))
        labels = [f"{name} {shown}".strip() for _, shown, name in ordered]
        lines, title = [handles[key] for key in ordered], "parameters" if sized else "network"
        figure.legend(lines, labels, title=title, fontsize=8, loc="outside right center")
    save(figure, results, path, ["Lines: median over the runs; bands: quartiles."])


def shown(results: Results, curves: np.ndarray, number: int | None) -> np.ndarray:
    """Of the errors ``(P, R, ...)`` of learning curves, those that a line shows, ``(P, R)``."""
    if number is not None:
        return curves.reshape(*curves.shape[:2], -1)[..., number]
    return watched_errors(results.task, curves.reshape(-1, *curves.shape[2:])).reshape(curves.shape[:2])


def _logarithmic(asked: bool | None, lines: list[np.ndarray]) -> bool:
    """Whether lines are drawn on a logarithmic axis: if that is asked for and possible, or they span a large factor."""
    values = np.concatenate([np.zeros(0), *lines])
    if asked is not None:
        return asked and bool((values > 0).any())
    values = values[np.isfinite(values)]
    return values.size > 0 and 0 < float(values.min()) < float(values.max()) / LINEAR_FACTOR


def draw_search(results: Results, path: str | Path) -> None:
    """The error over the values of each hyper-parameter of which several were trained.

    A line for each network joins the medians over all runs and pieces of data that did not diverge; bars span the
    quartiles. There is a row of panels for each hyper-parameter and a column for each size. The axis of the values is
    logarithmic if they span decades. Where runs diverged, a narrow panel below shows how many of each network. If
    several hyper-parameters were searched, each point has the values of the others with the lowest mean watched
    error at the end of the training.

    Args:
        results: of a sweep of any task; at least one finished condition.
        path: as in `draw_errors`, whose errors are raised here too.

    Raises:
        ValueError: if there is one value alone of each hyper-parameter.

    Example:
        >>> import tempfile
        >>> from clockwork.tasks import Generation
        >>> from clockwork.training import sweep
        >>> task = Generation(2, ("srn",), (100,), 5, (1e-4, 1e-3), clips=("choir",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_search(sweep(task, folder), f"{folder}/search.png")
    """
    description, found, sought = description_of(results), rows(results), searched(results)
    if not sought:
        raise ValueError("there is no search to draw: one value alone of each hyper-parameter was trained")
    names, sizes = networks(results, description.labels), sorted({row.size for row in found})
    lost = any(row.diverged.any() for row in found)
    each = 2 if lost else 1  # rows of panels for each hyper-parameter
    figure, axes = canvas(
        each * len(sought), len(sizes), PANEL_WIDTH, 4.2 / each, height_ratios=[4, 1][:each] * len(sought)
    )
    drawn: list[np.ndarray] = []
    for line, name in enumerate(sought):
        values = sorted({dict(row.hyperparameters)[name] for row in found if name in dict(row.hyperparameters)})
        for column, size in enumerate(sizes):
            panels = axes[each * line : each * (line + 1), column]
            for axis in panels:
                set_values(axis, values)
                axis.grid(alpha=0.3)
            for position, network in enumerate(names):
                points = _points(results, [r for r in found if (r.network, r.size) == (network, size)], name)
                places = dict(zip(points, beside(panels[0], list(points), position, len(names)), strict=True))
                drawn.append(_draw_points(panels[0], places, points, description.measure, _point_style(position)))
                if lost:
                    counts = [int(row.diverged.sum()) for row in points.values()]
                    panels[1].plot(list(places.values()), counts, **_point_style(position))
            if not panels[0].lines:
                say(panels[0], "all runs diverged")
            if line == 0 and any(sizes):
                panels[0].set_title(f"{size} parameters")
            panels[-1].set_xlabel(name.replace("_", " "))
            if lost:
                panels[0].tick_params(labelbottom=False)
                panels[1].yaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(3, integer=True))
    log = _logarithmic(None, drawn)
    for axis in axes[::each].flat:
        axis.set_ylim(*_limits(drawn, log))
        set_scale(axis, log)
    for first in axes[::each, 0]:
        first.set_ylabel(description.measure.label + " (log scale)" * log)
    remarks = ["Lines: median over the runs; bars: quartiles."]
    if lost:
        most = max(int(row.diverged.sum()) for row in found)
        for axis in axes[1::each].flat:
            axis.set_ylim(-0.1 * most, 1.15 * most)
        for first in axes[1::each, 0]:
            first.set_ylabel("diverged")
        remarks.append(f"Diverged: number of runs, of {max(row.diverged.size for row in found)}.")
    labels = drawn_names([description.label(name) for name in names], 2 * REMARK)
    legend(figure, [(_point_style(position), label) for position, label in enumerate(labels)])
    save(figure, results, path, remarks)


def _point_style(position: int) -> dict[str, Any]:
    return {"color": f"C{position}", "marker": "o", "markersize": 4, "linewidth": 1.2}


def _points(results: Results, found: list[Row], name: str) -> dict[float, Row]:
    """By value of a hyper-parameter, ascending, the row whose other hyper-parameters are the best."""
    best: dict[float, Row] = {}
    for row in found:
        value = dict(row.hyperparameters).get(name)
        if value is not None and (value not in best or watched_end(results, row) < watched_end(results, best[value])):
            best[value] = row
    return dict(sorted(best.items()))


def _draw_points(
    axis: Any, places: dict[float, float], points: dict[float, Row], measure: Measure, style: dict[str, Any]
) -> np.ndarray:
    """Draw medians and quartiles at the places of their values; returns all of them that are finite."""
    values = [value for value, row in points.items() if row.converged.size]
    if not values:
        return np.zeros(0)
    errors = [measure.factor * points[value].converged for value in values]
    low, middle, high = np.array([np.quantile(error, [0.25, 0.5, 0.75]) for error in errors]).T
    axis.errorbar(
        [places[value] for value in values], middle, [middle - low, high - middle], capsize=3, elinewidth=1, **style
    )
    every = np.concatenate([low, middle, high])
    return every[np.isfinite(every)]


def _limits(drawn: list[np.ndarray], log: bool) -> tuple[float, float]:
    """The ends of the axis of errors, some way beyond all that is drawn."""
    every = np.concatenate([np.zeros(0), *drawn])
    if not every.size:
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    if log:
        return low / 1.3, high * 1.3
    margin = 0.05 * (high - min(low, 0)) or 1.0
    return min(low, 0) - margin * (low < 0), high + margin

"""The table of a sweep."""

from collections.abc import Callable

import numpy as np

from clockwork.checks import chosen, counted
from clockwork.report.aggregate import Row, rows, searched
from clockwork.report.description import Column, Description, Measure, description_of
from clockwork.report.fonts import columns as width_of
from clockwork.training import Results


def table(results: Results) -> str:
    """The results as Markdown that reads well as plain text too.

    A row for each network, size and choice of hyper-parameters, with the mean ± sd, the median and the best of the
    error over all runs and pieces of data that did not diverge, how many did, how many the limit of epochs cut (where
    there is early stopping), and the columns that the task adds; then the mean by piece. Above it stands what was
    learnt, below it what was measured.

    Args:
        results: of a sweep of any task; conditions that are not finished are left out. A task says it in its own words
            by a method ``report`` that returns a `clockwork.report.Description`.

    Example:
        >>> import tempfile
        >>> from clockwork.tasks import Generation
        >>> from clockwork.training import Store
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = Store(folder, Generation(runs=2)).results()
        >>> print(table(results).splitlines()[2])
        0 of 120 training runs are finished: 2 runs of each network, size and clip; 2000 epochs, gradient norm clipped
        at 30, seed 0.
    """
    task, description = results.task, description_of(results)
    conditions, choices = task.conditions(), [name.replace("_", " ") for name in searched(results)]
    sizes, pieces = any(condition.size for condition in conditions), any(condition.data for condition in conditions)
    each = _joined(["network", *["size"] * sizes, *[description.piece] * pieces, *choices])
    finished, planned = len(results.conditions) * task.runs, len(conditions) * task.runs
    progress = f"{finished} of {planned} training runs are finished: {counted(task.runs, 'run')} of each {each}"
    lines = [f"# {description.title}", "", f"{progress}; {description.training}, seed {task.seed}.", ""]
    for sentence in (description.learnt, " ".join(description.remarks)):
        lines += [sentence, ""] if sentence else []
    which = _identity(results, description)
    lines += _written(_columns(results, description, which), rows(results))
    names = list(dict.fromkeys(condition.data for condition in results.conditions))
    if len(names) > 1:
        means = [Column(name, _mean_on(name, description.measure)) for name in names]
        lines += ["", f"{description.measure.header(f'Mean {description.measure.name}')} by {description.piece}:", ""]
        lines += _written([*which.values(), *means], rows(results))
    if description.comparison:
        lines += ["", description.comparison]
    if choices:
        one = _joined(["network", *["size"] * sizes])
        rule = f"For each {one}, {description.uses} the {_joined(choices)} with the lowest mean {description.watched}."
        lines += ["", rule]
    return "\n".join([*lines, "", description.notes])


def _identity(results: Results, description: Description) -> dict[str, Column]:
    """What tells rows apart."""
    conditions = results.task.conditions()
    found = {"network": Column("network", lambda row: description.label(row.network))}
    if any(condition.size for condition in conditions):
        found["size"] = Column("size", lambda row: str(row.size))
    for name in dict.fromkeys(name for condition in conditions for name, _ in condition.hyperparameters):
        found[f"={name}"] = Column(description.hyperparameters.get(name, name), _value_of(name))
    return found


def _columns(results: Results, description: Description, which: dict[str, Column]) -> list[Column]:
    """All columns of the main table, those that the task adds in their places."""
    task, measure = results.task, description.measure
    own: dict[str, list[Column]] = {"size": [], "error": [], "diverged": []}
    for column in description.columns:
        chosen("place of a column", (column.after,), tuple(own))
        own[column.after].append(column)
    first = [column for name, column in which.items() if not name.startswith("=")]
    values = [column for name, column in which.items() if name.startswith("=")]
    parameters = Column("parameters", lambda row: str(int(next(iter(row.conditions.values())).num_parameters)))
    error = [
        Column(measure.header(measure.name) + " mean ± sd", lambda row: _mean(row, measure)),
        Column(measure.header("median"), lambda row: _of(row, lambda e: measure.number(float(np.median(e))))),
        Column(measure.header("best"), lambda row: _of(row, lambda e: measure.number(float(e.min())))),
    ]
    stopping = [
        Column("epochs", lambda row: _of(row, lambda _: f"{np.median(row.epochs[~row.diverged]):g}")),
        Column("cut at limit", lambda row: _of_all(row, (row.epochs >= task.epochs) & ~row.diverged)),
    ]
    diverged = Column("diverged", lambda row: _of_all(row, row.diverged))
    counts = [*(stopping if task.patience is not None else []), diverged]
    return [*first, *own["size"], parameters, *values, *error, *own["error"], *counts, *own["diverged"]]


def _value_of(name: str) -> Callable[[Row], str]:
    """Writes a hyper-parameter of a row; nothing if it has none of this name."""

    def value(row: Row) -> str:
        found = dict(row.hyperparameters).get(name)
        return "" if found is None else f"{found:g}"

    return value


def _mean(row: Row, measure: Measure) -> str:
    def both(errors: np.ndarray) -> str:
        sd = float(errors.std(ddof=1)) if errors.size > 1 else float("nan")
        return f"{measure.number(errors.mean())} ± {measure.number(sd)}"

    return _of(row, both)


def _of(row: Row, write: Callable[[np.ndarray], str]) -> str:
    """A figure of the runs that did not diverge."""
    errors = row.converged
    return write(errors) if errors.size else "none"


def _of_all(row: Row, counts: np.ndarray) -> str:
    return f"{int(counts.sum())} of {row.diverged.size}"


def _mean_on(piece: str, measure: Measure) -> Callable[[Row], str]:
    """Writes the mean error of a row on a piece of data; nothing if that is not finished."""

    def mean(row: Row) -> str:
        if piece not in row.conditions:
            return ""
        errors = row.conditions[piece].error
        finite = errors[~np.isnan(errors)].astype(np.float64)
        return measure.number(float(finite.mean()) if finite.size else float("nan"))

    return mean


def _joined(names: list[str]) -> str:
    """Names for a sentence, such as ``"network, size and clip"``."""
    return " and ".join([*[", ".join(names[:-1])] * (len(names) > 1), names[-1]])


def _written(columns: list[Column], found: list[Row]) -> list[str]:
    """A table in Markdown whose columns are aligned in plain text too: numbers to the right."""
    header, body = [column.header for column in columns], [[column.figure(row) for column in columns] for row in found]
    widths = [max(width_of(cells[i]) for cells in [header, *body]) for i in range(len(header))]
    left = [all(not cells[i][:1].isdigit() for cells in body) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        gaps = [" " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True)]
        padded = [cell + gap if is_left else gap + cell for cell, gap, is_left in zip(cells, gaps, left, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w) if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    return [line(header), line(rule), *map(line, body)]

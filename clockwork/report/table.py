"""The table of a sweep, with the paper's figures beside ours."""

import numpy as np

from clockwork.checks import counted
from clockwork.report.aggregate import Row, notes, rows
from clockwork.report.facts import learnt
from clockwork.report.fonts import columns
from clockwork.report.texts import text_of
from clockwork.tasks import Experiment
from clockwork.tasks.paper import LABELS
from clockwork.training import Results


def table(results: Results) -> str:
    """The results as Markdown that reads well as plain text too.

    A row for each network, size and learning rate, with the mean ± sd, the median and the best of the error over
    all runs and pieces of data that did not diverge, how many did, how many the limit of epochs cut (where there is
    early stopping), and the paper's figure beside the paper's or the embedded data; then the mean by piece. Above it
    stands what was learnt, below it what was measured.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; conditions that are not finished
            are left out.

    Raises:
        ValueError: if they are of another task.

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
    task = results.task
    text = text_of(results)
    assert isinstance(task, Experiment)
    finished, planned = len(results.conditions) * task.runs, len(task.conditions()) * task.runs
    lines = [f"# {text.title}", ""]
    searched = task.learning_rates is not None and len(task.learning_rates) > 1
    each = f"network, size, {text.piece} and learning rate" if searched else f"network, size and {text.piece}"
    progress = f"{finished} of {planned} training runs are finished: {counted(task.runs, 'run')} of each {each}"
    lines += [f"{progress}; {text.training}, seed {task.seed}.", ""]
    for said in (learnt(results), " ".join(notes(results))):
        lines += [said, ""] if said else []
    lines += _aligned(
        ["network", "size", "units", "parameters", "rate", *text.columns],
        [_description(task, row) + text.figures(row) for row in rows(results)],
    )
    pieces = list(dict.fromkeys(condition.data for condition in results.conditions))
    if len(pieces) > 1:
        lines += ["", f"{text.mean} by {text.piece}:", ""]
        lines += _aligned(
            ["network", "size", "rate", *pieces],
            [
                [LABELS[row.network], str(row.size), f"{row.learning_rate:g}"]
                + [
                    text.number(_mean(row.conditions[piece].error)) if piece in row.conditions else ""
                    for piece in pieces
                ]
                for row in rows(results)
            ],
        )
    if comparison := text.comparison(results):
        lines += ["", comparison]
    if searched:
        lines += ["", text.searched]
    return "\n".join([*lines, "", text.notes])


def _description(task: Experiment, row: Row) -> list[str]:
    return [
        LABELS[row.network],
        str(row.size),
        str(task.units[row.size][row.network]),
        str(int(next(iter(row.conditions.values())).num_parameters)),
        f"{row.learning_rate:g}",
    ]


def _mean(errors: np.ndarray) -> float:
    finite = errors[~np.isnan(errors)].astype(np.float64)
    return float(finite.mean()) if finite.size else float("nan")


def _aligned(header: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(columns(cells[column]) for cells in [header, *body]) for column in range(len(header))]
    left = [all(not _numeric(cells[column]) for cells in body) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        gaps = [" " * (width - columns(cell)) for cell, width in zip(cells, widths, strict=True)]
        padded = [cell + gap if is_left else gap + cell for cell, gap, is_left in zip(cells, gaps, left, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w) if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    return [line(header), line(rule), *map(line, body)]


def _numeric(text: str) -> bool:
    return text[:1].isdigit()

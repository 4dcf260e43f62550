"""The table of a sweep, with the paper's figures beside ours."""

import numpy as np

from clockwork.report.select import Row, best_rows, rows
from clockwork.tasks.generation import LABELS, PUBLISHED, UNITS, Generation
from clockwork.training import Results

NOTES = """\
NMSE: mean squared error divided by the variance of the target, both over all samples; a network that
has learnt only the mean has 1. A run has diverged when its loss or the norm of its gradient was ever not finite; mean,
sd, median and best are over the others. A run that exploded to a finite error counts among those: then
trust the median. The paper's figures are those of its Table 2: mean and sd over 100 runs, on
other clips; it does not define its NMSE. By ours the SRN's 0.46 would be far better than a mean, yet
its Figure 5 shows an SRN that generates little more than the mean: it was normalised in another way.
"""


def table(results: Results) -> str:
    """The results as Markdown that reads well as plain text too.

    A row for each network, size and learning rate, with the mean ± sd, the median and the best of the error over
    all runs and clips that did not diverge, how many did, and the paper's figure; then the mean by clip.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; cells that are not finished are left out.

    Example:
        >>> import tempfile
        >>> from clockwork.tasks import Generation
        >>> from clockwork.training import Store
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = Store(folder, Generation(runs=2)).results()
        >>> print(table(results).splitlines()[2])
        0 of 120 networks, 2 runs each, 2000 epochs, gradient norm clipped at 30, seed 0.
    """
    task = results.task
    assert isinstance(task, Generation)
    searched = task.learning_rates is not None and len(task.learning_rates) > 1
    lines = [f"# Sequence generation, protocol `{task.protocol}`", "", _settings(task, results), ""]
    lines += _aligned(
        ["network", "size", "units", "parameters", "rate", "NMSE mean ± sd", "median", "best", "diverged", "paper"],
        [_row(row) for row in rows(results)],
    )
    names = list(dict.fromkeys(cell.data for cell in results.cells))
    if len(names) > 1:
        lines += ["", "Mean NMSE by clip:", ""]
        lines += _aligned(
            ["network", "size", "rate", *names],
            [
                [LABELS[row.network], str(row.size), f"{row.learning_rate:g}"]
                + [_number(_mean(row.cells[name].error)) if name in row.cells else "" for name in names]
                for row in rows(results)
            ],
        )
    ratios = _ratios(results)
    if ratios:
        lines += ["", ratios]
    if searched:
        lines += ["", "Figures and ratios use the learning rate with the lowest mean of each network and size."]
    return "\n".join([*lines, "", NOTES])


def _settings(task: Generation, results: Results) -> str:
    clipping = "no gradient clipping" if task.clips_at is None else f"gradient norm clipped at {task.clips_at:g}"
    finished = len(results.cells) * task.runs
    planned = len(task.cells()) * task.runs
    return (
        f"{finished} of {planned} networks, {task.runs} runs each, {task.epochs} epochs, {clipping}, seed {task.seed}."
    )


def _row(row: Row) -> list[str]:
    ok = row.converged
    published = PUBLISHED.get(row.network) if row.size == max(UNITS) else None
    return [
        LABELS[row.network],
        str(row.size),
        str(UNITS[row.size][row.network]),
        str(int(next(iter(row.cells.values())).parameters)),
        f"{row.learning_rate:g}",
        f"{_number(ok.mean())} ± {_number(_sd(ok))}" if ok.size else "none",
        _number(np.median(ok)) if ok.size else "none",
        _number(ok.min()) if ok.size else "none",
        f"{int(row.diverged.sum())} of {row.diverged.size}",
        f"{published[0]} ± {published[1]}" if published else "",
    ]


def _ratios(results: Results) -> str:
    """The mean errors of the others as multiples of the CW-RNN's, at the largest size that has all."""
    best = best_rows(results)
    for size in sorted({size for _, size in best}, reverse=True):
        means = {name: best[name, size].converged for name in LABELS if (name, size) in best}
        if "cwrnn" in means and len(means) > 1 and all(errors.size for errors in means.values()):
            own = means.pop("cwrnn").mean()
            parts = [
                f"{LABELS[name]} {errors.mean() / own:.3g} times the CW-RNN's"
                + (
                    f" (paper: {PUBLISHED[name][0] / PUBLISHED['cwrnn'][0]:.1f})"
                    if name in PUBLISHED and size == max(UNITS)
                    else ""
                )
                for name, errors in means.items()
            ]
            return f"Mean NMSE at size {size}: {'; '.join(parts)}."
    return ""


def _mean(errors: np.ndarray) -> float:
    finite = errors[~np.isnan(errors)].astype(np.float64)
    return float(finite.mean()) if finite.size else float("nan")


def _sd(errors: np.ndarray) -> float:
    return float(errors.std(ddof=1)) if errors.size > 1 else float("nan")


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:.1e}"


def _aligned(header: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(cells[column]) for cells in [header, *body]) for column in range(len(header))]
    left = [all(not _numeric(cells[column]) for cells in body) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w) if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    return [line(header), line(rule), *map(line, body)]


def _numeric(text: str) -> bool:
    return text[:1].isdigit()

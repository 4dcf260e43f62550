"""What the table says of each experiment in its own words."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from clockwork.report.select import Row, compared
from clockwork.tasks import Generation, Task, Words
from clockwork.tasks.experiment import LABELS
from clockwork.training import Results

GENERATION_NOTES = """\
NMSE: mean squared error divided by the variance of the target, both over all samples; a network that
has learnt only the mean has 1. A run has diverged when its loss or the norm of its gradient was ever not finite; mean,
sd, median and best are over the others. A run that exploded to a finite error counts among those: then
trust the median. The paper's figures are those of its Table 2: mean and sd over 100 runs, on
other clips; it does not define its NMSE. By ours the SRN's 0.46 would be far better than a mean, yet
its Figure 5 shows an SRN that generates little more than the mean: it was normalised in another way.
"""

WORDS_NOTES = """\
Test error: the share of the test set's words, said by speakers that are not in the training set, that a network takes
for another word. It is that of the network at the epoch where its run stopped, which the training set
decides, not at the epoch that is best on the test set. Train error: the same share of the training set, without
noise. A run has diverged when its loss or the norm of its gradient was ever not finite; mean, sd, median, best and
epochs are over the others. The paper's figures are those of its Table 2: mean and sd over 100 runs, on recordings
of TIMIT.
"""


class Text(NamedTuple):
    """The parts of a table that differ between experiments.

    Attributes:
        title: of the document.
        training: how the runs were trained, for the line below it.
        columns: the headers of `figures`.
        figures: of a row, as many as `columns`.
        mean: what the mean error is called, such as ``"Mean NMSE"``.
        piece: what a piece of data is called, such as ``"clip"``.
        number: how an error is written.
        comparison: a sentence that compares the networks; empty if they cannot be.
        searched: what to know where several learning rates were tried.
        notes: what was measured.
    """

    title: str
    training: str
    columns: list[str]
    figures: Callable[[Row], list[str]]
    mean: str
    piece: str
    number: Callable[[float], str]
    comparison: Callable[[Results], str]
    searched: str
    notes: str


def text_of(task: Task) -> Text:
    """The words for a task.

    Raises:
        ValueError: if it is neither of the paper's experiments.
    """
    if isinstance(task, Generation):
        return _generation(task)
    if isinstance(task, Words):
        return _words(task)
    raise ValueError(f"a report can be written of the tasks generation and words, got {task.name!r}")


def _generation(task: Generation) -> Text:
    clipping = "no gradient clipping" if task.clips_at is None else f"gradient norm clipped at {task.clips_at:g}"
    return Text(
        title=f"Sequence generation, protocol `{task.protocol}`",
        training=f"{task.epochs} epochs, {clipping}",
        columns=["NMSE mean ± sd", "median", "best", "diverged", "paper"],
        figures=lambda row: [*_errors(row, _number), _diverged(row), _published(task, row, "{} ± {}", 1)],
        mean="Mean NMSE",
        piece="clip",
        number=_number,
        comparison=_ratios,
        searched="Figures and ratios use the learning rate with the lowest mean of each network and size.",
        notes=GENERATION_NOTES,
    )


def _words(task: Words) -> Text:
    def figures(row: Row) -> list[str]:
        trained, epochs = ["none"], ["none"]
        if row.converged.size:
            ends = np.concatenate([result.curve[-1, :, 0] for result in row.cells.values()])[~row.diverged]
            stopped = np.concatenate([result.epochs for result in row.cells.values()])[~row.diverged]
            trained, epochs = [_percent(ends.astype(np.float64).mean())], [f"{np.median(stopped):g}"]
        published = _published(task, row, "{:.1f} ± {:.1f}", 100)
        return [*_errors(row, _percent), *trained, *epochs, _diverged(row), published]

    return Text(
        title="Spoken word classification",
        training=(
            f"at most {task.epochs} epochs, batch {task.batch}, noise sd {task.noise:g}, "
            f"loss at {task.loss_at} frame, stopped after {task.stop_after} epochs without a lower training "
            f"{task.stop_on}"
        ),
        columns=["test error % mean ± sd", "median %", "best %", "train error %", "epochs", "diverged", "paper %"],
        figures=figures,
        mean="Mean test error %",
        piece="split",
        number=_percent,
        comparison=_order,
        searched=f"Figures and the order use the learning rate with the lowest mean training {task.stop_on} of each "
        "network and size.",
        notes=WORDS_NOTES,
    )


def _errors(row: Row, number: Callable[[float], str]) -> list[str]:
    """Mean and sd, median, best."""
    ok = row.converged
    if not ok.size:
        return ["none"] * 3
    sd = float(ok.std(ddof=1)) if ok.size > 1 else float("nan")
    return [f"{number(ok.mean())} ± {number(sd)}", number(float(np.median(ok))), number(ok.min())]


def _diverged(row: Row) -> str:
    return f"{int(row.diverged.sum())} of {row.diverged.size}"


def _published(task: Generation | Words, row: Row, form: str, factor: float) -> str:
    if row.network not in task.published or row.size != max(task.units):
        return ""
    return form.format(*(factor * figure for figure in task.published[row.network]))


def _ratios(results: Results) -> str:
    """The mean errors of the others as multiples of the CW-RNN's, at the largest size that has all."""
    size, errors = compared(results, needed="cwrnn")
    if not errors:
        return ""
    own = errors.pop("cwrnn").mean()
    paper = Generation.published if size == max(Generation.units) else {}
    parts = [
        f"{LABELS[name]} {others.mean() / own:.3g} times the CW-RNN's"
        + (f" (paper: {paper[name][0] / paper['cwrnn'][0]:.1f})" if name in paper else "")
        for name, others in errors.items()
    ]
    return f"Mean NMSE at size {size}: {'; '.join(parts)}."


def _order(results: Results) -> str:
    """The networks by their mean error, the lowest first, at the largest size that has two or more."""
    size, errors = compared(results)
    if not errors:
        return ""
    means = sorted((float(e.mean()), name) for name, e in errors.items())
    ours = ", ".join(f"{LABELS[name]} {_percent(mean)} %" for mean, name in means)
    published = {name: Words.published[name] for name in errors if name in Words.published}
    paper = ""
    if size == max(Words.units) and len(published) > 1:
        ranked = sorted((mean, name) for name, (mean, _) in published.items())
        paper = f" (paper: {', '.join(f'{LABELS[name]} {_percent(mean)} %' for mean, name in ranked)})"
    return f"Mean test error at size {size}, the lowest first: {ours}{paper}."


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:.1e}"


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"

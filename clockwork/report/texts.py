"""What the table says of each experiment in its own words."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from clockwork.checks import counted
from clockwork.report.aggregate import Row, compared
from clockwork.report.facts import cut, papers_data
from clockwork.tasks import Generation, Words
from clockwork.tasks.paper import LABELS
from clockwork.training import Results

GENERATION_NOTES = """\
NMSE is the mean squared error divided by the variance of the target, both over all samples: a network that outputs only
the target's mean scores 1. A run counts as diverged if its loss or gradient norm ever became non-finite; mean, sd,
median and best are over the other runs. A run whose error exploded but stayed finite is among them and dominates the
mean: compare the medians then.
"""

GENERATION_PAPER = """\
The paper's figures are those of its Table 2: mean and sd over 100 runs, on other clips. The paper does not define its
NMSE. By the definition above, an SRN with an NMSE of 0.46 would be far better than the mean; the SRN in the paper's
Figure 5 outputs little more than the mean. So the paper's NMSE was normalised in another way.
"""

WORDS_NOTES = """\
Test error is the share of test words that a network takes for another word; no speaker of the test set is in the
training set. It is measured when the run stops, which the training set decides, not at the epoch with the lowest test
error. Train error is the same share of the training words, without input noise. Cut at limit: runs that the limit of
epochs ended before early stopping did; with more epochs their errors may be lower. A run counts as diverged if its loss
or gradient norm ever became non-finite; mean, sd, median, best and epochs (a median) are over the other runs.
"""

WORDS_PAPER = """\
The paper's figures are those of its Table 2: mean and sd over 100 runs, on recordings of TIMIT.
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


def text_of(results: Results) -> Text:
    """The words for the results of a task.

    Raises:
        ValueError: if it is neither of the paper's experiments.
    """
    if isinstance(results.task, Generation):
        return _generation(results.task, papers_data(results))
    if isinstance(results.task, Words):
        return _words(results.task, papers_data(results))
    raise ValueError(f"a report can be written of the tasks generation and words, got {results.task.name!r}")


def _generation(task: Generation, paper: bool) -> Text:
    return Text(
        title=f"Sequence generation, protocol `{task.protocol}`",
        training=f"{counted(task.epochs, 'epoch')}, {task.training.clipping}",
        columns=["NMSE mean ± sd", "median", "best", "diverged", *["paper"] * paper],
        figures=lambda row: [
            *_errors(row, _number),
            _diverged(row),
            *[_published(task, row, "{} ± {}", 1)] * paper,
        ],
        mean="Mean NMSE",
        piece="clip",
        number=_number,
        comparison=lambda results: _ratios(results, paper),
        searched="For each network and size, the figures and the comparison use the learning rate with the lowest mean "
        "training NMSE.",
        notes="\n".join([GENERATION_NOTES] + [GENERATION_PAPER] * paper),
    )


def _words(task: Words, paper: bool) -> Text:
    def figures(row: Row) -> list[str]:
        trained, epochs = ["none"], ["none"]
        if row.converged.size:
            ends = np.concatenate([result.curve[-1, :, 0] for result in row.conditions.values()])[~row.diverged]
            stopped = np.concatenate([result.epochs for result in row.conditions.values()])[~row.diverged]
            trained, epochs = [_percent(ends.astype(np.float64).mean())], [f"{np.median(stopped):g}"]
        counts = [f"{cut(task, row)} of {row.diverged.size}", _diverged(row)]
        published = [_published(task, row, "{:.1f} ± {:.1f}", 100)] * paper
        return [*_errors(row, _percent), *trained, *epochs, *counts, *published]

    errors = ["test error % mean ± sd", "median %", "best %", "train error %"]
    place = "on the last frame" if task.loss_at == "last" else "averaged over all frames"
    return Text(
        title="Spoken word classification",
        training=(
            f"at most {counted(task.epochs, 'epoch')}, batch size {task.batch}, input noise of sd {task.noise:g}, "
            f"loss {place}, early stopping after {counted(task.stop_after, 'epoch')} without a lower training "
            f"{task.stop_on}"
        ),
        columns=[*errors, "epochs", "cut at limit", "diverged", *["paper %"] * paper],
        figures=figures,
        mean="Mean test error %",
        piece="split",
        number=_percent,
        comparison=lambda results: _order(results, paper),
        searched="For each network and size, the figures and the comparison use the learning rate with the lowest mean "
        f"training {task.stop_on}.",
        notes="\n".join([WORDS_NOTES] + [WORDS_PAPER] * paper),
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


def _ratios(results: Results, paper: bool) -> str:
    """The mean errors of the others as multiples of the CW-RNN's, at the largest size that has all."""
    size, errors = compared(results, needed="cwrnn")
    own = errors.pop("cwrnn").mean() if errors else 0
    if not own:
        return ""
    published = Generation.published if paper and size == max(Generation.units) else {}
    parts = [
        f"{LABELS[name]} {others.mean() / own:.3g} times"
        + (f" (paper: {published[name][0] / published['cwrnn'][0]:.1f})" if name in published else "")
        for name, others in errors.items()
    ]
    return f"Mean NMSE at size {size} as a multiple of the CW-RNN's: {', '.join(parts)}."


def _order(results: Results, paper: bool) -> str:
    """The networks by their mean error, the lowest first, at the largest size that has two or more."""
    size, errors = compared(results)
    if not errors:
        return ""
    means = sorted((float(e.mean()), name) for name, e in errors.items())
    ours = ", ".join(f"{LABELS[name]} {_percent(mean)} %" for mean, name in means)
    published = {name: Words.published[name] for name in errors if name in Words.published}
    theirs = ""
    if paper and size == max(Words.units) and len(published) > 1:
        ranked = sorted((mean, name) for name, (mean, _) in published.items())
        theirs = f" (paper: {', '.join(f'{LABELS[name]} {_percent(mean)} %' for mean, name in ranked)})"
    return f"Mean test error at size {size}, lowest first: {ours}{theirs}."


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:.1e}"


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"

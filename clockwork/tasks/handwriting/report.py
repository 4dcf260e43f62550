"""What the report of the handwriting says and draws in its own words."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from clockwork import ctc
from clockwork.checks import counted
from clockwork.report import Column, Description, Listing, Measure, draw_curves, draw_errors
from clockwork.report.aggregate import Row, best_kept, largest_rows
from clockwork.report.description import percent
from clockwork.report.fonts import code
from clockwork.tasks.handwriting.data import text_of
from clockwork.tasks.handwriting.task import Handwriting
from clockwork.tasks.handwriting.transcript import draw_transcript
from clockwork.tasks.published import compared, units_column
from clockwork.training import ConditionResult, Results

# Table 3: character error rates, the mean of 3 runs; no standard deviations are published.
TABLE_3 = {
    10000: {"srn": 0.528, "lstm": 0.342, "cwrnn": 0.672},
    50000: {"srn": 0.434, "lstm": 0.214, "cwrnn": 0.465},
    100000: {"srn": 0.475, "lstm": 0.192, "cwrnn": 0.395},
}
STUCK, APART = 0.9, 0.15  # a run with a larger error, or so much above the best run of its row, is stuck

NOTES = f"""\
CER: character error rate on the test set, by best path decoding: all insertions, deletions and substitutions, divided
by the number of characters of all lines. WER: the same of words, which blanks separate; {{kept}}. Both are of the
parameters with the lowest validation error, tested once. A run counts as stuck if its CER is above {100 * STUCK:.0f} %
or more than {100 * APART:.0f} points above the best run of its row; the column "not stuck" leaves such runs out. Cut at
limit: runs that the limit of epochs ended before early stopping did; with more epochs their errors may be lower. A run
counts as diverged if its loss or gradient norm ever became non-finite; mean, sd, median, best and epochs (a median) are
over the other runs.
"""

PAPER = """\
The paper's figures are those of its Table 3: means of 3 runs, of networks with 9 modules.
"""


def description(task: Handwriting, results: Results) -> Description:
    """The description of the results of a task: from what is stored with them, as the data may be gone."""
    data = next((result.data for result in results.conditions.values()), {})
    paper = str(data.get("set", "")) == "IAM-OnDB"
    every = "mean of all runs" if task.runs <= task.kept_outputs else f"mean of the best {task.kept_outputs} runs"
    return Description(
        title="Online handwriting",
        training=_training(task),
        measure=Measure("CER", "%", 100, percent, curves="validation CER (%)", log=False),
        learnt=_learnt(task, data),
        piece="data",
        labels=task.labels,
        hyperparameters={"learning_rate": "rate", "clip_norm": "clip"},
        columns=[
            units_column(task),
            Column("not stuck % mean ± sd", _not_stuck, after="error"),
            Column("WER %", _word_error, after="error"),
            *[Column("paper %", _published)] * paper,
            Column("stuck", _stuck),
        ],
        watched="validation CER",
        uses="the figures and the comparison use",
        comparison=_order(results, paper),
        remarks=[f"{note[:1].upper()}{note[1:]}." for note in map(str, data.get("notes", ()))],
        notes="\n".join([NOTES.format(kept=every)] + [PAPER] * paper),
        figures={"errors": draw_errors, "curves": draw_curves, "transcript": draw_transcript},
        listings=_read,
    )


def _read(results: Results) -> list[Listing]:
    """What the best run of each network at its largest size reads in each test line."""
    labels: Mapping[str, str] = results.task.labels  # pyright: ignore[reportAttributeAccessIssue]
    rows, columns, header = largest_rows(results, labels), [], []
    for row in rows:
        result = next(iter(row.conditions.values()))
        if row.converged.size:
            characters = str(result.data["characters"])
            columns.append([text_of(line, characters) for line in result.outputs["labels"][best_kept(result)]])
            header.append(f"{labels[row.network]}, {row.size} parameters")
    texts = [str(text) for text in next(iter(rows[0].conditions.values())).data["texts"]]
    return [Listing("What was read", ("test line", *header), list(zip(texts, *columns, strict=True)))]


def _training(task: Handwriting) -> str:
    clips = {
        clip for name in task.names for one in task.hyperparameters(name) for key, clip in one if key != "learning_rate"
    }
    clipping = "no gradient clipping" if clips == {math.inf} else "gradient norm clipped"
    return (
        f"at most {counted(task.epochs, 'epoch')}, {counted(task.batch_size, 'line')} an update, {clipping}, early "
        f"stopping after {counted(task.stop_after, 'epoch')} without a lower validation error, parameters of the best "
        "epoch"
    )


def _learnt(task: Handwriting, data: dict[str, np.ndarray]) -> str:
    if not data:
        return ""
    total, used, validation, test = data["lines"].tolist()
    where = f"{data['set']}, {data['origin']}"
    if task.data_folder is not None:
        where = f"the lines of {data['set']} in {code(task.data_folder)}"
    trained = f"{used} of {counted(total, 'line')}" if used < total else counted(total, "line")
    return (
        f"Each network transcribes {where}: {trained} for training, {validation} for validation, {test} for test; "
        f"{len(str(data['characters']))} characters."
    )


def stuck(errors: np.ndarray) -> np.ndarray:
    """Which of the runs of a row are stuck in a bad optimum, by their errors ``(R,)``; NaN are not.

    Example:
        >>> stuck(np.array([0.3, 0.4, 0.5, 0.95, np.nan])).tolist()
        [False, False, True, True, False]
    """
    if np.isnan(errors).all():
        return np.zeros(errors.shape, bool)
    return errors > min(STUCK, APART + float(np.nanmin(errors)))


def _stuck(row: Row) -> str:
    return f"{int(stuck(row.error).sum())} of {row.error.size}"


def _not_stuck(row: Row) -> str:
    errors = row.converged
    errors = errors[~stuck(errors)]
    sd = float(errors.std(ddof=1)) if errors.size > 1 else float("nan")
    return f"{percent(errors.mean())} ± {percent(sd)}" if errors.size else "none"


def _word_error(row: Row) -> str:
    rates = [rate for result in row.conditions.values() for rate in word_errors(result)]
    return percent(float(np.mean(rates))) if rates else "none"


def word_errors(result: ConditionResult) -> list[float]:
    """The word error rates of the runs whose outputs are kept and that did not diverge."""
    characters, texts = str(result.data["characters"]), list(map(str, result.data["texts"]))
    found = []
    for run, labels in zip(result.kept, result.outputs["labels"], strict=True):
        if not result.diverged[run]:
            found.append(word_error([text_of(row, characters) for row in labels], texts))
    return found


def word_error(read: list[str], written: list[str]) -> float:
    """All edits of words by the number of words that were written.

    Example:
        >>> word_error(["the cat sat", ""], ["the cat sat down", "so"])
        0.4
    """
    words = [[line.split() for line in lines] for lines in (read, written)]
    numbers = {word: number for number, word in enumerate({word for lines in words for line in lines for word in line})}
    widest = max(1, *(len(line) for lines in words for line in lines))
    rows = [np.full((len(lines), widest), -1, np.int32) for lines in words]
    for array, lines in zip(rows, words, strict=True):
        for row, line in zip(array, lines, strict=True):
            row[: len(line)] = [numbers[word] for word in line]
    counts = [jnp.asarray([len(line) for line in lines], jnp.int32) for lines in words]
    edits = jax.jit(jax.vmap(ctc.edits))(jnp.asarray(rows[0]), counts[0], jnp.asarray(rows[1]), counts[1])
    return float(edits.sum()) / max(1, int(counts[1].sum()))


def _published(row: Row) -> str:
    found = TABLE_3[row.size].get(row.network)
    return "" if found is None else percent(found)


def _order(results: Results, paper: bool) -> str:
    """The networks by their mean error, the lowest first, at the largest size that has two or more."""
    size, errors = compared(results)
    if not errors:
        return ""
    labels = results.task.labels  # pyright: ignore[reportAttributeAccessIssue]

    def ranked(means: dict[str, float]) -> str:
        return ", ".join(
            f"{labels[name]} {percent(mean)} %" for name, mean in sorted(means.items(), key=lambda x: x[1])
        )

    published = {name: TABLE_3[size][name] for name in errors if name in TABLE_3[size]}
    theirs = f" (paper: {ranked(published)})" if paper and len(published) > 1 else ""
    return f"Mean CER at size {size}, lowest first: {ranked({n: float(e.mean()) for n, e in errors.items()})}{theirs}."

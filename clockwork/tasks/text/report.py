"""What the report of the language modelling says and draws in its own words."""

import numpy as np

from clockwork.checks import counted
from clockwork.report import Column, Description, Listing, Measure, draw_curves, draw_errors
from clockwork.report.aggregate import Row, best_kept, largest_rows
from clockwork.tasks.pascanu import LABELS
from clockwork.tasks.text.task import TEMPERATURE, TextPrediction
from clockwork.training import ConditionResult, Results

NOTES = """\
{measure} It is over the whole test part, which is read in {columns} columns side by side, each from a zero state. Each
network is tested with the parameters that had the lowest validation error. Cut at limit: runs that the limit of epochs
ended before early stopping did; with more epochs their errors may be lower. A run counts as diverged if its loss or
gradient norm ever became non-finite; mean, sd, median, best and epochs (a median) are over the other runs.
"""
MEASURES = {
    "characters": "Bits per character: the mean of -log2 p of each character; lower is better.",
    "words": "Perplexity: e to the mean of -log p of each word, the ends of lines among them; lower is better.",
}
PAPER = """\
The published figures are of one run each (Pascanu et al. 2013, Table 3), with the sizes of its Table 1. Those with a
question mark are unverified: they are from memory, not from the paper.
"""
PUBLISHED = {
    "characters": {"rnn": "1.414?", "dts": "1.409?", "dots": "1.39", "srnn": "1.41"},
    "words": {"rnn": "122.9?", "dts": "112.0?", "dots": "107.5", "srnn": "110.0"},
}


def description(task: TextPrediction, results: Results) -> Description:
    """The description of the results of a task, from what is stored with them, as the text may be gone."""
    data = next((result.data for result in results.conditions.values()), None)
    known = data is not None and str(data["set"]) == "Penn Treebank"
    published = PUBLISHED[task.unit] if known else {}
    preset, words = task.preset, task.unit == "words"
    optimizer = "Adam" if preset.adam else f"SGD with momentum {preset.momentum:g}"
    noise = f", weight noise of sd {preset.weight_noise:g}" if preset.weight_noise else ""
    columns = [
        Column("units", lambda row: str(task.units_of(row.network, row.size)), after="size"),
        *[Column("dynamic", lambda row: _dynamic(row, words), after="error")] * bool(task.dynamic_rate),
        *[Column("paper", lambda row: published.get(row.network, ""))] * bool(published),
    ]
    name = "perplexity" if words else "bits per character"
    return Description(
        title=f"Language modelling of {task.unit}, protocol `{task.protocol}`",
        training=(
            f"at most {counted(task.epochs, 'epoch')}, {optimizer}, gradient norm clipped at {preset.clip_norm:g}"
            f"{noise}, {counted(preset.batch, 'column')} of text, windows of {counted(preset.window, 'step')}, early "
            f"stopping after {counted(task.stop_after, 'epoch')} without a lower validation error"
        ),
        measure=Measure(name, number=lambda value: _number(value, words), curves=f"validation {name}", log=False),
        learnt=_learnt(task, data),
        labels=LABELS,
        hyperparameters={"learning_rate": "rate"},
        columns=columns,
        watched="validation error",
        notes="\n".join([NOTES.format(measure=MEASURES[task.unit], columns=preset.batch)] + [PAPER] * bool(published)),
        figures={"errors": draw_errors, "curves": draw_curves},
        listings=_written,
    )


def _number(value: float, words: bool) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}" if words else f"{value:.3f}"


def _dynamic(row: Row, words: bool) -> str:
    """The mean over the runs whose outputs are kept."""
    values = np.concatenate([result.outputs["dynamic"] for result in row.conditions.values()])
    return _number(float(np.nanmean(values)) if np.isfinite(values).any() else float("nan"), words)


def _learnt(task: TextPrediction, data: dict[str, np.ndarray] | None) -> str:
    if data is None:
        return ""
    train, valid, test = data["counts"].tolist()
    name = "the first 22 chapters of Moby-Dick" if str(data["set"]) == "Moby-Dick" else str(data["set"])
    baseline = _number(float(data["unigram"]), task.unit == "words")
    what = "perplexity" if task.unit == "words" else "bits per character"
    return (
        f"Each network learns {name}: {train:,} {task.unit} for training, {valid:,} for validation and {test:,} for "
        f"the test; {len(data['symbols']):,} different. Always predicting the frequencies of the training part gives "
        f"{baseline} {what}."
    )


def _written(results: Results) -> list[Listing]:
    """What the best network of each kind writes after the prompt."""
    rows, cells = largest_rows(results, LABELS), []
    prompt = ""
    for row in rows:
        for result in row.conditions.values():
            if not result.diverged.all():
                prompt = str(result.data["prompt"])
                cells.append((LABELS[row.network], _text(results, result)))
    title = f"What the best network of each kind writes, at temperature {TEMPERATURE:g}, after: {prompt[-120:]}"
    return [Listing(title, ("network", "text"), cells)] if cells else []


def _text(results: Results, result: ConditionResult) -> str:
    symbols = [str(symbol) for symbol in result.data["symbols"]]
    written = [symbols[int(i)] for i in result.outputs["written"][best_kept(result)]]
    return "".join(written) if max(map(len, symbols[:2])) == 1 else " ".join(written)

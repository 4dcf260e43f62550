"""What the report of the music says and draws in its own words."""

import numpy as np

from clockwork.checks import counted
from clockwork.report import Column, Description, Measure, draw_curves, draw_errors
from clockwork.report.aggregate import Row
from clockwork.tasks.music.rolls import draw_rolls, sounds, write_pieces
from clockwork.tasks.music.task import Music
from clockwork.tasks.pascanu import LABELS
from clockwork.training import Results

NOTES = """\
NLL is the negative log-likelihood in nats of the keys of a step, summed over the 88 keys and averaged over all steps of
the test set but the first of each piece, which is not predicted; lower is better. NLL by piece is averaged over the
steps of each piece first, then over the pieces, and is the mean of the best ten runs. Each network is tested with the
parameters that had the lowest validation NLL. Cut at limit: runs that the limit of epochs ended before early stopping
did; with more epochs their errors may be lower. A run counts as diverged if its loss or gradient norm ever became
non-finite; mean, sd, median, best and epochs (a median) are over the other runs.
"""
PAPER = """\
The published figures are of one run each (Pascanu et al. 2013, Table 2), with the sizes of its Table 1. Those with a
question mark are unverified: they are from memory, not from the paper.
"""
PUBLISHED = {
    "JSB Chorales": {"rnn": "8.338?", "dts": "8.278?", "dots": "8.437?", "srnn": "8.367?"},
    "Nottingham": {"rnn": "3.225?", "dts": "3.206?", "dots": "3.215?", "srnn": "3.258?"},
    "MuseData": {"rnn": "6.990?", "dts": "6.988?", "dots": "6.973?", "srnn": "7.023?"},
}


def number(value: float) -> str:
    """A negative log-likelihood for the table."""
    return "–" if np.isnan(value) else f"{value:.3f}"


def description(task: Music, results: Results) -> Description:
    """The description of the results of a task, from what is stored with them, as the pieces may be gone."""
    data = next((result.data for result in results.conditions.values()), None)
    published = PUBLISHED.get(str(data["set"]), {}) if data is not None else {}
    preset = task.preset
    optimizer = "Adam" if preset.adam else f"SGD with momentum {preset.momentum:g}"
    columns = [
        Column("units", lambda row: str(task.units_of(row.network, row.size)), after="size"),
        Column("NLL by piece", _per_piece, after="error"),
        *[Column("paper", lambda row: published.get(row.network, ""))] * bool(published),
    ]
    return Description(
        title=f"Polyphonic music, protocol `{task.protocol}`",
        training=(
            f"at most {counted(task.epochs, 'epoch')}, {optimizer}, gradient norm clipped at {preset.clip_norm:g}, "
            f"{counted(preset.batch, 'piece')} an update, windows of {counted(preset.window, 'step')}, early stopping "
            f"after {counted(task.stop_after, 'epoch')} without a lower validation NLL"
        ),
        measure=Measure("NLL", number=number, curves="validation NLL (nats a step)", log=False),
        learnt=_learnt(task, data),
        labels=LABELS,
        hyperparameters={"learning_rate": "rate"},
        columns=columns,
        watched="validation NLL",
        notes="\n".join([NOTES] + [PAPER] * bool(published)),
        figures={"errors": draw_errors, "curves": draw_curves, "rolls": draw_rolls},
        files=lambda results, folder: write_pieces(results, folder / "best"),
        sounds=sounds,
    )


def _per_piece(row: Row) -> str:
    """Of the best runs that are kept; the mean over them."""
    values = [result.outputs["per_piece"] for result in row.conditions.values()]
    return number(float(np.nanmean(np.concatenate(values)))) if values else "–"


def _learnt(task: Music, data: dict[str, np.ndarray] | None) -> str:
    if data is None:
        return ""
    (train, steps), (valid, _), (test, tested) = data["counts"].tolist()
    name = "pieces in four parts that a program composed" if task.data_folder is None else str(data["set"])
    return (
        f"Each network learns {name}: {train} for training ({steps:,} steps), {valid} for validation and {test} for "
        f"the test ({tested:,} steps). A network that gives each key its share of the training steps "
        f"has an NLL of {number(float(data['silence']))}."
    )

"""What the report of the spoken words says and draws in its own words."""

from collections.abc import Iterable

import numpy as np

from clockwork.checks import counted
from clockwork.report import Column, Description, Line, Listing, Measure, draw_curves, draw_errors
from clockwork.report.aggregate import Row, largest_rows
from clockwork.report.description import percent
from clockwork.report.fonts import code
from clockwork.tasks.paper import LABELS
from clockwork.tasks.published import compared, paper_column, papers_data, units_column
from clockwork.tasks.words.confusion import draw_confusion
from clockwork.tasks.words.task import Words
from clockwork.training import ConditionResult, Results

NOTES = """\
Test error is the share of test words that a network takes for another word; no speaker of the test set is in the
training set. It is measured when the run stops, which the training set decides, not at the epoch with the lowest test
error. Train error is the same share of the training words, without input noise. Cut at limit: runs that the limit of
epochs ended before early stopping did; with more epochs their errors may be lower. A run counts as diverged if its loss
or gradient norm ever became non-finite; mean, sd, median, best and epochs (a median) are over the other runs.
"""

PAPER = """\
The paper's figures are those of its Table 2: mean and sd over 100 runs, on recordings of TIMIT.
"""


def description(task: Words, results: Results) -> Description:
    """The description of the results of a task: from what is stored with them, as the recordings may be gone."""
    paper = papers_data(results, task.data_folder)
    place = "on the last frame" if task.loss_at == "last" else "averaged over all frames"
    lines = (Line("train", 0, "--"), Line("test", 1, "-"))
    return Description(
        title="Spoken word classification",
        training=(
            f"at most {counted(task.epochs, 'epoch')}, batch size {task.batch}, input noise of sd {task.noise:g}, "
            f"loss {place}, early stopping after {counted(task.stop_after, 'epoch')} without a lower training "
            f"{task.stop_on}"
        ),
        measure=Measure("test error", "%", 100, percent, curves="error (%)", lines=lines, log=False),
        learnt=_learnt(task, results),
        piece="split",
        labels=LABELS,
        hyperparameters={"learning_rate": "rate"},
        columns=[
            units_column(task),
            Column("train error %", _train_error, after="error"),
            *[paper_column(task, "paper %", "{:.1f} ± {:.1f}", 100)] * paper,
        ],
        watched=f"training {task.stop_on}",
        uses="the figures and the comparison use",
        comparison=_order(results, paper),
        remarks=_remarks(results),
        notes="\n".join([NOTES] + [PAPER] * paper),
        figures={"figure4": draw_errors, "curves": draw_curves, "confusion": draw_confusion},
        listings=_heard,
    )


def _heard(results: Results) -> list[Listing]:
    """For each split, what the networks at their largest size took each test word for."""
    rows, found = largest_rows(results, LABELS), []
    for split in dict.fromkeys(condition.data for condition in results.conditions):
        present = [row for row in rows if split in row.conditions]
        if not present:
            continue
        data = present[0].conditions[split].data
        words = [str(word) for word in data["words"]]
        columns = [_answers(row.conditions[split], words) for row in present]
        said = zip((words[label] for label in data["labels"]), map(str, data["sources"]), strict=True)
        found.append(
            Listing(
                f"What was heard, split {split} (the share of runs; recordings are not stored with the results)",
                ("word", "recording", *(f"{LABELS[row.network]}, {row.size} parameters" for row in present)),
                [(*one, *answers) for one, *answers in zip(said, *columns, strict=True)],
            )
        )
    return found


def _answers(result: ConditionResult, words: list[str]) -> list[str]:
    """The commonest answer of the runs to each test word, and how many gave it."""
    answers = result.outputs[~result.diverged[result.kept]].argmax(-1)  # (K, M)
    if not len(answers):
        return ["all runs diverged"] * answers.shape[1]
    counts = [np.bincount(column, minlength=len(words)) for column in answers.T]
    return [f"{words[int(count.argmax())]} ({100 * count.max() / count.sum():.0f} %)" for count in counts]


def _train_error(row: Row) -> str:
    ends = row.ends
    return percent(ends[:, 0].astype(np.float64).mean()) if len(ends) else "none"


def _remarks(results: Results) -> list[str]:
    """What the recordings' notes say, as whole sentences."""
    found = [str(note) for result in results.conditions.values() for note in result.data.get("notes", ())]
    return [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in dict.fromkeys(found) if note]


def _learnt(task: Words, results: Results) -> str:
    """Words, tokens and speakers of both sets, and the error of a guess."""
    data = list({condition.data: result.data for condition, result in results.conditions.items()}.values())
    if not data:
        return ""
    words = len(data[0]["words"])
    where = "the embedded synthetic set" if task.data_folder is None else f"the recordings in {code(task.data_folder)}"
    sets = [_set("test", data, "labels", "speakers"), _set("training", data, "train_labels", "train_speakers")]
    sentences = [f"Each network tells {counted(words, 'word')} of {where} apart.", *filter(None, sets)]
    shares = [float(np.bincount(one["labels"]).max() / len(one["labels"])) for one in data]
    wrong = _range(f"{100 * (1 - share):.1f}" for share in sorted(shares, reverse=True))
    sentences.append(f"Chance level: always answering the commonest test word gives a test error of {wrong} %.")
    return " ".join(sentences)


def _set(name: str, data: list[dict[str, np.ndarray]], labels: str, speakers: str) -> str:
    """How many tokens, by how many speakers, a set has in each split."""
    if not all(labels in one for one in data):
        return ""
    tokens = sorted(len(one[labels]) for one in data)
    said = f"{name.capitalize()} set: {counted(_range(tokens), 'token')}"
    if all(speakers in one for one in data):
        people = sorted(len(set(one[speakers].tolist())) for one in data)
        said += f" by {counted(_range(people), 'speaker')}"
    return said + "."


def _range(values: Iterable[object]) -> str:
    """The first and the last of ordered values, or the one there is."""
    found = list(dict.fromkeys(map(str, values)))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _order(results: Results, paper: bool) -> str:
    """The networks by their mean error, the lowest first, at the largest size that has two or more."""
    size, errors = compared(results)
    if not errors:
        return ""
    means = sorted((float(e.mean()), name) for name, e in errors.items())
    ours = ", ".join(f"{LABELS[name]} {percent(mean)} %" for mean, name in means)
    published = {name: Words.published[name] for name in errors if name in Words.published}
    theirs = ""
    if paper and size == max(Words.units) and len(published) > 1:
        ranked = sorted((mean, name) for name, (mean, _) in published.items())
        theirs = f" (paper: {', '.join(f'{LABELS[name]} {percent(mean)} %' for mean, name in ranked)})"
    return f"Mean test error at size {size}, lowest first: {ours}{theirs}."

"""What a sweep learnt, in sentences: from what is stored with the results, as the recordings may be gone."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from clockwork.checks import counted, listed
from clockwork.report.aggregate import Row
from clockwork.tasks import Generation, Words
from clockwork.tasks.paper import Experiment
from clockwork.training import ConditionResult, Results


def learnt(results: Results) -> str:
    """What the networks learnt: the clips or words, how much of each, and what guessing would give.

    What no finished condition has stored is left out.
    """
    task = results.task
    pieces = {condition.data: result for condition, result in results.conditions.items()}
    if isinstance(task, Generation):
        return _sounds(task, pieces)
    if isinstance(task, Words) and pieces:
        return _words(task, list(pieces.values()))
    return ""


def papers_data(results: Results) -> bool:
    """Whether the paper's figures may stand beside these: of its 25 words in TIMIT, or of the embedded data."""
    task = results.task
    own = task.audio if isinstance(task, Generation) else isinstance(task, Words) and task.data_folder
    if not own:
        return True
    recordings = [result.data for result in results.conditions.values()]
    return bool(recordings) and all(bool(data.get("paper_data", False)) for data in recordings)


def cut(task: Experiment, row: Row) -> int:
    """How many runs the limit of epochs ended before early stopping did."""
    epochs = np.concatenate([result.epochs for result in row.conditions.values()])
    return int(((epochs >= task.epochs) & ~row.diverged).sum())


def _sounds(task: Generation, pieces: dict[str, ConditionResult]) -> str:
    """The clips, those of one length and rate together."""
    if task.audio:
        audio = (task.audio,) if isinstance(task.audio, (str, Path)) else task.audio
        names = [_code(str(file)) for file in audio]
        what, start = "a part of one sound file", f" from {task.audio_start:g} s"
    else:
        names, what, start = list(task.pieces()), "one embedded clip, none of which is the paper's", ""
    groups: dict[str, list[str]] = {}
    for piece, name in zip(task.pieces(), names, strict=False):
        extent = ""
        if piece in pieces:
            samples, rate = len(pieces[piece].data["target"]), int(pieces[piece].data["rate"])
            extent = f"{samples} samples at {rate} Hz{start}: {1000 * samples / rate:.3g} ms"
        groups.setdefault(extent, []).append(name)
    parts = [
        listed(members) + (f" ({'each ' * (len(members) > 1)}{extent})" if extent else "")
        for extent, members in groups.items()
    ]
    return f"Each network learns {what}: {'; '.join(parts)}."


def _words(task: Words, pieces: list[ConditionResult]) -> str:
    """Words, tokens and speakers of both sets, and the error of a guess."""
    data = [result.data for result in pieces]
    words = len(data[0]["words"])
    where = "the embedded synthetic set" if task.data_folder is None else f"the recordings in {_code(task.data_folder)}"
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


def _code(path: str) -> str:
    """A path in a font of one width, on one line whatever its letters."""
    return "`" + "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in path) + "`"


def _range(values: Iterable[object]) -> str:
    """The first and the last of ordered values, or the one there is."""
    found = list(dict.fromkeys(map(str, values)))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"

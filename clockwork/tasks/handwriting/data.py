"""Lines of handwriting as arrays: what the networks are trained on, and what a report needs to know of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clockwork import ctc
from clockwork.checks import counted, listed
from clockwork.data.strokes import Lines, Scale, points, scale_of, standardised

# Lines are computed as if they were as long as the longest of their bucket; each bucket is a program to compile.
BUCKETS = 5
# Lines that are evaluated at a time: all at once would not fit into the processor's cache.
CHUNK = 32
EXAMPLES = 4  # test lines that are stored with the results, for a figure


class Bucket(NamedTuple):
    """Lines of similar length.

    Attributes:
        inputs: ``(M, T, 4)``, float32, standardised; zeros beyond the end of a line.
        lengths: ``(M,)``, int32, their numbers of frames.
        labels: ``(M, L)``, int32, the characters of each, from 1; 0 beyond their end.
        label_lengths: ``(M,)``, int32, their numbers of characters.
        chunks: ``(C, E)``, int32, all lines in rows that are evaluated together; -1 fills up the last.
    """

    inputs: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    label_lengths: np.ndarray
    chunks: np.ndarray


class Data(NamedTuple):
    """What the runs of a condition are trained on: buckets of each set, shortest lines first.

    Attributes:
        training: the training set.
        validation: the validation set.
        test: the test set.
        examples: a few test lines, for a figure.
    """

    training: tuple[Bucket, ...]
    validation: tuple[Bucket, ...]
    test: tuple[Bucket, ...]
    examples: Bucket


class Prepared(NamedTuple):
    """A set of lines made ready.

    Attributes:
        data: the buckets.
        scale: what standardises inputs.
        order: for each set by name, the numbers of its lines in the order of the buckets.
        examples: ``(E,)``, which of the test lines, in the order of the buckets, are the examples.
        notes: sentences without the full stop: what was left out, and why.
    """

    data: Data
    scale: Scale
    order: dict[str, np.ndarray]
    examples: np.ndarray
    notes: tuple[str, ...]


def prepare(lines: Lines) -> Prepared:
    """The buckets of all sets; lines too short for their text are left out of the training set, and said.

    Raises:
        ValueError: if a set has no line, or no training line is long enough for its text.
    """
    sets = {name: getattr(lines, name) for name in ("training", "validation", "test")}
    for name, members in sets.items():
        if not members:
            raise ValueError(f"{lines.name} has no lines for {name}")
    inputs = {name: [points(line) for line in members] for name, members in sets.items()}
    numbers = {character: number for number, character in enumerate(lines.characters, 1)}
    labels = {
        name: [np.asarray([numbers[character] for character in line.text], np.int32) for line in members]
        for name, members in sets.items()
    }
    enough = [
        len(line) >= ctc.required_steps(text) for line, text in zip(inputs["training"], labels["training"], strict=True)
    ]
    short = [line.source for line, fits in zip(sets["training"], enough, strict=True) if not fits]
    notes = list(lines.notes)
    if short:
        notes.append(
            f"{counted(len(short), 'training line')} with fewer frames than their text needs are left out: "
            f"{listed(short)}"
        )
    if not any(enough):
        raise ValueError(f"no training line of {lines.name} has as many frames as its text needs")
    scale = scale_of(inputs["training"])
    kept = {name: np.arange(len(members)) for name, members in sets.items()}
    kept["training"] = np.flatnonzero(enough)
    limits = limits_of(np.asarray([len(inputs["training"][i]) for i in kept["training"]]))
    buckets, order = {}, {}
    for name in sets:
        scaled = [standardised(inputs[name][i], scale) for i in kept[name]]
        texts = [labels[name][i] for i in kept[name]]
        buckets[name], places = _buckets(scaled, texts, limits)
        order[name] = kept[name][places]
    lengths = np.concatenate([bucket.lengths for bucket in buckets["test"]])
    examples = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:EXAMPLES]  # of middling length
    chosen = order["test"][examples]
    shown = _bucket([standardised(inputs["test"][i], scale) for i in chosen], [labels["test"][i] for i in chosen])
    return Prepared(Data(**buckets, examples=shown), scale, order, examples, tuple(notes))


def limits_of(lengths: np.ndarray) -> np.ndarray:
    """The longest line of each bucket, ascending: at most `BUCKETS`, so that the fewest frames are padding.

    Example:
        >>> limits_of(np.array([1, 2, 3, 98, 99, 100, 200, 300, 400])).tolist()
        [3, 100, 200, 300, 400]
    """
    sizes, counts = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    # cost[k][j]: frames of the lines of the j shortest lengths in k buckets, padding included
    cost, cuts = [np.where(np.arange(len(sizes) + 1) == 0, 0, np.inf)], []
    for _ in range(min(BUCKETS, len(sizes))):
        least, cut = np.full(len(sizes) + 1, np.inf), np.zeros(len(sizes) + 1, int)
        for j in range(1, len(sizes) + 1):
            total = cost[-1][:j] + sizes[j - 1] * (before[j] - before[:j])
            cut[j] = int(np.argmin(total))
            least[j] = total[cut[j]]
        cost.append(least)
        cuts.append(cut)
    found, j = [], len(sizes)
    for cut in reversed(cuts):
        found.append(int(sizes[j - 1]))
        j = cut[j]
        if j == 0:
            break
    return np.asarray(found[::-1])


def _buckets(
    inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], limits: np.ndarray
) -> tuple[tuple[Bucket, ...], np.ndarray]:
    """Lines in buckets, those that are empty left out, and the numbers of the lines in the order of the buckets."""
    lengths = np.asarray([len(line) for line in inputs])
    which = np.minimum(np.searchsorted(limits, lengths), len(limits) - 1)  # the longest of other sets go to the last
    order = [np.flatnonzero(which == number).tolist() for number in np.unique(which)]
    found = [
        _bucket([inputs[i] for i in members], [labels[i] for i in members], int(limits[which[members[0]]]))
        for members in order
    ]
    return tuple(found), np.concatenate(order)


def _bucket(inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], least: int = 0) -> Bucket:
    """Lines as arrays of as many frames as the longest has, and at least so many."""
    lengths, label_lengths = ([len(one) for one in several] for several in (inputs, labels))
    frames = np.zeros((len(inputs), max(least, *lengths), 4), np.float32)
    texts = np.zeros((len(labels), max(1, *label_lengths)), np.int32)
    for row, (line, text) in enumerate(zip(inputs, labels, strict=True)):
        frames[row, : len(line)], texts[row, : len(text)] = line, text
    chunk = min(CHUNK, len(inputs))
    rows = np.full(math.ceil(len(inputs) / chunk) * chunk, -1, np.int32)
    rows[: len(inputs)] = np.arange(len(inputs))
    lengths, label_lengths = np.asarray(lengths, np.int32), np.asarray(label_lengths, np.int32)
    return Bucket(frames, lengths, texts, label_lengths, rows.reshape(-1, chunk))


def record_of(lines: Lines, prepared: Prepared) -> dict[str, np.ndarray]:
    """What a report, and a network that is put to use, need to know.

    Texts and sources of the test lines in the order of the outputs, the texts of the training lines, characters, scale,
    the sizes of the sets (training lines, those of them that are trained on, validation, test), and which test lines
    are examples, with their standardised points.
    """
    order, scale, data = prepared.order["test"], prepared.scale, prepared.data
    return {
        "texts": np.asarray([lines.test[i].text for i in order]),
        "sources": np.asarray([lines.test[i].source for i in order]),
        "training_texts": np.asarray("\n".join(line.text for line in lines.training)),
        "characters": np.asarray(lines.characters),
        "mean": scale.mean,
        "sd": scale.sd,
        "lines": np.asarray(
            [len(lines.training), len(prepared.order["training"]), len(lines.validation), len(lines.test)]
        ),
        "set": np.asarray(lines.name),
        "origin": np.asarray(lines.origin),
        "notes": np.asarray(prepared.notes, dtype=str),
        "examples": prepared.examples,
        "example_inputs": data.examples.inputs,
        "example_lengths": data.examples.lengths,
    }


def text_of(labels: np.ndarray, characters: str) -> str:
    """What labels stand for; negative ones fill up an array.

    Example:
        >>> text_of(np.array([2, 1, 2, -1, -1]), "ab")
        'bab'
    """
    return "".join(characters[label - 1] for label in labels.tolist() if label > 0)

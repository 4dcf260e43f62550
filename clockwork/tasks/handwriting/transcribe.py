"""A trained network put to use: what is written in a file of strokes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clockwork import ctc
from clockwork.checks import counted
from clockwork.data.recording import printable
from clockwork.data.stroke_files import read_strokes
from clockwork.data.strokes import Line, Scale, points, standardised
from clockwork.report.aggregate import best_condition
from clockwork.report.description import percent
from clockwork.tasks.handwriting.data import text_of
from clockwork.tasks.handwriting.network import Transcriber
from clockwork.tasks.handwriting.task import Handwriting
from clockwork.training import Condition, ConditionResult, Results
from clockwork.training.model import split, unnamed

# Lines are padded to this number of frames, or twice, four times, ... as many: each is a program to compile.
SHORTEST = 256
HEIGHT = 3.0  # a line that is so many times as high or as low as those learnt is scaled
ORDER = 5  # of the n-gram of characters


class Transcript(NamedTuple):
    """What a network reads in a line.

    Attributes:
        text: that was read, by a beam search with what the texts of the training lines tell of the language.
        best_path: that the likeliest path alone reads; error rates are of such texts.
        file: the name of the stroke file.
        number: of the line in the file, from 1.
        lines: of the file.
        frames: ``T``, the number of points that the network saw.
        written: what the file says the text is; empty if it says nothing.
        condition: the network's.
        error: the mean character error rate on the test set, of all runs of this network that did not diverge.
        runs: how many runs these are.
        note: what was done to the line so that the network can read it; empty if nothing.
    """

    text: str
    best_path: str
    file: str
    number: int
    lines: int
    frames: int
    written: str
    condition: Condition
    error: float
    runs: int
    note: str = ""


def transcribe_all(results: Results, paths: Sequence[str | Path]) -> list[Transcript]:
    """Read the lines in stroke files, by the stored network with the lowest validation error.

    The network, its size, learning rate and clipping norm are those whose runs have the lowest mean validation error:
    nothing is chosen on the test set. Of its runs the one reads whose parameters are stored; the error rate in a
    `Transcript` is the mean of all of them, not that run's own.

    Args:
        results: of a sweep of `clockwork.tasks.Handwriting`.
        paths: stroke files, as `clockwork.data.read_strokes` reads them. Each line must be written from left to right
            along a horizontal line. One that is more than three times as high or low as those learnt is scaled.

    Raises:
        ValueError: if there is no trained network, or a file cannot be used.

    Example:
        >>> from clockwork.training import open_results
        >>> transcripts = transcribe_all(open_results("results/handwriting"), ["line.xml"])
        >>> transcripts[0].file
        'line.xml'
    """
    task = results.task
    if not isinstance(task, Handwriting):
        raise ValueError(f"these are results of {task.name}, not of handwriting: they hold no network that reads lines")
    condition = best_condition(results)
    files = [read_strokes(path) for path in paths]  # whatever cannot be used is found out now
    result = results.conditions[condition]
    scale, characters = Scale(result.data["mean"], result.data["sd"]), str(result.data["characters"])
    network = _network(task, condition, result, len(characters) + 1)
    language = _language(result, characters)

    @jax.jit
    def scores(frames: jax.Array, length: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(network(frames[None], length[None])[0])

    errors = result.error[~result.diverged].astype(np.float64)
    found = []
    for path, lines in zip(paths, files, strict=True):
        for number, line in enumerate(lines, 1):
            line, note = _as_high(line, scale)
            frames = standardised(points(line), scale)
            length = len(frames)
            padded = np.zeros((SHORTEST * 2 ** int(np.ceil(np.log2(max(1, length / SHORTEST)))), 4), np.float32)
            padded[:length] = frames
            heard = np.asarray(scores(jnp.asarray(padded), jnp.int32(length)))[:length]
            text, path_text = (
                text_of(np.asarray(labels), characters)
                for labels in (ctc.beam_search(heard, language=language), ctc.best_path(heard))
            )
            name = printable(Path(path).name)
            found.append(
                Transcript(
                    text,
                    path_text,
                    name,
                    number,
                    len(lines),
                    length,
                    line.text,
                    condition,
                    errors.mean(),
                    len(errors),
                    note,
                )
            )
    return found


def _as_high(line: Line, scale: Scale) -> tuple[Line, str]:
    """A line about as high as those learnt, and what is to be said of that."""
    height = float(np.concatenate(line.strokes)[:, 1].std())
    times = float(scale.sd[1]) / height if height > 0 else 1.0
    if 1 / HEIGHT <= times <= HEIGHT:
        return line, ""
    strokes = tuple(stroke * [times, times, 1.0] for stroke in line.strokes)
    return line._replace(strokes=strokes), f"scaled {times:.3g} times, to the height of the lines learnt"


def _language(result: ConditionResult, characters: str) -> ctc.NGram:
    """What the training lines' texts tell of the language."""
    numbers = {character: number for number, character in enumerate(characters, 1)}
    texts = str(result.data["training_texts"]).split("\n")
    return ctc.NGram(ORDER, [[numbers[character] for character in text] for text in texts], len(characters) + 1)


def _network(task: Handwriting, condition: Condition, result: ConditionResult, outputs: int) -> Transcriber:
    """The network with the stored parameters."""
    units = task.units_of(condition.network, condition.size)
    structure, params, rest = split(task.network_of(condition.network, units, outputs, nnx.Rngs(0)))
    return structure.merge(unnamed(params, result.best), rest)


def describe_all(transcripts: Sequence[Transcript]) -> str:
    """Transcripts in words: a line each, and below which network read them.

    Example:
        >>> from clockwork.training import open_results
        >>> transcripts = transcribe_all(open_results("results/handwriting"), ["line.xml"])
        >>> describe_all(transcripts).splitlines()[0].startswith("line.xml: ")
        True
    """
    if not transcripts:
        return "There is no line in these files."
    lines = []
    for one in transcripts:
        name = one.file if one.lines == 1 else f"{one.file}, line {one.number}"
        lines.append(f"{name}: {one.text}")
        if one.best_path != one.text:
            lines.append(f"{' ' * len(name)}  (without a language model: {one.best_path})")
        if one.written:
            lines.append(f"{' ' * len(name)}  (the file says: {one.written})")
        if one.note:
            lines.append(f"{' ' * len(name)}  ({one.note})")
    first = transcripts[0]
    lines.append(
        f"\nRead by {first.condition.name}, with a beam search and a {ORDER}-gram of the characters of the training "
        f"lines. Without these its character error rate is {percent(first.error)} % on its test set (mean of "
        f"{counted(first.runs, 'run')})."
    )
    return "\n".join(lines)

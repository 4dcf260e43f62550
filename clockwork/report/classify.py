"""A trained network put to use: which word was said."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clockwork.data import mfcc
from clockwork.data.mfcc import STEP_MS, WINDOW_MS
from clockwork.data.speech import read_recording
from clockwork.tasks import Cell, Words
from clockwork.training import Results


class Answer(NamedTuple):
    """What a network makes of a recording.

    Attributes:
        cell: the network's.
        error: its error rate on the test set.
        words: the ``O`` words.
        probabilities: ``(T, O)``, float32, after each frame of 10 ms; the last row is the answer. Of a network that
            was trained on every frame, the answer so far: by the mean of the log probabilities up to there.
        notes: what must be said with it.
    """

    cell: Cell
    error: float
    words: tuple[str, ...]
    probabilities: np.ndarray
    notes: tuple[str, ...]


def classify(results: Results, path: str | Path) -> Answer:
    """Name the word in a recording, by the best stored network: that with the lowest error on its test set.

    Args:
        results: of a sweep of `clockwork.tasks.Words`.
        path: a sound file of one word, at the rate of the recordings that the network learnt from. Silence at its
            ends should be cut off, as it was there.

    Raises:
        ValueError: if there is no trained network, or the file cannot be used.
        ImportError: if soundfile or kaldi-native-fbank is not installed; both are in the extra ``[experiments]``.

    Example:
        >>> from clockwork.training import open_results
        >>> answer = classify(open_results("results/words"), "making.wav")
        >>> len(answer.words), answer.probabilities.shape[1]
        (25, 25)
    """
    task = results.task
    if not isinstance(task, Words):
        raise ValueError(f"these are results of {task.name}, not of spoken words: they hold no network that classifies")
    finished = {cell: result for cell, result in results.cells.items() if not result.diverged.all()}
    if not finished:
        raise ValueError("no trained network is stored there yet")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"audio file {path} does not exist or is not a file")
    cell = min(finished, key=lambda cell: (np.nanmin(finished[cell].error), -cell.size))
    result, data = finished[cell], finished[cell].data
    samples, rate = read_recording(path)
    if rate != int(data["rate"]):
        raise ValueError(f"audio file {path} has {rate} samples per second, the network learnt from {data['rate']}")
    try:
        features = (mfcc(samples, rate) - data["mean"]) / data["scale"]
    except ValueError as error:
        raise ValueError(f"audio file {path} cannot be used: {error}") from None
    words = tuple(map(str, data["words"]))
    network = task.network_of(cell.network, task.units[cell.size][cell.network], len(words), nnx.Rngs(0))
    state = nnx.state(network, nnx.Param)
    for place, leaf in nnx.to_flat_state(state):
        leaf[...] = jnp.asarray(result.best[".".join(map(str, place))])
    nnx.update(network, state)
    scores = jax.nn.log_softmax(network(features))
    if task.loss_at == "every":
        scores = jax.nn.log_softmax(jnp.cumsum(scores, 0) / jnp.arange(1, len(scores) + 1)[:, None])
    notes = tuple(map(str, data["notes"]))
    return Answer(cell, float(np.nanmin(result.error)), words, np.exp(np.asarray(scores)), notes)


def describe(answer: Answer, most: int = 5) -> str:
    """An answer in words: the likeliest, then each moment at which another became the likeliest.

    Args:
        answer: of `classify`.
        most: how many words.

    Example:
        >>> from clockwork.training import open_results
        >>> answer = classify(open_results("results/words"), "making.wav")
        >>> "says srn-500-split0" in describe(answer, most=1)
        True
    """
    final = answer.probabilities[-1]
    likeliest = np.argsort(-final)[:most]
    lines = [
        f"{answer.words[likeliest[0]]}, says {answer.cell.name} ({100 * answer.error:.0f} % wrong on its test set)",
        "",
        *(f"  {answer.words[i]:<16} {100 * final[i]:5.1f} %" for i in likeliest),
        "",
        "The likeliest word as the recording goes on:",
        "",
    ]
    said = None
    for t, row in enumerate(answer.probabilities):
        best = int(row.argmax())
        if best != said:
            said = best
            lines.append(
                f"  from {(t * STEP_MS + WINDOW_MS) / 1000:.3f} s  {answer.words[best]:<16} {100 * row[best]:5.1f} %"
            )
    return "\n".join([*lines, *(["", *(f"Note: {note}" for note in answer.notes)] if answer.notes else [])])

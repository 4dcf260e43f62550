"""A trained network put to use: which word was said."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clockwork.checks import counted
from clockwork.data import mfcc
from clockwork.data.mfcc import STEP_MS, WINDOW_MS
from clockwork.data.recording import printable, read_recording, resample
from clockwork.report.aggregate import best_condition
from clockwork.tasks.words.task import Words
from clockwork.training import Condition, ConditionResult, Results
from clockwork.training.model import split, unnamed

# Recordings are padded to this number of frames, or twice, four times, ... as many: each is a program to compile.
SHORTEST = 128
# A recording is called long beyond this multiple of the longest word of the training set.
LONG = 2
MOMENTS = 10  # changes of the likeliest word that are listed


class Answer(NamedTuple):
    """What a network makes of a recording.

    Attributes:
        condition: the network's.
        error: the mean error rate on the test set, of all runs of this network that did not diverge.
        words: the ``O`` words.
        probabilities: ``(T, O)``, float32, after each frame of 10 ms; the last row is the answer. Of a network that
            was trained on every frame, the answer so far: by the mean of the log probabilities up to there.
        notes: what must be said with it.
        sd: the standard deviation of the runs' error rates; NaN of a single run.
        runs: how many runs these are of.
        file: the name of the sound file.
        warnings: why the answer may mean nothing.
    """

    condition: Condition
    error: float
    words: tuple[str, ...]
    probabilities: np.ndarray
    notes: tuple[str, ...]
    sd: float = float("nan")
    runs: int = 1
    file: str = ""
    warnings: tuple[str, ...] = ()


def classify(results: Results, path: str | Path) -> Answer:
    """Name the word in a recording: `classify_all` of one file.

    Raises:
        ValueError: if there is no trained network, or the file cannot be used.
        ImportError: if soundfile, kaldi-native-fbank or soxr is needed and not installed; they are in the extra
            ``[experiments]``.

    Example:
        >>> from clockwork.training import open_results
        >>> answer = classify(open_results("results/words"), "making.wav")
        >>> len(answer.words), answer.probabilities.shape[1]
        (25, 25)
    """
    return classify_all(results, [path])[0]


def classify_all(results: Results, paths: Sequence[str | Path]) -> list[Answer]:
    """Name the words in recordings, by the stored network with the lowest training error.

    The network, its size and its learning rate are those whose runs have the lowest mean of what stops a run
    (`clockwork.tasks.Words.watched`): nothing is chosen on the test set. Of its runs the one answers whose parameters
    are stored; the error rate that an `Answer` quotes is the mean of all of them, not that run's own.

    Args:
        results: of a sweep of `clockwork.tasks.Words`.
        paths: sound files of one word each. They are brought to the rate of the recordings that the network learnt
            from. Silence at their ends should be cut off, as it was there.

    Raises:
        ValueError: if there is no trained network, or a file cannot be used.
        ImportError: if soundfile, kaldi-native-fbank or soxr is needed and not installed; they are in the extra
            ``[experiments]``.

    Example:
        >>> from clockwork.training import open_results
        >>> answers = classify_all(open_results("results/words"), ["making.wav", "making.wav"])
        >>> [answer.file for answer in answers]
        ['making.wav', 'making.wav']
    """
    task = results.task
    if not isinstance(task, Words):
        raise ValueError(f"these are results of {task.name}, not of spoken words: they hold no network that classifies")
    condition = best_condition(results)
    result = results.conditions[condition]
    heard = [_listen(Path(path), result.data) for path in paths]  # whatever cannot be used is found out now
    words, notes = (tuple(map(str, result.data[name])) for name in ("words", "notes"))
    scores = _network(task, condition, result)
    errors = result.error[~result.diverged].astype(np.float64)
    sd = float(errors.std(ddof=1)) if len(errors) > 1 else float("nan")
    answers = []
    for path, (features, warnings) in zip(paths, heard, strict=True):
        length = len(features)
        padded = np.zeros((SHORTEST * 2 ** int(np.ceil(np.log2(max(1, length / SHORTEST)))), features.shape[1]))
        padded[:length] = features
        probabilities = np.exp(np.asarray(scores(jnp.asarray(padded, jnp.float32)))[:length])
        file = printable(Path(path).name)
        answers.append(Answer(condition, errors.mean(), words, probabilities, notes, sd, len(errors), file, warnings))
    return answers


def _listen(path: Path, data: dict[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The normalised features of a file, ``(T, 13)``, and what is odd about it."""
    samples, own_rate = read_recording(path)
    rate = int(data["rate"])
    try:
        features = mfcc(resample(samples, own_rate, rate), rate)
    except ValueError as error:
        raise ValueError(f"audio file {path} cannot be used: {error}") from None
    features = (features - data["mean"]) / data["scale"]
    if not np.isfinite(features).all():
        raise ValueError(f"audio file {path} cannot be used: its normalised features are not finite")
    name, warnings = printable(path.name), []
    longest = data.get("longest")  # results of earlier versions do not tell
    if longest is not None and len(features) > LONG * longest:
        warnings.append(
            f"{name} lasts {_seconds(len(features) - 1):.1f} s, and the longest word learnt "
            f"{_seconds(int(longest) - 1):.1f} s: cut the word out"
        )
    if not samples.any():
        warnings.append(f"{name} is silent")
    elif features[:, 0].max() < 0:
        warnings.append(f"{name} is silent or far softer than what was learnt")
    if own_rate < rate:
        warnings.append(f"{name} has {own_rate} samples per second and what was learnt {rate}: its treble is missing")
    return features, tuple(warnings)


def _network(task: Words, condition: Condition, result: ConditionResult) -> Callable[[jax.Array], jax.Array]:
    """The log probabilities ``(T, O)`` after each frame by the stored parameters, compiled once for each ``T``."""
    words = len(result.data["words"])
    network = task.network_of(condition.network, task.units_of(condition.network, condition.size), words, nnx.Rngs(0))
    structure, params, rest = split(network)
    trained = unnamed(params, result.best)

    @jax.jit
    def scores(frames: jax.Array) -> jax.Array:
        found = jax.nn.log_softmax(structure.merge(trained, rest)(frames))
        if task.loss_at == "last":
            return found
        count = jnp.arange(1, found.shape[0] + 1, dtype=found.dtype)[:, None]
        return jax.nn.log_softmax(jnp.cumsum(found, 0) / count)

    return scores


def _seconds(frame: int) -> float:
    """The time at which a frame ends."""
    return (frame * STEP_MS + WINDOW_MS) / 1000


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
        f"{answer.file}: {answer.words[likeliest[0]]}, says {_says(answer)}",
        *(f"Warning: {warning}." for warning in answer.warnings),
        "",
        *(f"  {answer.words[i]:<16} {100 * final[i]:5.1f} %" for i in likeliest),
        "",
        "The likeliest word as the recording goes on:",
        "",
    ]
    best = answer.probabilities.argmax(1)  # (T,)
    moments = np.flatnonzero(np.diff(best, prepend=-1))
    for t in moments[:MOMENTS]:
        chance = 100 * answer.probabilities[t, best[t]]
        lines.append(f"  from {_seconds(t):.3f} s  {answer.words[best[t]]:<16} {chance:5.1f} %")
    if len(moments) > MOMENTS:
        lines.append(f"  and {len(moments) - MOMENTS} more changes")
    return "\n".join([*lines, *_notes(answer)])


def describe_all(answers: Sequence[Answer], most: int = 3) -> str:
    """The answers of `classify_all` in words: `describe` of a single one, a line for each of several.

    Args:
        answers: at least one.
        most: how many words on a line.

    Example:
        >>> from clockwork.training import open_results
        >>> answers = classify_all(open_results("results/words"), ["making.wav"] * 2)
        >>> [line.split()[0] for line in describe_all(answers).splitlines()[2:4]]
        ['making.wav', 'making.wav']
    """
    if len(answers) == 1:
        return describe(answers[0])
    width = max(len(answer.file) for answer in answers)
    lines = [f"The likeliest words, says {_says(answers[0])}:", ""]
    for answer in answers:
        final = answer.probabilities[-1]
        words = [f"{answer.words[i]:<16} {100 * final[i]:5.1f} %" for i in np.argsort(-final)[:most]]
        lines.append("  ".join([f"  {answer.file:<{width}}", *words]))
    warnings = [f"Warning: {warning}." for answer in answers for warning in answer.warnings]
    return "\n".join([*lines, *([""] * bool(warnings)), *warnings, *_notes(answers[0])])


def _says(answer: Answer) -> str:
    spread = "" if np.isnan(answer.sd) else f" ± {100 * answer.sd:.1f}"
    runs = counted(answer.runs, "run")
    return f"{answer.condition.name} (test error of its {runs}: {100 * answer.error:.1f}{spread} %)"


def _notes(answer: Answer) -> list[str]:
    return ["", *(f"Note: {note}." for note in answer.notes)] if answer.notes else []

"""Short pieces of sound: the five embedded clips, and any part of a user's own file."""

import importlib.resources
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clockwork.extras import require

# The names by which the rows of clips.npz are called; clips.json credits their authors.
CLIP_NAMES = ("guitar", "choir", "mika", "safari", "tabla")


class Clip(NamedTuple):
    """A piece of sound.

    Attributes:
        name: what it is called in tables and file names.
        samples: ``(T,)``, float64, as recorded; one channel.
        rate: samples per second.
    """

    name: str
    samples: np.ndarray
    rate: int


def embedded_clips() -> dict[str, Clip]:
    """The five embedded clips of music by name: 320 samples at 44.1 kHz each (7.26 ms), all CC0-1.0.

    Returns:
        ``guitar``, ``choir``, ``mika``, ``safari`` and ``tabla``, numbered 1 to 5 elsewhere.

    Example:
        >>> clips = embedded_clips()
        >>> list(clips), clips["guitar"].samples.shape
        (['guitar', 'choir', 'mika', 'safari', 'tabla'], (320,))
    """
    with np.load(io.BytesIO(_resource("clips.npz"))) as stored:
        samples, rate = stored["samples"].astype(np.float64), int(stored["rate"])
    return {name: Clip(name, row, rate) for name, row in zip(CLIP_NAMES, samples, strict=True)}


def clip_credits() -> list[dict]:
    """Source file, author and licence of each embedded clip, in the order of `embedded_clips`."""
    return json.loads(_resource("clips.json"))


def _resource(name: str) -> bytes:
    return importlib.resources.files("clockwork.data").joinpath(name).read_bytes()


def read_clip(path: str | Path, start: float = 0.0, samples: int = 320) -> Clip:
    """Cut a clip out of a sound file: WAV, FLAC, OGG and whatever else libsndfile reads.

    Args:
        path: the file.
        start: where the clip begins, in seconds.
        samples: ``T``, how many samples to take, at least 2, at the rate of the file.

    Returns:
        The clip, ``(T,)``, float64, its channels averaged, named after the file.

    Raises:
        ValueError: if the file is missing, empty or not audio, is shorter than asked, holds a
            value that is not finite, or if ``start`` or ``samples`` is out of range.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/stereo.wav", np.zeros((44100, 2)), 44100)
        ...     clip = read_clip(f"{folder}/stereo.wav", start=0.5, samples=100)
        >>> clip.name, clip.samples.shape, clip.rate
        ('stereo', (100,), 44100)
    """
    soundfile = require("soundfile")
    path = Path(path)
    if samples < 2:
        raise ValueError(f"samples must be at least 2, got {samples}")
    if not 0 <= start < 1e9:
        raise ValueError(f"start must be a number of seconds, 0 or more, got {start}")
    if not path.is_file():
        raise ValueError(f"audio file {path} does not exist or is not a file")
    try:
        with soundfile.SoundFile(path) as file:
            rate, available, first = file.samplerate, file.frames, round(start * file.samplerate)
            if available == 0:
                raise ValueError(f"audio file {path} holds no samples")
            if first + samples > available:
                raise ValueError(
                    f"audio file {path} has {available} samples at {rate} Hz, too few for "
                    f"{samples} from {start:g} s (sample {first})"
                )
            file.seek(first)
            frames = file.read(samples, dtype="float64", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"audio file {path} cannot be read as audio: {error}") from None
    if len(frames) < samples:
        raise ValueError(f"audio file {path} is cut: {len(frames)} of {samples} samples from {start:g} s")
    if not np.isfinite(frames).all():
        raise ValueError(
            f"audio file {path} holds values that are not finite, such as {frames[~np.isfinite(frames)][0]}"
        )
    return Clip(clip_name(path), frames.mean(1), rate)


def clip_name(path: str | Path) -> str:
    """What the clip of a sound file is called: the file's name, fit for tables, labels and file names."""
    return re.sub(r"[^\w.+-]+", "_", Path(path).stem)[:60]


def scale(clip: Clip) -> np.ndarray:
    """A clip scaled to [-1, 1], its minimum to -1 and its maximum to 1 (Koutník et al. 2014, sec. 4.1).

    Returns:
        ``(T,)``, float32.

    Raises:
        ValueError: if the clip is constant: then its normalised error is not defined either.
    """
    low, high = clip.samples.min(), clip.samples.max()
    if low == high:
        raise ValueError(f"clip {clip.name!r} is constant ({low:g}): its normalised error is undefined")
    return (2 * (clip.samples - low) / (high - low) - 1).astype(np.float32)

"""Short pieces of sound: the five embedded clips, and excerpts of your own files."""

import glob
import importlib.resources
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clockwork.checks import distinct, finite, integer
from clockwork.data.recording import open_sound, printable

# The names of the rows of clips.npz; clips.json credits their authors.
CLIP_NAMES = ("guitar", "choir", "mika", "safari", "tabla")


class Clip(NamedTuple):
    """A piece of sound.

    Attributes:
        name: its name in tables and file names.
        samples: ``(T,)``, float64, as recorded; one channel.
        rate: samples per second.
        file: the name of the sound file that it is cut from; empty for an embedded clip.
        start: where in the file it begins, in seconds.
    """

    name: str
    samples: np.ndarray
    rate: int
    file: str = ""
    start: float = 0.0


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
    """Cut a clip out of a sound file: WAV, FLAC, OGG or another format that libsndfile reads.

    Args:
        path: the file.
        start: where the clip begins, in seconds.
        samples: ``T``, the number of samples, at least 2, at the rate of the file.

    Returns:
        The clip, ``(T,)``, float64, its channels averaged, named after the file.

    Raises:
        ValueError: if the file is missing, empty or not audio, is too short, holds a value that is not finite, or if
            ``start`` or ``samples`` is out of range.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/stereo.wav", np.zeros((44100, 2)), 44100)
        ...     clip = read_clip(f"{folder}/stereo.wav", start=0.5, samples=100)
        >>> clip.name, clip.samples.shape, clip.rate, clip.file, clip.start
        ('stereo', (100,), 44100, 'stereo.wav', 0.5)
    """
    start, samples = check_span(start, samples)
    with open_sound(path) as file:
        rate, available, first = file.samplerate, file.frames, round(start * file.samplerate)
        if available == 0:
            raise ValueError(f"audio file {path} holds no samples")
        if first + samples > available:
            raise ValueError(
                f"audio file {path} has {available} samples at {rate} Hz, too few for "
                f"{samples} from {start:g} s (sample {first})"
            )
        file.seek(first)
        try:
            frames = file.read(samples, dtype="float64", always_2d=True)
        except MemoryError:
            raise ValueError(f"audio file {path}: {samples} samples do not fit into memory") from None
    if len(frames) < samples:
        raise ValueError(f"audio file {path} is cut short: {len(frames)} of {samples} samples from {start:g} s")
    with np.errstate(over="ignore", invalid="ignore"):
        mono = frames.mean(1)
    for values in (frames, mono):
        if not np.isfinite(values).all():
            raise ValueError(
                f"audio file {path} holds values that are not finite, such as {values[~np.isfinite(values)][0]}"
            )
    return Clip(clip_name(path), mono, rate, printable(Path(path).name), start)


def check_span(start: float, samples: int, name: str = "start") -> tuple[float, int]:
    """Check where a clip begins, in seconds, and its number of samples; return both as Python numbers.

    Raises:
        ValueError: if one is out of range; the error calls the start ``name``.
    """
    return finite(name, start, least=0, most=1e9), integer("samples", samples, least=2)


def clip_name(path: str | Path) -> str:
    """The name of the clip of a sound file: the file's name, made fit for tables, labels and file names.

    Example:
        >>> clip_name("sounds/my dog (2).wav")
        'my_dog_2_'
    """
    stem = unicodedata.normalize("NFC", Path(path).stem)
    # Bytes, not letters: a file's name has room for 255.
    return re.sub(r"[^\w.+-]+", "_", stem).encode()[:60].decode(errors="ignore")


def clip_names(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """The names of the clips of several sound files; equal names get a number.

    Raises:
        ValueError: if a file is given twice.

    Example:
        >>> clip_names(["a/kick.wav", "b/Kick.wav", "snare.wav"])
        ('kick', 'Kick-2', 'snare')
    """
    distinct("audio file", [os.path.normpath(path) for path in paths])
    taken, names = set(), []
    for path in paths:
        base = name = clip_name(path)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def matching_files(patterns: Iterable[str | Path]) -> tuple[str, ...]:
    """Expand patterns such as ``"sounds/*.wav"`` to file names, as a shell does.

    Args:
        patterns: names of files, which may have any characters, or patterns with ``*``, ``?``, ``[...]`` or ``**``.

    Returns:
        The names of the files, sorted within each pattern; a name that is not a pattern is returned unchanged.

    Raises:
        ValueError: if a pattern matches nothing.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.wav", "a.wav"):
        ...         pathlib.Path(folder, name).touch()
        ...     found = matching_files([f"{folder}/*.wav", "other.flac"])
        >>> [os.path.basename(name) for name in found]
        ['a.wav', 'b.wav', 'other.flac']
    """
    found: list[str] = []
    for pattern in map(str, patterns):
        if not glob.has_magic(pattern) or os.path.lexists(pattern):
            found.append(pattern)
        elif matches := sorted(glob.glob(pattern, recursive=True)):
            found += matches
        else:
            raise ValueError(f"no file matches {pattern}")
    return tuple(dict.fromkeys(found))


def scale(clip: Clip) -> np.ndarray:
    """A clip scaled to [-1, 1], its minimum to -1 and its maximum to 1 (Koutník et al. 2014, sec. 4.1).

    Returns:
        ``(T,)``, float32.

    Raises:
        ValueError: if the clip is constant: then its normalised error is not defined either.

    Example:
        >>> scale(Clip("loud", np.array([-1e308, 0.0, 1e308]), 8000))
        array([-1.,  0.,  1.], dtype=float32)
    """
    halves = clip.samples / 2  # whose differences cannot overflow
    low, high = halves.min(), halves.max()
    if low == high:
        raise ValueError(f"clip {clip.name!r} is constant ({clip.samples[0]:g}): its normalised error is undefined")
    return (2 * ((halves - low) / (high - low)) - 1).astype(np.float32)

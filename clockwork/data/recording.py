"""Reading sound files without trusting their headers."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.files import regular_file, replacing
from clockwork.optional import require

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".sph", ".w64", ".caf")
LONGEST_WORD = 60.0  # seconds
FASTEST = 768_000  # samples per second: limits what is read of a file whose header has an absurd rate
MOST_SAMPLES = 2**48  # libsndfile reports the largest integer for files that do not state their length
BLOCK = 2**20  # values of all channels read at a time
MAX_CHUNKS = 1000  # chunks of a RIFF file in which its samples are searched


def printable(name: str) -> str:
    """A file name for messages: bytes that are not UTF-8 become escapes such as ``\\xe9``.

    Example:
        >>> printable("caf\\udce9.wav")
        'caf\\\\xe9.wav'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def open_sound(path: str | Path) -> Iterator[Any]:
    """Open a sound file with libsndfile.

    Yields:
        A ``soundfile.SoundFile``.

    Raises:
        ValueError: if there is no such file or it is not audio; the error names the file.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.
    """
    soundfile = require("soundfile")
    path = regular_file(path, "audio file")
    try:
        with path.open("rb"):
            pass  # libsndfile does not say why it cannot open a file
        # soundfile encodes names strictly, but some names are not UTF-8.
        with soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path)) as file:
            if file.frames > MOST_SAMPLES:
                raise ValueError(f"audio file {path} does not say how many samples it has: convert it, e.g. to WAV")
            yield file
    except OSError as error:
        raise ValueError(f"audio file {path} cannot be read: {error.strerror}") from None
    except soundfile.LibsndfileError as error:
        raise ValueError(f"audio file {path} cannot be read as audio: {error.error_string}") from None
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: the suffix names a format without a header
        raise ValueError(f"audio file {path} cannot be read as audio: {error}") from None


def read_recording(path: str | Path, longest: float = LONGEST_WORD) -> tuple[np.ndarray, int]:
    """The samples of a whole file, ``(n,)``, float64, its channels averaged, and their rate.

    Args:
        path: the file.
        longest: the longest duration allowed, in seconds.

    Raises:
        ValueError: if it cannot be read, is empty, is shorter than its header says, or lasts too long.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/word.wav", np.zeros((9000, 2)), 16000)
        ...     samples, rate = read_recording(f"{folder}/word.wav")
        >>> samples.shape, rate
        ((9000,), 16000)
    """
    path = regular_file(path, "audio file")
    promised = _promised_samples(path)
    with open_sound(path) as file:
        rate, frames = file.samplerate, file.frames
        if frames > longest * min(rate, FASTEST):
            raise ValueError(f"audio file {path} lasts {frames / rate:.0f} s; at most {longest:.0f} s can be used")
        blocks = []
        while len(block := file.read(BLOCK // file.channels + 1, "float64", always_2d=True)):
            with np.errstate(over="ignore", invalid="ignore"):
                blocks.append(block.mean(1))
    samples = np.concatenate(blocks) if blocks else np.zeros(0)
    promised = frames if promised is None else promised
    if len(samples) < promised:
        raise ValueError(
            f"audio file {path} is cut short: {len(samples)} of the {promised} samples its header promises"
        )
    if len(samples) == 0:
        raise ValueError(f"audio file {path} holds no samples")
    return samples, rate


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resample a sound with the library soxr.

    Args:
        samples: ``(n,)``, one channel.
        rate: samples per second of ``samples``.
        wanted: samples per second of the result.

    Returns:
        ``(m,)``, float64, ``m`` about ``n * wanted / rate``.

    Raises:
        ImportError: if soxr is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import numpy as np
        >>> resample(np.zeros(44100), 44100, 16000).shape
        (16000,)
    """
    return samples if rate == wanted else require("soxr").resample(samples, rate, wanted)


def _promised_samples(path: Path) -> int | None:
    # libsndfile reads a truncated SPHERE or RIFF file as a shorter one, without an error.
    try:
        with path.open("rb") as file:
            head = file.read(1024)
            if head.startswith(b"NIST_1A"):
                return _promised_by_sphere(path, head)
            return _promised_by_riff(file) if head.startswith(b"RIFF") else None
    except OSError as error:
        raise ValueError(f"audio file {path} cannot be read: {error.strerror}") from None


def _promised_by_sphere(path: Path, head: bytes) -> int | None:
    lines = (line.split(maxsplit=2) for line in head.decode("latin-1").splitlines())
    header = {line[0]: line[2] for line in lines if len(line) == 3}
    if "shorten" in header.get("sample_coding", ""):
        raise ValueError(f"audio file {path} is compressed by shorten: unpack it first, by w_decode or sph2pipe")
    count = header.get("sample_count", "").strip()
    return int(count) if count.isdecimal() and len(count) < 19 else None


def _promised_by_riff(file: Any) -> int | None:
    position, block = 12, 0
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        name, size = file.read(4), file.read(4)
        if len(size) < 4:
            return None
        length = int.from_bytes(size, "little")
        if name == b"fmt ":
            form = file.read(14)
            # Only uncompressed formats have a fixed number of bytes for one sample of all channels.
            plain = int.from_bytes(form[:2], "little") in (1, 3, 6, 7, 0xFFFE)
            block = int.from_bytes(form[12:], "little") if plain else 0
        # A program that writes to a pipe does not know the length, and leaves about the largest number possible.
        if name == b"data":
            return length // block if block and length < 0x7FFF0000 else None
        position += 8 + length + length % 2
    return None


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples ``(n,)`` from -1 to 1 as a WAV file of 16 bits, whole or not at all.

    Raises:
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.
    """
    soundfile = require("soundfile")
    try:
        # An open file: soundfile takes no names that are not UTF-8.
        with replacing(path) as whole, whole.open("wb") as file:
            soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    except soundfile.SoundFileError as error:
        raise OSError(f"{path} cannot be written: {error}") from None

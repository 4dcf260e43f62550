"""Spoken words from the user's own recordings: the TIMIT corpus, or any folder of speakers and words."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clockwork.extras import require

# Koutník et al. 2014, sec. 4.2: five groups of five words that sound alike at the end, by their suffix.
PAPER_GROUPS: dict[str, tuple[str, ...]] = {
    "ing": ("making", "walking", "cooking", "looking", "working"),
    "ical": ("biblical", "cyclical", "technical", "classical", "critical"),
    "ition": ("tradition", "addition", "audition", "recognition", "competition"),
    "ions": ("musicians", "discussions", "regulations", "accusations", "conditions"),
    "way": ("subway", "leeway", "freeway", "highway", "hallway"),
}
PAPER_WORDS: tuple[str, ...] = tuple(itertools.chain.from_iterable(PAPER_GROUPS.values()))

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".sph", ".w64", ".caf")


class Utterance(NamedTuple):
    """One word as one person said it once.

    Attributes:
        word: in lower case.
        speaker: the name of the speaker's folder.
        samples: ``(n,)``, float64, in [-1, 1]; one channel.
        rate: samples per second.
        source: the audio file, relative to the corpus; in TIMIT with the span, as ``file[start:end]``.
    """

    word: str
    speaker: str
    samples: np.ndarray
    rate: int
    source: str


def read_timit(
    root: str | Path, words: Iterable[str] = PAPER_WORDS, per_word: int = 7
) -> tuple[list[Utterance], list[str]]:
    """Cut words out of the TIMIT corpus (Garofolo et al. 1993): the first speakers of each, one token a speaker.

    TIMIT is licensed, so the copy is the user's own: as on the LDC's disc (NIST SPHERE audio, names such as
    ``TRAIN/DR1/FCJF0/SX37.WAV`` and ``.WRD``) or unpacked to RIFF, in either case of letters, anywhere below ``root``.
    A ``.WRD`` file has lines ``start end word``, in samples; neighbours may overlap, and each is cut at its own marks.

    Args:
        root: a folder above the ``.WRD`` files.
        words: which words, compared without regard to case.
        per_word: how many speakers of each word, the first in the order of their paths.

    Returns:
        The utterances, word by word in the order of ``words``, and sentences that say what is missing.

    Raises:
        ValueError: if there is no ``.WRD`` file or none of the words, or if a file is malformed, cut short, missing
            its audio, compressed by shorten, or of another sampling rate than the rest.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     folder = pathlib.Path(root, "train/dr1/fcjf0")
        ...     folder.mkdir(parents=True)
        ...     soundfile.write(folder / "sx37.wav", np.zeros(9000), 16000)
        ...     _ = (folder / "sx37.wrd").write_text("500 4500 critical\\n4400 8000 equipment\\n")
        ...     utterances, missing = read_timit(root, ["critical", "leeway"], per_word=1)
        >>> utterances[0].word, utterances[0].speaker, utterances[0].samples.shape, utterances[0].source
        ('critical', 'FCJF0', (4000,), 'train/dr1/fcjf0/sx37.wav[500:4500]')
        >>> missing
        ['leeway has none of 1 speaker']
    """
    root, wanted = _root(root), _wanted(words)
    if per_word < 1:
        raise ValueError(f"per_word must be at least 1, got {per_word}")
    files = files_below(root)
    marks = [path for path in files if path.suffix.lower() == ".wrd"]
    if not marks:
        raise ValueError(f"no .WRD file below {root}: TIMIT has one beside the audio of each sentence")
    beside = {(path.parent, path.name.lower()): path for path in reversed(files)}
    tokens: dict[str, dict[str, tuple[Path, int, int]]] = {word: {} for word in wanted}
    for path in marks:
        for start, end, word in _read_marks(path):
            if word in tokens:
                tokens[word].setdefault(path.parent.name.upper(), (path, start, end))
    utterances, audio = [], {}
    for word, speakers in tokens.items():
        for speaker, (path, start, end) in itertools.islice(speakers.items(), per_word):
            file = _audio_of(path, beside)
            if file not in audio:
                audio[file] = read_recording(file)
            samples, rate = audio[file]
            if not 0 <= start < end <= len(samples):
                raise ValueError(
                    f"{path} marks {word!r} at samples {start} to {end}, but {file.name} has {len(samples)} samples"
                )
            source = f"{file.relative_to(root).as_posix()}[{start}:{end}]"
            utterances.append(Utterance(word, speaker, samples[start:end], rate, source))
    if not utterances:
        raise ValueError(f"none of the words {', '.join(wanted)} is in the {len(marks)} .WRD files below {root}")
    _same_rate({file: rate for file, (_, rate) in audio.items()})
    return utterances, _shortfall({word: len(speakers) for word, speakers in tokens.items()}, per_word)


def read_folder(root: str | Path, words: Iterable[str] | None = None) -> tuple[list[Utterance], list[str]]:
    """Read ``SPEAKER/WORD.wav`` (or ``.flac``, or another format of libsndfile): any recordings of words.

    Args:
        root: the folder of the speakers' folders.
        words: which words, compared without regard to case; all that are found, sorted, if None.

    Returns:
        The utterances, word by word, their channels averaged, and sentences that say what is missing.

    Raises:
        ValueError: if there is no such file, or if one is empty, cut short, not audio, there twice in two
            formats, or of another sampling rate than the rest.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for file in ("ann/yes.wav", "ann/no.wav", "bob/yes.wav"):
        ...         pathlib.Path(root, file).parent.mkdir(exist_ok=True)
        ...         soundfile.write(pathlib.Path(root, file), np.zeros((8000, 2)), 16000)
        ...     utterances, missing = read_folder(root)
        >>> [utterance.source for utterance in utterances], missing
        (['ann/no.wav', 'ann/yes.wav', 'bob/yes.wav'], ['bob lacks no'])
    """
    root = _root(root)
    found: dict[tuple[str, str], Path] = {}
    for path in files_below(root):
        if path.parent.parent == root and path.suffix.lower() in AUDIO_SUFFIXES:
            first = found.setdefault((path.stem.lower(), path.parent.name), path)
            if first is not path:
                raise ValueError(f"{first} and {path} are the same word of the same speaker: keep one")
    if not found:
        raise ValueError(f"no SPEAKER/WORD.wav below {root}: each speaker needs a folder with one file for each word")
    wanted = sorted({word for word, _ in found}) if words is None else _wanted(words)
    speakers = list(dict.fromkeys(speaker for _, speaker in found))
    files = {(word, speaker): found.get((word, speaker)) for word in wanted for speaker in speakers}
    utterances = []
    for (word, speaker), path in files.items():
        if path is not None:
            source = path.relative_to(root).as_posix()
            utterances.append(Utterance(word, speaker, *read_recording(path), source))
    if not utterances:
        raise ValueError(f"none of the words {', '.join(wanted)} is among the files SPEAKER/WORD.wav below {root}")
    _same_rate({root / utterance.source: utterance.rate for utterance in utterances})
    lacks = {speaker: [word for word in wanted if files[word, speaker] is None] for speaker in speakers}
    return utterances, [f"{speaker} lacks {', '.join(missing)}" for speaker, missing in lacks.items() if missing]


def _shortfall(found: dict[str, int], per_word: int) -> list[str]:
    (first, count), *others = [item for item in found.items() if item[1] < per_word] or [("", 0)]
    if not first:
        return []
    sentence = f"{first} has {count or 'none'} of {per_word} speaker{'s' * (per_word > 1)}"
    return [", ".join([sentence, *(f"{word} {count or 'none'}" for word, count in others)])]


def files_below(root: Path) -> list[Path]:
    """All files below a folder but hidden ones, in an order that is the same for names in either case."""
    files = (path for path in root.rglob("*") if not path.name.startswith(".") and path.is_file())
    return sorted(files, key=lambda path: (path.relative_to(root).as_posix().upper(), path))


def _root(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} does not exist or is not a folder")
    return root


def _wanted(words: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(word.lower() for word in words))
    if not wanted:
        raise ValueError("words must name at least one word, got none")
    return wanted


def _read_marks(path: Path) -> list[tuple[int, int, str]]:
    marks = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        match line.split():
            case []:
                pass
            case [start, end, word] if start.isdecimal() and end.isdecimal():
                marks.append((int(start), int(end), word.lower()))
            case _:
                raise ValueError(f"{path}, line {number}, should read 'start end word', in samples, got {line!r}")
    return marks


def _audio_of(marks: Path, beside: dict[tuple[Path, str], Path]) -> Path:
    # Where a RIFF copy lies beside the disc's SPHERE file, it bears the whole name and one more suffix.
    for suffix in (".wav.wav", ".wav", ".flac", ".sph"):
        if file := beside.get((marks.parent, marks.stem.lower() + suffix)):
            return file
    raise ValueError(f"{marks} has no audio beside it, such as {marks.stem}.WAV")


def read_recording(path: Path) -> tuple[np.ndarray, int]:
    """The samples of a whole file, ``(n,)``, its channels averaged, and their rate.

    Raises:
        ValueError: if it cannot be read, is empty, or is shorter than its header says.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.
    """
    soundfile = require("soundfile")
    try:
        promised = _promised_samples(path)
        with soundfile.SoundFile(path) as file:
            rate, promised = file.samplerate, file.frames if promised is None else promised
            frames = file.read(dtype="float64", always_2d=True)  # (n, channels)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"audio file {path} cannot be read as audio: {error}") from None
    if len(frames) < promised:
        raise ValueError(f"audio file {path} is cut short: {len(frames)} of the {promised} samples its header promises")
    if len(frames) == 0:
        raise ValueError(f"audio file {path} holds no samples")
    return frames.mean(1), rate


def _promised_samples(path: Path) -> int | None:
    # libsndfile reads a SPHERE or RIFF file that is cut short as a shorter one, without a word.
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
        if head.startswith(b"NIST_1A"):
            lines = (line.split(maxsplit=2) for line in head.decode("latin-1").splitlines())
            header = {line[0]: line[2] for line in lines if len(line) == 3}
            if "shorten" in header.get("sample_coding", ""):
                raise ValueError(
                    f"audio file {path} is compressed by shorten: unpack it first, by w_decode or sph2pipe"
                )
            count = header.get("sample_count", "").strip()
            return int(count) if count.isdecimal() else None
        position, block = 12, 0
        while head.startswith(b"RIFF") and position + 8 <= size:
            file.seek(position)
            name, length = file.read(4), int.from_bytes(file.read(4), "little")
            if name == b"fmt ":
                form = file.read(14)
                # Only uncompressed forms have a fixed number of bytes to a sample of all channels.
                plain = int.from_bytes(form[:2], "little") in (1, 3, 6, 7, 0xFFFE)
                block = int.from_bytes(form[12:], "little") if plain else 0
            # A program that writes to a pipe cannot know the length, and leaves about the most there is.
            if name == b"data":
                return length // block if block and length < 0x7FFF0000 else None
            position += 8 + length + length % 2
    return None


def _same_rate(rates: dict[Path, int]) -> None:
    (first, rate), *others = rates.items()
    for path, other in others:
        if other != rate:
            raise ValueError(f"all audio must have one sampling rate, but {first} has {rate} Hz and {path} {other} Hz")

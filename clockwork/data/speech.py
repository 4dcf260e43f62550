"""Spoken words from the user's own recordings: the TIMIT corpus, or any folder of speakers and words."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from clockwork.checks import integer, listed
from clockwork.data.recording import AUDIO_SUFFIXES, LONGEST_WORD, printable, read_recording
from clockwork.data.takes import find_tokens
from clockwork.data.tokens import Utterance, absence, proposal, read_tokens, same_rate, surplus, wanted_words
from clockwork.files import regular_file

__all__ = ["PAPER_GROUPS", "PAPER_WORDS", "Utterance", "files_below", "read_folder", "read_timit"]

# Koutník et al. 2014, sec. 4.2: five groups of five words that sound alike at the end, by their suffix.
PAPER_GROUPS: dict[str, tuple[str, ...]] = {
    "ing": ("making", "walking", "cooking", "looking", "working"),
    "ical": ("biblical", "cyclical", "technical", "classical", "critical"),
    "ition": ("tradition", "addition", "audition", "recognition", "competition"),
    "ions": ("musicians", "discussions", "regulations", "accusations", "conditions"),
    "way": ("subway", "leeway", "freeway", "highway", "hallway"),
}
PAPER_WORDS: tuple[str, ...] = tuple(itertools.chain.from_iterable(PAPER_GROUPS.values()))

# The longest file of a sentence or text out of which words are cut.
LONGEST_TEXT = 3600.0  # seconds


def read_timit(
    root: str | Path, words: Iterable[str] = PAPER_WORDS, per_word: int = 7
) -> tuple[list[Utterance], list[str]]:
    """Cut words out of the TIMIT corpus (Garofolo et al. 1993): one token by each of the first speakers of a word.

    TIMIT is licensed, so you need your own copy: as on the LDC's disc (NIST SPHERE audio, names such as
    ``TRAIN/DR1/FCJF0/SX37.WAV`` and ``.WRD``) or unpacked to RIFF, in upper or lower case, anywhere below ``root``.
    A ``.WRD`` file has lines ``start end word``, in samples; words may overlap, and each is cut at its own marks.

    Args:
        root: a folder above the ``.WRD`` files.
        words: the words to read, ignoring case.
        per_word: the number of speakers of each word, the first in the order of their paths.

    Returns:
        The utterances, word by word in the order of ``words``, and sentences that say what is missing or left out.

    Raises:
        ValueError: if there is no ``.WRD`` file, none of the words occurs in one, or a file is malformed, cut short,
            without audio, compressed by shorten, or of another sampling rate than the rest.
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
        ['1 of the 2 words is absent (leeway)']
    """
    root, wanted, per_word = _root(root), wanted_words(words), integer("per_word", per_word, least=1)
    files = files_below(root)
    marks = [path for path in files if path.suffix.lower() == ".wrd"]
    if not marks:
        raise ValueError(f"no .WRD file below {root}: TIMIT has one beside the audio of each sentence")
    beside = {(path.parent, path.name.lower()): path for path in reversed(files)}
    said: dict[str, dict[str, tuple[Path, int, int]]] = {}
    for path in marks:
        for start, end, word in _read_marks(path):
            said.setdefault(word, {}).setdefault(printable(path.parent.name).upper(), (path, start, end))
    there = {word: len(speakers) for word, speakers in said.items()}
    present = [word for word in wanted if word in said]
    if not present:
        raise ValueError(
            f"none of the words {listed(wanted)} is in the {len(marks)} .WRD files below {root}"
            f"{proposal(wanted, there)}"
        )
    utterances, audio = [], {}
    for word in present:
        for speaker, (path, start, end) in itertools.islice(said[word].items(), per_word):
            file = _audio_of(path, beside)
            if file not in audio:
                audio[file] = read_recording(file, LONGEST_TEXT)
            samples, rate = audio[file]
            if not 0 <= start < end <= len(samples) or end - start > LONGEST_WORD * rate:
                raise ValueError(
                    f"{path} marks {word!r} at samples {start} to {end}, but {file.name} has {len(samples)} samples "
                    f"and no word lasts {LONGEST_WORD:.0f} s"
                )
            source = f"{printable(file.relative_to(root).as_posix())}[{start}:{end}]"
            utterances.append(Utterance(word, speaker, samples[start:end], rate, source))
    same_rate({file: rate for file, (_, rate) in audio.items()})
    return utterances, [*absence(wanted, there), *_shortfall(present, there, per_word)]


def read_folder(
    root: str | Path, words: Iterable[str] | None = None, per_word: int | None = None
) -> tuple[list[Utterance], list[str]]:
    """Read a folder of speakers: ``SPEAKER/WORD.wav`` (or ``.flac``, or another format of libsndfile).

    **Each folder directly below the root is one speaker** and must hold all recordings of that person; every split
    keeps a speaker on one side. Several takes of a word are ``SPEAKER/WORD/TAKE.wav``, with any names ``TAKE``, or
    ``SPEAKER/WORD_N.wav``: ``WORD_N``, ``WORD-N``, ``WORD N``, ``WORD(N)`` or ``WORDN`` is a take of ``WORD`` if
    ``WORD`` is also a word of the folder, or if several names differ only by the number. If your files are arranged in
    another way, list them in a table (`read_table`).

    Args:
        root: the folder of the speakers' folders.
        words: the words to read, ignoring case; these names are words even if they end in a number. None for all,
            sorted, without those of a single speaker if at least two others remain.
        per_word: the number of speakers of each word, the first in the order of their folders; None for all.

    Returns:
        The utterances, word by word, their channels averaged, and sentences that say what is missing, left out, or
        counted as a take.

    Raises:
        ValueError: if there is no such file, or if one is empty, cut short, not audio, present in two formats, or of
            another sampling rate than the rest; if folders are named like takes, or two like the same speaker.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for file in ("ann/yes.wav", "ann/no.wav", "bob/yes.wav", "bob/yes_2.wav"):
        ...         pathlib.Path(root, file).parent.mkdir(exist_ok=True)
        ...         soundfile.write(pathlib.Path(root, file), np.zeros((8000, 2)), 16000)
        ...     utterances, missing = read_folder(root)
        >>> [(utterance.word, utterance.source) for utterance in utterances]
        [('no', 'ann/no.wav'), ('yes', 'ann/yes.wav'), ('yes', 'bob/yes.wav'), ('yes', 'bob/yes_2.wav')]
        >>> missing
        ['names that end in a number count as takes, such as yes_2 of yes', 'bob lacks no']
    """
    root, wanted = _root(root), None if words is None else wanted_words(words)
    tokens, notes = find_tokens(root, files_below(root), wanted)
    utterances, missing = read_tokens(tokens, wanted, per_word, f"among the files below {root}")
    return utterances, [*notes, *missing]


def _shortfall(present: list[str], there: dict[str, int], per_word: int) -> list[str]:
    few = [f"{word} has {there[word]}" for word in present if there[word] < per_word]
    wanting = [f"fewer than {per_word} speakers say some words: {listed(few)}"] if few else []
    return [*wanting, *surplus(present, there, per_word)]


def files_below(root: Path) -> list[Path]:
    """All files below a folder that are not hidden, in an order that ignores upper and lower case.

    Folders named like a sound file are included, so that the reader reports them.
    """
    suffixes = (".wrd", *AUDIO_SUFFIXES)
    files = (path for path in root.rglob("*") if not path.is_dir() or path.suffix.lower() in suffixes)
    named = [(path.relative_to(root), path) for path in files]
    shown = [(place, path) for place, path in named if not any(part.startswith(".") for part in place.parts)]
    return [path for _, path in sorted(shown, key=lambda found: (found[0].as_posix().upper(), found[1]))]


def _root(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} does not exist or is not a folder")
    return root


def _read_marks(path: Path) -> list[tuple[int, int, str]]:
    try:
        lines = regular_file(path, "file of marks").read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(f"file of marks {path} cannot be read: {error.strerror}") from None
    marks = []
    for number, line in enumerate(lines, 1):
        match line.split():
            case []:
                pass
            case [start, end, word] if start.isdecimal() and end.isdecimal() and len(start + end) < 40:
                marks.append((int(start), int(end), word.lower()))
            case _:
                raise ValueError(f"{path}, line {number}, should read 'start end word', in samples, got {line[:60]!r}")
    return marks


def _audio_of(marks: Path, beside: dict[tuple[Path, str], Path]) -> Path:
    # A RIFF copy beside the disc's SPHERE file has its whole name and one more suffix.
    for suffix in (".wav.wav", ".wav", ".flac", ".sph"):
        if file := beside.get((marks.parent, marks.stem.lower() + suffix)):
            return file
    raise ValueError(f"{marks} has no audio beside it, such as {marks.stem}.WAV")

"""Folders of speakers: the word of each sound file, and takes of the same word."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from clockwork.checks import listed
from clockwork.data.recording import AUDIO_SUFFIXES, printable
from clockwork.data.tokens import Token

# WORD_2, WORD-2, WORD 2, WORD(2), WORD (2), WORD2
NUMBERED = re.compile(r"(.+?)(?:[\s_-]*\(\d+\)|[\s_-]+\d+|(?<=[^\d\s_-])\d+)")
APART = re.compile(r".+[\s_()-]\d+\)?")  # the number is separated from the word
TAKES = re.compile(r"(?:.*[\s_-])?(?:take|session|recording|rec|round|trial|repetition|repeat|rep)s?[\s_-]*\d+", re.I)
# speaker_1 and speaker_2 are two people; ann_1 and ann_2 may be one.
PEOPLE = {"speaker", "spk", "spkr", "sp", "s", "person", "people", "p", "subject", "subj", "sub", "participant"}
PEOPLE |= {"voice", "user", "id", "talker", "f", "m", "w", "female", "male", "woman", "man", "girl", "boy", "child"}
PLACES = "SPEAKER/WORD.wav, SPEAKER/WORD_N.wav or SPEAKER/WORD/TAKE.wav"


def find_tokens(root: Path, files: Iterable[Path], words: Collection[str] | None) -> tuple[list[Token], list[str]]:
    """The word, speaker and take of each sound file below a folder, by its place.

    A folder directly below ``root`` is a speaker. A file in it is a word, ``SPEAKER/WORD.wav``; the files of a folder
    in it are takes of one word, ``SPEAKER/WORD/TAKE.wav``. ``WORD_N``, ``WORD-N``, ``WORD N``, ``WORD(N)`` and
    ``WORDN`` is a take of ``WORD`` if ``WORD`` is also a word there, or several names differ only by ``N``.

    Args:
        root: the folder.
        files: all files below it, in order.
        words: names in lower case that are words, even if they end in a number.

    Returns:
        The tokens, in the order of the files, and sentences about unclear names and unused files.

    Raises:
        ValueError: if there are no sound files, a recording exists in two formats, or a speaker's folder is named like
            a take or like another speaker's.
    """
    named: dict[tuple[str, ...], tuple[str, str, Path]] = {}  # speaker, name and file by place
    astray = []
    for path in files:
        place = path.relative_to(root).parts
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        if len(place) not in (2, 3):
            astray.append(printable("/".join(place)))
            continue
        name = printable(path.stem if len(place) == 2 else place[1]).lower()
        _, _, first = named.setdefault((*place[:-1], path.stem.lower()), (printable(place[0]), name, path))
        if first is not path:
            raise ValueError(f"{first} and {path} are the same word of the same speaker: keep one")
    if not named:
        raise ValueError(
            f"no SPEAKER/WORD.wav below {root}: each speaker needs a folder with one file for each word ({PLACES}), "
            "or a table lists file, word and speaker"
        )
    word_of = _words_of({name for _, name, _ in named.values()}, words)
    tokens = [
        Token(word_of[name], speaker, path, printable(path.relative_to(root).as_posix()))
        for speaker, name, path in named.values()
    ]
    notes = _speakers_apart(root, {token.speaker for token in tokens})
    if taken := [f"{name} of {word}" for name, word in word_of.items() if name != word]:
        notes.append(f"names that end in a number count as takes, such as {taken[0]}")
    if astray:
        notes.append(f"sound files elsewhere than {PLACES} are not used: {listed(astray)}")
    return tokens, notes


def _words_of(names: set[str], words: Collection[str] | None) -> dict[str, str]:
    known = names | set(words or ())
    numbered: dict[str, set[str]] = {}
    for name in names:
        if found := NUMBERED.fullmatch(name):
            numbered.setdefault(found[1], set()).add(name)

    def word_of(name: str) -> str:
        found = None if name in (words or ()) else NUMBERED.fullmatch(name)
        if found and (found[1] in known or len(numbered.get(found[1], ())) > 1):
            return word_of(found[1])
        return name

    return {name: word_of(name) for name in sorted(names)}


def _speakers_apart(root: Path, speakers: set[str]) -> list[str]:
    """Notes about folders that may belong to one speaker; ``ValueError`` if two folders certainly do."""
    one_each = f"a folder directly below {root} must hold all of one speaker: takes are {PLACES.partition(', ')[2]}"
    if takes := sorted(filter(TAKES.fullmatch, speakers)):
        raise ValueError(f"{listed(takes)}: named like takes, but {one_each}, or listed in a table")
    folded = {speaker.casefold(): speaker for speaker in speakers}
    numbered: dict[str, list[str]] = {}
    for speaker in sorted(speakers):
        if (first := folded[speaker.casefold()]) != speaker:
            raise ValueError(f"{first} and {speaker} differ by their case only, but {one_each}")
        found = NUMBERED.fullmatch(speaker) if APART.fullmatch(speaker) else None
        if found and (alone := folded.get(found[1].casefold())):
            raise ValueError(f"{alone} and {speaker} are named like one speaker, but {one_each}, or listed in a table")
        if found and found[1].casefold() not in PEOPLE:
            numbered.setdefault(found[1], []).append(speaker)
    return [
        f"{listed(alike)} count as {len(alike)} speakers; if they are one, put all into one folder"
        for alike in numbered.values()
        if len(alike) > 1
    ][:3]

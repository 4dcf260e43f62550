"""Recordings of single words: the word and speaker of each file, and reading the selected ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clockwork.checks import integer, listed
from clockwork.data.recording import read_recording

SHOWN = 3  # name the missing words of this many speakers, and count the other speakers
OTHERS = 5  # propose this many words in place of absent ones


class Utterance(NamedTuple):
    """One recording of a word by one speaker.

    Attributes:
        word: the word in lower case.
        speaker: the name of the speaker.
        samples: ``(n,)``, float64, in [-1, 1]; one channel.
        rate: samples per second.
        source: the audio file, relative to the corpus; in TIMIT with the span, as ``file[start:end]``.
    """

    word: str
    speaker: str
    samples: np.ndarray
    rate: int
    source: str


class Token(NamedTuple):
    """A file with one recording of a word by one speaker.

    Attributes:
        word: the word in lower case.
        speaker: the name of the speaker.
        path: the audio file.
        source: the name of the file in messages.
    """

    word: str
    speaker: str
    path: Path
    source: str


def read_tokens(
    tokens: Sequence[Token], words: Iterable[str] | None, per_word: int | None, where: str
) -> tuple[list[Utterance], list[str]]:
    """Read the recordings of the selected words.

    Args:
        tokens: all recordings; the speakers of each word are taken in this order.
        words: the words to read, ignoring case. None for all, sorted, without those of a single speaker if at least two
            others remain: such words cannot be both trained and tested on.
        per_word: the number of speakers of each word, with all their recordings of it; None for all.
        where: where the tokens are, for errors, such as ``"in words.csv"``.

    Returns:
        The utterances, word by word, and sentences that say what is missing or left out.

    Raises:
        ValueError: if there is a recording of none of the words, a file cannot be read, or sampling rates differ.
    """
    if per_word is not None:
        integer("per_word", per_word, least=1)
    said: dict[str, dict[str, list[Token]]] = {}
    for token in tokens:
        said.setdefault(token.word, {}).setdefault(token.speaker, []).append(token)
    there = {word: len(speakers) for word, speakers in said.items()}
    shared = sorted(word for word in said if there[word] > 1)
    if words is None:
        wanted = tuple(shared if len(shared) > 1 else sorted(said))
        alone = sorted(set(said) - set(wanted))
    else:
        wanted, alone = wanted_words(words), []
    present = [word for word in wanted if word in said]
    if not present:
        raise ValueError(f"none of the words {listed(wanted)} is {where}{proposal(wanted, there)}")
    utterances, rates = [], {}
    speakers = list(dict.fromkeys(token.speaker for token in tokens))
    for word in present:
        for speaker in [speaker for speaker in speakers if speaker in said[word]][:per_word]:
            for token in said[word][speaker]:
                samples, rates[token.path] = read_recording(token.path)
                utterances.append(Utterance(word, speaker, samples, rates[token.path], token.source))
    same_rate(rates)
    lacking = [
        f"{speaker} lacks {listed(missing)}"
        for speaker in speakers
        if (missing := [word for word in present if speaker not in said[word]])
    ]
    more = [f"{len(lacking) - SHOWN} more speakers lack words"] * (len(lacking) > SHOWN)
    single = [f"words that one speaker alone says are left out: {listed(alone)}"] if alone else []
    return utterances, [*single, *absence(wanted, there), *surplus(present, there, per_word), *lacking[:SHOWN], *more]


def wanted_words(words: Iterable[str]) -> tuple[str, ...]:
    """Convert words to lower case, without duplicates.

    Raises:
        ValueError: if there is no word.
    """
    wanted = tuple(dict.fromkeys(word.lower() for word in words))
    if not wanted:
        raise ValueError("words must name at least one word, got none")
    return wanted


def absence(wanted: Sequence[str], there: dict[str, int]) -> list[str]:
    """A sentence about the words without a recording, if there are any, and how to choose others.

    Args:
        wanted: the selected words.
        there: the number of speakers of each recorded word.

    Example:
        >>> absence(["yes", "never"], {"yes": 4, "no": 3, "oh": 1})
        ['1 of the 2 words is absent (never); --word-list chooses others, such as no']
    """
    absent = [word for word in wanted if word not in there]
    if not absent:
        return []
    verb = "is" if len(absent) == 1 else "are"
    return [f"{len(absent)} of the {len(wanted)} words {verb} absent ({listed(absent)}){proposal(wanted, there)}"]


def proposal(wanted: Sequence[str], there: dict[str, int]) -> str:
    """Propose other words: those with the most speakers, at least two, that are not selected yet."""
    others = [word for word in there if there[word] > 1 and word not in wanted]
    others = sorted(others, key=lambda word: (-there[word], word))[:OTHERS]
    return f"; --word-list chooses others, such as {', '.join(others)}" if others else ""


def surplus(present: Sequence[str], there: dict[str, int], per_word: int | None) -> list[str]:
    """A sentence about the words that have more speakers than are used, if there are any.

    Example:
        >>> surplus(["yes", "no"], {"yes": 16, "no": 5}, per_word=7)
        ['the first 7 speakers of each word are used, of yes 16; --per-word takes more']
    """
    more = [f"{word} {there[word]}" for word in present if per_word is not None and there[word] > per_word]
    if not more:
        return []
    many = "speaker" if per_word == 1 else f"{per_word} speakers"
    verb = "is" if per_word == 1 else "are"
    return [f"the first {many} of each word {verb} used, of {listed(more)}; --per-word takes more"]


def same_rate(rates: dict[Path, int]) -> None:
    """Raise ``ValueError`` unless all files have one sampling rate."""
    (first, rate), *others = rates.items()
    for path, other in others:
        if other != rate:
            raise ValueError(f"all audio must have one sampling rate, but {first} has {rate} Hz and {path} {other} Hz")

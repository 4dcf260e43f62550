"""Corpora of spoken words as features, and their division into training and test speakers."""

import contextlib
import functools
import hashlib
import importlib.resources
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clockwork.checks import integer, listed
from clockwork.data.mfcc import CHANNELS, mfcc
from clockwork.data.recording import AUDIO_SUFFIXES, printable
from clockwork.data.speech import PAPER_WORDS, files_below, read_folder, read_timit
from clockwork.data.table import read_table, table_tokens
from clockwork.data.tokens import Utterance
from clockwork.files import cache_folder, regular_file, replacing

# Part of the name of each cache: change it whenever the features or the readers change.
FEATURES = "mfcc 3"

TIMIT_SPEAKERS = 7  # speakers of each word (Koutník et al. 2014, sec. 4.2)

EMBEDDED_NOTES = (
    "this is synthetic speech, not TIMIT: 7 synthetic voices, one token of each word by each voice",
    "its error rates are not comparable to the paper's",
)
EMBEDDED_TEST_SPEAKERS = ("rms", "ked")

# The local search for a split: the number of restarts, the moves of a speaker in each, the probability that a move
# is any that helps one word instead of the best one for all words, and the cost of a word with tokens on one side
# only.
RESTARTS, STEPS, NOISE, ONE_SIDED = 20, 500, 0.1, 1000


class Corpus(NamedTuple):
    """Feature sequences of spoken words: ``S`` sequences of at most ``T`` steps.

    Attributes:
        name: its name in tables and file names.
        features: ``(S, T, 13)``, float32, as `mfcc` returns them, not normalised; zeros beyond each length.
        lengths: ``(S,)``, int32.
        labels: ``(S,)``, int32, index into ``words``.
        words: the classes.
        speakers: the person of each sequence; a voice made from another voice counts as the same person.
        sources: the file of each sequence.
        rate: samples per second of the recordings.
        notes: sentences to show with every result from this corpus.
        synthetic: whether it is the embedded set of synthetic speech.
        origin: ``"embedded"``, ``"timit"``, ``"folder"`` or ``"table"``.
    """

    name: str
    features: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    words: tuple[str, ...]
    speakers: tuple[str, ...]
    sources: tuple[str, ...]
    rate: int
    notes: tuple[str, ...]
    synthetic: bool
    origin: str = "folder"


class Split(NamedTuple):
    """Indices of the sequences of a `Corpus`, ascending.

    Attributes:
        train: ``(K,)``, int32.
        test: ``(M,)``, int32; no speaker is in both.
    """

    train: np.ndarray
    test: np.ndarray


@functools.cache
def embedded_words() -> Corpus:
    """The embedded set: the paper's 25 words in 7 synthetic voices, a stand-in for TIMIT (see `embedded_credits`).

    Example:
        >>> corpus = embedded_words()
        >>> corpus.features.shape[0], len(corpus.words), sorted(set(corpus.speakers))
        (175, 25, ['awb', 'kal16', 'ked', 'rms', 'slt'])
    """
    return _unpack(_resource("words.npz"), "embedded", "embedded", EMBEDDED_NOTES)


def embedded_credits() -> dict:
    """Voices, tools, source packages and licence notices of the embedded words, and how they were made."""
    return json.loads(_resource("words.json"))


def _resource(name: str) -> bytes:
    return importlib.resources.files("clockwork.data").joinpath(name).read_bytes()


def read_words(path: str | Path, words: Iterable[str] | None = None, per_word: int | None = None) -> Corpus:
    """Read your own recordings: TIMIT if there is a ``.WRD`` file below ``path``, else a folder of speakers or a table.

    The features are cached in ``$XDG_CACHE_HOME/clockwork/features`` (``~/.cache`` by default), if that is writable,
    until a file changes.

    Args:
        path: the folder, or the table of files, words and speakers; see `read_timit`, `read_folder` and `read_table`.
        words: the words to read; by default the paper's 25 from TIMIT, and all words otherwise.
        per_word: the number of speakers of each word; by default 7 from TIMIT, one token of each, as in the paper, and
            all otherwise.

    Returns:
        The corpus, word by word. Words without a token are left out, and the notes say so.

    Raises:
        ValueError: if the folder, the table or a file is not as `read_timit`, `read_folder`, `read_table` or `mfcc`
            require.
        ImportError: if soundfile or kaldi-native-fbank is not installed; both are in ``[experiments]``.

    Example:
        >>> import os, pathlib, tempfile, unittest.mock
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as root, unittest.mock.patch.dict(os.environ, XDG_CACHE_HOME=root):
        ...     pathlib.Path(root, "ann").mkdir()
        ...     for word in ("yes", "no"):
        ...         soundfile.write(f"{root}/ann/{word}.wav", np.zeros(4000 + 160 * len(word)), 16000)
        ...     corpus = read_words(root)
        >>> corpus.words, corpus.labels.tolist(), corpus.lengths.tolist()
        (('no', 'yes'), [0, 1], [25, 26])
    """
    root, wanted = Path(path), None if words is None else tuple(words)
    if root.is_dir():
        files = files_below(root)
        origin = "timit" if any(file.suffix.lower() == ".wrd" for file in files) else "folder"
        name = "timit" if origin == "timit" else root.resolve().name
    else:
        files = [regular_file(root, "folder or table"), *(token.path for token in table_tokens(root))]
        origin, name = "table", root.stem
    if origin == "timit":
        wanted = PAPER_WORDS if wanted is None else wanted
        per_word = TIMIT_SPEAKERS if per_word is None else per_word
    cache = _cache_file(_digest(root, files, [wanted, per_word]))
    # If a cache is missing or damaged in any way, its content is computed again.
    with contextlib.suppress(Exception):
        if cache is not None:
            return _unpack(regular_file(cache).read_bytes(), printable(name), origin)
    readers = {"timit": read_timit, "folder": read_folder, "table": read_table}
    utterances, missing = readers[origin](root, wanted, per_word)
    arrays = pack(utterances, [_features(utterance) for utterance in utterances], missing)
    _store(cache, arrays)
    return _corpus(arrays, printable(name), origin)


def _features(utterance: Utterance) -> np.ndarray:
    try:
        return mfcc(utterance.samples, utterance.rate)
    except ValueError as error:
        raise ValueError(f"{utterance.word!r} in {utterance.source} cannot be used: {error}") from None


def pack(utterances: list[Utterance], features: list[np.ndarray], notes: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The arrays in which a corpus is stored: the concatenated frames of all sequences, and the classes in order."""
    words = list(dict.fromkeys(utterance.word for utterance in utterances))
    return {
        "frames": np.concatenate(features),  # (sum of lengths, 13)
        "lengths": np.array([len(frames) for frames in features], np.int32),
        "labels": np.array([words.index(utterance.word) for utterance in utterances], np.int32),
        "words": np.array(words),
        "speakers": np.array([utterance.speaker for utterance in utterances]),
        "sources": np.array([utterance.source for utterance in utterances]),
        "rate": np.array(utterances[0].rate),
        "notes": np.array(list(notes), np.str_),
    }


def _unpack(stored: bytes, name: str, origin: str, notes: tuple[str, ...] = ()) -> Corpus:
    with np.load(io.BytesIO(stored)) as arrays:
        return _corpus(dict(arrays), name, origin, notes)


def _corpus(arrays: Mapping[str, np.ndarray], name: str, origin: str, notes: tuple[str, ...] = ()) -> Corpus:
    lengths, labels = arrays["lengths"].astype(np.int32), arrays["labels"].astype(np.int32)
    words, speakers, sources, stored = (
        tuple(arrays[key].tolist()) for key in ("words", "speakers", "sources", "notes")
    )
    features = np.zeros((len(lengths), lengths.max(), CHANNELS), np.float32)
    features[np.arange(lengths.max()) < lengths[:, None]] = arrays["frames"]
    # All callers share one embedded corpus, so its arrays are read-only.
    for array in (features, lengths, labels):
        array.setflags(write=False)
    rate, synthetic = int(arrays["rate"]), origin == "embedded"
    return Corpus(name, features, lengths, labels, words, speakers, sources, rate, notes + stored, synthetic, origin)


def _digest(root: Path, files: list[Path], choice: list) -> str:
    base = root if root.is_dir() else root.parent
    stats = [
        (os.path.relpath(file, base), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.exists() and (not root.is_dir() or file.suffix.lower() in (".wrd", *AUDIO_SUFFIXES))
    ]
    return hashlib.sha256(json.dumps([FEATURES, choice, sorted(stats)]).encode()).hexdigest()[:32]


def _cache_file(digest: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "features" / f"{digest}.npz"


def _store(cache: Path | None, arrays: dict[str, np.ndarray]) -> None:
    if cache is None:
        return
    with contextlib.suppress(OSError):
        cache.parent.mkdir(exist_ok=True)
        with replacing(cache) as whole:
            np.savez_compressed(whole, allow_pickle=False, **arrays)


def split(corpus: Corpus, number: int, test_per_word: int = 2) -> Split:
    """Split a corpus by speakers: ``test_per_word`` speakers of each word for test, the others for training.

    All tokens of a speaker are on one side. Split 0 of the embedded words tests on the voices rms and ked. Every other
    split is drawn by a random local search with the seed ``number``. Different numbers may give the same split if there
    are few: the embedded words have five, since a voice made from another one is on the same side as that one, and
    counts as a speaker here. If no set of test speakers gives every word exactly ``test_per_word``, the closest set
    found is taken that leaves each word a token on both sides.

    Args:
        corpus: see `embedded_words` and `read_words`.
        number: which split, 0 or more.
        test_per_word: the number of test speakers of each word, at least 1 (2 of 7 in Koutník et al. 2014, sec. 4.2).

    Returns:
        The split; the same for the same arguments.

    Raises:
        ValueError: if ``number`` or ``test_per_word`` is out of range, or a word cannot have a token on both sides.

    Example:
        >>> corpus = embedded_words()
        >>> train, test = split(corpus, 0)
        >>> len(train), len(test), sorted({corpus.speakers[i] for i in test})
        (125, 50, ['ked', 'rms'])
    """
    number = integer("the split's number", number, least=0)
    test_per_word = integer("test_per_word", test_per_word, least=1)
    if corpus.synthetic and number == 0 and test_per_word == 2:
        test = np.isin(corpus.speakers, EMBEDDED_TEST_SPEAKERS)
    else:
        test = _draw(corpus, np.random.default_rng(number), test_per_word)
    return Split(np.flatnonzero(~test).astype(np.int32), np.flatnonzero(test).astype(np.int32))


def _draw(corpus: Corpus, rng: np.random.Generator, test_per_word: int) -> np.ndarray:
    people, person = np.unique(corpus.speakers, return_inverse=True)  # (P,), (S,)
    tokens = np.zeros((len(corpus.words), len(people)), np.int64)  # (W, P)
    np.add.at(tokens, (corpus.labels, person), 1)
    if not corpus.synthetic:  # there, each token is another voice
        tokens = np.minimum(tokens, 1)
    total = tokens.sum(1)  # (W,)
    if alone := [word for word, row in zip(corpus.words, tokens, strict=True) if np.count_nonzero(row) < 2]:
        rule = "; each folder directly below the root is a speaker" * (corpus.origin == "folder")
        raise ValueError(
            f"every word needs two speakers, one for training and one for test, but only one says {listed(alone)}: "
            f"leave out such words{rule}"
        )
    target = np.minimum(test_per_word, total - 1)  # (W,)

    def costs(counts: np.ndarray) -> np.ndarray:
        one_sided = (counts == 0) | (counts == total[:, None])
        return (np.abs(counts - target[:, None]) + ONE_SIDED * one_sided).sum(0)

    best, least = np.zeros(len(people), bool), np.inf
    for _ in range(RESTARTS):
        tested = rng.random(len(people)) < target.sum() / total.sum()  # (P,)
        for _ in range(STEPS):
            counts = tokens @ tested  # (W,)
            if (cost := costs(counts[:, None])[0]) < least:
                best, least = tested.copy(), cost
            if cost == 0:
                return best[person]
            word = rng.choice(np.flatnonzero(counts != target))
            movable = np.flatnonzero((tokens[word] > 0) & (tested == (counts[word] > target[word])))
            change = tokens[:, movable] * np.where(tested[movable], -1, 1)
            after = costs(counts[:, None] + change) if rng.random() > NOISE else np.zeros(len(movable))
            chosen = movable[rng.choice(np.flatnonzero(after == after.min()))]
            tested[chosen] = not tested[chosen]
    counts = tokens @ best
    if least >= ONE_SIDED:
        stuck = [corpus.words[i] for i in np.flatnonzero((counts == 0) | (counts == total))]
        raise ValueError(f"found no split by speakers that leaves tokens of {listed(stuck)} for both training and test")
    return best[person]

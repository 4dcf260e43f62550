"""Recordings of words listed in a table of files, words and speakers."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from clockwork.checks import listed
from clockwork.data.tokens import Token, Utterance, read_tokens
from clockwork.files import regular_file

COLUMNS = ("file", "word", "speaker")
DELIMITERS = {".csv": ",;", ".tsv": "\t"}  # the delimiters allowed in a table, by its suffix
MOST_BYTES = 10**8


def read_table(
    path: str | Path, words: Iterable[str] | None = None, per_word: int | None = None
) -> tuple[list[Utterance], list[str]]:
    """Read the recordings that a table lists, wherever they lie.

    The table is ``.csv`` (commas or semicolons) or ``.tsv`` in UTF-8. Its first line names the columns, in any order:
    ``file``, a path relative to the table, ``word`` and ``speaker``; other columns are ignored. Several lines with the
    same word and speaker are takes. Every split keeps the lines of one speaker on one side, whatever the file names.

    Args:
        path: the table.
        words: the words to read, ignoring case. None for all, sorted, without those of a single speaker if at least two
            others remain.
        per_word: the number of speakers of each word, the first in the table; None for all.

    Returns:
        The utterances, word by word, and sentences that say what is missing or left out.

    Raises:
        ValueError: if the table has another form, names a file twice, or a file cannot be used.
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, soundfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/1.wav", np.zeros(9000), 16000)
        ...     table = pathlib.Path(folder, "words.csv")
        ...     _ = table.write_text("file,word,speaker\\n1.wav,making,rms\\n")
        ...     (utterance,), missing = read_table(table)
        >>> utterance.word, utterance.speaker, utterance.source, missing
        ('making', 'rms', '1.wav', [])
    """
    return read_tokens(table_tokens(Path(path)), words, per_word, f"in {path}")


def table_tokens(path: Path) -> list[Token]:
    """The recordings that a table lists; no sound file is opened.

    Raises:
        ValueError: if it is not a table as `read_table` describes it.
    """
    form = "a table must begin with the line file,word,speaker"
    path = regular_file(path, "table")
    if path.suffix.lower() not in DELIMITERS:
        raise ValueError(f"{path} is neither a folder nor a table (.csv or .tsv)")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"table {path} has more than {MOST_BYTES} bytes")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(f"table {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"table {path} is not in UTF-8") from None
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS[path.suffix.lower()], key=header.count)
    tokens, lines_of, spelt = [], {}, {}
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip().lower() for name in next(rows, [])]
        if absent := [column for column in COLUMNS if names.count(column) != 1]:
            raise ValueError(f"table {path} has no column, or several, named {' and '.join(absent)}: {form}")
        places = [names.index(column) for column in COLUMNS]
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            file, word, speaker = (row[i].strip() if i < len(row) else "" for i in places)
            if not (file and word and speaker):
                raise ValueError(f"table {path}, line {rows.line_num}, needs a file, a word and a speaker")
            if (first := lines_of.setdefault(path.parent / file, rows.line_num)) != rows.line_num:
                raise ValueError(f"table {path} has {file} in line {first} and in line {rows.line_num}")
            if (known := spelt.setdefault(speaker.casefold(), speaker)) != speaker:
                raise ValueError(f"table {path} has speakers {known} and {speaker}, which differ by their case only")
            tokens.append(Token(word.lower(), speaker, path.parent / file, file))
    except csv.Error as error:
        raise ValueError(f"table {path} cannot be read: {error}") from None
    if not tokens:
        raise ValueError(f"table {path} lists no recording: {form}, and has a line for each recording")
    if missing := [token.source for token in tokens if not os.path.lexists(token.path)]:
        raise ValueError(f"table {path} lists files that do not exist: {listed(missing)}; paths are relative to it")
    return tokens

"""Names in figures and tables: short enough for their place, and in letters that a font has."""

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable

from clockwork.optional import require

FONT = "DejaVu Sans"  # it comes with matplotlib
PLACEHOLDERS = ("last resort", ".last")  # fonts that draw a box for every character


def columns(text: str) -> int:
    """How wide a text is in a font of one width: Chinese, Japanese and Korean letters take two columns.

    Example:
        >>> columns("yes"), columns("はい")
        (3, 4)
    """
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def shortened(text: str, most: int) -> str:
    """A text of at most ``most`` columns: of a longer one the middle is left out, as names differ at their ends.

    Example:
        >>> shortened("interview_2024_take_12", 11)
        'inter…ke_12'
    """
    if columns(text) <= most:
        return text
    tail = list(itertools.takewhile(lambda i: columns(text[i:]) <= (most - 1) // 2, range(len(text) - 1, 0, -1)))
    end = text[tail[-1] :] if tail else ""
    start = max((i for i in range(len(text)) if columns(text[:i]) < most - columns(end)), default=0)
    return f"{text[:start]}…{end}"


def names(texts: Iterable[str], most: int) -> list[str]:
    """Names to be drawn: legible, of at most ``most`` columns, and numbered where they would be the same.

    Example:
        >>> names(["a_long_name_1_here", "a_long_name_2_here", "short"], 9)
        ['a_lo…here (1)', 'a_lo…here (2)', 'short']
    """
    short = [shortened(legible(text), most) for text in texts]
    often, seen = Counter(short), Counter()
    for position, text in enumerate(short):
        if often[text] > 1:
            seen[text] += 1
            short[position] = f"{text} ({seen[text]})"
    return short


def legible(text: str) -> str:
    """A text in which each character that no installed font can draw is written by its number, as ``<1F600>``.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> legible("yes"), legible("tab\\there")
        ('yes', 'tab<9>here')
    """
    drawn = frozenset().union(*map(_letters, families([text])))
    return "".join(c if c.isprintable() and ord(c) in drawn else f"<{ord(c):X}>" for c in text)


def families(texts: Iterable[str]) -> list[str]:
    """The fonts in which texts are drawn: matplotlib's own, then installed ones for the characters that it lacks.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> families(["yes", "naïve"])
        ['DejaVu Sans']
    """
    found = [FONT]
    missing = {ord(letter) for text in texts for letter in text if letter.isprintable()} - _letters(FONT)
    while missing:
        best = max(_installed(), key=lambda family: len(missing & _letters(family)))
        if not missing & _letters(best):
            break
        found.append(best)
        missing -= _letters(best)
    return found


@functools.cache
def _installed() -> dict[str, str]:
    """The file of each upright family of normal weight, by name, so that the choice of one is the same each time."""
    entries = require("matplotlib.font_manager").fontManager.ttflist
    plain = [entry for entry in entries if (entry.style, entry.weight) == ("normal", 400)]
    files = {entry.name: entry.fname for entry in sorted(plain, key=lambda entry: (entry.name, entry.fname))}
    return {name: file for name, file in files.items() if not name.lower().startswith(PLACEHOLDERS)}


@functools.cache
def _letters(family: str) -> frozenset[int]:
    """The characters that a font has."""
    try:
        return frozenset(require("matplotlib.font_manager").get_font(_installed()[family]).get_charmap())
    except (OSError, RuntimeError, ValueError):  # a font file that cannot be read
        return frozenset()


def code(path: str) -> str:
    """A path for the table, in a font of one width and on one line whatever its letters.

    Example:
        >>> code("a`.wav")
        '`a?.wav`'
    """
    return "`" + "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in path) + "`"

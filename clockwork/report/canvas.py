"""What all figures have in common: the canvas, the scale of an axis of errors, and how a figure is written."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.files import replacing
from clockwork.optional import require
from clockwork.report.aggregate import notes
from clockwork.report.fonts import columns as columns_of
from clockwork.report.fonts import families, legible
from clockwork.tasks import Words
from clockwork.training import Results

FORMATS = ("png", "pdf", "svg")
"""Formats in which `write_report` writes figures."""
DPI = 150
PANEL_WIDTH = 3.6  # inches, of each of several panels
FIGURE_WIDTH = 5.4  # inches, at least
FOOTNOTE_SIZE = 7
FOOTNOTE_LINE = 0.12  # inches
CHARACTERS_PER_INCH = 17  # of a footnote, at most
FOOTNOTE_LINES = 6  # at most; the rest is in table.md
# Without dates and random names in it, the same results give the same file.
UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
SALT = {"svg.hashsalt": "clockwork"}


class Look(NamedTuple):
    """How an experiment's errors are drawn.

    Attributes:
        label: of the axis.
        factor: from stored errors to drawn ones.
        top: errors above are counted, not drawn, unless a box reaches higher.
        lines: of the learning curves: what each shows, which number of a moment's errors, and its style.
        log: whether the curves' axis is logarithmic.
    """

    label: str
    factor: float
    top: float
    lines: tuple[tuple[str, int, str], ...]
    log: bool


GENERATION = Look("NMSE", 1, 2.0, lines=(("", 0, "-"),), log=True)
WORDS = Look("test error (%)", 100, math.inf, lines=(("train", 0, "--"), ("test", 1, "-")), log=False)


def look_of(results: Results) -> Look:
    """How the errors of a task are drawn."""
    return WORDS if isinstance(results.task, Words) else GENERATION


def canvas(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> tuple[Any, np.ndarray]:
    """A figure that needs no display and no global state, and its axes, ``(rows, columns)``.

    Args:
        rows: of axes.
        columns: of axes.
        width: of each, in inches; more if the figure would be too narrow for its legend.
        height: of each, in inches.
        **kwargs: of matplotlib's ``Figure.subplots``.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
    """
    size = (max(FIGURE_WIDTH, width * columns), height * rows)
    figure = require("matplotlib.figure").Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def set_scale(axis: Any, log: bool) -> None:
    """Make the y axis linear or logarithmic, with plain numbers at its ticks."""
    if not log:
        return
    ticker = require("matplotlib.ticker")
    axis.set_yscale("log")
    plain = ticker.FuncFormatter(lambda value, position: f"{value:g}")
    axis.yaxis.set_major_formatter(plain)
    low, high = axis.get_ylim()
    if high < 100 * low:  # or there might be one tick with a number, or none
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def say(axis: Any, text: str) -> None:
    """Write into a panel why nothing is drawn there."""
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color="dimgray", transform=axis.transAxes)


def save(figure: Any, results: Results, path: str | Path, remarks: Sequence[str] = ()) -> None:
    """Write a figure, with a footnote of what must be said of it and of the data.

    Args:
        figure: of `canvas`.
        results: whose `clockwork.report.aggregate.notes` are written below it.
        path: the file; its suffix says which format.
        remarks: sentences about this figure, for the footnote.

    Raises:
        ValueError: if matplotlib knows no such format.
        OSError: if it cannot be written.
    """
    path = Path(path)
    if lines := _footnote([*remarks, *notes(results)], figure.get_figwidth()):
        figure.set_figheight(figure.get_figheight() + FOOTNOTE_LINE * len(lines))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=FOOTNOTE_SIZE)
    texts = figure.findobj(require("matplotlib.text").Text)
    fonts = families({text.get_text() for text in texts})
    for text in texts:
        text.set_fontfamily(fonts)
        text.set_parse_math(False)  # a name with two dollar signs is no formula
    form = path.suffix[1:].lower()
    with require("matplotlib").rc_context(SALT), replacing(path) as whole:
        figure.savefig(whole, format=form, dpi=DPI, metadata=UNDATED.get(form))


def _footnote(sentences: Iterable[str], inches: float) -> list[str]:
    text = legible(" ".join(sentences))
    if not text:
        return []
    width = round(CHARACTERS_PER_INCH * inches * len(text) / columns_of(text))
    return textwrap.wrap(text, width, max_lines=FOOTNOTE_LINES, placeholder=" … (the rest is in table.md)")

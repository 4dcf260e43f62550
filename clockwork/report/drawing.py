"""What all figures have in common: the canvas, the scale of an axis, and how a figure is written."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.files import replacing
from clockwork.optional import require
from clockwork.report.description import description_of
from clockwork.report.fonts import columns as columns_of
from clockwork.report.fonts import families, legible
from clockwork.training import Results

FORMATS = ("png", "pdf", "svg")
"""Formats in which `write_report` writes figures."""
DPI = 150
PANEL_WIDTH = 3.6  # inches, of each of several panels
FIGURE_WIDTH = 5.4  # inches, at least
DECADE = 10  # values whose largest is as many times the least are drawn on a logarithmic axis
TICK_SIZE, TICK_LETTER = 8, 0.075  # of the values at an axis: size, and inches of a letter
INSIDE = 0.75  # of a panel's width, for its axis
APART = 0.012  # of the width of a panel, between points at the same value
LETTER, MARK = 0.07, 0.55  # inches, of a letter in a legend and of the mark before a text
FOOTNOTE_SIZE = 7
FOOTNOTE_LINE = 0.12  # inches
CHARACTERS_PER_INCH = 17  # of a footnote, at most
FOOTNOTE_LINES = 6  # at most; the rest is in table.md
# Without dates and random names in it, the same results give the same file.
UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
SALT = {"svg.hashsalt": "clockwork"}


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


def set_values(axis: Any, values: Sequence[float]) -> None:
    """Make the x axis logarithmic where values span decades, with ticks at the values as far as there is space.

    Values of which the least is 0 have it at a place of its own, left of a logarithmic axis of the others.
    """
    ticker = require("matplotlib.ticker")
    ordered = sorted(values)
    if not ordered:
        return
    positive = [value for value in ordered if value > 0]
    if ordered[0] >= 0 and positive and positive[-1] >= DECADE * positive[0]:
        if ordered[0] == 0:
            axis.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        else:
            axis.set_xscale("log")
    transform = axis.xaxis.get_transform()
    low, high = transform.transform([ordered[0], ordered[-1]])
    extent = (high - low) or 1.0  # one value alone, of a sweep that is under way
    margin = 0.05 * extent
    axis.set_xlim(*transform.inverted().transform([low - margin, high + margin]))
    inches = INSIDE * axis.figure.get_figwidth() / axis.get_subplotspec().get_gridspec().ncols
    places = inches * (transform.transform(ordered) - low) / extent
    texts = [f"{value:.3g}" for value in ordered]
    lengths = np.array([TICK_LETTER * len(f" {text} ") for text in texts])
    fitting = (
        every
        for every in range(1, len(ordered) + 1)
        if (np.diff(places[::every]) >= (lengths[::every][1:] + lengths[::every][:-1]) / 2).all()
    )
    every = next(fitting)  # at the latest the one that leaves the first alone
    axis.xaxis.set_major_locator(ticker.FixedLocator(ordered[::every]))
    axis.xaxis.set_major_formatter(ticker.FixedFormatter(texts[::every]))
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.tick_params(axis="x", labelsize=TICK_SIZE)


def beside(axis: Any, values: Sequence[float], position: int, count: int) -> np.ndarray:
    """Where a line draws its points at these values of the x axis, so that the bars of several lines stay apart.

    Args:
        axis: whose values are those of `set_values`.
        values: of the points.
        position: of the line among the others, from 0.
        count: how many lines there are.
    """
    transform = axis.xaxis.get_transform()
    low, high = transform.transform(list(axis.get_xlim()))
    shift = APART * (high - low) * (position - (count - 1) / 2)
    return transform.inverted().transform(transform.transform(list(values)) + shift)


def say(axis: Any, text: str) -> None:
    """Write into a panel why nothing is drawn there."""
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color="dimgray", transform=axis.transAxes)


def legend(figure: Any, lines: Sequence[tuple[dict[str, Any], str]]) -> None:
    """Explain lines above a figure: the style of each, and what it is."""
    line = require("matplotlib.lines").Line2D
    handles = [line([], [], **style) for style, _ in lines]
    labels = [label for _, label in lines]
    fitting = int(figure.get_figwidth() / (MARK + LETTER * max(map(columns_of, labels))))
    figure.legend(handles, labels, loc="outside upper right", ncols=max(1, min(len(lines), fitting)), fontsize=8)


def save(figure: Any, results: Results, path: str | Path, remarks: Sequence[str] = ()) -> None:
    """Write a figure, with a footnote of what must be said of it and of the data.

    Args:
        figure: of `canvas`.
        results: whose task's `clockwork.report.Description.remarks` are written below it.
        path: the file; its suffix says which format.
        remarks: sentences about this figure, for the footnote.

    Raises:
        ValueError: if matplotlib knows no such format.
        OSError: if it cannot be written.
    """
    path = Path(path)
    if lines := _footnote([*remarks, *description_of(results).remarks], figure.get_figwidth()):
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

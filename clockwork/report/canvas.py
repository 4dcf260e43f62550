"""What all figures have in common: the canvas, and how each experiment's errors are drawn."""

import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.extras import require
from clockwork.files import replacing
from clockwork.report.select import notes
from clockwork.tasks import Words
from clockwork.training import Results

DPI = 150
FOOTNOTE_SIZE = 7
CHARACTERS_PER_INCH = 18  # of a footnote, at most


class Look(NamedTuple):
    """How an experiment's errors are drawn.

    Attributes:
        label: of the axis.
        factor: from stored errors to drawn ones.
        top: drawn errors above are counted, not drawn.
        own_scale: the networks that do not share the others' scale.
        lines: of the learning curves: what each shows, which number of a moment's errors, and its style.
        log: whether the curves' axis is logarithmic.
    """

    label: str
    factor: float
    top: float
    own_scale: tuple[str, ...]
    lines: tuple[tuple[str, int, str], ...]
    log: bool


GENERATION = Look("NMSE", 1, 2.0, own_scale=("srn",), lines=(("", 0, "-"),), log=True)
WORDS = Look("test error (%)", 100, math.inf, own_scale=(), lines=(("train", 0, "--"), ("test", 1, "-")), log=False)


def look_of(results: Results) -> Look:
    """How the errors of a task are drawn."""
    return WORDS if isinstance(results.task, Words) else GENERATION


def canvas(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> tuple[Any, np.ndarray]:
    """A figure that needs no display and no global state, and its axes, ``(rows, columns)``.

    Args:
        rows: of axes.
        columns: of axes.
        width: of each, in inches.
        height: of each, in inches.
        **kwargs: of matplotlib's ``Figure.subplots``.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
    """
    figure = require("matplotlib.figure").Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def save(figure: Any, results: Results, path: str | Path) -> None:
    """Write a figure, with a footnote of what must be said of the data.

    Raises:
        OSError: if it cannot be written.
    """
    if said := notes(results):
        lines = textwrap.wrap(" ".join(said), round(CHARACTERS_PER_INCH * figure.get_figwidth()))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=FOOTNOTE_SIZE, parse_math=False)
    with replacing(Path(path)) as whole:
        figure.savefig(whole, dpi=DPI)

"""Lines of handwriting as pen strokes, and the network inputs made of them (Koutník et al. 2014, sec. 4.3)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from clockwork.checks import integer

EVERY = 3  # keep every third point of a stroke, as in the paper
MOST = 1e12  # larger coordinates and times must be mistakes, and sums of their squares might overflow


class Line(NamedTuple):
    """A line of handwriting.

    Attributes:
        strokes: the strokes in the order of writing, each ``(P, 3)``, float64, with at least one point: x to the right
            and y downwards, both in the units of the pad, and the time in seconds, which does not decrease.
        text: the written text; empty if it is unknown.
        source: the name of its file within the set.

    Example:
        >>> line = Line((np.array([[0, 0, 0.0], [3, 4, 0.01]]),), "l", "line.xml")
        >>> line.strokes[0].shape
        (2, 3)
    """

    strokes: tuple[np.ndarray, ...]
    text: str
    source: str


class Lines(NamedTuple):
    """A set of lines in three parts.

    Attributes:
        name: the name of the set.
        origin: where the set is from, in a few words.
        training: the lines that networks learn from.
        validation: the lines that decide when training stops.
        test: the lines that networks are tested on.
        characters: the characters of all texts, in ascending order.
        notes: what was left out, and why, in sentences without a full stop.
    """

    name: str
    origin: str
    training: tuple[Line, ...]
    validation: tuple[Line, ...]
    test: tuple[Line, ...]
    characters: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        origin: str,
        training: Sequence[Line],
        validation: Sequence[Line],
        test: Sequence[Line],
        notes: Iterable[str] = (),
    ) -> "Lines":
        """A set with the characters of its lines."""
        sets = tuple(training), tuple(validation), tuple(test)
        characters = sorted({character for one in sets for line in one for character in line.text})
        return cls(name, origin, *sets, "".join(characters), tuple(notes))


class Scale(NamedTuple):
    """The means and standard deviations that standardise points.

    Attributes:
        mean: ``(3,)``, float64, the means of x, y and t.
        sd: ``(3,)``, float64, the standard deviations of x, y and t; 1 if a value does not vary.
    """

    mean: np.ndarray
    sd: np.ndarray


def cut(points: np.ndarray, counts: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Split the points of a line into strokes, with times since the first point that never decrease.

    A time that goes back is replaced by the latest time before it.

    Args:
        points: ``(P, 3)``, float64: x, y and time in seconds.
        counts: the number of points of each stroke, at least 1.

    Raises:
        ValueError: if there are no strokes, or a number is not finite or beyond 1e12.

    Example:
        >>> [stroke.tolist() for stroke in cut(np.array([[5, 6, 7.0], [5, 7, 6.5], [9, 6, 8.0]]), [2, 1])]
        [[[5.0, 6.0, 0.0], [5.0, 7.0, 0.0]], [[9.0, 6.0, 1.0]]]
    """
    if not len(points):
        raise ValueError("it has no strokes")
    fits = np.abs(points) <= MOST
    if not fits.all():
        raise ValueError(f"coordinates and times must be finite and at most {MOST:g}, got {points[~fits][0]:g}")
    # Times of IAM-OnDB reach 1.6e7 s, with hundredths: float32 would round them to seconds.
    times = np.maximum.accumulate(points[:, 2]) - points[0, 2]
    return tuple(np.split(np.column_stack([points[:, :2], times]), np.cumsum(counts)[:-1]))


def points(line: Line, every: int = EVERY) -> np.ndarray:
    """The points of a line for networks, ``(T, 4)``, float64: x, y, t and pen-up.

    x and y are measured from the upper left corner of the line, t from its start. The first point of each stroke and
    every third after it are kept; pen-up is 1 at the last kept point of a stroke, else 0.

    Args:
        line: a line with at least one stroke.
        every: keep one point out of this many.

    Raises:
        ValueError: if the line has no stroke, or ``every`` is below 1.

    Example:
        >>> line = Line((np.array([[5, 9, 1.0], [6, 8, 1.1]]), np.array([[7, 8, 2.0]])), "", "")
        >>> points(line, every=1).round(1).tolist()
        [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.1, 1.0], [2.0, 0.0, 1.0, 1.0]]
    """
    integer("every", every, least=1)
    if not line.strokes:
        raise ValueError(f"a line must have a stroke, got none in {line.source!r}")
    kept = [stroke[::every] for stroke in line.strokes]
    corner = np.min([stroke.min(0) for stroke in line.strokes], axis=0)
    found = np.zeros((sum(map(len, kept)), 4))
    found[:, :3] = np.concatenate(kept) - corner
    found[np.cumsum([len(stroke) for stroke in kept]) - 1, 3] = 1
    return found


def scale_of(lines: Iterable[np.ndarray]) -> Scale:
    """The scale of the points ``(T, 4)`` of many lines: mean and standard deviation over all of them.

    Raises:
        ValueError: if there are no points.

    Example:
        >>> scale_of([np.array([[0, 0, 0, 1.0]]), np.array([[2, 0, 4, 1.0]])]).sd.tolist()
        [1.0, 1.0, 2.0]
    """
    every = np.concatenate([np.zeros((0, 3)), *(line[:, :3] for line in lines)])
    if not len(every):
        raise ValueError("lines must have at least one point, got none")
    sd = every.std(0)
    return Scale(every.mean(0), np.where(sd > 0, sd, 1.0))


def standardised(line: np.ndarray, scale: Scale) -> np.ndarray:
    """Scale x, y and t of points ``(T, 4)`` to zero mean and unit variance, float32; pen-up is unchanged.

    Example:
        >>> standardised(np.array([[2, 0, 4, 1.0]]), Scale(np.array([1, 0, 2.0]), np.array([1, 1, 2.0]))).tolist()
        [[1.0, 0.0, 1.0, 1.0]]
    """
    return np.concatenate([(line[:, :3] - scale.mean) / scale.sd, line[:, 3:]], 1).astype(np.float32)

"""The embedded lines of handwriting: a program writes them, with single-stroke letters and a model of a writer's hand.

A writer has a font, a size, a slant, a spacing, a drift of the baseline and a speed. Each letter is bent and moved a
little, differently each time. The pen slows down in curves by the two-thirds power law, v ~ r^(1/3) with the radius
of curvature r (Lacquaniti, Terzuolo, Viviani 1983). Dots of i and j and bars of t are drawn after the word.
"""

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from clockwork.checks import integer
from clockwork.data.strokes import Line, Lines

WRITERS = {"training": 40, "validation": 6, "test": 6}
WORDS = (2, 3)  # words per line
CAP_HEIGHT = 21  # height of a capital, in font units
UNITS = 240.0  # height of a capital, in units of the pad
SPEED = 2400.0  # units of the pad per second, on a straight line
RATE = 100.0  # points per second
STEP = 0.4  # font units between the points of a curve that the pen follows
JOINED = {"scripts": 2.5}  # letters of this font are joined if they are nearer than this, in font units
DELAYED = {"i": "dot", "j": "dot", "t": "bar"}  # strokes drawn after the word


class Writer(NamedTuple):
    """The hand of one writer.

    Attributes:
        font: the name of the letters' font.
        size: the factor by which letters are larger than usual.
        width: the factor by which letters are wider than usual.
        slant: how far a letter leans to the right, per unit of height.
        spacing: the space between letters, in font units.
        gap: the space between words, in font units.
        slope: the slope of the baseline.
        wave: the amplitude of the baseline's drift, in font units.
        bend: how much letters differ from the font.
        speed: the factor by which the pen is faster than usual.
    """

    font: str
    size: float
    width: float
    slant: float
    spacing: float
    gap: float
    slope: float
    wave: float
    bend: float
    speed: float


@functools.cache
def _embedded() -> dict[str, Any]:
    return json.loads(resources.files("clockwork.data").joinpath("handwriting.json").read_text("utf-8"))


def acknowledgement() -> tuple[str, ...]:
    """The acknowledgement that must be distributed with the letters.

    Example:
        >>> acknowledgement()[0][:50]
        'The Hershey Fonts were originally created by Dr. A'
    """
    return tuple(_embedded()["acknowledgement"])


def embedded_lines(seed: int = 0, lines_each: int = 25) -> Lines:
    """Lines of two or three words, written by a program: 40 writers for training, 6 for validation and 6 for test.

    No two sets share a writer or a sentence. The texts are English prose in the public domain. The same seed
    gives the same lines.

    Args:
        seed: the seed from which writers and lines are drawn.
        lines_each: the number of lines of each writer.

    Raises:
        ValueError: if the seed is negative or ``lines_each`` is below 1.

    Example:
        >>> lines = embedded_lines(lines_each=2)
        >>> len(lines.training), len(lines.validation), len(lines.test)
        (80, 12, 12)
        >>> lines.training[0].text, lines.training[0].source
        ('invitation enough.', 'writer 1, line 1')
    """
    integer("seed", seed, least=0)
    integer("lines_each", lines_each, least=1)
    texts = _texts()
    sets, writer_number = {}, 0
    for name, count in WRITERS.items():
        found = []
        for _ in range(count):
            random = _Random(seed, writer_number)
            writer, writer_number = _drawn(random, writer_number), writer_number + 1
            for number in range(lines_each):
                words = _phrase(random, texts[name])
                source = f"writer {writer_number}, line {number + 1}"
                found.append(Line(write(writer, words, random), " ".join(words), source))
        sets[name] = found
    return Lines.of("the embedded lines", "written by a program", **sets)


class _Random:
    """Random numbers made only of uniform ones, whose stream does not depend on the version of NumPy."""

    def __init__(self, *key: int) -> None:
        self.uniform = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).random

    def normal(self, sd: float, *shape: int) -> Any:
        """Approximately normal numbers: sums of four uniform ones."""
        return sd * np.sqrt(3) * (self.uniform((4, *shape)).sum(0) - 2)

    def between(self, low: float, high: float) -> float:
        """A uniform number from ``low`` to ``high``."""
        return low + (high - low) * float(self.uniform())

    def below(self, count: int) -> int:
        """An integer from 0 to below ``count``."""
        return int(self.uniform() * count)


def _texts() -> dict[str, list[list[str]]]:
    """The sentences of each set, as words: six of every eight sentences are for training."""
    sentences: list[list[str]] = []
    for one in _embedded()["texts"]:
        sentences.append([])
        for word in one["text"].split():
            sentences[-1].append(word)
            if word[-1] in ".," and len(sentences[-1]) >= max(WORDS):
                sentences.append([])
        sentences = [sentence for sentence in sentences if len(sentence) >= max(WORDS)]
    sets = {"training": [], "validation": [], "test": []}
    for number, sentence in enumerate(sentences):
        sets[{6: "validation", 7: "test"}.get(number % 8, "training")].append(sentence)
    known = {character for sentence in sets["training"] for word in sentence for character in word}
    return {name: [one for one in found if set("".join(one)) <= known] for name, found in sets.items()}


def _phrase(random: _Random, sentences: list[list[str]]) -> list[str]:
    """Two or three consecutive words of a sentence."""
    sentence = sentences[random.below(len(sentences))]
    count = WORDS[random.below(len(WORDS))]
    first = random.below(len(sentence) - count + 1)
    return sentence[first : first + count]


def _drawn(random: _Random, number: int) -> Writer:
    fonts = sorted(_embedded()["fonts"])
    return Writer(
        font=fonts[number % len(fonts)],
        size=random.between(0.8, 1.2),
        width=random.between(0.85, 1.15),
        slant=random.between(-0.05, 0.25),
        spacing=random.between(-0.5, 2.0),
        gap=random.between(12, 18),
        slope=random.normal(0.015),
        wave=random.between(0.3, 1.5),
        bend=random.between(0.4, 0.8),
        speed=random.between(0.8, 1.25),
    )


def write(writer: Writer, words: list[str], random: _Random) -> tuple[np.ndarray, ...]:
    """The strokes of some words, each ``(P, 3)``: x, y and seconds, rounded to units and hundredths."""
    phase, x = random.between(0, 2 * np.pi), 0.0
    curves: list[np.ndarray] = []
    for word in words:
        here, later = [], []
        for character in word:
            left, right, *strokes = _embedded()["fonts"][writer.font][character]
            bent = _bent(writer, random, [np.reshape(stroke, (-1, 2)).astype(float) for stroke in strokes])
            for model, curve in zip(strokes, bent, strict=True):
                curve[:, 0] += x - left
                waits = _is(DELAYED.get(character, ""), np.reshape(model, (-1, 2))) and len(strokes) > 1
                (later if waits else here).append(curve)
            x += right - left + writer.spacing
        curves += _joined(here, JOINED.get(writer.font, 0.0)) + later
        x += writer.gap
    return _drawn_by_pen(writer, random, [_placed(writer, curve, phase) for curve in curves])


def _is(kind: str, stroke: np.ndarray) -> bool:
    """Whether a stroke of a letter in the font is its dot (small) or its bar (level)."""
    width, height = np.ptp(stroke, axis=0)
    return (kind == "dot" and max(width, height) <= 4) or (kind == "bar" and height <= 1 < width)


def _bent(writer: Writer, random: _Random, strokes: list[np.ndarray]) -> list[np.ndarray]:
    """The strokes of a letter, rounded, turned, stretched and moved."""
    bend = writer.bend
    turn = random.normal(0.04 * bend)
    matrix = np.array([[1 + random.normal(0.05 * bend), turn], [-turn, 1 + random.normal(0.05 * bend)]])
    shift, ripple = random.normal(0.35 * bend, 2), random.normal(0.45 * bend, 2)
    waves, found = random.normal(0.12, 2), []
    for stroke in strokes:
        curve = _rounded(stroke)
        curve = curve + ripple * np.sin(curve[:, ::-1] * (0.3 + waves) + shift)
        found.append(curve @ matrix + shift)
    return found


def _rounded(stroke: np.ndarray) -> np.ndarray:
    """A polygon line with its corners cut (Chaikin 1974), twice."""
    for _ in range(2 if len(stroke) > 2 else 0):
        a, b = stroke[:-1], stroke[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], 1).reshape(-1, 2)
        stroke = np.concatenate([stroke[:1], cut, stroke[-1:]])
    return stroke


def _joined(curves: list[np.ndarray], near: float) -> list[np.ndarray]:
    """Join each curve to the one before it if it begins within ``near`` of that one's end."""
    found: list[np.ndarray] = []
    for curve in curves:
        if found and np.abs(curve[0] - found[-1][-1]).max() < near:
            found[-1] = np.concatenate([found[-1], curve])
        else:
            found.append(curve)
    return found


def _placed(writer: Writer, curve: np.ndarray, phase: float) -> np.ndarray:
    """Convert font units to units of the pad, with the writer's slant and baseline; y grows downwards in both."""
    x, y = curve.T
    baseline = 9.0
    x = writer.width * x + writer.slant * (baseline - y)
    y = y + writer.slope * x + writer.wave * np.sin(x / 60 + phase)
    return writer.size * UNITS / CAP_HEIGHT * np.stack([x, y], 1)


def _drawn_by_pen(writer: Writer, random: _Random, curves: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The strokes that a pad records while a pen draws the curves one after another."""
    strokes, now, at = [], 0.0, curves[0][0]
    unit = writer.size * UNITS / CAP_HEIGHT
    for curve in curves:
        now += 0.06 + float(np.hypot(*(curve[0] - at))) / (1.5 * SPEED * writer.speed)
        times, path = _timed(curve / unit, SPEED * writer.speed / unit)
        ticks = np.arange(0, times[-1] + 0.5 / RATE, 1 / RATE)
        x, y = (unit * np.interp(ticks, times, path[:, axis]) for axis in (0, 1))
        x, y = x + random.normal(1.0, len(ticks)), y + random.normal(1.0, len(ticks))
        strokes.append(np.stack([np.round(x), np.round(y), np.round(now + ticks, 2)], 1))
        now, at = now + times[-1], curve[-1]
    return tuple(strokes)


def _timed(curve: np.ndarray, speed: float) -> tuple[np.ndarray, np.ndarray]:
    """The pen on a curve: times ``(P,)`` and places ``(P, 2)`` at equal distances."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(2, round(along[-1] / STEP) + 1)
    at = np.linspace(0, along[-1], count)
    path = np.stack([np.interp(at, along, curve[:, axis]) for axis in (0, 1)], 1)
    tangent = np.diff(path, axis=0)
    angle = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    turn = np.abs(np.diff(angle, prepend=angle[:1]))
    kernel = np.ones(min(5, len(turn))) / min(5, len(turn))
    radius = STEP / np.maximum(np.convolve(turn, kernel, "same"), 1e-3)
    pace = np.clip((radius / 8) ** (1 / 3), 0.35, 1.3) * speed
    ends = np.minimum(np.arange(len(pace)) + 1, np.arange(len(pace), 0, -1))
    pace *= np.minimum(1.0, 0.4 + 0.15 * ends)  # the pen starts and stops
    return np.concatenate([[0.0], np.cumsum(np.hypot(*tangent.T) / pace)]), path

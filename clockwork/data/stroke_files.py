"""Readers of pen strokes in InkML, UNIPEN, JSON, and the XML of IAM-OnDB."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.checks import shown
from clockwork.data.iam_ondb import line_strokes
from clockwork.data.recording import printable
from clockwork.data.safe_xml import parse_xml
from clockwork.data.strokes import Line, cut
from clockwork.files import regular_file

RATE = 100.0  # points per second, if a file has no times
INK_VALUE = re.compile(r"\s*([!'\"]?)\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[*?TF])")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the first bytes of XML in UTF-16
UNIPEN_KEYWORD = re.compile(r"\.[A-Z_]+")
SECONDS = {"s": 1.0, "ms": 1e-3}


def read_strokes(path: str | Path) -> tuple[Line, ...]:
    """Read the lines of handwriting in a file.

    The content of the file tells its format:

    - InkML (W3C 2011): one line made of all traces, with channels X, Y and T (in ms, or in s if its unit is s), and
      explicit values or first or second differences. The text is that of the annotations of type ``truth``.
    - UNIPEN (Guyon et al. 1994): one line made of the strokes between ``.PEN_DOWN`` and ``.PEN_UP``. ``.COORD`` names
      the columns; T is in ms, and Y points upwards. The text is that of the labels of the first kind of ``.SEGMENT``
      that has labels.
    - JSON: a list of strokes, ``{"strokes": [...], "text": "..."}``, or a list of such lines. A stroke is a list of
      points ``[x, y]`` or ``[x, y, seconds]``, with y downwards.
    - The XML of a line of IAM-OnDB.

    Points without a time are assumed to be recorded at 100 points per second, or at the rate ``.POINTS_PER_SECOND``.
    There is then no pause between strokes, except for the pen-up points of UNIPEN. A time that goes back is replaced
    by the latest time before it.

    Args:
        path: the file.

    Raises:
        ValueError: if the file has another format, is truncated, has no stroke, or has a number that is not finite or
            beyond 1e12.
        OSError: if it cannot be read.
        ImportError: if lxml is needed and not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "line.json"
        ...     _ = path.write_text('{"strokes": [[[0, 0], [3, 4]], [[5, 4]]], "text": "l."}')
        ...     (line,) = read_strokes(path)
        >>> line.text, line.strokes[1].tolist()
        ('l.', [[5.0, 4.0, 0.02]])
    """
    name, content = printable(str(path)), regular_file(path, "stroke file").read_bytes()
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    try:
        if start == b"<" or content[:2] in UTF_16:
            lines = [_of_xml(content)]
        elif start in (b"{", b"["):
            lines = _of_json(content)
        elif start == b"." or b"\n.PEN_DOWN" in content:
            lines = [_of_unipen(content.decode("latin-1"))]
        else:
            raise ValueError("it must be InkML, UNIPEN, JSON of strokes or a line of IAM-OnDB, but it begins like none")
        return tuple(Line(_checked(strokes), text, Path(name).name) for strokes, text in lines)
    except ValueError as error:
        raise ValueError(f"stroke file {name} cannot be used: {error}") from None


def _checked(strokes: Sequence[Sequence[Sequence[float]]]) -> tuple[np.ndarray, ...]:
    """Strokes with a time at each point."""
    strokes = [stroke for stroke in strokes if len(stroke)]
    widths = {len(point) for stroke in strokes for point in stroke}
    if strokes and widths not in ({2}, {3}):
        raise ValueError(f"points must all be x, y or all be x, y, time, got {sorted(widths)} numbers")
    try:
        points = np.asarray([point for stroke in strokes for point in stroke], np.float64)
    except OverflowError:
        raise ValueError("it has a number of more than 300 digits") from None
    if widths == {2}:
        points = np.concatenate([points, np.arange(len(points))[:, None] / RATE], 1)
    return cut(points, list(map(len, strokes)))


def _of_xml(content: bytes) -> tuple[Sequence[Any], str]:
    root = parse_xml(content)
    tag = _tag(root)
    if tag == "WhiteboardCaptureSession":
        return line_strokes(root), ""
    if tag != "ink":
        raise ValueError(f"its root must be ink or WhiteboardCaptureSession, got {tag}")
    truths = [one for one in root.iter() if _tag(one) == "annotation" and one.get("type") == "truth"]
    own = [one for one in truths if one.getparent() is root] or truths
    traces = [one for one in root.iter() if _tag(one) == "trace" and one.get("type") != "penUp"]
    channels, second = _channels(root)
    strokes = []
    for trace in traces:
        rows = _values(trace.text or "", len(channels))
        columns = [rows[:, channels.index(name)] for name in ("X", "Y")]
        if "T" in channels:
            columns.append(rows[:, channels.index("T")] * second)
        strokes.append(np.stack(columns, 1))
    return strokes, " ".join(" ".join((one.text or "").split()) for one in own)


def _tag(element: Any) -> str:
    """The name of an element without its namespace; empty for comments and the like."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _channels(root: Any) -> tuple[list[str], float]:
    """The names of the channels of all traces, and the unit of T in seconds."""
    formats = [one for one in root.iter() if _tag(one) == "traceFormat"]
    found = {
        tuple(
            (channel.get("name") or "", channel.get("units") or "")
            for channel in one.iter()
            if _tag(channel) == "channel"
        )
        for one in formats
    }
    if len(found) > 1:
        raise ValueError("traces of several formats are not read: it has more than one traceFormat")
    channels = list(found.pop()) if found else [("X", ""), ("Y", "")]
    names = [name for name, _ in channels]
    if not {"X", "Y"} <= set(names):
        raise ValueError(f"its traces must have channels X and Y, got {', '.join(names)}")
    unit = dict(channels).get("T") or "ms"
    if unit not in SECONDS:
        raise ValueError(f"times must be in s or ms, got {unit}")
    return names, SECONDS[unit]


def _values(text: str, channels: int) -> np.ndarray:
    """The values of a trace, ``(P, C)``: explicit, or differences of the first or second order, as marked."""
    rows: list[list[float]] = []
    orders, speeds = [0] * channels, [0.0] * channels
    for point in filter(None, (" ".join(point.split()) for point in text.split(","))):
        position, row = 0, []
        while position < len(point):
            found = INK_VALUE.match(point, position)
            if not found or len(row) == channels:
                raise ValueError(f"a point of a trace must have {channels} values, got {shown(point)}")
            position, channel = found.end(), len(row)
            last = rows[-1][channel] if rows else 0.0
            mark, value = found[1], found[2]
            if mark:
                orders[channel] = "!'\"".index(mark)
            if value in ("*", "?", "T", "F"):
                row.append(last + speeds[channel] * (orders[channel] > 0) if value == "*" else float(value == "T"))
                continue
            if orders[channel] == 0:
                row.append(float(value))
                speeds[channel] = row[-1] - last
            else:
                speeds[channel] = float(value) + speeds[channel] * (orders[channel] == 2)
                row.append(last + speeds[channel])
        if len(row) < channels:
            raise ValueError(f"a point of a trace must have {channels} values, got {shown(point)}")
        rows.append(row)
    return np.asarray(rows).reshape(-1, channels)


def _of_json(content: bytes) -> list[tuple[Sequence[Any], str]]:
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is truncated or not JSON: {error}") from None
    if isinstance(found, dict):
        return [_line_of_json(found)]
    if found and all(isinstance(one, dict) for one in found):
        return [_line_of_json(one) for one in found]
    return [_line_of_json({"strokes": found})]


def _line_of_json(line: dict[str, Any]) -> tuple[Sequence[Any], str]:
    strokes, text = line.get("strokes"), line.get("text", "")
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {text!r}")
    number = (int, float)
    if not isinstance(strokes, list) or not all(
        isinstance(stroke, list)
        and all(
            isinstance(p, list) and all(isinstance(x, number) and not isinstance(x, bool) for x in p) for p in stroke
        )
        for stroke in strokes
    ):
        raise ValueError(
            'strokes must be a list of strokes of points [x, y] or [x, y, seconds], as in {"strokes": ...}'
        )
    return strokes, text


def _of_unipen(text: str) -> tuple[Sequence[Any], str]:
    columns, rate, keyword, moments = ["X", "Y"], RATE, "", itertools.count()
    strokes: list[list[list[float]]] = []
    labels: dict[str, list[str]] = {}  # by kind of segment
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and UNIPEN_KEYWORD.fullmatch(words[0]):
            keyword, *words = words
            if keyword == ".COORD":
                columns = [word.upper() for word in words]
                if not {"X", "Y"} <= set(columns):
                    raise ValueError(f".COORD must name X and Y, got {' '.join(words)}")
            elif keyword == ".POINTS_PER_SECOND":
                rate = _unipen_rate(words)
            elif keyword == ".PEN_DOWN":
                strokes.append([])
            elif keyword == ".SEGMENT":
                labels.setdefault(words[0] if words else "", []).extend(re.findall(r'"(.*)"', line))
            elif keyword == ".INCLUDE":
                raise ValueError(f"other files are not read: replace {shown(line.strip())} by what it includes")
        if keyword == ".PEN_DOWN":
            strokes[-1] += _unipen_points(words, columns, number, rate, moments)
        elif keyword == ".PEN_UP":
            for _ in range(len(words) // len(columns)):
                next(moments)
    if not strokes:
        raise ValueError("it has no .PEN_DOWN")
    kind, found = next(((kind, found) for kind, found in labels.items() if found), ("", []))
    return strokes, ("" if kind.upper() == "CHARACTER" else " ").join(found)


def _unipen_rate(words: list[str]) -> float:
    try:
        rate = float(*words)
    except (TypeError, ValueError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ValueError(f".POINTS_PER_SECOND must be a positive number, got {shown(' '.join(words))}")
    return rate


def _unipen_points(
    words: list[str], columns: list[str], number: int, rate: float, moments: Iterator[int]
) -> list[list[float]]:
    """The points of a line of the file: x, y downwards, and seconds."""
    try:
        if len(words) % len(columns):
            raise ValueError
        values = iter(list(map(float, words)))
    except ValueError:
        raise ValueError(
            f"line {number} must be the numbers {' '.join(columns)}, got {shown(' '.join(words))}"
        ) from None
    points = [dict(zip(columns, row, strict=True)) for row in zip(*[values] * len(columns), strict=True)]
    return [[p["X"], -p["Y"], p["T"] / 1000 if "T" in p else next(moments) / rate] for p in points]

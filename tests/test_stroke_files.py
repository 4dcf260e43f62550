"""Stroke files of users: every format, and what is wrong with them."""

import json
import shutil

import numpy as np
import pytest

from clockwork.data import read_strokes
from clockwork.data.iam_ondb import write_iam_ondb
from clockwork.data.strokes import Line, Lines

STROKES = [[[10, 20, 0.0], [11, 22, 0.02], [13, 21, 0.03]], [[15, 20, 0.5]]]


def read(tmp_path, content, name="line.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_strokes(path)


def check(line, text="hi"):
    assert line.text == text
    assert [len(stroke) for stroke in line.strokes] == [3, 1]
    np.testing.assert_allclose(
        np.concatenate(line.strokes), [point for stroke in STROKES for point in stroke], atol=1e-9
    )


INK = '<ink xmlns="http://www.w3.org/2003/InkML"><annotation type="truth">hi</annotation>{}{}</ink>'
TIMED = (
    '<traceFormat><channel name="X"/><channel name="Y"/><channel name="F"/><channel name="T" units="{}"/></traceFormat>'
)


@pytest.mark.parametrize(
    ("unit", "traces"),
    [
        ("s", ["10 20 7 0, 11 22 7 0.02, 13 21 7 0.03", "15 20 7 0.5"]),
        ("ms", ["10 20 7 0, 11 22 7 20, 13 21 7 30", "15 20 7 500"]),
        ("ms", ["10 20 7 0,'1'2'0'20,2-1 0 10", "15 20 7 500"]),  # first differences, and so they stay
        ("ms", ["10 20 7 0,'1'2*'20,\"1\"-3'0\"-10", "15 20 7 500"]),  # second differences
        ("ms", ["10 20 T 0, 11 22 F 20, !13 !21 ? !30", "15 20 T 500"]),
    ],
)
def test_inkml(tmp_path, unit, traces):
    text = INK.format(TIMED.format(unit), "".join(f"<trace>{one}</trace>" for one in traces))
    (line,) = read(tmp_path, text, "line.inkml")
    check(line)


def test_inkml_in_groups_without_times(tmp_path):
    text = INK.format(
        "<traceGroup><annotation type='truth'>h</annotation><trace>1 2,3 4</trace></traceGroup>", "<!-- x -->"
    )
    (line,) = read(tmp_path, text)
    assert line.text == "hi"
    np.testing.assert_allclose(line.strokes[0], [[1, 2, 0], [3, 4, 0.01]])


def test_unipen(tmp_path):
    rows = [".VERSION 1.0", ".COORD X Y T P", '.SEGMENT LINE 0-1 OK "hi"', ".PEN_DOWN", "10 -20 0 5", "11 -22 20 5"]
    rows += ["13 -21 30 5", ".PEN_UP", "14 -21 40 0", ".PEN_DOWN", "15 -20 500 3", ".PEN_UP", ""]
    for end in ("\n", "\r\n"):
        (line,) = read(tmp_path, end.join(rows))
        check(line)


def test_unipen_without_times(tmp_path):
    rows = [
        "free text",
        ".POINTS_PER_SECOND 50",
        ".COMMENT 1 2",
        "3 4",
        ".PEN_DOWN 10 -20 11 -22",
        ".SEGMENT WORD 0 OK",
    ]
    rows += ["0 0", ".PEN_UP 12 -20", "13 -20", ".PEN_DOWN", "-.5 .5 2 2"]
    (line,) = read(tmp_path, "\n".join(rows))
    expected = [[[10, 20, 0], [11, 22, 0.02]], [[-0.5, -0.5, 0.08], [2, -2, 0.1]]]
    for stroke, wanted in zip(line.strokes, expected, strict=True):
        np.testing.assert_allclose(
            stroke, wanted
        )  # the points of .COMMENT and .SEGMENT are none; those of .PEN_UP pass


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        (['LINE 0-2 OK "hi you"', 'WORD 0 OK "hi"', 'WORD 1-2 OK "you"'], "hi you"),
        (["LINE 0-2 OK", 'WORD 0 OK "hi"', 'CHARACTER 0 OK "h"', 'WORD 1-2 OK "you"'], "hi you"),
        (['CHARACTER 0 OK "h"', 'CHARACTER 1 OK "i"'], "hi"),
        ([""], ""),
    ],
)
def test_labels_of_unipen_of_one_kind_are_the_text(tmp_path, segments, text):
    rows = [*(f".SEGMENT {segment}" for segment in segments), ".PEN_DOWN", "1 2", ""]
    (line,) = read(tmp_path, "\n".join(rows))
    assert line.text == text


def test_inkml_in_utf_16_and_without_what_the_pen_did_in_the_air(tmp_path):
    text = '<?xml version="1.0" encoding="UTF-16"?><ink><trace type="penUp">7 7</trace><trace>1 2</trace></ink>'
    (line,) = read(tmp_path, text.encode("utf-16"))
    np.testing.assert_array_equal(np.concatenate(line.strokes), [[1, 2, 0]])


@pytest.mark.parametrize(
    "content",
    [{"strokes": STROKES, "text": "hi"}, [{"strokes": STROKES, "text": "hi"}]],
)
def test_json(tmp_path, content):
    (line,) = read(tmp_path, json.dumps(content), "line.json")
    check(line)


def test_json_of_several_lines_and_of_strokes_alone(tmp_path):
    lines = read(tmp_path, "\ufeff" + json.dumps([{"strokes": STROKES, "text": "hi"}] * 2))
    assert len(lines) == 2
    (line,) = read(tmp_path, json.dumps(STROKES))
    check(line, "")
    (line,) = read(tmp_path, "[[[1, 2], [3, 4]], [[5, 6]]]")
    np.testing.assert_allclose(np.concatenate(line.strokes)[:, 2], [0, 0.01, 0.02])


def test_a_line_of_iam_ondb(tmp_path):
    wanted = Line(tuple(np.asarray(stroke) for stroke in STROKES), "hi", "")
    write_iam_ondb(Lines.of("", "", [wanted], [], []), tmp_path / "set")
    (path,) = (tmp_path / "set").glob("lineStrokes/*/*/*.xml")
    shutil.copy(path, tmp_path / "line.xml")
    (line,) = read_strokes(tmp_path / "line.xml")
    check(line, "")
    assert line.source == "line.xml"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "it must be InkML, UNIPEN, JSON of strokes or a line of IAM-OnDB"),
        ("hello", "it must be InkML, UNIPEN, JSON of strokes or a line of IAM-OnDB"),
        ("<ink>", "it is truncated or not XML"),
        ("<html/>", "its root must be ink or WhiteboardCaptureSession, got html"),
        ('<!DOCTYPE ink [<!ENTITY a "b">]><ink>&a;</ink>', "it has a document type, which is not read: remove it"),
        ("<ink/>", "it has no strokes"),
        ("<ink><trace>1 2 3</trace></ink>", "a point of a trace must have 2 values, got '1 2 3'"),
        ("<ink><trace>1 2, 3</trace></ink>", "a point of a trace must have 2 values, got '3'"),
        ("<ink><trace>1 two</trace></ink>", "a point of a trace must have 2 values, got '1 two'"),
        (INK.format(TIMED.format("min"), "<trace>1 2 3 4</trace>"), "times must be in s or ms, got min"),
        (
            INK.format('<traceFormat><channel name="X"/></traceFormat>', ""),
            "its traces must have channels X and Y, got X",
        ),
        (INK.format(TIMED.format("s"), TIMED.format("ms")), "traces of several formats are not read"),
        ("{", "it is truncated or not JSON"),
        ("[" * 100000, "it is truncated or not JSON"),
        ("{}", "strokes must be a list of strokes of points"),
        ("[]", "it has no strokes"),
        ("[[]]", "it has no strokes"),
        ("[[[1, 2], [3]]]", r"points must all be x, y or all be x, y, time, got \[1, 2\] numbers"),
        ('[[["a", 2]]]', "strokes must be a list of strokes of points"),
        ("[[[1, NaN]]]", r"coordinates and times must be finite and at most 1e\+12, got nan"),
        (f"[[[1, {'9' * 400}]]]", "it has a number of more than 300 digits"),
        ("[[[1, 2e12]]]", r"at most 1e\+12, got 2e\+12"),
        ("<ink><trace>1 2" + " " * 10**6 + "x</trace></ink>", "a point of a trace must have 2 values, got '1 2 x'"),
        ('{"strokes": [[[1, 2]]], "text": 3}', "text must be a string, got 3"),
        (".VERSION 1.0\n", "it has no .PEN_DOWN"),
        (".PEN_DOWN\n1 two\n", "line 2 must be the numbers X Y, got '1 two'"),
        (".PEN_DOWN\n1 2 3\n", "line 2 must be the numbers X Y, got '1 2 3'"),
        (".POINTS_PER_SECOND 0\n", "POINTS_PER_SECOND must be a positive number, got '0'"),
        (".POINTS_PER_SECOND\n", "POINTS_PER_SECOND must be a positive number, got ''"),
        (".INCLUDE /etc/hostname\n", "other files are not read: replace '.INCLUDE /etc/hostname' by what it includes"),
        (".COORD A B\n.PEN_DOWN\n1 2\n", ".COORD must name X and Y, got A B"),
    ],
)
def test_bad_files_are_named(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read(tmp_path, content, "bad.txt")
    assert f"stroke file {tmp_path / 'bad.txt'} cannot be used: " in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"stroke file .*none.json does not exist"):
        read_strokes(tmp_path / "none.json")

"""The reader of IAM-OnDB on made-up folders, one for each oddity of the real one."""

import numpy as np
import pytest

from clockwork.data.iam_ondb import read_iam_ondb, read_line_strokes, write_iam_ondb
from clockwork.data.strokes import Line, Lines

POINT = '<Point x="{}" y="{}" time="{}"/>'


def xml(*strokes, head='<?xml version="1.0" encoding="ISO-8859-1"?>', end="\n"):
    """The XML of a line, as the recordings have it."""
    rows = [head, "<WhiteboardCaptureSession>", '<WhiteboardDescription><SensorLocation corner="top_left"/>']
    rows += ["</WhiteboardDescription>", "<StrokeSet>"]
    for stroke in strokes:
        rows += [
            '<Stroke colour="black" start_time="0" end_time="1">',
            *(POINT.format(*p) for p in stroke),
            "</Stroke>",
        ]
    return end.join([*rows, "</StrokeSet>", "</WhiteboardCaptureSession>", ""]).encode("latin-1")


SIMPLE = xml([(1, 2, 0.5), (3, 4, 0.52)])


class Folder:
    """A made-up copy of the data."""

    def __init__(self, root):
        self.root = root
        for name, forms in {
            "trainset": ["a01-000u"], "testset_v": ["b01-000"], "testset_t": [], "testset_f": ["c01-000z"]
        }.items():  # fmt: skip
            self.list(name, *forms)
            for form in forms:
                self.form(form, "OCR:\n\nwrong\n\nCSR:\n\nabc\n", SIMPLE)

    def list(self, name, *forms):
        (self.root / f"{name}.txt").write_text("".join(f" {form}\n" for form in forms))

    def form(self, form, text, *files):
        for part in ("lineStrokes", "ascii"):
            (self.root / part / form[:3] / form[:7]).mkdir(parents=True, exist_ok=True)
        self.text(form).write_bytes(text.encode("latin-1"))
        for number, content in enumerate(files, 1):
            self.strokes(form, number).write_bytes(content)

    def text(self, form):
        return self.root / "ascii" / form[:3] / form[:7] / f"{form}.txt"

    def strokes(self, form, number):
        return self.root / "lineStrokes" / form[:3] / form[:7] / f"{form}-{number:02}.xml"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_sets_texts_and_strokes(folder):
    lines = read_iam_ondb(folder.root)
    assert [[line.text for line in one] for one in (lines.training, lines.validation, lines.test)] == [["abc"]] * 3
    assert lines.training[0].source == "a01/a01-000/a01-000u-01.xml"
    assert (lines.characters, lines.notes, lines.name) == ("abc", (), folder.root.name)
    np.testing.assert_allclose(lines.training[0].strokes[0], [[1, 2, 0], [3, 4, 0.02]], atol=1e-9)


def test_both_validation_lists_are_validation(folder):
    folder.list("testset_t", "d01-000")
    folder.form("d01-000", "CSR:\nx\n", SIMPLE)
    assert [line.text for line in read_iam_ondb(folder.root).validation] == ["abc", "x"]


def test_texts_as_they_are_stored(folder):
    text = (
        'OCR:\r\rno\r\rCSR:\r\r  A  MOVE to   stop Mr . # \r\r\r M Ps , "it\'s" (1) \r'  # CR ends, blanks, empty lines
    )
    folder.form("a01-000u", text, SIMPLE, SIMPLE)
    texts = [line.text for line in read_iam_ondb(folder.root).training]
    assert texts == ["A MOVE to stop Mr . #", 'M Ps , "it\'s" (1)']
    assert "#" in read_iam_ondb(folder.root).characters


def test_a_form_with_another_number_of_files_than_lines_is_left_out_and_said(folder):
    folder.list("trainset", "a01-000u", "a08-551z")
    folder.form("a08-551z", "CSR:\none\nZ\n", SIMPLE, SIMPLE, SIMPLE)
    lines = read_iam_ondb(folder.root)
    assert len(lines.training) == 1
    assert lines.notes == ("form a08-551z is left out: it has 3 stroke files and 2 lines of text",)
    assert "Z" not in lines.characters


def test_without_its_list_the_first_validation_set_is_all_other_forms(folder):
    (folder.root / "testset_v.txt").unlink()
    for form in ("z00-001", "z01-000", "z01-000z"):
        folder.form(form, "CSR:\nnever\n", SIMPLE)
    folder.form("e01-000", "CSR:\nother\n", SIMPLE)
    folder.form("f01-000", "CSR:\nwithout strokes\n")
    assert [line.text for line in read_iam_ondb(folder.root).validation] == ["abc", "other"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_points_as_they_are_stored(folder, end):
    strokes = (
        [(-4, 7, 16000000.25), (-4, 7, 16000000.25)],
        [(5, -1, 0), (6, 0, 0)],
        [(7, 7, 15999999.0)],
        [(8, 8, 16000001.5)],
    )
    folder.form("a01-000u", "CSR:\nabc\n", xml(*strokes, end=end))
    found = read_iam_ondb(folder.root).training[0].strokes
    assert [len(stroke) for stroke in found] == [2, 2, 1, 1]
    times = np.concatenate(found)[:, 2]  # lost times and backward steps stand still
    np.testing.assert_array_equal(times, [0, 0, 0, 0, 0, 1.25])
    np.testing.assert_array_equal(found[0][:, :2], [[-4, 7], [-4, 7]])


BOMB = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><a>&d;</a>'
ELSEWHERE = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>'
MANY = b'<!DOCTYPE a [<!ENTITY b0 "xxxxxxxxxx">%s]><a c="&b9;"/>' % b"".join(
    b'<!ENTITY b%d "%s">' % (i, b"&b%d;" % (i - 1) * 10) for i in range(1, 10)
)
CASES = {
    "cut": (SIMPLE[:200], r"it is truncated or not XML: [^\n(]*$"),
    "many entities": (MANY, "it has a document type, which is not read: remove it"),
    "entities in UTF-16": (MANY.decode().encode("utf-16"), "it has a document type, which is not read: remove it"),
    "entities in UTF-7": (
        b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a+AD4APA-a/+AD4-',
        "it has a document type",
    ),
    "no attribute": (xml().replace(b"<StrokeSet>", b'<StrokeSet><Stroke><Point x="1" y="2"/></Stroke>'), "time=None"),
    "empty": (b"", "it is truncated or not XML"),
    "other": (b"<a/>", "the root of a line of IAM-OnDB must be WhiteboardCaptureSession, got a"),
    "no strokes": (xml(), "it has no strokes"),
    "no points": (xml([]), "it has a stroke without points"),
    "no number": (
        xml([("one", 2, 3)]),
        "the attributes x, y, time of Point must be numbers, got x='one', y='2', time='3'",
    ),
    "not finite": (xml([("inf", 2, 3)]), r"coordinates and times must be finite and at most 1e\+12, got inf"),
    "entities": (BOMB, "it has a document type, which is not read: remove it"),
    "other files": (ELSEWHERE, "it has a document type, which is not read: remove it"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_stroke_files_are_named_or_left_out(folder, case):
    content, sentence = CASES[case]
    folder.form("a01-000u", "CSR:\nabc\ndef\n", content, SIMPLE)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_iam_ondb(folder.root)
    assert str(folder.strokes("a01-000u", 1)) in str(caught.value)
    lines = read_iam_ondb(folder.root, skip_bad=True)
    assert [line.text for line in lines.training] == ["def"]
    assert lines.notes == (f"left out: {caught.value}",)


def test_missing_files_are_named(folder):
    folder.form("a01-000u", "CSR:\nabc\ndef\n", SIMPLE, SIMPLE)
    folder.strokes("a01-000u", 1).unlink()
    with pytest.raises(ValueError, match=r"a01-000u-01.xml is missing"):
        read_iam_ondb(folder.root)
    folder.text("a01-000u").unlink()
    with pytest.raises(ValueError, match=r"a01-000u.txt is missing"):
        read_iam_ondb(folder.root)
    with pytest.raises(ValueError, match=r"has no lines for training; left out: .*a01-000u.txt is missing"):
        read_iam_ondb(folder.root, skip_bad=True)
    (folder.root / "testset_f.txt").unlink()
    with pytest.raises(ValueError, match=r"testset_f.txt is missing: it lists the forms of a set"):
        read_iam_ondb(folder.root)
    with pytest.raises(ValueError, match="has no folder lineStrokes: a folder of IAM-OnDB has"):
        read_iam_ondb(folder.root / "ascii")


def test_bad_texts_and_lists_are_named(folder):
    folder.form("a01-000u", "CSR:\ncaf\xe9\n", SIMPLE)
    with pytest.raises(ValueError, match=r"a01-000u.txt has an unknown character, 'é', in 'café'"):
        read_iam_ondb(folder.root)
    folder.form("a01-000u", "OCR:\nabc\n", SIMPLE)
    with pytest.raises(ValueError, match=r"a01-000u.txt has no part CSR:"):
        read_iam_ondb(folder.root)
    folder.list("testset_f", "a01-000u")
    with pytest.raises(ValueError, match=r"form a01-000u is listed twice, in trainset.txt and testset_f.txt"):
        read_iam_ondb(folder.root)
    folder.list("trainset", "../../etc")
    with pytest.raises(ValueError, match=r"trainset.txt must list forms such as a01-000u, got '../../etc'"):
        read_iam_ondb(folder.root)


def made_up(*texts):
    strokes = (np.asarray([[-3, 2.5, 0], [4, 1, 0.01], [4, 1, 0.03]]), np.asarray([[7, 7, 1.2]]))
    return [Line(strokes, text, text) for text in texts]


def test_what_is_written_is_read(tmp_path):
    many = made_up(*(f"line {i}" for i in range(23)))
    lines = Lines.of("a set", "made up", many, made_up('quotes " & <'), made_up("z"))
    write_iam_ondb(lines, tmp_path / "set")
    found = read_iam_ondb(tmp_path / "set")
    for name in ("training", "validation", "test"):
        for line, wanted in zip(getattr(found, name), getattr(lines, name), strict=True):
            assert line.text == wanted.text
            for stroke, other in zip(line.strokes, wanted.strokes, strict=True):
                np.testing.assert_allclose(stroke, other, atol=1e-9)
    assert found.characters == lines.characters
    with pytest.raises(ValueError, match="exists: choose a new folder"):
        write_iam_ondb(lines, tmp_path / "set")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (made_up("é")[0], "must have printable ASCII characters, got 'é'"),
        (made_up("a  b")[0], "must have one blank between words, none around them and no 'CSR:', got 'a  b'"),
        (made_up(" a")[0], "must have one blank between words"),
        (made_up("CSR: a")[0], "no 'CSR:', got 'CSR: a'"),
        (Line((), "a", ""), "a line must have strokes, each with at least one point, unlike the line 'a'"),
        (Line((np.zeros((0, 3)),), "a", ""), "each with at least one point"),
        (
            Line((np.full((1, 3), np.nan),), "a", ""),
            "the points of a line must be finite, unlike those of the line 'a'",
        ),
    ],
)
def test_what_would_be_read_otherwise_is_not_written(tmp_path, line, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_iam_ondb(Lines.of("a set", "", made_up("fine"), [], [line]), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_line_can_be_read_alone(folder):
    (stroke,) = read_line_strokes(folder.strokes("a01-000u", 1))
    assert stroke.shape == (2, 3)

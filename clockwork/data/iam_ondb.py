"""Read lines of IAM-OnDB (Liwicki and Bunke 2005), or of any folder of the same form, and write such folders.

The folder holds ``lineStrokes/a01/a01-000/a01-000u-01.xml``, the strokes of the first line of form ``a01-000u``;
``ascii/a01/a01-000/a01-000u.txt``, the text of all its lines; and the lists ``trainset.txt``, ``testset_v.txt``,
``testset_t.txt`` and ``testset_f.txt`` with a form on each line.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from clockwork.checks import counted, listed
from clockwork.data.recording import printable
from clockwork.data.safe_xml import numbers_of, parse_xml
from clockwork.data.strokes import Line, Lines, cut
from clockwork.files import regular_file, write_text

LISTS = {"training": ("trainset",), "validation": ("testset_v", "testset_t"), "test": ("testset_f",)}
WHOLE = {"training": 5364, "validation": 2956, "test": 3859}  # stroke files of a complete copy
UNLISTED = {"z00-001", "z01-000", "z01-000z"}  # in no list of the task, testset_v among them
POINT = ("x", "y", "time")  # attributes
FORM = re.compile(r"[a-z]\d\d-\d{3}[a-z]?")


def read_iam_ondb(folder: str | Path, *, skip_bad: bool = False) -> Lines:
    """Read all lines of a folder that has the form of IAM-OnDB.

    The text of a line is read from the part ``CSR:`` of its form's file, with one blank between words. As in the paper,
    training lines are those of ``trainset.txt``, validation lines those of ``testset_v.txt`` and ``testset_t.txt``, and
    test lines those of ``testset_f.txt``. If ``testset_v.txt`` is missing, all forms that are in no other list take its
    place. A form with different numbers of stroke files and lines of text is left out, with a note. A time that goes
    back is replaced by the latest time before it.

    Args:
        folder: a folder with ``lineStrokes``, ``ascii`` and the lists.
        skip_bad: whether to leave out forms and lines that cannot be used, with a note, instead of raising an error.

    Returns:
        The lines; the set is called IAM-OnDB if the copy is complete.

    Raises:
        ValueError: if the folder is not of this form, or a file in it cannot be used.
        OSError: if a file cannot be read.
        ImportError: if lxml is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> lines = Lines.of("two lines", "made up", *[[Line((np.zeros((3, 3)),), "Hello", "")]] * 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_iam_ondb(lines, Path(folder) / "set")
        ...     read_iam_ondb(Path(folder) / "set").training[0].text
        'Hello'
    """
    root = Path(folder)
    for part in ("lineStrokes", "ascii"):
        if not (root / part).is_dir():
            raise ValueError(
                f"{printable(str(root))} has no folder {part}: a folder of IAM-OnDB has lineStrokes, ascii, and the "
                "lists trainset.txt, testset_v.txt, testset_t.txt and testset_f.txt"
            )
    reader = _Reader(root, skip_bad)
    forms = reader.forms()
    lines = {name: [line for form in members for line in reader.form(form)] for name, members in forms.items()}
    empty = [name for name, found in lines.items() if not found]
    if empty:
        raise ValueError("; ".join([f"{printable(str(root))} has no lines for {listed(empty)}", *reader.notes]))
    name = "IAM-OnDB" if reader.files == list(WHOLE.values()) else printable(root.resolve().name)
    origin = "lines of English on a whiteboard" if name == "IAM-OnDB" else "lines in the form of IAM-OnDB"
    return Lines.of(name, origin, *lines.values(), notes=reader.notes)


class _Reader:
    """Reads forms and collects notes about them.

    Attributes:
        notes: what was left out.
        files: how many stroke files the forms of each set have.
    """

    def __init__(self, root: Path, skip_bad: bool) -> None:
        self.root, self.skip_bad, self.notes = root, skip_bad, []
        self.files: list[int] = []

    def forms(self) -> dict[str, list[str]]:
        """The forms of each set."""
        names = [name for several in LISTS.values() for name in several]
        lists = {name: self._list(self.root / f"{name}.txt") for name in names if self._is_there(name)}
        if "testset_v" not in lists:
            known = {form for forms in lists.values() for form in forms} | UNLISTED
            every = sorted(path.stem for path in (self.root / "ascii").glob("*/*/*.txt"))
            lists["testset_v"] = [
                form for form in every if form not in known and FORM.fullmatch(form) and self._files(form)
            ]
        found: dict[str, str] = {}
        for name, forms in lists.items():
            for form in forms:
                if found.setdefault(form, name) != name or forms.count(form) > 1:
                    raise ValueError(f"form {form} is listed twice, in {found[form]}.txt and {name}.txt")
        sets = {name: [form for one in several for form in lists[one]] for name, several in LISTS.items()}
        self.files = [sum(len(self._files(form)) for form in forms) for forms in sets.values()]
        return sets

    def form(self, form: str) -> list[Line]:
        """The lines of a form; none if it is left out."""
        files = self._files(form)
        try:
            texts = self._texts(form)
            missing = [number for number in range(1, max(files, default=1) + 1) if number not in files]
            if missing:
                raise ValueError(f"{self._where(form, missing[0])} is missing")
        except (ValueError, OSError) as error:
            return self._bad(error)
        if len(files) != len(texts):
            strokes, text = counted(len(files), "stroke file"), counted(len(texts), "line")
            self.notes.append(f"form {form} is left out: it has {strokes} and {text} of text")
            return []
        found = []
        for (number, path), text in zip(sorted(files.items()), texts, strict=True):
            source = f"{self._place(form)}/{form}-{number:02}.xml"
            try:
                found.append(Line(read_line_strokes(path), text, source))
            except (ValueError, OSError) as error:
                self._bad(error)
        return found

    def _bad(self, error: Exception) -> list[Line]:
        if not self.skip_bad:
            raise error
        self.notes.append(f"left out: {error}")
        return []

    def _is_there(self, name: str) -> bool:
        return name != "testset_v" or (self.root / f"{name}.txt").exists()

    def _list(self, path: Path) -> list[str]:
        if not path.exists():
            raise ValueError(f"{printable(str(path))} is missing: it lists the forms of a set, one on each line")
        forms = regular_file(path).read_text("latin-1").split()
        wrong = [form for form in forms if not FORM.fullmatch(form)]
        if wrong:
            raise ValueError(f"{printable(str(path))} must list forms such as a01-000u, got {wrong[0]!r}")
        return forms

    @staticmethod
    def _place(form: str) -> str:
        return f"{form[:3]}/{form[:7]}"

    def _where(self, form: str, number: int) -> str:
        return printable(str(self.root / "lineStrokes" / self._place(form) / f"{form}-{number:02}.xml"))

    def _files(self, form: str) -> dict[int, Path]:
        """The stroke files of a form by their numbers."""
        folder = self.root / "lineStrokes" / self._place(form)
        found = {}
        for path in folder.glob(f"{form}-*.xml") if folder.is_dir() else ():
            if path.stem[len(form) + 1 :].isdigit():
                found[int(path.stem[len(form) + 1 :])] = path
        return found

    def _texts(self, form: str) -> list[str]:
        """The lines of text of a form."""
        path = self.root / "ascii" / self._place(form) / f"{form}.txt"
        if not path.exists():
            raise ValueError(f"{printable(str(path))} is missing")
        text = regular_file(path).read_text("latin-1")
        _, mark, corrected = text.partition("CSR:")
        if not mark:
            raise ValueError(f"{printable(str(path))} has no part CSR:, which holds the text of the lines")
        lines = [" ".join(line.split()) for line in corrected.splitlines() if line.strip()]
        for line in lines:
            strange = [character for character in line if not (character.isascii() and character.isprintable())]
            if strange:
                raise ValueError(f"{printable(str(path))} has an unknown character, {strange[0]!r}, in {line!r}")
        return lines


def read_line_strokes(path: str | Path) -> tuple[np.ndarray, ...]:
    """The strokes of a line in a file of IAM-OnDB, each ``(P, 3)``: x, y and seconds.

    Raises:
        ValueError: if the file has another format, is truncated, or has a stroke without points.
        OSError: if it cannot be read.
        ImportError: if lxml is not installed; it is in the extra ``[experiments]``.
    """
    try:
        return line_strokes(parse_xml(regular_file(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{printable(str(path))} cannot be used: {error}") from None


def line_strokes(root: Any) -> tuple[np.ndarray, ...]:
    """The strokes below the root of a line's XML; see `read_line_strokes`."""
    if root.tag != "WhiteboardCaptureSession":
        raise ValueError(f"the root of a line of IAM-OnDB must be WhiteboardCaptureSession, got {root.tag}")
    strokes = [list(stroke.iter("Point")) for stroke in root.iter("Stroke")]
    if not strokes or not all(strokes):
        raise ValueError("it has a stroke without points" if strokes else "it has no strokes")
    # A complete copy has 7.6 million points: convert all attributes at once, and one by one only to name a bad one.
    values = [point.get(name) for stroke in strokes for point in stroke for name in POINT]
    try:
        points = np.array(list(map(float, values))).reshape(-1, len(POINT))
    except (TypeError, ValueError):
        points = np.array([numbers_of(point, POINT) for stroke in strokes for point in stroke])
    return cut(points, list(map(len, strokes)))


def write_iam_ondb(lines: Lines, folder: str | Path) -> None:
    """Write lines as a folder that `read_iam_ondb` reads: the same texts and strokes, with times rounded to 0.01 s.

    Args:
        lines: the lines, each with at least one stroke and a text of printable ASCII characters, with one blank between
            words and none around them. Every ten consecutive lines of a set become one form.
        folder: a folder that does not exist yet.

    Raises:
        ValueError: if the folder exists, or a line breaks these rules; then nothing is written.
        OSError: if it cannot be written.
    """
    root = Path(folder)
    if root.exists():
        raise ValueError(f"{printable(str(root))} exists: choose a new folder")
    for line in (*lines.training, *lines.validation, *lines.test):
        _check_writable(line)
    forms = iter(f"{chr(97 + i // 100000 % 26)}{i // 1000 % 100:02}-{i % 1000:03}" for i in range(2600000))
    sets = {"trainset": lines.training, "testset_v": lines.validation, "testset_t": (), "testset_f": lines.test}
    for name, members in sets.items():
        named = []
        for first in range(0, len(members), 10):
            named.append(next(forms))
            _write_form(root, named[-1], members[first : first + 10])
        write_text(root / f"{name}.txt", "".join(f" {form}\n" for form in named))


def _check_writable(line: Line) -> None:
    """Raise ``ValueError`` for lines that would not be read back unchanged."""
    if not (line.text.isascii() and line.text.isprintable() and line.text.strip()):
        raise ValueError(f"the text of a line must have printable ASCII characters, got {line.text!r}")
    if line.text != " ".join(line.text.split()) or "CSR:" in line.text:
        raise ValueError(
            f"the text of a line must have one blank between words, none around them and no 'CSR:', got {line.text!r}"
        )
    if not line.strokes or not all(map(len, line.strokes)):
        raise ValueError(f"a line must have strokes, each with at least one point, unlike the line {line.text!r}")
    if not np.isfinite(np.concatenate(line.strokes)).all():
        raise ValueError(f"the points of a line must be finite, unlike those of the line {line.text!r}")


def _write_form(root: Path, form: str, lines: Sequence[Line]) -> None:
    place, texts = Path(form[:3]) / form[:7], []
    for part in ("lineStrokes", "ascii"):
        (root / part / place).mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines, 1):
        texts.append(line.text)
        write_text(root / "lineStrokes" / place / f"{form}-{number:02}.xml", _line_xml(line))
    text = "\n".join(texts)
    write_text(root / "ascii" / place / f"{form}.txt", f"OCR:\n\n{text}\n\nCSR:\n\n{text}\n")


def _line_xml(line: Line) -> str:
    def tag(name: str, values: Iterable[tuple[str, object]]) -> str:
        return f"<{name} {' '.join(f'{key}={quoteattr(str(value))}' for key, value in values)}"

    parts = ['<?xml version="1.0" encoding="ISO-8859-1"?>', "<WhiteboardCaptureSession>", "  <StrokeSet>"]
    for stroke in line.strokes:
        times = [f"{t:.2f}" for t in stroke[:, 2]]
        parts.append(f"    {tag('Stroke', [('colour', 'black'), ('start_time', times[0]), ('end_time', times[-1])])}>")
        parts += [
            f"      {tag('Point', [('x', f'{x:.10g}'), ('y', f'{y:.10g}'), ('time', time)])}/>"
            for (x, y, _), time in zip(stroke, times, strict=True)
        ]
        parts.append("    </Stroke>")
    return "\n".join([*parts, "  </StrokeSet>", "</WhiteboardCaptureSession>", ""])

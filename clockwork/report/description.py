"""How a task's results are reported, in the words of the task."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.checks import counted, listed
from clockwork.report.aggregate import Row
from clockwork.training import Results

NOTES = """\
A run counts as diverged if its loss or gradient norm ever became non-finite; mean, sd, median and best are over the
other runs.
"""
PATIENCE_NOTES = """\
Cut at limit: runs that the limit of epochs ended before early stopping did; with more epochs their errors may be lower.
Epochs: the median over the runs that did not diverge.
"""


def plain(value: float) -> str:
    """An error as text: two significant digits if it is small, else two decimals.

    Example:
        >>> plain(0.00671), plain(0.5), plain(1.2e7), plain(float("nan"))
        ('0.0067', '0.50', '1.2e+07', '–')
    """
    if np.isnan(value):
        return "–"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.1e}"


def percent(value: float) -> str:
    """A share in percent, without the sign.

    Example:
        >>> percent(0.168), percent(float("nan"))
        ('16.8', '–')
    """
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


class Line(NamedTuple):
    """A line that the learning curves have for each network and size.

    Attributes:
        name: shown after the size in the legend; empty if there is only one line.
        number: which of the errors of `clockwork.training.Task.watch` it shows; None: the `watched` one.
        style: of matplotlib, such as ``"--"``.

    Example:
        >>> lines = Line("training", number=0, style="--"), Line("test", number=1)
        >>> lines[1].style
        '-'
    """

    name: str = ""
    number: int | None = None
    style: str = "-"


class Measure(NamedTuple):
    """The name, unit and format of a task's errors in tables and figures.

    Attributes:
        name: of the error, such as ``"test error"``.
        unit: the unit in tables and figures, such as ``"%"``; empty if there is none.
        factor: converts stored errors to this unit, for the figures.
        number: formats a stored error in this unit, for the table.
        top: the figures do not draw runs with larger errors but count them, unless a box reaches higher.
        curves: the label of the learning curves' axis; None for the label of the errors.
        lines: of the learning curves.
        log: whether the learning curves' axis is logarithmic; None to decide by whether they span a factor of ten.

    Example:
        >>> error = Measure("test error", unit="%", factor=100, number=percent)
        >>> error.label, error.number(0.168)
        ('test error (%)', '16.8')
    """

    name: str
    unit: str = ""
    factor: float = 1
    number: Callable[[float], str] = plain
    top: float = math.inf
    curves: str | None = None
    lines: tuple[Line, ...] = (Line(),)
    log: bool | None = None

    @property
    def label(self) -> str:
        """Of an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def header(self, kind: str) -> str:
        """Of a column of the table: a kind of figure, such as ``"median"``, and the unit."""
        return f"{kind} {self.unit}".strip()


class Column(NamedTuple):
    """A column that a task adds to the table.

    Attributes:
        header: above the column.
        figure: maps a row to the text of its cell.
        after: the place of the column: after the ``"size"``, after the figures of the ``"error"``, or at the end, after
            the number of runs that ``"diverged"``.

    Example:
        >>> column = Column("runs", figure=lambda row: str(row.diverged.size))
        >>> column.after
        'diverged'
    """

    header: str
    figure: Callable[[Row], str]
    after: str = "diverged"


class Sound(NamedTuple):
    """A sound that ``report.html`` plays.

    Attributes:
        name: above the player.
        network: the network that made it; empty for a target.
        data: the piece of data.
        samples: ``(T,)``, from -1 to 1.
        rate: samples a second.

    Example:
        >>> Sound("choir, target", "", "choir", np.zeros(320), 44100).samples.shape
        (320,)
    """

    name: str
    network: str
    data: str
    samples: np.ndarray
    rate: int


class Listing(NamedTuple):
    """A table that a task adds to ``report.html``, such as what each network reads.

    Attributes:
        title: above it.
        header: of its columns.
        rows: their cells.

    Example:
        >>> Listing("Lines", header=("written", "CW-RNN reads"), rows=[("a word", "a ward")]).title
        'Lines'
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Description(NamedTuple):
    """How a task's results are reported: the return value of the task's method ``report(results)``.

    A task without such a method gets the description that `describe` makes. A task that differs in a few words can
    change that one with ``_replace``.

    Attributes:
        title: of the table.
        training: how the runs were trained, in a clause without full stop, such as ``"300 epochs, batch size 8"``.
        measure: the error.
        learnt: what the networks learnt, in whole sentences.
        piece: what a piece of data is called, such as ``"clip"``.
        labels: the labels of the networks, by name, in the order of the figures; others follow under their own names.
        hyperparameters: the headers of the columns of hyper-parameters, by name; others keep their own names.
        columns: further columns of the table.
        watched: the name of the error of `clockwork.training.Task.watched`, such as ``"training loss"``.
        uses: the subject and verb of the sentence that says which of several hyper-parameters the figures show.
        comparison: a sentence that compares the networks.
        remarks: whole sentences to print with every figure, such as that the data are synthetic.
        notes: the text below the table, which explains what was measured.
        figures: functions of the results and a path that draw one figure each, by the name of the file without suffix;
            None for the figures of any task, ``errors`` and ``curves``. If several values of a hyper-parameter were
            trained, ``search`` is added.
        files: a function of the results and a folder that writes further files, such as sounds; it returns their paths.
        sounds: a function of the results that returns the sounds of ``report.html``, as `Sound`.
        listings: a function of the results that returns its tables of single examples, as `Listing`.

    Example:
        A task whose error is called and written in its own way:

        >>> from clockwork.report import Measure, describe
        >>> from clockwork.training import Results, Task
        >>> class Copying(Task):
        ...     def report(self, results):
        ...         wrong = Measure("wrong symbols", unit="%", factor=100, number=lambda error: f"{100 * error:.1f}")
        ...         return describe(results)._replace(title="Copying", measure=wrong)
        >>> task = Copying()
        >>> task.report(Results(task, {})).measure.label
        'wrong symbols (%)'
    """

    title: str
    training: str
    measure: Measure
    learnt: str = ""
    piece: str = "data"
    labels: Mapping[str, str] = {}
    hyperparameters: Mapping[str, str] = {}
    columns: Sequence[Column] = ()
    watched: str = "watched error"
    uses: str = "the figures use"
    comparison: str = ""
    remarks: Sequence[str] = ()
    notes: str = NOTES
    figures: Mapping[str, Callable[[Results, Path], None]] | None = None
    files: Callable[[Results, Path], list[Path]] | None = None
    sounds: Callable[[Results], Sequence[Sound]] | None = None
    listings: Callable[[Results], Sequence[Listing]] | None = None

    def label(self, network: str) -> str:
        """The label of a network."""
        return self.labels.get(network, network)


def description_of(results: Results) -> Description:
    """The description of a task's ``report``, a method or a `Description`; that of `describe` if it has none."""
    own: Any = getattr(results.task, "report", None)
    if own is None:
        return describe(results)
    return own if isinstance(own, Description) else own(results)


def describe(results: Results) -> Description:
    """A description that fits any task.

    Args:
        results: of a sweep of the task.

    Example:
        >>> from clockwork.training import Task
        >>> describe(Results(Task(), {})).title
        'Task'
    """
    task = results.task
    piece, error = task.columns
    data = list(dict.fromkeys(condition.data for condition in results.conditions if condition.data))
    stopping = task.patience is not None
    training = counted(task.epochs, "epoch")
    if stopping:
        training = (
            f"at most {training}, early stopping after {counted(task.patience, 'epoch')} without a lower watched error"
        )
    return Description(
        title=getattr(task, "title", None) or task.name.replace("_", " ").capitalize(),
        training=training,
        measure=Measure(error.replace("_", " "), curves="error in training"),
        learnt=f"The networks were trained on {listed(data)}." if data else "",
        piece=piece.replace("_", " "),
        notes="\n".join([NOTES] + [PATIENCE_NOTES] * stopping),
    )

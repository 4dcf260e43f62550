"""What a report says and draws of a task's results, in the words of the task."""

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
    """An error as the table has it: two digits of a small one, two decimals of others.

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
    """One of the lines that learning curves have for each network and size.

    Attributes:
        name: stands behind the size in the legend; empty where there is one line alone.
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
    """How a task's errors are called, written and drawn.

    Attributes:
        name: of the error, such as ``"test error"``.
        unit: that it is written and drawn in, such as ``"%"``; empty if it has none.
        factor: from stored errors to errors in this unit, for the figures.
        number: writes a stored error in this unit, for the table.
        top: figures count the runs with larger errors instead of drawing them, unless a box reaches higher.
        curves: label of the learning curves' axis; None: the same as that of the errors.
        lines: of the learning curves.
        log: whether the learning curves' axis is logarithmic; None: if they span more than a factor of ten.

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
    """A column of the table that a task adds.

    Attributes:
        header: above the column.
        figure: of a row, as text.
        after: where it stands: after the ``"size"``, after the figures of the ``"error"``, or, last of all, after the
            number of runs that ``"diverged"``.

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
        network: that made it; empty for a target.
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
    """A table of ``report.html`` that a task adds, such as what each network reads.

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
    """What a report says and draws of a task's results: what the task's method ``report(results)`` returns.

    A task without such a method has the description that `describe` makes. A task that differs in a few words takes
    that one and changes these with ``_replace``.

    Attributes:
        title: of the table.
        training: how the runs were trained, in a clause without full stop, such as ``"300 epochs, batch size 8"``.
        measure: the error.
        learnt: what the networks learnt, in whole sentences.
        piece: what a piece of data is called, such as ``"clip"``.
        labels: what networks are called, by name, in the order of the figures; others follow under their own names.
        hyperparameters: headers of their columns, by name; others have their own names.
        columns: further columns of the table.
        watched: what `clockwork.training.Task.watched` gives, such as ``"training loss"``.
        uses: subject and verb of the sentence that says which of several hyper-parameters the figures are made with.
        comparison: a sentence that compares the networks.
        remarks: whole sentences that must be said with every figure, such as that the data are synthetic.
        notes: what was measured, below the table.
        figures: functions of the results and a path that draw one each, by the name of the file without suffix; None:
            those that serve any task, ``errors`` and ``curves``. If several values of a hyper-parameter were trained,
            ``search`` comes last in any case.
        files: writes further files, such as sounds: a function of the results and a folder that returns their paths.
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
        """What a network is called."""
        return self.labels.get(network, network)


def description_of(results: Results) -> Description:
    """What a task's ``report`` says, a method of the results or a `Description`; `describe` if it has none."""
    own: Any = getattr(results.task, "report", None)
    if own is None:
        return describe(results)
    return own if isinstance(own, Description) else own(results)


def describe(results: Results) -> Description:
    """A description that serves any task.

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

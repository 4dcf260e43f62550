"""Results on disk: a file for each finished cell, whole or not at all.

A folder holds ``config.json``, ``cells/NAME.npz`` for each finished cell, ``runs.csv`` with one
row for each trained network, and, while a sweep is under way, ``partial/NAME.npz``. Everything is
written beside its place, flushed, and renamed into it.
"""

import contextlib
import csv
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.checks import shown
from clockwork.files import claimed, remove_abandoned, write_text
from clockwork.tasks import TASKS, Cell, Task
from clockwork.training.arrays import mismatch, read_arrays, write_arrays
from clockwork.training.config import FolderError, agreed_config, check_files, place_of, read_config

WRITTEN = (".npz", ".json", ".csv")  # what a sweep alone writes
# The arrays of a cell: kinds of dtype and axes, as of `mismatch`. A task adds its own as `recorded`.
ARRAYS = {
    "error": ("f", "R"),
    "epochs": ("iu", "R"),
    "diverged": ("b", "R"),
    "curve": ("f", "P R ..."),
    "curve_epochs": ("iu", "P"),
    "outputs": ("fiu", "R ..."),
    "parameters": ("iu", ""),
}


class CellResult(NamedTuple):
    """What is kept of a cell's ``R`` runs.

    Attributes:
        error: ``(R,)``, float32, of the trained networks; NaN for a run that diverged.
        epochs: ``(R,)``, int32, how many epochs each run was trained; fewer than asked if it stopped or diverged.
        diverged: ``(R,)``, bool, whether the loss or the norm of the gradient was ever not finite.
        curve: ``(P, R, ...)``, float32, the task's errors at ``P`` moments of the training.
        curve_epochs: ``(P,)``, int64, these moments, by the number of epochs before them.
        outputs: ``(R, ...)``, float32, of the trained networks.
        parameters: ``()``, integer, the number of parameters of one network.
        data: what the task has to say of the cell's data, by name.
        best: the parameters of the run with the lowest error, by name.

    Example:
        >>> (result,) = open_results("results/generation").cells.values()
        >>> result.error.shape, result.outputs.shape, bool(result.diverged.any())
        ((2,), (2, 320), False)
    """

    error: np.ndarray
    epochs: np.ndarray
    diverged: np.ndarray
    curve: np.ndarray
    curve_epochs: np.ndarray
    outputs: np.ndarray
    parameters: np.ndarray
    data: dict[str, np.ndarray]
    best: dict[str, np.ndarray]


class Results(NamedTuple):
    """The finished cells of a task.

    Attributes:
        task: the task.
        cells: what is kept of each finished cell, in the order of the task's table.

    Example:
        >>> results = open_results("results/generation")
        >>> results.task.runs, len(results.cells)
        (2, 1)
    """

    task: Task
    cells: dict[Cell, CellResult]


class Store:
    """The results folder of one task. A sweep writes it; ``Store(folder, task).results()`` reads it.

    Everything is written whole or not at all, so that a folder can be read at any time. What is damaged
    counts as not there; a warning names it.

    Args:
        folder: is made if it does not exist.
        task: whose results are in it.

    Raises:
        ValueError: if the folder holds another configuration's results, or something else.
        OSError: if it cannot be written.

    Warns:
        UserWarning: if the folder was begun with other versions or devices, or a result is damaged.

    Example:
        >>> import tempfile
        >>> from clockwork.tasks import Generation
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder, Generation(runs=2))
        ...     len(store.results().cells)
        0
    """

    def __init__(self, folder: str | Path, task: Task) -> None:
        self.folder = Path(folder)
        self.task = task
        document = agreed_config(self.folder, task, told=True)
        self.settings: dict[str, Any] = document["settings"]
        # The configuration first: a folder that a killed sweep leaves behind is always known for what it is. And a
        # folder that can be read but not written is better refused now than after an hour.
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "config.json", json.dumps(document, indent=1) + "\n")
        (self.folder / "cells").mkdir(exist_ok=True)
        (self.folder / "partial").mkdir(exist_ok=True)

    def save(self, cell: Cell, result: CellResult) -> None:
        """Store a finished cell, as ``cells/NAME.npz``.

        Args:
            cell: one of the task's.
            result: of all its runs.

        Raises:
            OSError: if it cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        for field, value in result._asdict().items():
            arrays |= {f"{field}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {field: value}
        write_arrays(cell_path(self.folder, cell), arrays, place_of(self.settings, f"cells/{cell.name}"))

    def save_partial(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store cells in training under the name they share, as ``partial/NAME.npz``.

        Args:
            name: of network and size, such as ``"cwrnn-1000"``.
            arrays: all that is needed to go on, by name.

        Raises:
            OSError: if it cannot be written.
        """
        write_arrays(self.partial_path(name), arrays, place_of(self.settings, f"partial/{name}"))

    def load_partial(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of `save_partial`; None if there are none, or the file is damaged, and then a warning names it."""
        return read_arrays(self.partial_path(name), place_of(self.settings, f"partial/{name}"))

    def drop_partial(self, name: str) -> None:
        """Remove the arrays of `save_partial`, if there are any: the cells are finished."""
        self.partial_path(name).unlink(missing_ok=True)

    def partial_path(self, name: str) -> Path:
        """Where cells in training are stored under the name they share."""
        return self.folder / "partial" / f"{name}.npz"

    def results(self) -> Results:
        """All finished cells, read from the folder."""
        return _load_results(self.folder, self.task, self.settings)

    def write_runs(self, results: Mapping[Cell, CellResult]) -> None:
        """Write ``runs.csv``, one row for each trained network.

        Args:
            results: by cell; rows are in the task's order.

        Raises:
            OSError: if it cannot be written.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        data, error = self.task.columns
        description = ("task", "network", "size", "parameters", data, "run", "seed", "learning_rate", "epochs")
        rows.writerow((*description, error, "diverged"))
        for cell in self.task.cells():
            if cell not in results:
                continue
            result = results[cell]
            for run in range(self.task.runs):
                network = [self.task.name, cell.network, cell.size, int(result.parameters), cell.data]
                training = [run, self.task.seed, repr(cell.learning_rate), int(result.epochs[run])]
                rows.writerow([*network, *training, f"{result.error[run]:.9g}", int(result.diverged[run])])
        write_text(self.folder / "runs.csv", text.getvalue())


@contextlib.contextmanager
def claim(folder: str | Path, task: Task) -> Iterator[Store]:
    """The results folder of a task, for one sweep alone until the block ends. Others may read it.

    What killed sweeps left half-written is removed.

    Raises:
        ValueError: if another sweep has the folder, or it does not fit the task; then nothing in it was touched.
        OSError: if it cannot be written.
        ImportError: if filelock is not installed; it is in the extra ``[experiments]``.
    """
    folder = Path(folder)
    agreed_config(folder, task)
    check_files(folder, WRITTEN)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(claimed(folder))
        except ValueError as error:
            raise FolderError(str(error)) from None
        remove_abandoned(folder, WRITTEN)
        yield Store(folder, task)


def open_results(folder: str | Path) -> Results:
    """The finished cells in a results folder.

    Raises:
        ValueError: if the folder holds no results, or its ``config.json`` cannot be read.

    Example:
        >>> results = open_results("results/generation")
        >>> [(cell.name, result.error.shape) for cell, result in results.cells.items()]
        [('cwrnn-100-choir-0.0003', (2,))]
    """
    folder = Path(folder)
    settings = read_config(folder)["settings"]
    kind = TASKS.get(settings["task"])
    if kind is None:
        raise FolderError(f"{folder} holds results of an unknown task, {shown(settings['task'])}")
    try:
        task = kind.from_settings(settings)
    except ValueError as error:
        raise FolderError(f"{folder / 'config.json'} is not the configuration of a results folder: {error}") from None
    return _load_results(folder, task, settings)


def _load_results(folder: Path, task: Task, settings: dict[str, Any]) -> Results:
    loaded = {cell: _load_cell(folder, cell, task, settings) for cell in task.cells()}
    return Results(task, {cell: result for cell, result in loaded.items() if result is not None})


def _load_cell(folder: Path, cell: Cell, task: Task, settings: dict[str, Any]) -> CellResult | None:
    """A stored cell, or None if it is not there, damaged or not what it should be; then a warning names it."""
    path = cell_path(folder, cell)
    arrays = read_arrays(path, place_of(settings, f"cells/{cell.name}"))
    if arrays is None:
        return None
    if wrong := _wrong(arrays, task):
        warnings.warn(f"{path} is not a result of this task ({wrong}) and counts as not there", stacklevel=2)
        return None
    fields: dict[str, Any] = {"data": {}, "best": {}}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        if key:
            fields[field][key] = array
        else:
            fields[field] = array
    return CellResult(**fields)


def _wrong(arrays: dict[str, np.ndarray], task: Task) -> str:
    """Why these are not the arrays of a cell, in words; empty if they are."""
    for name, array in arrays.items():
        if name not in ARRAYS and not name.startswith(("data/", "best/")):
            return f"{name} is unknown"
        if name.startswith("best/") and array.dtype.kind != "f":
            return f"{name} holds {array.dtype}"
    if not any(name.startswith("best/") for name in arrays):
        return "best is missing"
    wanted = {**ARRAYS, **getattr(task, "recorded", {})}
    if wrong := mismatch(arrays, wanted, {"R": task.runs}):
        return wrong
    moments = arrays["curve_epochs"].astype(np.int64)
    if not moments.size or moments[0] != 0 or (np.diff(moments) <= 0).any():
        return "curve_epochs do not ascend from 0"
    if (np.isfinite(arrays["error"]) == arrays["diverged"]).any():
        return "error is not finite exactly where a run has not diverged"
    if ((arrays["epochs"] < 0) | (arrays["epochs"] > task.epochs)).any():
        return f"epochs are not from 0 to {task.epochs}"
    return ""


def cell_path(folder: str | Path, cell: Cell) -> Path:
    """Where a finished cell is stored."""
    return Path(folder) / "cells" / f"{cell.name}.npz"

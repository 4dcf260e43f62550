"""Results on disk: a file for each finished cell, whole or not at all.

A folder holds ``config.json``, ``cells/NAME.npz`` for each finished cell, ``runs.csv`` with one
row for each trained network, and, while a sweep is under way, ``partial/NAME.npz``. Everything is
written beside its place, flushed, and renamed into it.
"""

import csv
import hashlib
import io
import json
import platform
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import clockwork
from clockwork.files import TEMPORARY, write_text, write_whole
from clockwork.tasks import TASKS, Cell, Task


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
        config = self.folder / "config.json"
        document = {
            "settings": {"task": task.name, **task.settings()},
            "environment": environment(),
            "continued_in": [],
        }
        document = json.loads(json.dumps(document))
        if config.exists():
            stored = read_config(self.folder)
            _check_same(self.folder, stored["settings"], document["settings"])
            known = [stored.get("environment"), *stored.get("continued_in", [])]
            if document["environment"] not in known:
                warnings.warn(f"{self.folder} was begun {_difference(known[0], document['environment'])}", stacklevel=2)
                known.append(document["environment"])
            document = {**stored, "continued_in": known[1:]}
        elif self.folder.is_dir() and any(not path.name.startswith(TEMPORARY) for path in self.folder.iterdir()):
            raise ValueError(f"{self.folder} is not empty and holds no config.json; choose another folder")
        # The configuration first: a folder that a killed sweep leaves behind is always known for what it is. And a
        # folder that can be read but not written is better refused now than after an hour.
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(config, json.dumps(document, indent=1) + "\n")
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
        write_arrays(_cell_path(self.folder, cell), arrays)

    def save_partial(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store cells in training under the name they share, as ``partial/NAME.npz``.

        Args:
            name: of network and size, such as ``"cwrnn-1000"``.
            arrays: all that is needed to go on, by name.

        Raises:
            OSError: if it cannot be written.
        """
        write_arrays(self.folder / "partial" / f"{name}.npz", arrays)

    def load_partial(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of `save_partial`; None if there are none, or the file is damaged, and then a warning names it."""
        return read_arrays(self.folder / "partial" / f"{name}.npz")

    def drop_partial(self, name: str) -> None:
        """Remove the arrays of `save_partial`, if there are any: the cells are finished."""
        (self.folder / "partial" / f"{name}.npz").unlink(missing_ok=True)

    def results(self) -> Results:
        """All finished cells, read from the folder."""
        return _load_results(self.folder, self.task)

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


def open_results(folder: str | Path) -> Results:
    """The finished cells in a results folder.

    Raises:
        ValueError: if the folder holds no results, or its ``config.json`` cannot be read.

    Example:
        >>> results = open_results("results/generation")
        >>> [(cell.name, result.error.shape) for cell, result in results.cells.items()]
        [('cwrnn-100-choir-0.0003', (2,))]
    """
    settings = read_config(Path(folder))["settings"]
    task = TASKS.get(settings.get("task", ""))
    if task is None:
        raise ValueError(f"{folder} holds results of an unknown task, {settings.get('task')!r}")
    return _load_results(Path(folder), task.from_settings(settings))


def _load_results(folder: Path, task: Task) -> Results:
    loaded = {cell: _load_cell(_cell_path(folder, cell), task) for cell in task.cells()}
    return Results(task, {cell: result for cell, result in loaded.items() if result is not None})


def _load_cell(path: Path, task: Task) -> CellResult | None:
    """A stored cell, or None if it is not there or damaged; then a warning names it."""
    arrays = read_arrays(path)
    if arrays is None:
        return None
    fields: dict[str, Any] = {"data": {}, "best": {}}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        if key:
            fields.setdefault(field, {})[key] = array
        else:
            fields[field] = array
    if set(fields) != set(CellResult._fields) or fields["error"].shape != (task.runs,):
        warnings.warn(f"{path} is not a result of this task and counts as not there", stacklevel=2)
        return None
    return CellResult(**fields)


def _cell_path(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.npz"


def read_config(folder: Path) -> dict[str, Any]:
    """The stored configuration of a results folder.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no results: there is no {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise ValueError(f"{path} is not the configuration of a results folder")
    return config


def _check_same(folder: Path, stored: dict, asked: dict) -> None:
    # Sound files may have moved: the digest of what is learnt is among the settings. And what data and test speakers
    # are is too, so that a folder of a version which did not know these names can be gone on with.
    skipped = {"audio", "data_folder", "sounds"} | ({"data", "per_word", "test_per_word"} - set(stored))
    differ = [name for name in asked if stored.get(name) != asked[name] and name not in skipped]
    if differ:
        name = differ[0]
        if name == "data":
            raise ValueError(
                f"{folder} holds results for {stored[name]}, not for {asked[name]}; choose another by --out"
            )
        raise ValueError(
            f"{folder} holds results of another configuration ({name} is {stored.get(name)!r} there, "
            f"{asked[name]!r} here); choose another folder"
        )


def _difference(begun: object, now: dict) -> str:
    begun = begun if isinstance(begun, dict) else {}
    differ = [f"{name} {begun.get(name)} (now {now[name]})" for name in now if begun.get(name) != now[name]]
    return f"with {', '.join(differ)}: the last digits of what is trained now may depend on it"


def environment() -> dict[str, Any]:
    """Versions and devices: what else the last digits of a result depend on."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    devices = jax.devices()
    return {
        "clockwork": clockwork.__version__,
        **versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in devices],
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays, whole or not at all, with a digest over all of them."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    digest: Any = np.array(_digest(arrays))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, digest=digest, **arrays)
    write_whole(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Named arrays; None if the file is not there or damaged, and then a warning names it."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if _digest({k: v for k, v in arrays.items() if k != "digest"}) != str(arrays.pop("digest")):
            raise ValueError("its digest does not match")
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever NumPy and zipfile make of damaged bytes
        warnings.warn(f"{path} is damaged ({error}) and counts as not there", stacklevel=3)
        return None
    return arrays


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

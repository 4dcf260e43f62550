"""Writing results: a file for each finished condition, whole or not at all.

A folder holds ``config.json``, ``conditions/NAME.npz`` for each finished condition, ``runs.csv`` with one
row for each trained network, and, while a sweep is under way, files in ``partial``. Everything is written
beside its place, flushed, and renamed into it.
"""

import contextlib
import csv
import importlib.util
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.files import claimed, remove_abandoned, replacing, write_text
from clockwork.training.arrays import read_arrays, write_arrays
from clockwork.training.blocks import Part
from clockwork.training.config import FolderError, agreed_config, check_files, place_of
from clockwork.training.results import (
    ConditionResult,
    Results,
    checked_result,
    condition_path,
    flat_result,
    load_results,
)
from clockwork.training.task import Condition, Task

WRITTEN = (".npz", ".json", ".csv", ".parquet")  # what a sweep alone writes


class States:
    """What a results folder holds of groups that are not finished: runs in training, and trained blocks of runs.

    Args:
        folder: the results folder.
        settings: of its ``config.json``.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder / "partial", settings

    def name(self, label: str, runs: range, total: int) -> str:
        """The name that runs of a group are stored under while they train: the group's if they are all."""
        return label if len(runs) == total else f"{label}.{runs.start}-{runs.stop}"

    def path(self, name: str) -> Path:
        """Where it is stored."""
        return self.folder / f"{name}.npz"

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store runs in training: all arrays that are needed to go on, by name.

        Raises:
            OSError: if they cannot be written.
        """
        write_arrays(self.path(name), arrays, place_of(self.settings, f"partial/{name}"))

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of `save`; None if there are none, or the file is damaged, and then a warning names it."""
        return read_arrays(self.path(name), place_of(self.settings, f"partial/{name}"))

    def save_part(self, label: str, part: Part) -> None:
        """Store a trained block of a group.

        Raises:
            OSError: if it cannot be written.
        """
        arrays = {}
        for number, (condition, result) in enumerate(part.results.items()):
            own = {**flat_result(result), "latest": part.latest[condition]}
            arrays |= {f"{number}/{name}": array for name, array in own.items()}
        self.save(_trained(label, part.runs), arrays)

    def load_part(self, label: str, runs: range, task: Task, conditions: Sequence[Condition]) -> Part | None:
        """A trained block; None if it is missing or, with a warning, if it is damaged or has an unexpected form."""
        name = _trained(label, runs)
        arrays = self.load(name)
        if arrays is None:
            return None
        results, latest = {}, {}
        for number, condition in enumerate(conditions):
            prefix = f"{number}/"
            own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            latest[condition] = own.pop("latest", np.zeros(0))
            found = checked_result(self.path(name), own, task, runs)
            if found is None:
                return None
            if latest[condition].shape != found.curve.shape[1:]:
                warnings.warn(f"{self.path(name)} holds no latest errors and counts as not there", stacklevel=2)
                return None
            results[condition] = found
        return Part(runs, results, latest)

    def parts(self, label: str, blocks: Sequence[range], task: Task, conditions: Sequence[Condition]) -> list[Part]:
        """All blocks of a group, which are trained.

        Raises:
            OSError: if one of them cannot be read any more.
        """
        found = [self.load_part(label, runs, task, conditions) for runs in blocks]
        if lost := [runs for runs, part in zip(blocks, found, strict=True) if part is None]:
            raise OSError(f"{self.path(label)}: the stored runs {lost[0].start} to {lost[0].stop - 1} cannot be read")
        return [part for part in found if part is not None]

    def blocks(self, label: str, total: int) -> tuple[list[range], list[range]]:
        """The blocks of a group of which runs in training are stored, and those that are trained."""
        training, trained = [], []
        for _, runs, done in partial_files(self.folder, label, total):
            (trained if done else training).append(runs)
        return training, trained

    def drop(self, label: str, total: int) -> None:
        """Remove all that is stored of a group: it is finished."""
        for path, _, _ in partial_files(self.folder, label, total):
            path.unlink(missing_ok=True)


def _trained(label: str, runs: range) -> str:
    """The name that a trained block is stored under."""
    return f"{label}.{runs.start}-{runs.stop}.trained"


def partial_files(folder: Path, label: str, total: int) -> list[tuple[Path, range, bool]]:
    """The files of a group in the folder ``partial``: each with its runs, and whether these are trained."""
    form = re.compile(re.escape(label) + r"(?:\.(\d+)-(\d+))?(\.trained)?\.npz")
    found = []
    for path in sorted(folder.glob("*.npz")):
        if match := form.fullmatch(path.name):
            runs = range(int(match[1]), int(match[2])) if match[1] else range(total)
            found.append((path, runs, bool(match[3])))
    return found


class Store:
    """The results folder of one task. A sweep writes it; ``Store(folder, task).results()`` reads it.

    Every file is written atomically, so the folder can be read at any time. A damaged file is ignored with a warning
    that names it.

    Args:
        folder: created if it does not exist.
        task: the task whose results the folder holds.

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
        ...     len(store.results().conditions)
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
        (self.folder / "conditions").mkdir(exist_ok=True)
        (self.folder / "partial").mkdir(exist_ok=True)
        self.states = States(self.folder, self.settings)

    def save(self, condition: Condition, result: ConditionResult) -> None:
        """Store a finished condition, as ``conditions/NAME.npz``.

        Args:
            condition: one of the task's.
            result: of all its runs.

        Raises:
            OSError: if it cannot be written.
        """
        place = place_of(self.settings, f"conditions/{condition.name}")
        write_arrays(condition_path(self.folder, condition), flat_result(result), place)

    def results(self) -> Results:
        """All finished conditions, read from the folder."""
        return load_results(self.folder, self.task, self.settings)

    def write_runs(self, results: Mapping[Condition, ConditionResult]) -> None:
        """Write ``runs.csv``, one row for each trained network, and ``runs.parquet`` if pyarrow is installed.

        Args:
            results: by condition; rows are in the task's order.

        Raises:
            OSError: if it cannot be written.
        """
        found = Results(self.task, {c: results[c] for c in self.task.conditions() if c in results})
        columns = found.columns
        with replacing(self.folder / "runs.csv") as whole, whole.open("wb") as file:
            text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
            lines = csv.writer(text, lineterminator="\n")
            lines.writerow(columns)
            lines.writerows([_written(row[column]) for column in columns] for row in found.rows())
            text.flush()
            text.detach()
        if results and importlib.util.find_spec("pyarrow") is not None:
            arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
            # An open file: pyarrow takes no names that are not UTF-8.
            with replacing(self.folder / "runs.parquet") as whole, whole.open("wb") as file:
                parquet.write_table(arrow.table(found.table()), file)


def _written(value: Any) -> str:
    """The text of a value in ``runs.csv``."""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)


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

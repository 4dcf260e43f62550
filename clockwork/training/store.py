"""Writing results: a file for each finished condition, whole or not at all.

A folder holds ``config.json``, ``conditions/NAME.npz`` for each finished condition, ``runs.csv`` with one
row for each trained network, and, while a sweep is under way, ``partial/NAME.npz``. Everything is
written beside its place, flushed, and renamed into it.
"""

import contextlib
import csv
import importlib.util
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.files import claimed, remove_abandoned, replacing, write_text
from clockwork.training.arrays import read_arrays, write_arrays
from clockwork.training.config import FolderError, agreed_config, check_files, place_of
from clockwork.training.results import ConditionResult, Results, condition_path, load_results
from clockwork.training.task import Condition, Task

WRITTEN = (".npz", ".json", ".csv", ".parquet")  # what a sweep alone writes


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

    def save(self, condition: Condition, result: ConditionResult) -> None:
        """Store a finished condition, as ``conditions/NAME.npz``.

        Args:
            condition: one of the task's.
            result: of all its runs.

        Raises:
            OSError: if it cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        for field, value in result._asdict().items():
            arrays |= {f"{field}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {field: value}
        write_arrays(
            condition_path(self.folder, condition), arrays, place_of(self.settings, f"conditions/{condition.name}")
        )

    def save_partial(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store conditions in training under the name they share, as ``partial/NAME.npz``.

        Args:
            name: of the group, such as ``"cwrnn-1000"``.
            arrays: all that is needed to go on, by name.

        Raises:
            OSError: if it cannot be written.
        """
        write_arrays(self.partial_path(name), arrays, place_of(self.settings, f"partial/{name}"))

    def load_partial(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of `save_partial`; None if there are none, or the file is damaged, and then a warning names it."""
        return read_arrays(self.partial_path(name), place_of(self.settings, f"partial/{name}"))

    def drop_partial(self, name: str) -> None:
        """Remove the arrays of `save_partial`, if there are any: the conditions are finished."""
        self.partial_path(name).unlink(missing_ok=True)

    def partial_path(self, name: str) -> Path:
        """Where conditions in training are stored under the name they share."""
        return self.folder / "partial" / f"{name}.npz"

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
        columns, rows = found.columns, list(found.rows())
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([_written(row[column]) for column in columns] for row in rows)
        write_text(self.folder / "runs.csv", text.getvalue())
        if rows and importlib.util.find_spec("pyarrow") is not None:
            arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
            table = arrow.table({column: [row[column] for row in rows] for column in columns})
            # An open file: pyarrow takes no names that are not UTF-8.
            with replacing(self.folder / "runs.parquet") as whole, whole.open("wb") as file:
                parquet.write_table(table, file)


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

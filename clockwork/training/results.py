"""The results of a sweep, as arrays, rows and tables."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clockwork.optional import require
from clockwork.training.arrays import mismatch, read_arrays
from clockwork.training.config import place_of, read_config, stored_task
from clockwork.training.model import key_kinds, split, unnamed, with_keys, without_keys
from clockwork.training.task import Condition, Task

# The arrays of a condition: kinds of dtype and axes, as of `mismatch`. A task adds its own as `recorded`.
ARRAYS = {
    "error": ("f", "R"),
    "epochs": ("iu", "R"),
    "diverged": ("b", "R"),
    "curve": ("f", "P R ..."),
    "curve_epochs": ("iu", "P"),
    "kept": ("iu", "K"),
    "outputs": ("fiub", "K ..."),
    "num_parameters": ("iu", ""),
}


class ConditionResult(NamedTuple):
    """The results of a condition's ``R`` runs.

    Attributes:
        error: ``(R,)``, float32, of the trained networks; NaN for a run that diverged.
        epochs: ``(R,)``, int32, the number of epochs of each run; fewer than asked if it stopped early or diverged.
        diverged: ``(R,)``, bool, whether the loss or the gradient norm ever became non-finite.
        curve: ``(P, R, ...)``, float32, the errors at ``P`` points of the training.
        curve_epochs: ``(P,)``, int64, the number of epochs before each of these points.
        kept: ``(K,)``, int64, the numbers of the runs whose outputs are stored, ascending; see `Task.kept_outputs`.
        outputs: ``(K, ...)``, the outputs of these runs' trained models; or a dictionary of such arrays.
        num_parameters: ``()``, integer, the number of parameters of one model.
        data: what the task recorded about the condition's data, by name.
        best: the parameters of the run with the lowest error, by name.
        state: the other arrays of that model, such as batch statistics, by name.

    Example:
        >>> (result,) = open_results("results/generation").conditions.values()
        >>> result.error.shape, result.outputs.shape, bool(result.diverged.any())
        ((2,), (2, 320), False)
    """

    error: np.ndarray
    epochs: np.ndarray
    diverged: np.ndarray
    curve: np.ndarray
    curve_epochs: np.ndarray
    kept: np.ndarray
    outputs: Any
    num_parameters: np.ndarray
    data: dict[str, np.ndarray]
    best: dict[str, np.ndarray]
    state: dict[str, np.ndarray]


class Results(NamedTuple):
    """The finished conditions of a task.

    Attributes:
        task: the task.
        conditions: the results of each finished condition, in the order of the table.

    Example:
        >>> results = open_results("results/generation")
        >>> results.task.runs, len(results.conditions)
        (2, 1)
    """

    task: Task
    conditions: dict[Condition, ConditionResult]

    @property
    def columns(self) -> list[str]:
        """The columns of ``runs.csv``. The columns for size and data are left out if no condition has one."""
        conditions = self.task.conditions()
        data, error = self.task.columns
        size = ["size"] * any(condition.size for condition in conditions)
        piece = [data] * any(condition.data for condition in conditions)
        named = dict.fromkeys(name for condition in conditions for name, _ in condition.hyperparameters)
        return ["task", "network", *size, "parameters", *piece, "run", "seed", *named, "epochs", error, "diverged"]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each run, by the `columns` of ``runs.csv``.

        Example:
            >>> next(open_results("results/generation").rows())["network"]
            'cwrnn'
        """
        columns = self.columns
        for condition in self.conditions:
            table = self._table(condition)
            for values in zip(*(table[column].tolist() for column in columns), strict=True):
                yield dict(zip(columns, values, strict=True))

    def table(self) -> dict[str, np.ndarray]:
        """The columns of ``runs.csv``: an array ``(n,)`` each, a value for each run; empty without results.

        Example:
            >>> open_results("results/generation").table()["run"]
            array([0, 1])
        """
        tables = [self._table(condition) for condition in self.conditions]
        return {column: np.concatenate([t[column] for t in tables]) for column in self.columns} if tables else {}

    def _table(self, condition: Condition) -> dict[str, np.ndarray]:
        """The columns of one condition's runs."""
        result, (data, error) = self.conditions[condition], self.task.columns
        values = {
            "task": self.task.name,
            "network": condition.network,
            "size": condition.size,
            "parameters": int(result.num_parameters),
            data: condition.data,
            "run": np.arange(self.task.runs),
            "seed": self.task.seed,
            **dict(condition.hyperparameters),
            "epochs": result.epochs.astype(np.int64),
            error: result.error.astype(np.float64),
            "diverged": result.diverged,
        }
        return {column: np.broadcast_to(values.get(column, np.nan), self.task.runs) for column in self.columns}

    def trained(self, condition: Condition) -> Any:
        """The model of the run with the lowest error of a condition: an nnx module in evaluation mode, or parameters.

        Args:
            condition: one of ``conditions``.

        Raises:
            KeyError: if the condition is not finished.
            ValueError: if the task was read from a folder and has no functions to make a model: put the results
                together with the task, ``Results(task, results.conditions)``.

        Example:
            >>> results = open_results("results/generation")
            >>> network = results.trained(next(iter(results.conditions)))
            >>> network(steps=320).shape
            (320, 1)
        """
        result = self.conditions[condition]
        hyperparameters = {name: jnp.float32(value) for name, value in condition.hyperparameters}
        model = self.task.model(condition.network, condition.size, nnx.Rngs(0), hyperparameters)
        structure, params, rest = split(model)
        state = with_keys(unnamed(without_keys(rest), result.state), key_kinds(rest))
        trained = structure.merge(unnamed(params, result.best), state)
        if isinstance(trained, nnx.Module):
            trained.eval()
        return trained

    def to_dataframe(self) -> Any:
        """The rows of ``runs.csv`` as a ``pandas.DataFrame``, one for each run.

        Raises:
            ImportError: if pandas is not installed; it is in the extra ``[frames]``.

        Example:
            >>> frame = open_results("results/generation").to_dataframe()
            >>> frame.groupby("network")["nmse"].count().to_dict()
            {'cwrnn': 2}
        """
        return require("pandas", "frames").DataFrame(self.table())

    def to_xarray(self) -> Any:
        """All figures as an ``xarray.Dataset`` over the dimensions ``condition``, ``run`` and ``epoch``.

        Variables are ``error``, ``epochs`` and ``diverged``, ``(condition, run)``, and ``curve``,
        ``(condition, epoch, run, ...)``, NaN at epochs that a condition has no errors of. Network, size, data and
        hyper-parameters are coordinates of ``condition``.

        Raises:
            ImportError: if xarray is not installed; it is in the extra ``[frames]``.

        Example:
            >>> data = open_results("results/generation").to_xarray()
            >>> dict(data["error"].sizes)
            {'condition': 1, 'run': 2}
        """
        xarray = require("xarray", "frames")
        conditions, results = list(self.conditions), list(self.conditions.values())
        epochs = np.unique(np.concatenate([np.zeros(0, np.int64), *(result.curve_epochs for result in results)]))
        curves = []
        for result in results:
            curve = np.full((len(epochs), *result.curve.shape[1:]), np.nan, result.curve.dtype)
            curve[np.searchsorted(epochs, result.curve_epochs)] = result.curve
            curves.append(curve)
        hyperparameters = dict.fromkeys(name for condition in conditions for name, _ in condition.hyperparameters)
        coordinates = {
            "condition": [condition.name for condition in conditions],
            "network": ("condition", [condition.network for condition in conditions]),
            "size": ("condition", [condition.size for condition in conditions]),
            self.task.columns[0]: ("condition", [condition.data for condition in conditions]),
            "parameters": ("condition", [int(result.num_parameters) for result in results]),
            **{
                name: ("condition", [dict(condition.hyperparameters).get(name, np.nan) for condition in conditions])
                for name in hyperparameters
            },
            "run": np.arange(self.task.runs),
            "epoch": epochs,
        }
        if not results:
            return xarray.Dataset(coords=coordinates)
        more = [f"error_{i}" for i in range(curves[0].ndim - 2)]
        variables = {
            **{
                name: (("condition", "run"), np.stack([getattr(result, name) for result in results]))
                for name in ("error", "epochs", "diverged")
            },
            "curve": (("condition", "epoch", "run", *more), np.stack(curves)),
        }
        return xarray.Dataset(variables, coordinates, {"task": self.task.name, "seed": self.task.seed})


def watched_errors(task: Task, errors: np.ndarray) -> np.ndarray:
    """The errors that decide about early stopping, ``(R,)``, from the errors ``(R, ...)`` of several runs."""
    return np.asarray(jax.vmap(task.watched)(jnp.asarray(errors)))


def open_results(folder: str | Path) -> Results:
    """The finished conditions in a results folder.

    Raises:
        ValueError: if the folder holds no results, or its ``config.json`` cannot be read.

    Example:
        >>> results = open_results("results/generation")
        >>> [(condition.name, result.error.shape) for condition, result in results.conditions.items()]
        [('cwrnn-100-choir-0.0003', (2,))]
    """
    folder = Path(folder)
    config = read_config(folder)
    return load_results(folder, stored_task(folder, config), config["settings"])


def load_results(folder: Path, task: Task, settings: dict[str, Any]) -> Results:
    """All finished conditions of a task, read from its folder."""
    loaded = {condition: _load_condition(folder, condition, task, settings) for condition in task.conditions()}
    return Results(task, {condition: result for condition, result in loaded.items() if result is not None})


def _load_condition(folder: Path, condition: Condition, task: Task, settings: dict[str, Any]) -> ConditionResult | None:
    """A stored condition; None if it is missing or, with a warning, if it is damaged or has an unexpected form."""
    path = condition_path(folder, condition)
    arrays = read_arrays(path, place_of(settings, f"conditions/{condition.name}"))
    return None if arrays is None else checked_result(path, arrays, task, range(task.runs))


def flat_result(result: ConditionResult) -> dict[str, np.ndarray]:
    """The arrays of a condition by the names that they are stored under."""
    arrays: dict[str, np.ndarray] = {}
    for field, value in result._asdict().items():
        arrays |= {f"{field}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {field: value}
    return arrays


def checked_result(path: Path, arrays: dict[str, np.ndarray], task: Task, runs: range) -> ConditionResult | None:
    """The condition that arrays hold, of these runs; None, with a warning that names the file, if they hold none."""
    if wrong := _wrong(arrays, task, runs):
        warnings.warn(f"{path} is not a result of this task ({wrong}) and counts as not there", stacklevel=3)
        return None
    fields: dict[str, Any] = {"data": {}, "best": {}, "state": {}}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        if "/" in name:
            fields.setdefault(field, {})[key] = array
        else:
            fields[field] = array
    return ConditionResult(**fields)


def _wrong(arrays: dict[str, np.ndarray], task: Task, runs: range) -> str:
    """Why these are not the arrays of a condition's runs, in words; empty if they are."""
    for name, array in arrays.items():
        if name not in ARRAYS and not name.startswith(("data/", "best/", "state/", "outputs/")):
            return f"{name} is unknown"
        if name.startswith("best/") and array.dtype.kind != "f":
            return f"{name} holds {array.dtype}"
    if not any(name.startswith("best/") for name in arrays):
        return "best is missing"
    wanted = {**ARRAYS, **task.recorded}
    several = {name: ARRAYS["outputs"] for name in arrays if name.startswith("outputs/")}
    if several:
        del wanted["outputs"]
        wanted = {**several, **wanted}
    if wrong := mismatch(arrays, wanted, {"R": len(runs)}):
        return wrong
    if ((arrays["kept"] < runs.start) | (arrays["kept"] >= runs.stop)).any():
        return f"kept holds values that are not from {runs.start} to {runs.stop - 1}"
    moments = arrays["curve_epochs"].astype(np.int64)
    if not moments.size or moments[0] != 0 or (np.diff(moments) <= 0).any():
        return "curve_epochs do not ascend from 0"
    if (np.isfinite(arrays["error"]) == arrays["diverged"]).any():
        return "error is not finite exactly where a run has not diverged"
    if ((arrays["epochs"] < 0) | (arrays["epochs"] > task.epochs)).any():
        return f"epochs are not from 0 to {task.epochs}"
    return ""


def condition_path(folder: str | Path, condition: Condition) -> Path:
    """Where a finished condition is stored."""
    return Path(folder) / "conditions" / f"{condition.name}.npz"

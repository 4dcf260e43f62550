"""Which stored runs go into a row of a table, a box or a panel."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from clockwork.training import Condition, ConditionResult, Results
from clockwork.training.results import watched_errors

Hyperparameters = tuple[tuple[str, float], ...]


class Row(NamedTuple):
    """All runs of one network and size with the same hyper-parameters, over all pieces of data together.

    Attributes:
        network: its name.
        size: the nominal number of parameters; 0 where networks have one size.
        hyperparameters: pairs of a name and a value.
        conditions: the finished ones, by piece of data.
    """

    network: str
    size: int
    hyperparameters: Hyperparameters
    conditions: dict[str, ConditionResult]

    @property
    def learning_rate(self) -> float:
        """The learning rate; NaN if there is none."""
        return dict(self.hyperparameters).get("learning_rate", float("nan"))

    @property
    def error(self) -> np.ndarray:
        """The errors of all runs, NaN for those that diverged."""
        return np.concatenate([result.error for result in self.conditions.values()]).astype(np.float64)

    @property
    def converged(self) -> np.ndarray:
        """The errors of the runs that did not diverge."""
        return self.error[~self.diverged]

    @property
    def diverged(self) -> np.ndarray:
        """Which runs diverged."""
        return np.concatenate([result.diverged for result in self.conditions.values()])

    @property
    def epochs(self) -> np.ndarray:
        """The number of epochs of each run."""
        return np.concatenate([result.epochs for result in self.conditions.values()])

    @property
    def ends(self) -> np.ndarray:
        """The last errors of the learning curves of the runs that did not diverge, ``(R, ...)``."""
        return np.concatenate([result.curve[-1] for result in self.conditions.values()])[~self.diverged]

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Epochs ``(P,)``, and at each the errors ``(P, R, ...)`` of the runs that did not diverge.

        A piece of data whose runs all stopped earlier than another's goes on with its last errors.
        """
        epochs = np.unique(np.concatenate([result.curve_epochs for result in self.conditions.values()]))
        held = [r.curve[np.searchsorted(r.curve_epochs, epochs, "right") - 1] for r in self.conditions.values()]
        return epochs, np.concatenate(held, axis=1)[:, ~self.diverged]


def networks(results: Results, order: Iterable[str] = ()) -> list[str]:
    """The networks with a finished condition: first those in ``order``, then the others in the task's order."""
    present = list(dict.fromkeys(condition.network for condition in results.conditions))
    first = [name for name in order if name in present]
    return first + [name for name in present if name not in first]


def rows(results: Results) -> list[Row]:
    """One row for each network, size and choice of hyper-parameters, in the order of the task."""
    grouped: dict[tuple[str, int, Hyperparameters], dict[str, ConditionResult]] = {}
    for condition, result in results.conditions.items():
        grouped.setdefault((condition.network, condition.size, condition.hyperparameters), {})[condition.data] = result
    return [Row(*key, conditions) for key, conditions in grouped.items()]


def searched(results: Results) -> list[str]:
    """The hyper-parameters that were searched: those with several values for one network and size."""
    values: dict[tuple[str, int, str], set[float]] = {}
    for condition in results.task.conditions():
        for name, value in condition.hyperparameters:
            values.setdefault((condition.network, condition.size, name), set()).add(value)
    return list(dict.fromkeys(name for (_, _, name), found in values.items() if len(found) > 1))


def watched_end(results: Results, row: Row) -> float:
    """The mean of the error that stops a run (`clockwork.training.Task.watched`) at the end of the training.

    It is over the runs that did not diverge; infinite if all did.
    """
    ends = row.ends
    found = float(np.mean(watched_errors(results.task, ends), dtype=float)) if len(ends) else float("inf")
    return float("inf") if np.isnan(found) else found


def best_rows(results: Results) -> dict[tuple[str, int], Row]:
    """For each network and size, the row of the best hyper-parameters: those with the lowest `watched_end`.

    Nothing is chosen on a test set, unless the task watches one.
    """
    grouped: dict[tuple[str, int], list[Row]] = {}
    for row in rows(results):
        grouped.setdefault((row.network, row.size), []).append(row)
    return {key: min(found, key=lambda row: watched_end(results, row)) for key, found in grouped.items()}


def largest_rows(results: Results, order: Iterable[str] = ()) -> list[Row]:
    """For each network, in the order of `networks`, its best row at its largest size."""
    best = best_rows(results)
    return [best[name, max(size for network, size in best if network == name)] for name in networks(results, order)]


def best_kept(result: ConditionResult) -> int:
    """The index of the run with the lowest error among the runs whose outputs are stored."""
    return int(np.flatnonzero(result.kept == np.nanargmin(result.error))[0])


def best_condition(results: Results) -> Condition:
    """The finished condition with the lowest `watched_end`.

    Nothing is chosen on a test set, unless the task watches one.

    Raises:
        ValueError: if none is finished, or all runs diverged.
    """
    finished = [condition for condition, result in results.conditions.items() if not result.diverged.all()]
    if not finished:
        raise ValueError("no trained network is stored there yet")
    rows = {c: Row(c.network, c.size, c.hyperparameters, {c.data: results.conditions[c]}) for c in finished}
    return min(finished, key=lambda condition: watched_end(results, rows[condition]))


def best_run(results: Results, network: str, data: str) -> tuple[Condition, np.ndarray, float] | None:
    """The best of all runs of a network on a piece of data: its condition, output and error; None if there is none."""
    candidates = [
        (float(np.nanmin(result.error)), condition)
        for condition, result in results.conditions.items()
        if (condition.network, condition.data) == (network, data) and not result.diverged.all()
    ]
    if not candidates:
        return None
    error, condition = min(candidates, key=lambda candidate: candidate[0])
    result = results.conditions[condition]
    return condition, result.outputs[best_kept(result)], error

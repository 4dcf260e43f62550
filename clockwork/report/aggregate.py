"""Which stored runs go into a row of a table, a box or a panel."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from clockwork.tasks.paper import LABELS
from clockwork.training import Condition, ConditionResult, Results


class Row(NamedTuple):
    """All runs of one network, size and learning rate, over all pieces of data together."""

    network: str
    size: int
    learning_rate: float
    conditions: dict[str, ConditionResult]  # by piece of data

    @property
    def error(self) -> np.ndarray:
        """Of all runs, NaN where one diverged."""
        return np.concatenate([result.error for result in self.conditions.values()]).astype(np.float64)

    @property
    def converged(self) -> np.ndarray:
        """The errors of the runs that did not diverge."""
        return self.error[~self.diverged]

    @property
    def diverged(self) -> np.ndarray:
        """Which runs diverged."""
        return np.concatenate([result.diverged for result in self.conditions.values()])

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Epochs ``(P,)``, and at each the errors ``(P, R, ...)`` of the runs that did not diverge.

        A piece of data whose runs all stopped earlier than another's goes on with its last errors.
        """
        epochs = np.unique(np.concatenate([result.curve_epochs for result in self.conditions.values()]))
        held = [r.curve[np.searchsorted(r.curve_epochs, epochs, "right") - 1] for r in self.conditions.values()]
        return epochs, np.concatenate(held, axis=1)[:, ~self.diverged]


def networks(results: Results) -> list[str]:
    """The networks that have a finished condition, in the order of `LABELS`."""
    present = {condition.network for condition in results.conditions}
    return [name for name in LABELS if name in present]


def notes(results: Results) -> list[str]:
    """What must be said with every figure of this data, such as that it is synthetic, as whole sentences."""
    found = [str(note) for result in results.conditions.values() for note in result.data.get("notes", ())]
    return [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in dict.fromkeys(found) if note]


def rows(results: Results) -> list[Row]:
    """One row for each network, size and learning rate, in the order of the task."""
    grouped: dict[tuple[str, int, float], dict[str, ConditionResult]] = {}
    for condition, result in results.conditions.items():
        grouped.setdefault((condition.network, condition.size, condition.learning_rate), {})[condition.data] = result
    return [Row(*key, conditions) for key, conditions in grouped.items()]


def best_rows(results: Results) -> dict[tuple[str, int], Row]:
    """By network and size, the row of the learning rate with the lowest mean training error.

    It is the error that stops a run (`clockwork.tasks.Task.watched`), at the end, of the runs that did not diverge:
    nothing is chosen on a test set.
    """

    def trained(row: Row) -> float:
        ends = np.concatenate([result.curve[-1] for result in row.conditions.values()])[~row.diverged]
        return float(np.mean(results.task.watched(jnp.asarray(ends.T)), dtype=float)) if len(ends) else float("inf")

    best: dict[tuple[str, int], Row] = {}
    for row in rows(results):
        key = (row.network, row.size)
        if key not in best or trained(row) < trained(best[key]):
            best[key] = row
    return best


def compared(results: Results, needed: str | None = None) -> tuple[int, dict[str, np.ndarray]]:
    """The errors of the runs that did not diverge, by network, at the largest size where networks can be compared.

    Args:
        results: of a sweep.
        needed: a network that must be among them.

    Returns:
        The size and the errors; size 0 and no errors if there is no size of which two networks or more are finished,
        each with a run that did not diverge.
    """
    best = best_rows(results)
    for size in sorted({size for _, size in best}, reverse=True):
        errors = {name: best[name, size].converged for name in LABELS if (name, size) in best}
        if len(errors) > 1 and (needed is None or needed in errors) and all(e.size for e in errors.values()):
            return size, errors
    return 0, {}


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
    return condition, result.outputs[np.nanargmin(result.error)], error

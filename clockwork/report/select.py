"""Which stored runs go into a row of a table, a box or a panel."""

from typing import NamedTuple

import numpy as np

from clockwork.tasks import Cell
from clockwork.training import CellResult, Results


class Row(NamedTuple):
    """All runs of one network, size and learning rate, over all pieces of data together."""

    network: str
    size: int
    learning_rate: float
    cells: dict[str, CellResult]  # by piece of data

    @property
    def error(self) -> np.ndarray:
        """Of all runs, NaN where one diverged."""
        return np.concatenate([result.error for result in self.cells.values()]).astype(np.float64)

    @property
    def converged(self) -> np.ndarray:
        """The errors of the runs that did not diverge."""
        return self.error[~self.diverged]

    @property
    def diverged(self) -> np.ndarray:
        """Which runs diverged."""
        return np.concatenate([result.diverged for result in self.cells.values()])


def rows(results: Results) -> list[Row]:
    """One row for each network, size and learning rate, in the order of the task."""
    grouped: dict[tuple[str, int, float], dict[str, CellResult]] = {}
    for cell, result in results.cells.items():
        grouped.setdefault((cell.network, cell.size, cell.learning_rate), {})[cell.data] = result
    return [Row(*key, cells) for key, cells in grouped.items()]


def best_rows(results: Results) -> dict[tuple[str, int], Row]:
    """By network and size, the row of the learning rate with the lowest mean error."""
    best: dict[tuple[str, int], Row] = {}
    for row in rows(results):
        key = (row.network, row.size)
        if key not in best or mean_error(row) < mean_error(best[key]):
            best[key] = row
    return best


def mean_error(row: Row) -> float:
    """The mean over the runs that did not diverge; infinite if all did."""
    return float(row.converged.mean()) if row.converged.size else float("inf")


def best_run(results: Results, network: str, data: str) -> tuple[Cell, np.ndarray, float] | None:
    """The best of all runs of a network on a piece of data: its cell, output and error; None if there is none."""
    candidates = [
        (float(np.nanmin(result.error)), cell)
        for cell, result in results.cells.items()
        if (cell.network, cell.data) == (network, data) and not result.diverged.all()
    ]
    if not candidates:
        return None
    error, cell = min(candidates, key=lambda candidate: candidate[0])
    result = results.cells[cell]
    return cell, result.outputs[np.nanargmin(result.error)], error

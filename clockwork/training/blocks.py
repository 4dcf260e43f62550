"""Blocks: runs in a row of each condition of a group, trained side by side; their results put together."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from clockwork.training.results import ConditionResult
from clockwork.training.task import Condition, Task


class Part(NamedTuple):
    """What comes out of a block of runs.

    Attributes:
        runs: their numbers.
        results: of each condition of the group, of these runs alone.
        latest: for each condition the errors ``(R, ...)`` before the last epoch, where a longer learning curve of the
            other blocks goes on.
    """

    runs: range
    results: dict[Condition, ConditionResult]
    latest: dict[Condition, np.ndarray]


def blocks_of(runs: int, size: int, stored: Iterable[range] = ()) -> list[range]:
    """The blocks into which the runs of a group are cut, in order.

    Args:
        runs: ``R``, of each condition.
        size: the largest number of runs of a new block.
        stored: blocks of which something is stored; they stay as they are, unless they overlap one before them.

    Example:
        >>> blocks_of(10, 4), blocks_of(10, 4, [range(2, 8)])
        ([range(0, 4), range(4, 7), range(7, 10)], [range(0, 2), range(2, 8), range(8, 10)])
    """
    taken: list[range] = []
    for block in stored:
        if block.stop <= runs and all(block.stop <= one.start or one.stop <= block.start for one in taken):
            taken.append(block)
    found: list[range] = []
    begin = 0
    for block in [*sorted(taken, key=lambda block: block.start), range(runs, runs)]:
        gap = block.start - begin
        pieces = -(-gap // size)
        edges = [begin + -(-gap * i // pieces) for i in range(pieces + 1)] if gap else []
        found += [range(a, b) for a, b in itertools.pairwise(edges)]
        found += [block] if block else []
        begin = block.stop
    return found


def merged(task: Task, parts: Sequence[Part]) -> dict[Condition, ConditionResult]:
    """The results of all runs, as if they had been trained in one block.

    Args:
        task: what was trained.
        parts: one after the other, of all runs.
    """
    if len(parts) == 1:
        return parts[0].results
    return {condition: _merged(task, parts, condition) for condition in parts[0].results}


def _merged(task: Task, parts: Sequence[Part], condition: Condition) -> ConditionResult:
    results = [part.results[condition] for part in parts]
    longest = max(results, key=lambda result: result.curve_epochs[-1])
    points = len(longest.curve_epochs)
    curves = [
        np.concatenate(
            [
                result.curve[:-1],
                np.repeat(part.latest[condition][None], points - len(result.curve_epochs), 0),
                result.curve[-1:],
            ]
        )
        for part, result in zip(parts, results, strict=True)
    ]
    error = np.concatenate([result.error for result in results])
    kept = np.concatenate([result.kept for result in results])
    outputs = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(result.outputs for result in results))
    if task.kept_outputs is not None:
        few = lowest_errors(error[kept][None], task.kept_outputs)[0]
        kept, outputs = kept[few], jax.tree.map(lambda leaf: leaf[few], outputs)
    lowest = [np.min(np.where(result.diverged, np.inf, result.error)) for result in results]
    best = results[int(np.argmin(lowest))]
    return ConditionResult(
        error=error,
        epochs=np.concatenate([result.epochs for result in results]),
        diverged=np.concatenate([result.diverged for result in results]),
        curve=np.concatenate(curves, 1),
        curve_epochs=longest.curve_epochs,
        kept=kept,
        outputs=outputs,
        num_parameters=best.num_parameters,
        data=best.data,
        best=best.best,
        state=best.state,
    )


def lowest_errors(errors: np.ndarray, most: int) -> np.ndarray:
    """The positions of the lowest errors of each condition, ascending, ``(C, K)``; NaN comes last."""
    return np.sort(np.argsort(errors, axis=1, kind="stable")[:, :most], axis=1)

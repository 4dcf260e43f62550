"""How far a sweep has come, told from another process."""

import time
from collections import Counter
from pathlib import Path

import numpy as np

from clockwork.checks import counted
from clockwork.files import LOCK
from clockwork.optional import require
from clockwork.training.config import read_config, stored_task
from clockwork.training.results import condition_path
from clockwork.training.store import partial_files
from clockwork.training.task import group_label


def status(folder: str | Path) -> str:
    """What is trained in a results folder, what is in training, and whether a sweep is at it now.

    Args:
        folder: a results folder. Nothing in it is changed.

    Raises:
        ValueError: if it holds no results, or its ``config.json`` cannot be read.
        ImportError: if filelock is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> print(status("results/generation"))
        results/generation: 2 of 2 networks trained (1 of 1 condition)
        no sweep is training here now
    """
    folder = Path(folder)
    task = stored_task(folder, read_config(folder))
    conditions = task.conditions()
    trained = sum(condition_path(folder, condition).exists() for condition in conditions)
    lines = [
        f"{folder}: {trained * task.runs:,} of {len(conditions) * task.runs:,} networks trained "
        f"({trained} of {counted(len(conditions), 'condition')})"
    ]
    for label, several in Counter(group_label(task, condition) for condition in conditions).items():
        lines += _group(folder / "partial", label, several, task.runs, task.epochs)
    running = _locked(folder)
    here = "a sweep is training here now" if running else "no sweep is training here now"
    if trained < len(conditions) and not running:
        here += "; the command that began it goes on"
    return "\n".join([*lines, here])


def _group(folder: Path, label: str, conditions: int, runs: int, epochs: int) -> list[str]:
    """A line for each block of a group that is in training, and one for all that are trained."""
    lines, trained = [], 0
    for path, block, done in partial_files(folder, label, runs):
        if done:
            trained += conditions * len(block)
        elif (found := _epochs(path)) is not None:
            which = f"runs {block.start:,} to {block.stop - 1:,} of " if len(block) < runs else ""
            lines.append(f"{which}{label}: stored after epoch {found[0]:,} of {epochs:,}, {_ago(found[1])}")
    if trained:
        lines.insert(0, f"{label}: {trained:,} of {conditions * runs:,} networks trained")
    return lines


def _epochs(path: Path) -> tuple[int, float] | None:
    """The epochs that the runs of a file have behind them, and when it was written; None if it cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return len(stored["errors"]), path.stat().st_mtime
    except Exception:  # whatever NumPy and zipfile make of damaged bytes; or it is not there any more
        return None


def _ago(moment: float) -> str:
    seconds = max(0, round(time.time() - moment))
    return f"{counted(seconds, 'second')} ago" if seconds < 120 else f"{counted(seconds // 60, 'minute')} ago"


def _locked(folder: Path) -> bool:
    """Whether a sweep holds the folder."""
    if not (folder / LOCK).exists():
        return False
    filelock = require("filelock")
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError) as error:
        return isinstance(error, filelock.Timeout)
    lock.release()
    return False

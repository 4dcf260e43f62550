"""Whether the runs of a sweep fit into memory, before any of them is trained."""

import contextlib
import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from clockwork.checks import ArgumentError
from clockwork.training.task import Condition, Task
from clockwork.training.train_state import Trainer

MIN_CHECKED = 1000  # runs side by side, up to which they are taken to fit


def check_memory(task: Task, groups: Iterable[tuple[str, list[Condition]]], devices: list[Any]) -> None:
    """Raise ``ArgumentError`` if the runs of a group certainly do not fit into the memory of the machine.

    Args:
        task: what is to be trained.
        groups: the label and conditions of each group that is to be trained.
        devices: where.
    """
    machine, accelerators = _machine(), _of_devices(devices)
    for label, conditions in groups:
        count = len(conditions) * task.runs
        if count <= MIN_CHECKED:
            continue
        host, device = (count * size for size in _run_bytes(task, conditions))
        demands = [(host + device, machine)] if accelerators is None else [(host, machine), (device, accelerators)]
        for needed, there in demands:
            if there is not None and needed > there:
                raise ArgumentError(
                    "runs",
                    f"must be fewer: {count} runs of {label} side by side need at least {_size(needed)} of memory, "
                    f"and there are {_size(there)}",
                )


def _run_bytes(task: Task, conditions: list[Condition]) -> tuple[int, int]:
    """A lower bound of the memory of one run: state, curve and outputs on the host, twice its state on its device."""
    data = task.data(conditions[0])
    trainer = Trainer(task, conditions[0])
    _, _, outputs, errors = jax.eval_shape(trainer.finish, trainer.abstract, data)
    epochs = task.epochs if task.patience is None else 1  # with patience a run may stop at any time
    kept = 0 if task.kept_outputs is not None else _bytes(outputs)
    return _bytes(trainer.abstract) + epochs * _bytes(errors) + kept, 2 * _bytes(trainer.abstract)


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _machine() -> int | None:
    """The machine's memory in bytes, None if it is not known."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _of_devices(devices: list[Any]) -> int | None:
    """The memory of all accelerators together in bytes, None if they share the machine's or it is not known."""
    limits = (
        [] if devices[0].platform == "cpu" else [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    )
    known = [limit for limit in limits if limit]
    return sum(known) if known else None


def _size(amount: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.0f} TB" if amount >= 100 else f"{amount:.3g} TB"

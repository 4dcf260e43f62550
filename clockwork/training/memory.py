"""How many runs are trained side by side, so that they fit into memory."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clockwork.checks import ArgumentError, integer
from clockwork.training.group import Group
from clockwork.training.task import Condition, Task
from clockwork.training.train_state import Trainer

SMALL = 1 / 40  # the share of the memory up to which the states of all runs need no closer look
MEASURED = 512  # runs of the program whose memory is measured
USED = 1 / 2  # the share of the memory that is filled: there are other things in it


def check_memory(task: Task, groups: Iterable[tuple[str, list[Condition]]]) -> None:
    """Raise ``ArgumentError`` if the results of a group certainly do not fit into the memory of the machine.

    Args:
        task: what is to be trained.
        groups: the label and conditions of each group that is to be trained.
    """
    machine = _machine()
    for label, conditions in groups:
        count = len(conditions) * task.runs
        needed = count * _result_bytes(task, conditions)
        if machine is not None and needed > machine:
            raise ArgumentError(
                "runs",
                f"must be fewer: the results of {count} runs of {label} need at least {_size(needed)} of memory, "
                f"and there are {_size(machine)}",
            )


def block_size(group: Group, asked: int | None) -> int:
    """The number of runs of each condition of a group that are trained side by side on the group's devices.

    All runs if they fit into half of the memory, by what the compiler says of the program for a few of them.

    Args:
        group: the group.
        asked: the number of runs on each device, of all conditions together; None to find it out.

    Raises:
        ValueError: if it is not a positive integer.
    """
    runs, conditions = group.task.runs, len(group.conditions)
    devices = list(group.mesh.devices.flat)
    if asked is not None:
        return max(1, integer("runs_per_device", asked, least=1) * len(devices) // conditions)
    room = _of_devices(devices) or _available()
    state = _bytes(group.trainer.abstract)
    if room is None or runs * conditions * state <= SMALL * room:
        return runs
    few = min(runs, -(-MEASURED // conditions))
    # On the host, the states of all runs of a block are there several times while they are stored.
    each = group.memory(range(few)) / (few * conditions) + (0 if _of_devices(devices) else 4 * state)
    return max(1, min(runs, int(USED * room / max(each, 1)) // conditions))


def _result_bytes(task: Task, conditions: list[Condition]) -> int:
    """A lower bound of the memory of the results of one run: its learning curve and outputs."""
    trainer = Trainer(task, conditions[0])
    _, _, outputs, errors = jax.eval_shape(trainer.finish, trainer.abstract, task.data(conditions[0]))
    epochs = task.epochs // task.curve_every if task.patience is None else 1  # with patience a run may stop early
    return epochs * _bytes(errors) + (0 if task.kept_outputs is not None else _bytes(outputs))


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _machine() -> int | None:
    """The machine's memory in bytes, None if it is not known."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _available() -> int | None:
    """The memory in bytes that programs may still take; the machine's where that is not known."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return _machine()


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

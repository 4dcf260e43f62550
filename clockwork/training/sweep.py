"""The sweep: blocks of runs are trained one after another on the devices of this process, or by a pool of workers.

The runs of a block are distributed over all devices. Each device trains its share; the devices exchange nothing.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from clockwork.checks import integer
from clockwork.training.blocks import Part, blocks_of, merged
from clockwork.training.callback import Callback
from clockwork.training.devices import checked_devices
from clockwork.training.group import Group, Log
from clockwork.training.interrupt import Interruptible
from clockwork.training.memory import block_size, check_memory
from clockwork.training.pool import Pool
from clockwork.training.progress import Progress
from clockwork.training.results import Results, condition_path
from clockwork.training.store import Store, claim
from clockwork.training.task import MAX_EPOCHS, MAX_RUNS, MAX_SEED, Condition, Task
from clockwork.training.train_state import Trainer


def sweep(
    task: Task,
    out: str | Path,
    *,
    devices: Sequence[Any] | None = None,
    progress: Progress | None = None,
    callback: Callback | None = None,
    runs_per_device: int | None = None,
    client: Any = None,
) -> Results:
    """Train all conditions of a task that are not yet in a results folder.

    A run depends only on the task's seed and the number of the run. The state of the runs is stored every 20 seconds,
    less often where that would take more than 2 % of the time, and when the sweep is interrupted; the same call
    continues from there. On the same devices and versions it gives the same numbers as an uninterrupted sweep. The last
    digits may depend on how many runs share a device. Runs that do not fit into memory are trained in blocks, one after
    another.

    Args:
        task: the task, such as `clockwork.tasks.Generation`.
        out: the results folder; created if it does not exist.
        devices: the JAX devices to use; all devices if None. `clockwork.training.use_all_cores` makes each core a
            device.
        progress: receives the progress; ``clockwork.training.progress.for_output()`` prints it. None for no report.
        callback: an experiment tracker with the functions of `clockwork.training.Callback`, such as the module
            ``wandb``; None for no tracking.
        runs_per_device: the number of runs that are trained side by side on a device, all conditions of a group
            together; None for as many as fit into half of its memory. With ``client``, the runs of a block.
        client: workers that train the blocks in place of this process: a ``dask.distributed.Client``, or any
            ``concurrent.futures.Executor``. None to train here. See `clockwork.training.Pool`.

    Returns:
        The results of all conditions of the task, including those that were in the folder before.

    Raises:
        ValueError: if the folder holds the results of another configuration or other files, or another sweep is using
            it; if the seed is out of range, the results do not fit into memory, or a device does not exist.
        OSError: if the folder cannot be written.
        ImportError: if filelock is not installed; it is in the extra ``[experiments]``.
        KeyboardInterrupt: on Ctrl-C, after the epochs in progress, or immediately on a second Ctrl-C; on SIGTERM,
            immediately, as ``clockwork.training.Terminated``. The runs in training are stored first. During a
            compilation the exception is raised at once, but the process ends only when the compilation is done.

    Warns:
        UserWarning: if the folder was begun with other versions or devices, or a result in it is damaged.

    Example:
        >>> import tempfile
        >>> from clockwork.tasks import Generation
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = sweep(task, folder)
        >>> [(condition.name, result.error.shape) for condition, result in results.conditions.items()]
        [('cwrnn-100-choir-0.0003', (2,))]
    """
    progress = progress or Progress()
    integer("runs", task.runs, 1, MAX_RUNS)
    integer("epochs", task.epochs, 1, MAX_EPOCHS)
    integer("seed", task.seed, 0, MAX_SEED)
    if runs_per_device is not None:
        integer("runs_per_device", runs_per_device, least=1)
    pool = None if client is None else Pool(client)
    mesh = Mesh(np.asarray(checked_devices(devices)), ("runs",))
    groups = [("-".join(key), list(conditions)) for key, conditions in groupby(task.conditions(), task.group)]
    untrained = [
        (label, conditions)
        for label, conditions in groups
        if not all(condition_path(out, condition).exists() for condition in conditions)
    ]
    if untrained:
        _check_results(task, untrained[0][1][0])
    check_memory(task, untrained)
    with claim(out, task) as store:
        done = dict(store.results().conditions)
        # All conditions of a group are trained together even if one alone is missing, so that the program, and with
        # it the last digit, is the same as in a sweep that was left alone.
        lost = {label: conditions for label, conditions in groups if not done.keys() >= set(conditions)}
        blocks: dict[str, list[range]] = {}
        fresh = not done
        here: dict[str, Group] = {}
        for label, conditions in lost.items():
            if pool is None:
                here[label] = Group(task, label, conditions, mesh)
                size = block_size(here[label], runs_per_device)
            else:
                size = pool.block_size(task.runs, len(conditions), runs_per_device)
            training, trained = store.states.blocks(label, task.runs)
            blocks[label] = blocks_of(task.runs, size, [*trained, *training])
            fresh = fresh and not training and not trained
        progress.plan(
            networks=len(task.conditions()) * task.runs,
            stored=len(done) * task.runs,
            epochs=task.epochs * sum(map(len, blocks.values())),
        )
        store.write_runs(done)

        def finish(label: str, parts: list[Part]) -> None:
            for condition, result in merged(task, parts).items():
                if condition not in done:
                    store.save(condition, result)
                    done[condition] = result
            store.write_runs(done)
            store.states.drop(label, task.runs)

        with Interruptible() as interruptible, _tracked(callback, store.settings) as log:
            for label, _ in groups:
                if label not in lost:
                    store.states.drop(label, task.runs)
            if pool is not None:
                for label in pool.train(task, lost, blocks, store, progress, log):
                    finish(label, store.states.parts(label, blocks[label], task, lost[label]))
            else:
                for label in lost:
                    parts = [
                        _trained_here(here[label], runs, store, progress, interruptible, log, len(blocks[label]) > 1)
                        for runs in blocks[label]
                    ]
                    finish(label, parts)
                    del here[label]
                    interruptible.check()
        if fresh:
            epochs = sum(int(result.epochs.sum()) for result in done.values())
            progress.trained(len(done) * task.runs, epochs * task.updates)
        progress.end()
    return Results(task, {condition: done[condition] for condition in task.conditions()})


def _trained_here(
    group: Group,
    runs: range,
    store: Store,
    progress: Progress,
    interruptible: Interruptible,
    log: Log | None,
    several: bool,
) -> Part:
    """A block of a group, read from the folder or trained now; it is stored if there are several."""
    part = store.states.load_part(group.label, runs, group.task, group.conditions)
    if part is not None:
        progress.group(group.label, len(runs) * len(group.conditions))
        progress.advance(group.task.epochs)
        return part
    part = group.train(runs, store.states, progress, interruptible, log)
    if several:
        store.states.save_part(group.label, part)
    return part


def _check_results(task: Task, condition: Condition) -> None:
    """Raise ``ValueError`` if the task's `result` cannot be stored: better now than when all is trained."""
    trainer = Trainer(task, condition)
    error, _, outputs, _ = jax.eval_shape(trainer.finish, trainer.abstract, task.data(condition))
    if error.shape:
        raise ValueError(f"the error of a trained model must be one number, got an array of shape {error.shape}")
    several = outputs.values() if isinstance(outputs, dict) else [outputs]
    if not all(isinstance(one, jax.ShapeDtypeStruct) for one in several):
        raise ValueError(f"outputs must be an array, or arrays by name, got {jax.tree.structure(outputs)}")


@contextlib.contextmanager
def _tracked(callback: Callback | None, settings: dict[str, Any]) -> Iterator[Log | None]:
    """Yields a function that logs metrics to the tracker, None without a tracker; finishes the tracker at the end."""
    if callback is None:
        yield None
        return
    total = 0

    def log(metrics: dict[str, float] | None, epochs: int) -> None:
        nonlocal total
        total += epochs
        if metrics is not None:
            callback.log(metrics, step=total)

    try:
        callback.init(config=settings)
        yield log
    finally:
        callback.finish()

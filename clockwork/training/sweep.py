"""The sweep: all runs of a group of conditions are trained in one program.

The runs are distributed over all devices. Each device trains its share; the devices exchange nothing.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clockwork.checks import integer
from clockwork.training.arrays import mismatch
from clockwork.training.callback import Callback
from clockwork.training.devices import checked_devices
from clockwork.training.interrupt import Interruptible
from clockwork.training.memory import check_memory
from clockwork.training.model import named
from clockwork.training.placement import Placement
from clockwork.training.program import program
from clockwork.training.progress import Progress
from clockwork.training.results import ConditionResult, Results, condition_path, watched_errors
from clockwork.training.store import Store, claim
from clockwork.training.task import MAX_EPOCHS, MAX_RUNS, MAX_SEED, Condition, Task
from clockwork.training.train_state import Trainer, TrainState

Log = Callable[[dict[str, float] | None, int], None]
# Seconds between two writes of runs in training.
SAVE_EVERY = 20.0


def sweep(
    task: Task,
    out: str | Path,
    *,
    devices: Sequence[Any] | None = None,
    progress: Progress | None = None,
    callback: Callback | None = None,
) -> Results:
    """Train all conditions of a task that are not yet in a results folder.

    A run depends only on the task's seed and the number of the run. The state of the runs is stored every 20 seconds
    and when the sweep is interrupted; the same call continues from there. On the same devices and versions it gives
    the same numbers as an uninterrupted sweep. The last digits may depend on how many runs share a device.

    Args:
        task: the task, such as `clockwork.tasks.Generation`.
        out: the results folder; created if it does not exist.
        devices: the JAX devices to use; all devices if None. `clockwork.training.use_all_cores` makes each core a
            device.
        progress: receives the progress; ``clockwork.training.progress.for_output()`` prints it. None for no report.
        callback: an experiment tracker with the functions of `clockwork.training.Callback`, such as the module
            ``wandb``; None for no tracking.

    Returns:
        The results of all conditions of the task, including those that were in the folder before.

    Raises:
        ValueError: if the folder holds the results of another configuration or other files, or another sweep is using
            it; if the seed is out of range, the runs do not fit into memory, or a device does not exist.
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
    chosen = checked_devices(devices)
    mesh = Mesh(np.asarray(chosen), ("runs",))
    groups = [("-".join(key), list(conditions)) for key, conditions in groupby(task.conditions(), task.group)]
    untrained = [
        (label, conditions)
        for label, conditions in groups
        if not all(condition_path(out, condition).exists() for condition in conditions)
    ]
    if untrained:
        _check_results(task, untrained[0][1][0])
    check_memory(task, untrained, chosen)
    with claim(out, task) as store:
        done = dict(store.results().conditions)
        missing = [[condition for condition in conditions if condition not in done] for _, conditions in groups]
        progress.plan(
            networks=len(task.conditions()) * task.runs,
            stored=len(done) * task.runs,
            epochs=task.epochs * sum(bool(lost) for lost in missing),
        )
        store.write_runs(done)
        with Interruptible() as interruptible, _tracked(callback, store.settings) as log:
            for (label, conditions), lost in zip(groups, missing, strict=True):
                if lost:
                    trained = _train(task, label, conditions, mesh, store, progress, interruptible, log)
                    # All conditions of a group are trained together even if one alone is missing, so that the
                    # program, and with it the last digit, is the same as in a sweep that was left alone.
                    for condition in lost:
                        store.save(condition, trained[condition])
                        done[condition] = trained[condition]
                    store.write_runs(done)
                store.drop_partial(label)
                interruptible.check()
        progress.end()
    return Results(task, {condition: done[condition] for condition in task.conditions()})


def _check_results(task: Task, condition: Condition) -> None:
    """Raise ``ValueError`` if the task's `result` cannot be stored: better now than when all is trained."""
    trainer = Trainer(task, condition)
    error, _, outputs, _ = jax.eval_shape(trainer.finish, trainer.abstract, task.data(condition))
    if error.shape:
        raise ValueError(f"the error of a trained model must be one number, got an array of shape {error.shape}")
    several = outputs.values() if isinstance(outputs, dict) else [outputs]
    if not all(isinstance(one, jax.ShapeDtypeStruct) for one in several):
        raise ValueError(f"outputs must be an array, or arrays by name, got {jax.tree.structure(outputs)}")


def _train(
    task: Task,
    label: str,
    conditions: list[Condition],
    mesh: Mesh,
    store: Store,
    progress: Progress,
    interruptible: Interruptible,
    log: Log | None,
) -> dict[Condition, ConditionResult]:
    def compiled(function: jax.stages.Wrapped, *arguments: Any) -> Callable:
        lowered = function.lower(*arguments)  # traced here: JAX's settings belong to threads
        return interruptible.wait(lowered.compile)

    def computed(function: Callable, *arguments: Any, training: bool = False) -> Any:
        return interruptible.wait(lambda: jax.block_until_ready(function(*arguments)), training=training)

    count = len(conditions) * task.runs
    progress.group(label, count)
    progress.phase("compiling")
    trainer = Trainer(task, conditions[0])
    placement = Placement(task, conditions, mesh)
    functions = program(trainer, placement.layout, mesh)
    state: TrainState = computed(compiled(functions.begin, placement.runs), placement.runs)
    # All runs on the host, as they were when they were last in training; those that still are lie on the devices.
    whole: TrainState = jax.tree.map(lambda leaf: np.array(leaf)[:count], state)
    errors: list[np.ndarray] = []
    stored = _restored(store, label, task, whole)
    if stored is not None:
        whole, errors, training = stored
        # The same runs side by side as before, those that have stopped among them: the last digits depend on it.
        placement = placement.of(training)
        state = placement.to_devices(whole)
    done = sum(map(len, errors))
    segments: dict[int, Callable] = {}  # by width
    active = _active(task, whole)
    progress.advance(done)
    if log is not None:
        log(None, done)  # what was trained before the sweep was interrupted
    saved = time.monotonic()
    reached = (placement, state, errors)  # one name, so that Ctrl-C never finds the one without the others
    try:
        while done < task.epochs and active.any():
            placement, state, errors = reached
            if placement.should_compact(active):
                whole = placement.to_host(whole, state)
                placement = placement.of(active)
                state = placement.to_devices(whole)
            arguments = (state, placement.runs, jnp.int32(done))
            if placement.width not in segments:
                progress.phase("compiling")
                segments[placement.width] = compiled(functions.segment, *arguments)
                progress.phase("training")
            state, latest = computed(segments[placement.width], *arguments, training=True)
            latest, went_on = (np.asarray(x)[:, : task.epochs - done] for x in latest)
            latest = placement.spread(latest, went_on, errors, count)
            reached = (placement, state, [*errors, latest])
            done += len(latest)
            active = placement.to_host(np.zeros(count, bool), _active(task, state))
            diverged = placement.to_host(whole.diverged, state.diverged)
            progress.advance(len(latest), int(diverged.sum()))
            progress.spare(int((task.epochs - done) * (1 - active.mean())))
            if log is not None:
                log(_metrics(task, conditions, latest[-1], diverged, active), len(latest))
            interruptible.check()
            if time.monotonic() - saved > SAVE_EVERY:
                _save(store, label, whole, *reached)
                saved = time.monotonic()
        progress.phase("evaluating")
        progress.advance(task.epochs - done)  # what early stopping has spared
        placement, state, errors = reached
        whole = placement.to_host(whole, state)
        every_run = placement.of(np.ones(count, bool))
        arguments = (every_run.to_devices(whole), every_run.runs)
        if task.restore_best:
            arguments = (computed(compiled(functions.restore, *arguments), *arguments), every_run.runs)
            whole = every_run.to_host(whole, arguments[0])
        if task.kept_outputs is None:
            final, diverged, outputs, last = _first(count, computed(compiled(functions.finish, *arguments), *arguments))
            kept = np.tile(np.arange(task.runs), (len(conditions), 1))
        else:
            final, diverged, last = _first(count, computed(compiled(functions.errors, *arguments), *arguments))
            kept = _lowest(final.reshape(len(conditions), task.runs), task.kept_outputs)
            chosen = np.zeros((len(conditions), task.runs), bool)
            np.put_along_axis(chosen, kept, True, 1)
            some = placement.of(chosen.reshape(-1))
            arguments = (some.to_devices(whole), some.runs)
            _, _, outputs, _ = _first(kept.size, computed(compiled(functions.finish, *arguments), *arguments))
    except BaseException:  # Ctrl-C, a full disk, nobody who reads the progress any more, an error in a callback
        if reached[-1]:
            _save(store, label, whole, *reached)
        raise
    every = task.curve_every
    if not task.curve_ends_with_error:
        last = np.where(diverged.reshape(-1, *[1] * (last.ndim - 1)), np.nan, errors[-1][-1])
    curve = np.concatenate([np.concatenate(errors)[::every], last[None]])
    results = {}
    for position, condition in enumerate(conditions):
        own = slice(position * task.runs, (position + 1) * task.runs)
        outputs_of = slice(position * kept.shape[1], (position + 1) * kept.shape[1])
        best = position * task.runs + int(np.argmin(np.where(diverged[own], np.inf, final[own])))
        results[condition] = ConditionResult(
            error=final[own],
            epochs=np.asarray(whole.epoch)[own],
            diverged=diverged[own],
            curve=curve[:, own],
            curve_epochs=np.append(np.arange(0, done, every), done),
            kept=kept[position],
            outputs=jax.tree.map(lambda x, own=outputs_of: x[own], outputs),
            num_parameters=np.asarray(task.num_parameters(condition, trainer.abstract.params)),
            data=task.record(condition),
            best=named(jax.tree.map(lambda leaf, i=best: leaf[i], whole.params)),
            state=named(jax.tree.map(lambda leaf, i=best: leaf[i], whole.rest)),
        )
    return results


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


def _metrics(
    task: Task, conditions: list[Condition], errors: np.ndarray, diverged: np.ndarray, active: np.ndarray
) -> dict[str, float]:
    """The metrics for `Callback.log` of the runs of all conditions; ``errors`` is ``(R, ...)``."""
    watched = watched_errors(task, errors).reshape(len(conditions), -1)
    found: dict[str, float] = {}
    for condition, error, lost, left in zip(
        conditions,
        watched,
        diverged.reshape(len(conditions), -1),
        active.reshape(len(conditions), -1),
        strict=True,
    ):
        median = float(np.median(error[~lost])) if not lost.all() else float("nan")
        found |= {
            f"{condition.name}/error": median,
            f"{condition.name}/diverged": int(lost.sum()),
            f"{condition.name}/training": int(left.sum()),
        }
    return found


def _first(count: int, tree: Any) -> Any:
    """The first runs of results, on the host; the others fill up the devices."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], tree)


def _lowest(errors: np.ndarray, most: int) -> np.ndarray:
    """The numbers of the runs with the lowest errors of each condition, ascending, ``(C, K)``; NaN comes last."""
    return np.sort(np.argsort(errors, axis=1, kind="stable")[:, :most], axis=1)


def _active(task: Task, state: TrainState) -> np.ndarray:
    """Which runs are still to be trained."""
    diverged, stopped, epoch = (np.asarray(x) for x in (state.diverged, state.stopped, state.epoch))
    return ~diverged & ~stopped & (epoch < task.epochs)


def _save(
    store: Store, label: str, whole: TrainState, placement: Placement, state: TrainState, errors: list[np.ndarray]
) -> None:
    leaves = {f"state{i}": leaf for i, leaf in enumerate(jax.tree.leaves(placement.to_host(whole, state)))}
    training = np.isin(np.arange(len(whole.epoch)), placement.numbers)
    store.save_partial(label, {**leaves, "errors": np.concatenate(errors), "training": training})


def _restored(
    store: Store, label: str, task: Task, begun: TrainState
) -> tuple[TrainState, list[np.ndarray], np.ndarray] | None:
    """What `_save` stored: all runs, their errors, and which were in training; None if that is not there or damaged."""
    stored = store.load_partial(label)
    if stored is None:
        return None
    leaves, tree = jax.tree.flatten(begun)
    axes = [(leaf.dtype.kind.replace("V", "f"), " ".join(["R", *map(str, leaf.shape[1:])])) for leaf in leaves]
    wanted = {f"state{i}": form for i, form in enumerate(axes)}
    wrong = mismatch(stored, {**wanted, "errors": ("f", "E R ..."), "training": ("b", "R")}, {"R": len(begun.epoch)})
    if not wrong and not (0 < len(stored["errors"]) <= task.epochs and stored["training"].any()):
        wrong = "it holds no epoch or no run"
    if wrong:
        warnings.warn(
            f"{store.partial_path(label)} is not of this sweep ({wrong}) and counts as not there", stacklevel=4
        )
        return None
    state = [stored[name].astype(leaf.dtype) for name, leaf in zip(wanted, leaves, strict=True)]
    return jax.tree.unflatten(tree, state), [stored["errors"]], stored["training"]

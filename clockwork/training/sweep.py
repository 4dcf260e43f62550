"""The sweep: all runs of a network and size, on all clips and at all rates, side by side in one program.

Runs are laid over all devices. Each device trains its share on its own; nothing is exchanged.
"""

import copy
import functools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clockwork.checks import integer
from clockwork.tasks import Cell, Task
from clockwork.tasks.task import MOST_EPOCHS, MOST_RUNS, MOST_SEED
from clockwork.training import run as runs
from clockwork.training.arrays import mismatch
from clockwork.training.devices import checked_devices
from clockwork.training.interrupt import Interruptible
from clockwork.training.memory import check_memory
from clockwork.training.program import program
from clockwork.training.progress import Progress
from clockwork.training.store import CellResult, Results, Store, cell_path, claim

# Each device trains a multiple of so many runs, since what is left over is computed one by one; unless more than a
# share WASTED of them would be there to fill up.
SIMD = 8
WASTED = 1 / 4
# Errors are kept every so many updates, at least.
CURVE_EVERY = 10
# Once so few of the runs in training are left, the others having stopped or diverged, they go on without those.
LEFT = 1 / 4
# Seconds between two writes of runs in training.
SAVE_EVERY = 20.0


def sweep(
    task: Task,
    out: str | Path,
    *,
    devices: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> Results:
    """Train all cells of a task that are not yet in a results folder.

    A run is a function of the task's seed and its own number alone. Runs in training are stored
    from time to time and when the sweep is interrupted; the same call goes on from there and gives
    the same numbers as one that was left alone, on the same devices and versions. The last
    digits may depend on how many runs share a device.

    Args:
        task: such as `clockwork.tasks.Generation`.
        out: the results folder; it is made if it does not exist.
        devices: of JAX, to lay the runs over; all there are if None. `clockwork.training.use_all_cores`
            makes one of each core.
        progress: is told what the sweep does; ``clockwork.training.progress.for_output()`` prints it.
            Nothing is told if None.

    Returns:
        All cells of the task, those that were in the folder before among them.

    Raises:
        ValueError: if the folder holds another configuration's results, or something else, or another sweep is using
            it; if the seed is beyond what a key holds, the runs do not fit into memory, or there is no such device.
        OSError: if the folder cannot be written.
        ImportError: if filelock is not installed; it is in the extra ``[experiments]``.
        KeyboardInterrupt: on Ctrl-C, once the epochs in progress are done, or at once where it comes twice; on
            SIGTERM at once, a ``clockwork.training.Terminated``. The runs in training are stored first. A compilation
            is not waited for; Python ends only once it is done.

    Warns:
        UserWarning: if the folder was begun with other versions or devices, or a result in it is damaged.

    Example:
        >>> import tempfile
        >>> from clockwork.tasks import Generation
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = sweep(task, folder)
        >>> [(cell.name, result.error.shape) for cell, result in results.cells.items()]
        [('cwrnn-100-choir-0.0003', (2,))]
    """
    progress = progress or Progress()
    integer("runs", task.runs, 1, MOST_RUNS)
    integer("epochs", task.epochs, 1, MOST_EPOCHS)
    integer("seed", task.seed, 0, MOST_SEED)
    chosen = checked_devices(devices)
    mesh = Mesh(np.asarray(chosen), ("runs",))
    groups = [("-".join(key), list(cells)) for key, cells in groupby(task.cells(), task.group)]
    untrained = [(label, cells) for label, cells in groups if not all(cell_path(out, cell).exists() for cell in cells)]
    check_memory(task, untrained, chosen)
    with claim(out, task) as store:
        done = dict(store.results().cells)
        missing = [[cell for cell in cells if cell not in done] for _, cells in groups]
        progress.plan(
            networks=len(task.cells()) * task.runs,
            stored=len(done) * task.runs,
            epochs=task.epochs * sum(bool(lost) for lost in missing),
        )
        store.write_runs(done)
        with Interruptible() as interruptible:
            for (label, cells), lost in zip(groups, missing, strict=True):
                if lost:
                    trained = _train(task, label, cells, mesh, store, progress, interruptible)
                    # All cells of a group are trained together even if one alone is missing, so that the
                    # program, and with it the last digit, is the same as in a sweep that was left alone.
                    for cell in lost:
                        store.save(cell, trained[cell])
                        done[cell] = trained[cell]
                    store.write_runs(done)
                store.drop_partial(label)
                interruptible.check()
        progress.end()
    return Results(task, {cell: done[cell] for cell in task.cells()})


def _train(
    task: Task,
    label: str,
    cells: list[Cell],
    mesh: Mesh,
    store: Store,
    progress: Progress,
    interruptible: Interruptible,
) -> dict[Cell, CellResult]:
    def compiled(function: jax.stages.Wrapped, *arguments: Any) -> Callable:
        lowered = function.lower(*arguments)  # traced here: JAX's settings belong to threads
        return interruptible.wait(lowered.compile)

    def computed(function: Callable, *arguments: Any, training: bool = False) -> Any:
        return interruptible.wait(lambda: jax.block_until_ready(function(*arguments)), training=training)

    name, size = cells[0].network, cells[0].size
    count = len(cells) * task.runs
    progress.group(label, count)
    progress.phase("compiling")
    lanes = _Lanes(task, cells, mesh)
    functions = program(task, name, size, mesh, shared=lanes.shared)
    state: runs.Run = computed(compiled(functions.begin, lanes.keys), lanes.keys)
    # All runs on the host, as they were when they were last in training; those that still are lie on the devices.
    whole: runs.Run = jax.tree.map(lambda leaf: np.array(leaf)[:count], state)
    errors: list[np.ndarray] = []
    stored = _restored(store, label, task, whole)
    if stored is not None:
        whole, errors, training = stored
        # The same runs side by side as before, those that have stopped among them: the last digits depend on it.
        lanes = lanes.of(training)
        state = lanes.enter(whole)
    done = sum(map(len, errors))
    segments: dict[int, Callable] = {}  # by width
    active = _active(task, whole)
    progress.advance(done)
    saved = time.monotonic()
    reached = (lanes, state, errors)  # one name, so that Ctrl-C never finds the one without the others
    try:
        while done < task.epochs and active.any():
            lanes, state, errors = reached
            if lanes.to_be_left(active):
                whole = lanes.leave(whole, state)
                lanes = lanes.of(active)
                state = lanes.enter(whole)
            arguments = (state, lanes.keys, lanes.data, lanes.rates, jnp.int32(done))
            if lanes.width not in segments:
                progress.phase("compiling")
                segments[lanes.width] = compiled(functions.segment, *arguments)
                progress.phase("training")
            state, latest = computed(segments[lanes.width], *arguments, training=True)
            latest = lanes.spread(np.asarray(latest)[:, : task.epochs - done], errors, count)
            reached = (lanes, state, [*errors, latest])
            done += len(latest)
            active = lanes.leave(np.zeros(count, bool), _active(task, state))
            progress.advance(len(latest), int(lanes.leave(whole.diverged, state.diverged).sum()))
            progress.spare(int((task.epochs - done) * (1 - active.mean())))
            interruptible.check()
            if time.monotonic() - saved > SAVE_EVERY:
                _save(store, label, whole, *reached)
                saved = time.monotonic()
        progress.phase("evaluating")
        progress.advance(task.epochs - done)  # what early stopping has spared
        lanes, state, errors = reached
        whole = lanes.leave(whole, state)
        lanes = lanes.of(np.ones(count, bool))
        arguments = (lanes.enter(whole), lanes.data)
        final, diverged, outputs, last = jax.tree.map(
            lambda x: np.asarray(x)[:count], computed(compiled(functions.finish, *arguments), *arguments)
        )
    except (KeyboardInterrupt, OSError):  # OSError: a full disk, or nobody who reads the progress any more
        if reached[-1]:
            _save(store, label, whole, *reached)
        raise
    every = max(1, CURVE_EVERY // task.updates)
    curve = np.concatenate([np.concatenate(errors)[::every], last[None]])
    counted = np.asarray(nnx.eval_shape(lambda: task.network(name, size, nnx.Rngs(0))).num_parameters)
    results = {}
    for position, cell in enumerate(cells):
        own = slice(position * task.runs, (position + 1) * task.runs)
        best = position * task.runs + int(np.argmin(np.where(diverged[own], np.inf, final[own])))
        results[cell] = CellResult(
            error=final[own],
            epochs=np.asarray(whole.epoch)[own],
            diverged=diverged[own],
            curve=curve[:, own],
            curve_epochs=np.append(np.arange(0, done, every), done),
            outputs=outputs[own],
            parameters=counted,
            data=task.record(cell),
            best=named(jax.tree.map(lambda leaf, i=best: leaf[i], whole.params)),
        )
    return results


def _active(task: Task, state: runs.Run) -> np.ndarray:
    """Which runs are still to be trained."""
    diverged, stopped, epoch = (np.asarray(x) for x in (state.diverged, state.stopped, state.epoch))
    return ~diverged & ~stopped & (epoch < task.epochs)


class _Lanes:
    """Where the runs of a group lie while they train: run i of cell c is number ``c R + i``."""

    def __init__(self, task: Task, cells: list[Cell], mesh: Mesh) -> None:
        self.task, self.cells, self.devices = task, cells, mesh.size
        self.spreading, everywhere = NamedSharding(mesh, PartitionSpec("runs")), NamedSharding(mesh, PartitionSpec())
        self.shared = len({cell.data for cell in cells}) == 1
        data = [task.data(cell) for cell in (cells[:1] if self.shared else cells)]
        self.all_data = jax.device_put(data[0], everywhere) if self.shared else _stack(data)
        self._place(np.arange(len(cells) * task.runs))

    def of(self, chosen: np.ndarray) -> "_Lanes":
        """Lanes for the chosen runs alone."""
        fewer = copy.copy(self)
        fewer._place(np.flatnonzero(chosen))
        return fewer

    @property
    def width(self) -> int:
        """How many lanes there are."""
        return len(self.numbers)

    def _place(self, numbers: np.ndarray) -> None:
        width = lanes_for(len(numbers), self.devices)
        # The last run fills up the last device.
        self.numbers = numbers = numbers[np.minimum(np.arange(width), len(numbers) - 1)]
        cell_of, run_of = numbers // self.task.runs, numbers % self.task.runs
        fold = functools.partial(jax.random.fold_in, jax.random.key(self.task.seed))
        rates = np.asarray([cell.learning_rate for cell in self.cells], np.float32)
        self.keys = jax.device_put(jax.vmap(fold)(jnp.asarray(run_of)), self.spreading)
        self.rates = jax.device_put(rates[cell_of], self.spreading)
        self.data = (
            self.all_data
            if self.shared
            else jax.device_put(jax.tree.map(lambda x: x[cell_of], self.all_data), self.spreading)
        )

    def enter(self, whole: runs.Run) -> runs.Run:
        """The runs of these lanes, on the devices."""
        return jax.device_put(jax.tree.map(lambda x: x[self.numbers], whole), self.spreading)

    def leave(self, whole: Any, state: Any) -> Any:
        """Arrays of all runs, with what those in training have now."""

        def put(old: np.ndarray, new: Array) -> np.ndarray:
            filled = old.copy()
            filled[self.numbers] = np.asarray(new)
            return filled

        return jax.tree.map(put, whole, state)

    def spread(self, latest: np.ndarray, errors: list[np.ndarray], count: int) -> np.ndarray:
        """The errors ``(E, R, ...)`` of all runs, those not in training with their last, of ``(lanes, E, ...)``."""
        latest = np.moveaxis(latest, 0, 1)
        last = errors[-1][-1:] if errors else np.full((1, count, *latest.shape[2:]), np.nan, latest.dtype)
        filled = np.repeat(last, len(latest), 0)
        filled[:, self.numbers] = latest
        return filled

    def to_be_left(self, active: np.ndarray) -> bool:
        """Whether so few runs are active that it pays to go on without the others; compiling anew has its price."""
        return bool(active.any()) and active.sum() <= LEFT * self.width and self.width >= SIMD * self.devices / LEFT


def _stack(data: list[Any]) -> Any:
    return jax.tree.map(lambda *xs: np.stack([np.asarray(x) for x in xs]), *data)


def lanes_for(count: int, devices: int) -> int:
    """How many runs are trained side by side where so many are asked for: as many on each device."""
    each = math.ceil(count / devices)
    full = math.ceil(each / SIMD) * SIMD
    return devices * (full if full - each <= WASTED * full else each)


def _save(store: Store, label: str, whole: runs.Run, lanes: _Lanes, state: runs.Run, errors: list[np.ndarray]) -> None:
    leaves = {f"state{i}": leaf for i, leaf in enumerate(jax.tree.leaves(lanes.leave(whole, state)))}
    training = np.isin(np.arange(len(whole.epoch)), lanes.numbers)
    store.save_partial(label, {**leaves, "errors": np.concatenate(errors), "training": training})


def _restored(
    store: Store, label: str, task: Task, begun: runs.Run
) -> tuple[runs.Run, list[np.ndarray], np.ndarray] | None:
    """What `_save` stored: all runs, their errors, and which were in training; None if that is not there or damaged."""
    stored = store.load_partial(label)
    if stored is None:
        return None
    leaves, tree = jax.tree.flatten(begun)
    axes = [(leaf.dtype.kind, " ".join(["R", *map(str, leaf.shape[1:])])) for leaf in leaves]
    wanted = {f"state{i}": form for i, form in enumerate(axes)}
    wrong = mismatch(stored, {**wanted, "errors": ("f", "E R ..."), "training": ("b", "R")}, {"R": len(begun.epoch)})
    if not wrong and not (0 < len(stored["errors"]) <= task.epochs and stored["training"].any()):
        wrong = "it holds no epoch or no run"
    if wrong:
        warnings.warn(
            f"{store.partial_path(label)} is not of this sweep ({wrong}) and counts as not there", stacklevel=4
        )
        return None
    return jax.tree.unflatten(tree, [stored[name] for name in wanted]), [stored["errors"]], stored["training"]


def named(params: Any) -> dict[str, np.ndarray]:
    """Parameters by name, such as ``"readout.kernel"``."""
    flat = nnx.to_flat_state(params)
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}

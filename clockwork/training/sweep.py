"""The sweep: all runs of a network and size, on all clips and at all rates, side by side in one program.

Runs are laid over all devices. Each device trains its share on its own; nothing is exchanged.
"""

import copy
import functools
import math
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clockwork.tasks import Cell, Task
from clockwork.training import run as runs
from clockwork.training.interrupt import Interruptible
from clockwork.training.progress import Progress
from clockwork.training.store import CellResult, Results, Store

# Updates in one compiled call, about: enough to hide its cost, few enough for Ctrl-C, progress and early stopping.
SEGMENT = 50
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


class Program(NamedTuple):
    """The compiled functions of one network and size; every argument has the runs as its first axis."""

    begin: jax.stages.Wrapped
    segment: jax.stages.Wrapped
    finish: jax.stages.Wrapped


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
        ValueError: if the folder holds another configuration's results, or something else.
        OSError: if it cannot be written.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the runs in training are stored.

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
    store = Store(out, task)
    mesh = Mesh(np.asarray(devices if devices is not None else jax.devices()), ("runs",))
    groups = [("-".join(key), list(cells)) for key, cells in groupby(task.cells(), task.group)]
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
    name, size = cells[0].network, cells[0].size
    count = len(cells) * task.runs
    progress.group(label, count)
    progress.phase("compiling")
    lanes = _Lanes(task, cells, mesh)
    compiling = program(task, name, size, mesh, shared=lanes.shared)
    state: runs.Run = compiling.begin(lanes.keys)
    # All runs on the host, as they were when they were last in training; those that still are lie on the devices.
    whole: runs.Run = jax.tree.map(lambda leaf: np.array(leaf)[:count], state)
    errors: list[np.ndarray] = []
    stored = store.load_partial(label)
    names = [f"state{i}" for i in range(len(jax.tree.leaves(state)))]
    if stored is not None and set(stored) == {"errors", "training", *names}:
        whole = jax.tree.unflatten(jax.tree.structure(state), [stored[leaf] for leaf in names])
        errors = [stored["errors"]]
        # The same runs side by side as before, those that have stopped among them: the last digits depend on it.
        lanes = lanes.of(stored["training"])
        state = lanes.enter(whole)
    done = sum(map(len, errors))
    compiled: dict[int, Any] = {}
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
            if lanes.width not in compiled:
                progress.phase("compiling")
                compiled[lanes.width] = compiling.segment.lower(*arguments).compile()
                progress.phase("training")
            state, latest = compiled[lanes.width](*arguments)
            latest = lanes.spread(np.asarray(latest)[:, : task.epochs - done], errors, count)
            reached = (lanes, state, [*errors, latest])
            done += len(latest)
            active = lanes.leave(np.zeros(count, bool), _active(task, state))
            progress.advance(len(latest), int(lanes.leave(whole.diverged, state.diverged).sum()))
            interruptible.check()
            if time.monotonic() - saved > SAVE_EVERY:
                _save(store, label, whole, *reached)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if reached[-1]:
            _save(store, label, whole, *reached)
        raise
    lanes, state, errors = reached
    whole = lanes.leave(whole, state)
    progress.advance(task.epochs - done)  # what early stopping has spared
    progress.phase("evaluating")
    lanes = lanes.of(np.ones(count, bool))
    final, diverged, outputs, last = jax.tree.map(
        lambda x: np.asarray(x)[:count], compiling.finish(lanes.enter(whole), lanes.data)
    )
    every = max(1, CURVE_EVERY // task.updates)
    curve = np.concatenate([np.concatenate(errors)[::every], last[None]])
    counted = np.asarray(nnx.eval_shape(lambda: task.network(name, size, nnx.Rngs(0))).parameters)
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


def program(task: Task, name: str, size: int, mesh: Mesh, *, shared: bool = False) -> Program:
    """What a sweep compiles for a network and size: runs are laid over the devices of the mesh.

    Args:
        task: what is trained.
        name: of the network.
        size: of the network.
        mesh: of one axis, ``"runs"``.
        shared: whether all runs have the same data, which then have no axis of runs.
    """
    graph = runs.structure(task, name, size)
    spread = PartitionSpec("runs")
    data_spec = PartitionSpec() if shared else spread

    def last_axis(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)

    def segment(state: runs.Run, keys: Array, data: Any, rates: Array, number: Array) -> tuple[runs.Run, Array]:
        # Runs are the last axis of everything while they train, as in the kernels: nothing is transposed.
        train = jax.vmap(
            functools.partial(runs.epoch, task, graph),
            in_axes=(-1, -1, None if shared else -1, -1, None),
            out_axes=(-1, 0),
        )
        state, data = last_axis(state), data if shared else last_axis(data)
        epochs = min(max(1, SEGMENT // task.updates), task.epochs)
        numbers = number + jnp.arange(epochs, dtype=jnp.int32)
        state, errors = lax.scan(lambda state, n: train(state, keys, data, rates, n), state, numbers)
        # (E, R, ...) to runs first, as all that is laid over the devices
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), state), jnp.moveaxis(errors, 1, 0)

    def each_device(fun: Any, specs: tuple, out: Any) -> jax.stages.Wrapped:
        return jax.jit(jax.shard_map(fun, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))

    finish = jax.vmap(functools.partial(runs.finish, task, graph), in_axes=(0, None if shared else 0))
    return Program(
        begin=each_device(jax.vmap(functools.partial(runs.begin, task, name, size)), (spread,), spread),
        segment=each_device(segment, (spread, spread, data_spec, spread, PartitionSpec()), (spread, spread)),
        finish=each_device(finish, (spread, data_spec), spread),
    )


def _save(store: Store, label: str, whole: runs.Run, lanes: _Lanes, state: runs.Run, errors: list[np.ndarray]) -> None:
    leaves = {f"state{i}": leaf for i, leaf in enumerate(jax.tree.leaves(lanes.leave(whole, state)))}
    training = np.isin(np.arange(len(whole.epoch)), lanes.numbers)
    store.save_partial(label, {**leaves, "errors": np.concatenate(errors), "training": training})


def named(params: Any) -> dict[str, np.ndarray]:
    """Parameters by name, such as ``"readout.kernel"``."""
    flat = nnx.to_flat_state(params)
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}

"""The sweep: all runs of a network and size, on all clips and at all rates, side by side in one program.

Runs are laid over all devices. Each device trains its share on its own; nothing is exchanged.
"""

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

# Epochs in one compiled call: long enough to hide its cost, short enough for Ctrl-C and progress.
SEGMENT = 50
# Each device trains a multiple of so many runs: what is left over would be computed one by one.
SIMD = 8
# Errors are kept every so many epochs.
CURVE_EVERY = 10
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
    groups = [(key, list(cells)) for key, cells in groupby(task.cells(), lambda cell: cell[:2])]
    done = dict(store.results().cells)
    missing = [[cell for cell in cells if cell not in done] for _, cells in groups]
    progress.plan(
        networks=len(task.cells()) * task.runs,
        stored=len(done) * task.runs,
        epochs=task.epochs * sum(bool(lost) for lost in missing),
    )
    store.write_runs(done)
    with Interruptible() as interruptible:
        for ((name, size), cells), lost in zip(groups, missing, strict=True):
            if lost:
                trained = _train(task, str(name), int(size), cells, mesh, store, progress, interruptible)
                # All cells of a group are trained together even if one alone is missing, so that the
                # program, and with it the last digit, is the same as in a sweep that was left alone.
                for cell in lost:
                    store.save(cell, trained[cell])
                    done[cell] = trained[cell]
                store.write_runs(done)
            store.drop_partial(f"{name}-{size}")
            interruptible.check()
    progress.end()
    return Results(task, {cell: done[cell] for cell in task.cells()})


def _train(
    task: Task,
    name: str,
    size: int,
    cells: list[Cell],
    mesh: Mesh,
    store: Store,
    progress: Progress,
    interruptible: Interruptible,
) -> dict[Cell, CellResult]:
    label = f"{name}-{size}"
    lanes = len(cells) * task.runs
    progress.group(label, lanes)
    progress.phase("compiling")
    block = SIMD * mesh.size
    padded = math.ceil(lanes / block) * block
    lane = np.minimum(np.arange(padded), lanes - 1)  # the last run fills up the last devices
    cell_of, run_of = lane // task.runs, lane % task.runs
    spread = NamedSharding(mesh, PartitionSpec("runs"))
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(task.seed)))(jnp.asarray(run_of))
    keys = jax.device_put(keys, spread)
    data = jax.device_put(jnp.stack([task.data(cell) for cell in cells])[cell_of], spread)
    rates = jax.device_put(jnp.asarray([cell.learning_rate for cell in cells], jnp.float32)[cell_of], spread)
    compiling = program(task, name, size, mesh)

    state: runs.Run = compiling.begin(keys)
    errors: list[np.ndarray] = []
    stored = store.load_partial(label)
    if stored is not None and set(stored) == {"errors", *(f"state{i}" for i in range(len(jax.tree.leaves(state))))}:
        state, errors = _restore(state, stored), [stored["errors"]]
    done = sum(map(len, errors))
    compiled = compiling.segment.lower(state, data, rates).compile()
    progress.phase("training")
    progress.advance(done)
    saved = time.monotonic()
    reached = (state, errors)  # one name, so that Ctrl-C never finds the one without the other
    try:
        while done < task.epochs:
            state, errors = reached
            state, latest = compiled(state, data, rates)
            latest = np.asarray(latest)[: task.epochs - done, :lanes]
            reached = (state, [*errors, latest])
            done += len(latest)
            progress.advance(len(latest), int(np.asarray(state.diverged)[:lanes].sum()))
            interruptible.check()
            if time.monotonic() - saved > SAVE_EVERY:
                _save(store, label, lanes, *reached)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if reached[1]:
            _save(store, label, lanes, *reached)
        raise
    state, errors = reached
    progress.phase("evaluating")
    final, diverged, outputs = jax.tree.map(np.asarray, compiling.finish(state, data))
    curve = np.concatenate([np.concatenate(errors)[::CURVE_EVERY], final[None, :lanes]])
    counted = np.asarray(nnx.eval_shape(lambda: task.network(name, size, nnx.Rngs(0))).parameters)
    results = {}
    for position, cell in enumerate(cells):
        own = slice(position * task.runs, (position + 1) * task.runs)
        results[cell] = CellResult(
            error=final[own],
            epochs=np.asarray(state.epoch)[own],
            diverged=diverged[own],
            curve=curve[:, own],
            curve_epochs=np.append(np.arange(0, task.epochs, CURVE_EVERY), task.epochs),
            outputs=outputs[own],
            target=np.asarray(task.data(cell)),
            rate=np.asarray(task.rate(cell)),
            parameters=counted,
        )
    return results


def program(task: Task, name: str, size: int, mesh: Mesh) -> Program:
    """What a sweep compiles for a network and size: runs are laid over the devices of the mesh."""
    graph = runs.structure(task, name, size)
    spread, stacked = PartitionSpec("runs"), PartitionSpec(None, "runs")

    def segment(state: runs.Run, data: Array, rates: Array) -> tuple[runs.Run, Array]:
        # Runs are the last axis of everything while they train, as in the kernels: nothing is transposed.
        train = jax.vmap(functools.partial(runs.epoch, task, graph), in_axes=-1, out_axes=-1)
        state, data, rates = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), (state, data, rates))
        state, errors = lax.scan(lambda state, _: train(state, data, rates), state, length=min(SEGMENT, task.epochs))
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), state), errors

    def each_device(fun, n_in: int, out) -> jax.stages.Wrapped:
        return jax.jit(jax.shard_map(fun, mesh=mesh, in_specs=(spread,) * n_in, out_specs=out, check_vma=False))

    return Program(
        begin=each_device(jax.vmap(functools.partial(runs.begin, task, name, size)), 1, spread),
        segment=each_device(segment, 3, (spread, stacked)),
        finish=each_device(jax.vmap(functools.partial(runs.finish, task, graph)), 2, spread),
    )


def _save(store: Store, label: str, lanes: int, state: runs.Run, errors: list[np.ndarray]) -> None:
    leaves = {f"state{i}": np.asarray(leaf)[:lanes] for i, leaf in enumerate(jax.tree.leaves(state))}
    store.save_partial(label, {**leaves, "errors": np.concatenate(errors)[:, :lanes]})


def _restore(state: runs.Run, stored: dict[str, np.ndarray]) -> runs.Run:
    """The stored runs, filled up for the devices there are now."""
    leaves, tree = jax.tree.flatten(state)
    found = [stored[f"state{i}"] for i in range(len(leaves))]
    filled = [old[np.minimum(np.arange(len(new)), len(old) - 1)] for old, new in zip(found, leaves, strict=True)]
    return jax.tree.unflatten(tree, jax.device_put(filled, [leaf.sharding for leaf in leaves]))

"""What a sweep compiles."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from clockwork.tasks import Task
from clockwork.training import run as runs

# Updates in one compiled call, about: enough to hide its cost, few enough for Ctrl-C, progress and early stopping.
SEGMENT = 50


class Program(NamedTuple):
    """The compiled functions of one network and size; every argument has the runs as its first axis."""

    begin: jax.stages.Wrapped
    segment: jax.stages.Wrapped
    finish: jax.stages.Wrapped


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

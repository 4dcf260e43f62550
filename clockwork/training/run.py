"""One run: a pure function of its key. Everything here is unbatched; the sweep adds ``vmap``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from clockwork.tasks.task import Task


class Run(NamedTuple):
    """One network in training.

    Attributes:
        params: the network's parameters.
        optimizer: the optimiser's state.
        epoch: ``()``, int32, how many epochs it was trained.
        diverged: ``()``, bool, whether its loss or the norm of its gradient was ever not finite.
            Such a run is frozen as it was then.
    """

    params: nnx.State
    optimizer: optax.OptState
    epoch: Array
    diverged: Array


def structure(task: Task, name: str, size: int) -> nnx.GraphDef:
    """All of a network but its parameters, which is the same for every run."""
    return nnx.split(nnx.eval_shape(lambda: task.network(name, size, nnx.Rngs(0))))[0]


def begin(task: Task, name: str, size: int, key: Array) -> Run:
    """A run before its first update."""
    params = nnx.state(task.network(name, size, nnx.Rngs(params=key)), nnx.Param)
    optimizer = task.optimizer(jnp.zeros(())).init(params)
    return Run(params, optimizer, jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def epoch(task: Task, graph: nnx.GraphDef, run: Run, data: Array, learning_rate: Array) -> tuple[Run, Array]:
    """One update, and the error before it. A run that has diverged or is done stays as it is."""

    def loss(params: nnx.State) -> tuple[Array, Array]:
        return task.loss(nnx.merge(graph, params), data)

    (value, error), gradient = jax.value_and_grad(loss, has_aux=True)(run.params)
    updates, optimizer = task.optimizer(learning_rate).update(gradient, run.optimizer, run.params)
    finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
    moves = finite & ~run.diverged & (run.epoch < task.epochs)
    updated = (optax.apply_updates(run.params, updates), optimizer)
    params, optimizer = jax.tree.map(lambda new, old: jnp.where(moves, new, old), updated, (run.params, run.optimizer))
    trained = jnp.where(moves, run.epoch + 1, run.epoch)
    return Run(params, optimizer, trained, run.diverged | ~finite), error


def finish(task: Task, graph: nnx.GraphDef, run: Run, data: Array) -> tuple[Array, Array, Array]:
    """The error of a trained network (NaN if it diverged), whether it did, and its outputs."""
    network = nnx.merge(graph, run.params)
    _, error = task.loss(network, data)
    diverged = run.diverged | ~jnp.isfinite(error)
    return jnp.where(diverged, jnp.nan, error), diverged, task.outputs(network, data)

"""One run: a pure function of its key. Everything here is unbatched; the sweep adds ``vmap``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from clockwork.tasks.task import PyTree, Task

# Folded into a run's key for all that is random in its training; its weights are drawn from the key itself.
TRAINING = 0x7472616E


class Run(NamedTuple):
    """One network in training.

    Attributes:
        params: the network's parameters.
        optimizer: the optimiser's state.
        epoch: ``()``, int32, how many epochs it was trained.
        diverged: ``()``, bool, whether its loss or the norm of its gradient was ever not finite.
            Such a run is frozen as it was then.
        stopped: ``()``, bool, whether it stopped early; it is frozen too.
        lowest: ``()``, float32, the lowest watched error so far.
        since: ``()``, int32, epochs since then.
    """

    params: nnx.State
    optimizer: optax.OptState
    epoch: Array
    diverged: Array
    stopped: Array
    lowest: Array
    since: Array


def structure(task: Task, name: str, size: int) -> nnx.GraphDef:
    """All of a network but its parameters, which is the same for every run."""
    return nnx.split(nnx.eval_shape(lambda: task.network(name, size, nnx.Rngs(0))))[0]


def begin(task: Task, name: str, size: int, key: Array) -> Run:
    """A run before its first update."""
    params = nnx.state(task.network(name, size, nnx.Rngs(params=key)), nnx.Param)
    optimizer = task.optimizer(jnp.zeros(())).init(params)
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return Run(params, optimizer, zero, no, no, jnp.full((), jnp.inf), zero)


def epoch(
    task: Task, graph: nnx.GraphDef, run: Run, key: Array, data: PyTree, learning_rate: Array, number: Array | int
) -> tuple[Run, Array]:
    """One epoch, and the errors before it. A run that has diverged, stopped or is done stays as it is.

    Args:
        task: what is trained.
        graph: the network's `structure`.
        run: the run.
        key: of the run.
        data: the cell's.
        learning_rate: ``()``.
        number: ``()``, int32, how many epochs there were before.
    """
    errors = task.watch(nnx.merge(graph, run.params), data)
    active = ~run.diverged & ~run.stopped & (run.epoch < task.epochs)
    if task.patience is not None and errors is not None:
        watched = task.watched(errors)
        since = jnp.where(watched < run.lowest, 0, run.since + 1)
        stopped = run.stopped | (active & (since >= task.patience))
        run = run._replace(
            lowest=jnp.where(active, jnp.minimum(watched, run.lowest), run.lowest),
            since=jnp.where(active, since, run.since),
            stopped=stopped,
        )
        active &= ~stopped
    key = jax.random.fold_in(jax.random.fold_in(key, TRAINING), number)

    def update(run: Run, xs: tuple[Array, PyTree]) -> tuple[Run, Array]:
        position, batch = xs

        def loss(params: nnx.State) -> tuple[Array, Array]:
            return task.loss(nnx.merge(graph, params), data, batch, jax.random.fold_in(key, position))

        (value, errors), gradient = jax.value_and_grad(loss, has_aux=True)(run.params)
        updates, optimizer = task.optimizer(learning_rate).update(gradient, run.optimizer, run.params)
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
        moves = active & finite & ~run.diverged
        new = (optax.apply_updates(run.params, updates), optimizer)
        params, optimizer = jax.tree.map(lambda new, old: jnp.where(moves, new, old), new, (run.params, run.optimizer))
        return run._replace(params=params, optimizer=optimizer, diverged=run.diverged | (active & ~finite)), errors

    batches = task.batches(data, number)
    if batches is None:
        run, latest = update(run, (jnp.int32(0), None))
    else:
        run, latest = lax.scan(update, run, (jnp.arange(task.updates, dtype=jnp.int32), batches))
    trained = jnp.where(active & ~run.diverged, run.epoch + 1, run.epoch)
    return run._replace(epoch=trained), latest if errors is None else errors


def finish(task: Task, graph: nnx.GraphDef, run: Run, data: PyTree) -> tuple[Array, Array, Array, Array]:
    """The error of a trained network (NaN if it diverged), whether it did, its outputs, and the last of its curve."""
    network = nnx.merge(graph, run.params)
    error, outputs = task.result(network, data)
    diverged = run.diverged | ~jnp.isfinite(error)
    watched = task.watch(network, data)
    curve = error if watched is None else watched
    return jnp.where(diverged, jnp.nan, error), diverged, outputs, jnp.where(diverged, jnp.nan, curve)

"""The compiled functions of a sweep."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from clockwork.training.task import PyTree
from clockwork.training.train_state import Trainer, TrainState

# Updates in one compiled call, about: enough to hide its cost, few enough for Ctrl-C, progress and early stopping.
SEGMENT = 50


class Runs(NamedTuple):
    """The arguments of the compiled functions besides states; runs are the first axis of all but ``data``.

    Attributes:
        keys: ``(R,)``.
        hyperparameters: by name, each ``(R,)``, float32.
        piece: ``(R,)``, int32, which piece of data each run has.
        data: the leaves of the data, in the layout that `Data` describes.
    """

    keys: Array
    hyperparameters: dict[str, Array]
    piece: Array
    data: list[Array]


class Program(NamedTuple):
    """The compiled functions of a group of conditions; runs are the first axis of states and results."""

    begin: jax.stages.Wrapped
    segment: jax.stages.Wrapped
    restore: jax.stages.Wrapped
    finish: jax.stages.Wrapped
    errors: jax.stages.Wrapped


class Data(NamedTuple):
    """How the data of several conditions become arguments of a program.

    Attributes:
        structure: of one condition's data.
        by_piece: for each leaf, whether it differs between pieces of data and so has a first axis of pieces.
    """

    structure: Any
    by_piece: tuple[bool, ...]

    def of_runs(self, runs: Runs, axis: int) -> tuple[PyTree, PyTree]:
        """The data of all runs, whose axis is given, and that axis for each leaf, None where they share it."""
        leaves = [
            jnp.moveaxis(leaf[runs.piece], 0, axis) if own else leaf
            for leaf, own in zip(runs.data, self.by_piece, strict=True)
        ]
        axes = [axis if own else None for own in self.by_piece]
        return jax.tree.unflatten(self.structure, leaves), jax.tree.unflatten(self.structure, axes)


def program(trainer: Trainer, data: Data, mesh: Mesh) -> Program:
    """Make the functions that a sweep compiles for a group of conditions, with runs over the devices of the mesh.

    Args:
        trainer: of one run.
        data: how the data lie in `Runs`.
        mesh: of one axis, ``"runs"``.
    """
    spread, everywhere = PartitionSpec("runs"), PartitionSpec()
    specs = Runs(spread, spread, spread, everywhere)  # pyright: ignore[reportArgumentType]

    def begin(runs: Runs) -> TrainState:
        values, axes = data.of_runs(runs, 0)
        return jax.vmap(trainer.begin, (0, 0, axes))(runs.keys, runs.hyperparameters, values)

    def segment(state: TrainState, runs: Runs, number: Array) -> tuple[TrainState, tuple[Array, Array]]:
        axis = trainer.task.runs_axis  # of everything while the runs train: nothing is transposed
        values, axes = data.of_runs(runs, axis)
        train = jax.vmap(trainer.epoch, (axis, -1, -1, axes, None), (axis, 0))
        state = jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), state)
        epochs = min(max(1, SEGMENT // trainer.task.updates), trainer.task.epochs)
        numbers = number + jnp.arange(epochs, dtype=jnp.int32)
        state, (errors, active) = lax.scan(
            lambda state, n: train(state, runs.keys, runs.hyperparameters, values, n), state, numbers
        )
        # (E, R, ...) to runs first, as all that is laid over the devices
        latest = jnp.moveaxis(errors, 1, 0), jnp.moveaxis(active, 1, 0)
        return jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), state), latest

    def restore(state: TrainState, runs: Runs) -> TrainState:
        values, axes = data.of_runs(runs, 0)
        return jax.vmap(trainer.restore, (0, axes))(state, values)

    def finish(state: TrainState, runs: Runs) -> tuple[Array, Array, PyTree, Array]:
        values, axes = data.of_runs(runs, 0)
        return jax.vmap(trainer.finish, (0, axes))(state, values)

    def errors(state: TrainState, runs: Runs) -> tuple[Array, Array, Array]:
        error, diverged, _, curve = finish(state, runs)
        return error, diverged, curve

    def each_device(fun: Any, specs: tuple, out: Any) -> jax.stages.Wrapped:
        return jax.jit(jax.shard_map(fun, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))

    return Program(
        begin=each_device(begin, (specs,), spread),
        segment=each_device(segment, (spread, specs, everywhere), (spread, spread)),
        restore=each_device(restore, (spread, specs), spread),
        finish=each_device(finish, (spread, specs), spread),
        errors=each_device(errors, (spread, specs), spread),
    )

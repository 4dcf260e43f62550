"""One run: a pure function of its key. Everything here is unbatched; the sweep adds ``jax.vmap``."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from clockwork.training.model import Structure, key_kinds, split, with_keys, without_keys
from clockwork.training.task import Condition, PyTree, Step, Task

# Folded into a run's key for all that is random in its training, and for the order of its batches; the model is made
# from the key itself.
TRAINING, ORDER = 0x7472616E, 0x6F726472


class TrainState(NamedTuple):
    """One model in training.

    Attributes:
        params: the parameters.
        optimizer: the optimiser's state.
        rest: the model's other arrays, such as batch statistics and random streams.
        carry: of the last update, as of `clockwork.training.Loss`.
        epoch: ``()``, int32, how many epochs the run was trained.
        diverged: ``()``, bool, whether its loss or the norm of its gradient was ever not finite.
            Such a run is frozen as it was then.
        stopped: ``()``, bool, whether it stopped early; it is frozen too.
        lowest: ``()``, float32, the lowest watched error so far.
        since: ``()``, int32, epochs since then.
        best: ``params`` and ``rest`` at the lowest watched error, if the task restores them; else ``()``.
    """

    params: PyTree
    optimizer: optax.OptState
    rest: PyTree
    carry: PyTree
    epoch: Array
    diverged: Array
    stopped: Array
    lowest: Array
    since: Array
    best: PyTree = ()


class Trainer:
    """The start, one epoch, and the end of a run.

    The states that go in and out hold the data of random keys in place of the keys, as NumPy can store it.

    Args:
        task: what is trained.
        condition: one of those that are trained side by side.
    """

    def __init__(self, task: Task, condition: Condition) -> None:
        self.task, self.name, self.size = task, condition.network, condition.size
        data = task.data(condition)
        hyperparameters = {name: jnp.float32(0) for name, _ in condition.hyperparameters}

        def begun(key: Array, hyperparameters: dict[str, Array]) -> TrainState:
            state = self._begin(key, hyperparameters, data)
            self.kinds = key_kinds(state)
            return without_keys(state)

        self.structure: Structure
        self.kinds: list[Any]
        self.abstract: TrainState = jax.eval_shape(begun, jax.random.key(0), hyperparameters)

    def _begin(self, key: Array, hyperparameters: dict[str, Array], data: PyTree) -> TrainState:
        model = self.task.model(self.name, self.size, nnx.Rngs(key), hyperparameters)
        self.structure, params, rest = split(model)
        optimizer = self.task.optimizer(hyperparameters).init(params)
        zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        carry = self.task.begin_carry(data)
        best = (params, rest) if self.task.restore_best else ()
        return TrainState(params, optimizer, rest, carry, zero, no, no, jnp.full((), jnp.inf), zero, best)

    def begin(self, key: Array, hyperparameters: dict[str, Array], data: PyTree) -> TrainState:
        """A run before its first update."""
        return without_keys(self._begin(key, hyperparameters, data))

    def model(self, state: TrainState) -> PyTree:
        """The model of a state without random keys."""
        state = with_keys(state, self.kinds)
        return self.structure.merge(state.params, state.rest)

    def epoch(
        self, state: TrainState, key: Array, hyperparameters: dict[str, Array], data: PyTree, number: Array | int
    ) -> tuple[TrainState, tuple[Array, Array]]:
        """One epoch, the errors before it, and whether the run was active: not diverged, stopped or done.

        A run that is not active stays as it is, and its errors here mean nothing.

        Args:
            state: of the run.
            key: of the run.
            hyperparameters: of its condition, by name, each ``()``.
            data: of its condition.
            number: ``()``, int32, how many epochs there were before.
        """
        task = self.task
        errors = task.watch(self.model(state), data)
        state = with_keys(state, self.kinds)
        active = begun = ~state.diverged & ~state.stopped & (state.epoch < task.epochs)
        if self._watches and errors is not None:
            state, active = self._stop_early(state, active, errors)
        order = jax.random.fold_in(jax.random.fold_in(key, ORDER), number)
        key = jax.random.fold_in(jax.random.fold_in(key, TRAINING), number)
        optimizer = optax.with_extra_args_support(task.optimizer(hyperparameters))

        def update(state: TrainState, xs: tuple[Array, PyTree]) -> tuple[TrainState, PyTree]:
            position, batch = xs
            step = Step(batch, jax.random.fold_in(key, position), position, hyperparameters, state.carry)

            def loss(params: PyTree) -> tuple[Array, tuple[PyTree, PyTree, PyTree]]:
                model = self.structure.merge(params, state.rest)
                found = task.loss(model, data, step)
                errors = found.value if isinstance(found.errors, tuple) else found.errors
                return found.value, (errors, split(model)[2], lax.stop_gradient(found.carry))

            (value, (errors, rest, carry)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
            updates, moments = optimizer.update(
                gradient,
                state.optimizer,
                state.params,
                value=value,
                grad=gradient,
                value_fn=lambda params: loss(params)[0],
                since=state.since,
            )
            finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
            moves = active & finite & ~state.diverged
            new = (optax.apply_updates(state.params, updates), moments, rest, carry)
            old = (state.params, state.optimizer, state.rest, state.carry)
            params, moments, rest, carry = jax.tree.map(lambda new, old: jnp.where(moves, new, old), new, old)
            diverged = state.diverged | (active & ~finite)
            return state._replace(params=params, optimizer=moments, rest=rest, carry=carry, diverged=diverged), errors

        batches = task.batches(data, jnp.asarray(number), order)
        if batches is None:
            state, latest = update(state, (jnp.int32(0), None))
        else:
            state, latest = lax.scan(update, state, (jnp.arange(task.updates, dtype=jnp.int32), batches))
            if errors is None:
                latest = jax.tree.map(lambda x: x.mean(0), latest)
        if errors is None:
            errors = latest
            if self._watches:
                state, _ = self._stop_early(state, active & ~state.diverged, errors)
        trained = jnp.where(active & ~state.diverged, state.epoch + 1, state.epoch)
        return without_keys(state._replace(epoch=trained)), (errors, begun)

    @property
    def _watches(self) -> bool:
        """Whether the watched error is used."""
        return self.task.patience is not None or self.task.restore_best

    def _stop_early(self, state: TrainState, active: Array, errors: PyTree) -> tuple[TrainState, Array]:
        """The state with the lowest watched error brought up to date, and whether the run is still active."""
        task, watched = self.task, self.task.watched(errors)
        better = watched < state.lowest
        since = jnp.where(better | ~(state.lowest < task.patience_below), 0, state.since + 1)
        stops = active & (since >= task.patience) if task.patience is not None else jnp.zeros_like(active)
        state = state._replace(
            lowest=jnp.where(active, jnp.fmin(watched, state.lowest), state.lowest),
            since=jnp.where(active, since, state.since),
            stopped=state.stopped | stops,
        )
        return self._keep_best(state, active & better), active & ~stops

    def _keep_best(self, state: TrainState, better: Array) -> TrainState:
        """The state that remembers its parameters if they are the best so far."""
        if not self.task.restore_best:
            return state
        now = (state.params, state.rest)
        return state._replace(best=jax.tree.map(lambda new, old: jnp.where(better, new, old), now, state.best))

    def restore(self, state: TrainState, data: PyTree) -> TrainState:
        """The state at the end of the training with the parameters of the lowest watched error, if the task says so."""
        if not self.task.restore_best:
            return state
        errors = self.task.watch(self.model(state), data)
        state = with_keys(state, self.kinds)
        if errors is not None:  # those after the last update
            state = self._keep_best(state, ~state.diverged & (self.task.watched(errors) < state.lowest))
        params, rest = state.best
        return without_keys(state._replace(params=params, rest=rest))

    def finish(self, state: TrainState, data: PyTree) -> tuple[Array, Array, PyTree, Array]:
        """The results of a run at the end of its training.

        Returns:
            Its error, ``()``, NaN if it diverged; whether it did; its outputs; and the errors that end its learning
            curve, NaN if it diverged or where the curve ends with what `epoch` gave last.
        """
        error, outputs = self.task.result(self.model(state), data)
        diverged = state.diverged | ~jnp.isfinite(error)
        watched = self.task.watch(self.model(state), data)
        curve = watched if watched is not None else error if self.task.curve_ends_with_error else jnp.nan * error
        nan = lambda x: jnp.where(diverged, jnp.nan, x)  # noqa: E731
        return nan(error), diverged, outputs, nan(curve)

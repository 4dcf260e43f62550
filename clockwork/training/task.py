"""What a sweep needs to know of what it trains."""

import hashlib
import math
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import optax
from flax import nnx
from jax import Array

from clockwork.training.model import count

PyTree = Any
# What a key holds: `jax.random.key` takes 32 bits of a seed and `fold_in` as many of a run's number.
MAX_SEED = 2**32 - 1
MAX_RUNS = 2**32
MAX_EPOCHS = 2**31 - 1  # epochs are counted in int32


class Condition(NamedTuple):
    """All runs that differ in their seed alone: what is trained, stored and tabled as one.

    Attributes:
        network: the name of the network, such as ``"cwrnn"``.
        size: the nominal number of parameters; 0 where networks have one size.
        data: the name of the piece of data, such as a clip's; empty where there is one alone.
        hyperparameters: pairs of a name and a value, such as ``(("learning_rate", 3e-4),)``. They are arguments of
            the compiled program: conditions that differ in them are trained side by side.

    Example:
        >>> Condition("cwrnn", 100, "choir", (("learning_rate", 3e-4),)).name
        'cwrnn-100-choir-0.0003'
        >>> Condition("gru", 0, "", (("learning_rate", 0.01), ("noise", 0.5))).name
        'gru-learning_rate=0.01-noise=0.5'
    """

    network: str
    size: int
    data: str
    hyperparameters: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """What the results are stored under; a learning rate that is the only hyper-parameter stands without a name.

        A name of more than 150 letters is cut, and ends with a digest of the whole.
        """
        parts = [self.network, *([str(self.size)] if self.size else []), *([self.data] if self.data else [])]
        alone = [name for name, _ in self.hyperparameters] == ["learning_rate"]
        values = [f"{value!r}" if alone else f"{name}={value!r}" for name, value in self.hyperparameters]
        text = "-".join([*parts, *values])
        return text if len(text) <= 150 else f"{text[:120]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def learning_rate(self) -> float:
        """The learning rate; NaN if it is no hyper-parameter."""
        return dict(self.hyperparameters).get("learning_rate", float("nan"))


class Step(NamedTuple):
    """The arguments of one update, besides the model and the data.

    Attributes:
        batch: what `Task.batches` gives for this update; None where an epoch is one update on all data.
        key: ``()``, of this run and update, for what is random in the loss.
        number: ``()``, int32, the update within the epoch, from 0.
        hyperparameters: of the condition, by name; each ``()``, float32.
        carry: what the update before returned as `Loss.carry`; at the first update of a run, `Task.begin_carry`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> step = Step(None, jax.random.key(0), jnp.int32(0), {"learning_rate": jnp.float32(0.1)}, ())
        >>> float(step.hyperparameters["learning_rate"]) < 0.2
        True
    """

    batch: PyTree
    key: Array
    number: Array
    hyperparameters: dict[str, Array]
    carry: PyTree


class Loss(NamedTuple):
    """What `Task.loss` returns.

    Attributes:
        value: ``()``, the loss whose gradient is taken.
        errors: an array that learning curves are made of; if ``()``, the value is. `Task.watch` takes precedence.
        carry: what the next update of the run gets as `Step.carry`, such as the last hidden state of a sequence that
            is cut into pieces; no gradient flows through it.

    Example:
        >>> import jax.numpy as jnp
        >>> Loss(jnp.float32(0.5)).errors
        ()
    """

    value: Array
    errors: PyTree = ()
    carry: PyTree = ()


class Task:
    """Models, data, loss, error and protocol of one experiment: all that `clockwork.training.sweep` asks of one.

    Subclasses give the attributes and methods below; `clockwork.training.ModelTask` is one for a model of your own.
    What a task computes must depend on its `settings` alone. JAX traces every method from `model` to `result` for one
    run; the sweep adds ``jax.vmap``. Write a subclass at the top of a module of its own: another program reads its
    results after it has imported that module.

    A task may also have a ``title``, a method ``report(results)`` that returns its `clockwork.report.Description`, and,
    if it is a dataclass in ``clockwork.tasks.TASKS``, a command of its own: its options are its fields, and
    ``actions`` names methods that are further things that the command does. A static method is given the results and
    what is named on the command line: files, if it calls its second argument ``files``, else texts. Any other method is
    given the name of a folder. All return the text to print.

    Attributes:
        name: what the task is called in ``runs.csv`` and ``config.json``.
        columns: what a condition's piece of data and a run's error are called in ``runs.csv``.
        runs: ``R``, the runs of each condition.
        epochs: how many epochs a run is trained, at most.
        updates: ``U``, the updates of an epoch.
        patience: a run stops after this many epochs without a lower `watched` error; None: it never does.
        patience_below: patience begins only once the watched error was below this, such as the error of a network that
            has learnt nothing yet.
        restore_best: whether a trained model has the parameters that had the lowest `watched` error, not the last ones.
        seed: run i draws its weights, and whatever else is random in it, from ``fold_in(key(seed), i)``.
        kept_outputs: outputs are stored for this many runs of a condition, those with the lowest error; None: for all.
        curve_every: learning curves have a point for each this many epochs.
        curve_ends_with_error: whether learning curves end with the error of `result`, where `watch` gives none; set it
            to False if `Loss.errors` are another quantity.
        runs_axis: the axis of the runs in every array while they train: -1 for models that compute runs side by side,
            as this library's do, 0 for others.
        recorded: what the stored arrays must be, by name: kinds of dtype, axes and perhaps the axis that bounds
            the values, as of `clockwork.training.arrays.mismatch`.

    Example:
        The least that a task is: three numbers that go to zero, at one learning rate.

        >>> import jax, jax.numpy as jnp, optax, tempfile
        >>> from clockwork.training import sweep
        >>> class Quadratic(Task):
        ...     name, runs, epochs = "quadratic", 4, 50
        ...
        ...     def conditions(self):
        ...         return [Condition("point", 0, "", (("learning_rate", 0.1),))]
        ...
        ...     def settings(self):
        ...         return {"runs": self.runs}
        ...
        ...     def data(self, condition):
        ...         return np.zeros(3, np.float32)
        ...
        ...     def model(self, name, size, rngs, hyperparameters):
        ...         return {"at": jax.random.normal(rngs.params(), (3,))}
        ...
        ...     def optimizer(self, hyperparameters):
        ...         return optax.sgd(hyperparameters["learning_rate"])
        ...
        ...     def loss(self, model, data, step):
        ...         return Loss(jnp.square(model["at"] - data).sum())
        ...
        ...     def result(self, model, data):
        ...         return jnp.square(model["at"] - data).sum(), model["at"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (result,) = sweep(Quadratic(), folder).conditions.values()
        >>> result.outputs.shape, bool(result.error.max() < 1e-3)
        ((4, 3), True)
    """

    name: Any = "task"
    columns: ClassVar[tuple[str, str]] = ("data", "error")
    runs: Any = 1
    epochs: Any = 1
    updates: Any = 1
    patience: Any = None
    patience_below: Any = math.inf
    restore_best: Any = False
    seed: Any = 0
    kept_outputs: Any = None
    curve_every: Any = 1
    curve_ends_with_error: Any = True
    runs_axis: ClassVar[int] = -1
    recorded: ClassVar[dict[str, tuple[str, ...]]] = {}

    def conditions(self) -> list[Condition]:
        """All conditions, in the order of the table; those of one group follow one another."""
        raise NotImplementedError

    def group(self, condition: Condition) -> tuple[str, ...]:
        """What conditions must have in common to be trained side by side: network, size, and perhaps data."""
        return condition.network, *([str(condition.size)] if condition.size else [])

    def settings(self) -> dict[str, Any]:
        """All that decides the results, by name, as values that JSON can hold."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """The task whose `settings` these are, to read its results.

        Raises:
            ValueError: if they are not of such a task.
        """
        raise NotImplementedError

    def remarks(self) -> list[str]:
        """Sentences to be read before the training, such as what is left out of the data."""
        return []

    def data(self, condition: Condition) -> PyTree:
        """What the runs of a condition are trained on: arrays, of the same shapes for all conditions of a group.

        An array that is the same object for all conditions of a group is there once; the others are there once for
        each piece of data, and each run gets its own.
        """
        raise NotImplementedError

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """What a report needs to know of a condition's data; it is stored with the results."""
        del condition
        return {}

    def model(self, name: str, size: int, rngs: nnx.Rngs, hyperparameters: dict[str, Array]) -> PyTree:
        """A model with fresh parameters: an nnx module, or a tree of arrays of floating point numbers.

        Args:
            name: of a condition's network.
            size: of a condition.
            rngs: the source of the keys; the key of stream ``params`` is the run's.
            hyperparameters: of the condition, by name.
        """
        raise NotImplementedError

    def num_parameters(self, condition: Condition, params: PyTree) -> int:
        """The number of parameters of a condition's model, for the table.

        Args:
            condition: of the task.
            params: the model's parameters, or their shapes.
        """
        del condition
        return count(params)

    def optimizer(self, hyperparameters: dict[str, Array]) -> optax.GradientTransformation:
        """The optimiser of one run; its `update` is given ``value=``, ``grad=`` and ``value_fn=`` where it takes them.

        Args:
            hyperparameters: of the condition, by name; the structure of the optimiser's state must not depend on them.
        """
        raise NotImplementedError

    def begin_carry(self, data: PyTree) -> PyTree:
        """What the first update of a run gets as `Step.carry`."""
        del data
        return ()

    def batches(self, data: PyTree, epoch: Array, key: Array) -> PyTree:
        """The batches of an epoch, arrays ``(U, ...)``; None where an epoch is one update on all data.

        Args:
            data: of the condition.
            epoch: ``()``, int32, how many there were before.
            key: ``()``, of this run and epoch.
        """
        del data, epoch, key

    def loss(self, model: PyTree, data: PyTree, step: Step) -> Loss:
        """The loss of one update; what it changes in the state of an nnx module is kept.

        Args:
            model: of one run.
            data: of the condition.
            step: batch, key, hyper-parameters and carry of the update.
        """
        raise NotImplementedError

    def watch(self, model: PyTree, data: PyTree) -> Array | None:
        """The errors that learning curves are made of, before each epoch; None: those that `loss` gives.

        Args:
            model: of one run.
            data: of the condition.
        """
        del model, data

    def watched(self, errors: Array) -> Array:
        """Of the errors of `watch`, the one that tells when to stop, ``()``."""
        return errors

    def result(self, model: PyTree, data: PyTree) -> tuple[Array, PyTree]:
        """The error of a trained model, ``()``, and its outputs: an array, or several by name.

        Args:
            model: of one run.
            data: of the condition.
        """
        raise NotImplementedError

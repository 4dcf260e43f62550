"""Tasks: what a sweep trains."""

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
    """The runs that differ only in their seed. They are trained, stored and tabulated together.

    Attributes:
        network: the name of the network, such as ``"cwrnn"``.
        size: the nominal number of parameters; 0 if the task has networks of one size only.
        data: the name of the piece of data, such as a clip; empty if the task has only one.
        hyperparameters: pairs of a name and a value, such as ``(("learning_rate", 3e-4),)``. They are arguments of
            the compiled program, so conditions that differ only in them are trained in one program.

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
        """The name that the results are stored under; a learning rate that is the only hyper-parameter is not named.

        A name longer than 150 characters is shortened and ends with a digest of the full name.
        """
        parts = [self.network, *([str(self.size)] if self.size else []), *([self.data] if self.data else [])]
        alone = [name for name, _ in self.hyperparameters] == ["learning_rate"]
        values = [f"{value!r}" if alone else f"{name}={value!r}" for name, value in self.hyperparameters]
        text = "-".join([*parts, *values])
        return text if len(text) <= 150 else f"{text[:120]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def learning_rate(self) -> float:
        """The learning rate; NaN if the condition has none."""
        return dict(self.hyperparameters).get("learning_rate", float("nan"))


def group_label(task: "Task", condition: Condition) -> str:
    """The name of the group that a condition is trained in, such as ``"cwrnn-1000"``."""
    return "-".join(task.group(condition))


class Step(NamedTuple):
    """The arguments of one update, besides the model and the data.

    Attributes:
        batch: what `Task.batches` gives for this update; None where an epoch is one update on all data.
        key: ``()``, the random key of this run and update, for any randomness in the loss.
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
        errors: an array that the learning curves show; ``()`` to show the value. `Task.watch` takes precedence.
        carry: passed to the next update of the run as `Step.carry`, such as the last hidden state of a sequence that
            is cut into pieces. No gradient flows through it.

    Example:
        >>> import jax.numpy as jnp
        >>> Loss(jnp.float32(0.5)).errors
        ()
    """

    value: Array
    errors: PyTree = ()
    carry: PyTree = ()


class Task:
    """One experiment: its models, data, loss, error and protocol, as `clockwork.training.sweep` needs them.

    Subclasses define the attributes and methods below; `clockwork.training.ModelTask` is a ready subclass for a model
    of your own. The results of a task must depend only on its `settings`. JAX traces every method from `model` to
    `result` for a single run, and the sweep adds ``jax.vmap``. Define a subclass at the top level of a module, so that
    another program can read its results after importing that module.

    A task may also have a ``title``, a method ``report(results)`` that returns its `clockwork.report.Description`, and,
    if it is a dataclass in ``clockwork.tasks.TASKS``, a command of its own: its options are its fields, and
    ``actions`` names methods that are further things that the command does. A static method is given the results and
    what is named on the command line: files, if it calls its second argument ``files``, else texts. Any other method is
    given the name of a folder. All return the text to print.

    Attributes:
        name: the name of the task in ``runs.csv`` and ``config.json``.
        columns: the names of the columns of ``runs.csv`` for the piece of data and for the error.
        runs: ``R``, the number of runs of each condition.
        epochs: the largest number of epochs of a run.
        updates: ``U``, the number of updates in an epoch.
        patience: a run stops after this many epochs without a lower `watched` error; None to never stop early.
        patience_below: early stopping starts counting once the watched error has been below this value, such as the
            error of an untrained network.
        restore_best: whether a trained model gets the parameters with the lowest `watched` error, not the last ones.
        seed: run i draws its weights and all other random numbers from ``fold_in(key(seed), i)``.
        kept_outputs: the number of runs of a condition, those with the lowest errors, whose outputs are stored; None
            for all runs.
        curve_every: the number of epochs between two points of a learning curve.
        curve_ends_with_error: whether a learning curve ends with the error of `result` if `watch` returns None. Set it
            to False if `Loss.errors` are a different quantity.
        runs_axis: the axis of the runs in every array while they train: -1 for models that compute runs side by side,
            as this library's do, 0 for others.
        recorded: the expected form of the stored arrays, by name: kinds of dtype, axes and optionally the axis whose
            size bounds the values; see `clockwork.training.arrays.mismatch`.

    Example:
        A minimal task: three numbers that are driven to zero, with one learning rate.

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
        """All conditions, in the order of the table; the conditions of a group must be adjacent."""
        raise NotImplementedError

    def group(self, condition: Condition) -> tuple[str, ...]:
        """The key of the group of a condition. Conditions with equal keys are trained in one program."""
        return condition.network, *([str(condition.size)] if condition.size else [])

    def settings(self) -> dict[str, Any]:
        """Everything that determines the results, by name, as values that JSON can represent."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Make the task with these `settings`, to read its results.

        Raises:
            ValueError: if they are not the settings of such a task.
        """
        raise NotImplementedError

    def remarks(self) -> list[str]:
        """Sentences to print before training, such as which data are left out."""
        return []

    def data(self, condition: Condition) -> PyTree:
        """The data of a condition: a tree of arrays, with the same shapes for all conditions of a group.

        An array that is the same object for all conditions of a group is placed on the devices once. Other arrays are
        placed once for each piece of data, and each run reads its own.
        """
        raise NotImplementedError

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """What a report needs to know about a condition's data, as arrays by name; stored with the results."""
        del condition
        return {}

    def model(self, name: str, size: int, rngs: nnx.Rngs, hyperparameters: dict[str, Array]) -> PyTree:
        """A model with fresh parameters: an nnx module, or a tree of arrays of floating point numbers.

        Args:
            name: of a condition's network.
            size: of a condition.
            rngs: the source of the random keys; the key of its stream ``params`` is the run's key.
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
        """The optimiser of one run.

        Its ``update`` gets ``value=``, ``grad=``, ``value_fn=`` and ``since=`` if it accepts them. The last is an int32
        ``()``, the number of epochs since the lowest `watched` error, for rates that fall when it stops falling; it is
        0 if the task has neither a `patience` nor `restore_best`.

        Args:
            hyperparameters: of the condition, by name; the structure of the optimiser's state must not depend on them.
        """
        raise NotImplementedError

    def begin_carry(self, data: PyTree) -> PyTree:
        """The `Step.carry` of the first update of a run."""
        del data
        return ()

    def batches(self, data: PyTree, epoch: Array, key: Array) -> PyTree:
        """The batches of an epoch, arrays ``(U, ...)``; None if an epoch is one update on all data.

        Args:
            data: of the condition.
            epoch: ``()``, int32, the number of epochs before this one.
            key: ``()``, the random key of this run and epoch.
        """
        del data, epoch, key

    def loss(self, model: PyTree, data: PyTree, step: Step) -> Loss:
        """The loss of one update. Changes that it makes to the state of an nnx module are kept.

        Args:
            model: of one run.
            data: of the condition.
            step: the batch, key, hyper-parameters and carry of the update.
        """
        raise NotImplementedError

    def watch(self, model: PyTree, data: PyTree) -> Array | None:
        """The errors that learning curves show, measured before each epoch; None to use those that `loss` returns.

        Args:
            model: of one run.
            data: of the condition.
        """
        del model, data

    def watched(self, errors: Array) -> Array:
        """The error that decides about early stopping, ``()``, selected from the errors of `watch`."""
        return errors

    def result(self, model: PyTree, data: PyTree) -> tuple[Array, PyTree]:
        """The error of a trained model, ``()``, and its outputs: an array, or a dictionary of arrays.

        Args:
            model: of one run.
            data: of the condition.
        """
        raise NotImplementedError

"""A task made of a model of your own, a loss and data."""

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from clockwork.checks import ArgumentError, finite, integer, shown
from clockwork.training.search import Search
from clockwork.training.task import MAX_EPOCHS, MAX_RUNS, MAX_SEED, Condition, Loss, PyTree, Step, Task

NAME = re.compile(r"[A-Za-z0-9_.+-]{1,80}")  # becomes part of a file's name


class ModelTask(Task):
    """A model of your own, trained many times: every run of every point of a search, side by side in one program.

    Each of the functions below may also take, by name, any hyper-parameter of the search, as a float32 scalar; and
    ``loss`` and ``error`` may take ``key``, a random key of the run and update, and ``carry``. A model that is an nnx
    module is in training mode for ``loss`` and in evaluation mode for ``error`` and ``outputs``; all of its state is
    kept: parameters, batch statistics, random streams.

    Run i of a condition is a function of ``key = jax.random.fold_in(jax.random.key(seed), i)``: its model is made by
    ``model(nnx.Rngs(key))`` or ``init(key)``.

    Args:
        model: a function of ``nnx.Rngs`` that makes an nnx module, such as ``lambda rngs: Net(rngs=rngs)``, or
            `linen_model`; or several such functions by the names of the networks.
        init: in place of ``model``, a function of a key that makes a tree of parameters; or several by name.
        loss: a function of the model (of ``init``: the parameters) and a batch; returns a scalar, or with
            ``begin_carry`` the scalar and the carry for the next update.
        data: arrays, or a tree of arrays, with a common first axis of examples.
        error: a function of the model and data that returns the scalar to report; the loss if None.
        outputs: a function of the model and data whose result, an array or several by name, is kept of the best runs.
        validation: data on which the error is measured before every epoch; it is what ``patience`` watches. If None,
            ``patience`` watches the mean training loss of an epoch.
        test: data on which the error of a trained model is measured; ``validation`` if None, else ``data``.
        optimizer: an optax optimiser, or a function that makes one, such as ``optax.adam``.
        search: the points of the search: `grid` or `random`, or any list of hyper-parameters by name.
        batch_size: examples of an update; None for all at once. What is left over of an epoch is dropped.
        shuffle: whether each run draws a new order of the examples for each epoch.
        begin_carry: a function without arguments that makes the carry of a run's first update, such as the hidden
            state of a sequence that is trained piece by piece.
        runs: training runs of each point of the search.
        epochs: passes over the data, at most.
        patience: a run stops after this many epochs without improvement; None: it never does.
        kept_outputs: of how many runs of a condition ``outputs`` are kept, those with the lowest error.
        seed: from 0 to 2**32 - 1.
        name: of the task, for the table.

    Raises:
        ValueError: if an argument is out of range, a hyper-parameter is one that no function takes, or one that the
            optimiser needs is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from clockwork.training import ModelTask, grid
        >>> x = jnp.linspace(-1, 1, 32)
        >>> task = ModelTask(
        ...     init=lambda key: {"w": jax.random.normal(key, (3,))},
        ...     loss=lambda params, batch: jnp.square(jnp.polyval(params["w"], batch[0]) - batch[1]).mean(),
        ...     data=(x, jnp.sin(x)),
        ...     optimizer=optax.adam,
        ...     search=grid(learning_rate=(1e-2, 1e-1)),
        ...     runs=4,
        ...     epochs=20,
        ... )
        >>> [condition.name for condition in task.conditions()]
        ['model-0.01', 'model-0.1']
    """

    runs_axis = 0

    def __init__(
        self,
        *,
        loss: Callable,
        data: PyTree,
        model: Callable | Mapping[str, Callable] | None = None,
        init: Callable | Mapping[str, Callable] | None = None,
        error: Callable | None = None,
        outputs: Callable | None = None,
        validation: PyTree = None,
        test: PyTree = None,
        optimizer: Callable | optax.GradientTransformation = optax.adam,
        search: Search = ({},),
        batch_size: int | None = None,
        shuffle: bool = True,
        begin_carry: Callable | None = None,
        runs: int = 10,
        epochs: int = 100,
        patience: int | None = None,
        kept_outputs: int = 1,
        seed: int = 0,
        name: str = "model",
    ) -> None:
        if (model is None) == (init is None):
            raise ValueError(f"give either model or init, got {'neither' if model is None else 'both'}")
        given: Any = init if model is None else model
        self._pure = model is None
        self._networks: dict[str, Callable] = dict(given) if isinstance(given, Mapping) else {"model": given}
        self._functions = {"loss": loss, "error": error, "outputs": outputs, "begin_carry": begin_carry}
        for what, function in {**self._networks, **self._functions}.items():
            if not (callable(function) or (function is None and what in ("error", "outputs", "begin_carry"))):
                raise ArgumentError(what, f"must be a function, got {shown(function)}")
        for network in self._networks:
            if not (isinstance(network, str) and NAME.fullmatch(network)):
                raise ValueError(
                    f"the name of a network must be letters, digits and any of _.+- (at most 80), got {network!r}"
                )
        self._optimizer = optimizer
        self.name = name
        self.runs = integer("runs", runs, 1, MAX_RUNS)
        self.epochs = integer("epochs", epochs, 1, MAX_EPOCHS)
        self.seed = integer("seed", seed, 0, MAX_SEED)
        self.patience = None if patience is None else integer("patience", patience, 1)
        self.kept_outputs = integer("kept_outputs", kept_outputs, 1, self.runs)
        self._data, self._validation, self._test = (_arrays(tree) for tree in (data, validation, test))
        self._examples = _examples(self._data)
        self._batch_size = None if batch_size is None else integer("batch_size", batch_size, 1, self._examples)
        self._shuffle = shuffle
        self.updates = 1 if self._batch_size is None else self._examples // self._batch_size
        self._search = [{str(k): finite(str(k), v) for k, v in point.items()} for point in search]
        self._check_search()
        self._description = self._describe()

    def _check_search(self) -> None:
        if not self._search or any(set(point) != set(self._search[0]) for point in self._search):
            raise ArgumentError("search", "must be one or more points that name the same hyper-parameters")
        if len({tuple(point.values()) for point in self._search}) < len(self._search):
            raise ArgumentError("search", "must have each point once")
        makers: list[Any] = [] if _is_optimizer(self._optimizer) else [self._optimizer]
        given = (*self._networks.values(), *self._functions.values(), *makers)
        functions: list[Any] = [function for function in given if function is not None]
        first = {*self._networks.values()}, {self._functions[name] for name in ("loss", "error", "outputs")}
        taken = {
            name
            for function in functions
            for name in list(_parameters(function))[1 if function in first[0] else 2 if function in first[1] else 0 :]
        } - {"key", "carry"}
        for name in self._search[0]:
            if name not in taken and not any(_takes_all(function) for function in functions):
                raise ArgumentError(
                    "search", f"has the hyper-parameter {name!r}, which no function takes; they take {sorted(taken)}"
                )
        for maker in makers:
            missing = [
                name
                for name, parameter in _parameters(maker).items()
                if parameter.default is parameter.empty and name not in self._search[0]
            ]
            if missing:
                raise ArgumentError(
                    "search",
                    f"must give {missing[0]}, which the optimiser needs, such as grid({missing[0]}=(1e-3, 1e-2))",
                )

        needed = [
            name
            for name, parameter in list(_parameters(self._functions["loss"]).items())[2:]  # pyright: ignore
            if parameter.default is parameter.empty and name not in ("key", "carry")
        ]
        for name in needed:
            if name not in self._search[0]:
                raise ArgumentError(
                    "search", f"must give {name}, which the loss needs, such as grid({name}=(0.1, 0.2))"
                )
            if self._functions["error"] is None:
                raise ArgumentError("error", f"must be given, since the loss needs the hyper-parameter {name}")

    def _describe(self) -> dict[str, Any]:
        functions = {**self._networks, **self._functions, "optimizer": self._optimizer}
        trees = {"data": self._data, "validation": self._validation, "test": self._test}
        return {
            "runs": self.runs,
            "epochs": self.epochs,
            "patience": self.patience,
            "seed": self.seed,
            "kept_outputs": self.kept_outputs,
            "networks": list(self._networks),
            "search": self._search,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
            "validated": self._validation is not None,
            "functions": {name: _described(f) for name, f in functions.items() if f is not None},
            "sha256": {name: _digest(tree) for name, tree in trees.items() if tree is not None},
        }

    def settings(self) -> dict[str, Any]:
        """The arguments; of functions their names and a digest of their source, of arrays a digest."""
        return self._description

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """A task whose results can be read and reported; it has no functions and no data, and cannot be trained."""
        task = object.__new__(cls)
        try:
            task.name = str(settings["task"])
            task.runs, task.epochs = integer("runs", settings["runs"], 1), integer("epochs", settings["epochs"], 1)
            task.seed, task.kept_outputs = settings["seed"], settings["kept_outputs"]
            task.patience = settings["patience"]
            task._pure, task._networks = False, dict.fromkeys(settings["networks"], _only_read)
            task._search = [{str(k): finite(str(k), v) for k, v in point.items()} for point in settings["search"]]
        except (KeyError, AttributeError) as error:
            raise ValueError(f"these are not the settings of a ModelTask: {error!r}") from None
        task._description = {name: value for name, value in settings.items() if name != "task"}
        return task

    def conditions(self) -> list[Condition]:
        """A condition for each network and point of the search."""
        return [Condition(network, 0, "", tuple(point.items())) for network in self._networks for point in self._search]

    def data(self, condition: Condition) -> PyTree:
        """Training, validation and test data."""
        del condition
        return self._data, self._validation, self._test

    def model(self, name: str, size: int, rngs: nnx.Rngs, hyperparameters: dict[str, Array]) -> PyTree:
        """The model that the function of this name makes."""
        del size
        function = self._networks[name]
        return _call(function, rngs.default.key[...] if self._pure else rngs, hyperparameters=hyperparameters)

    def optimizer(self, hyperparameters: dict[str, Array]) -> optax.GradientTransformation:
        """The optimiser, made with those hyper-parameters that it takes."""
        if _is_optimizer(self._optimizer):
            return self._optimizer  # pyright: ignore[reportReturnType]
        return _call(self._optimizer, hyperparameters=hyperparameters)

    def begin_carry(self, data: PyTree) -> PyTree:
        """The carry of a run's first update."""
        del data
        function = self._functions["begin_carry"]
        return () if function is None else function()

    def batches(self, data: PyTree, epoch: Array, key: Array) -> Array | None:
        """The examples of each update, ``(U, batch_size)``; None for all at once."""
        del epoch
        if self._batch_size is None:
            return None
        examples = jnp.arange(self._examples, dtype=jnp.int32)
        order = jax.random.permutation(key, examples) if self._shuffle else examples
        return order[: self.updates * self._batch_size].reshape(self.updates, self._batch_size)

    def loss(self, model: PyTree, data: PyTree, step: Step) -> Loss:
        """The loss on a batch."""
        batch = data[0] if step.batch is None else jax.tree.map(lambda x: x[step.batch], data[0])
        if isinstance(model, nnx.Module):
            model.train()
        extra = {**step.hyperparameters, "key": step.key, "carry": step.carry}
        found = _call(self._functions["loss"], model, batch, hyperparameters=extra)
        value, carry = (found, ()) if self._functions["begin_carry"] is None else found
        return Loss(value, value, carry)

    def watch(self, model: PyTree, data: PyTree) -> Array | None:
        """The error on the validation data; None if there are none."""
        return None if self._validation is None else self._error(model, data[1])

    def result(self, model: PyTree, data: PyTree) -> tuple[Array, PyTree]:
        """The error of a trained model, and its outputs."""
        _, validation, test = data
        measured = next(part for part in (test, validation, data[0]) if part is not None)
        function = self._functions["outputs"]
        found = jnp.zeros(0) if function is None else _call(function, model, measured, hyperparameters={})
        return self._error(model, measured), found

    def _error(self, model: PyTree, data: PyTree) -> Array:
        if isinstance(model, nnx.Module):
            model.eval()
        if self._functions["error"] is not None:
            return _call(self._functions["error"], model, data, hyperparameters={})
        extra = {"key": jax.random.key(0), "carry": self.begin_carry(data)}
        found = _call(self._functions["loss"], model, data, hyperparameters=extra)
        return found if self._functions["begin_carry"] is None else found[0]


def _arrays(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x if isinstance(x, Array) else np.asarray(x), tree)


def _examples(data: PyTree) -> int:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or () in lengths or 0 in next(iter(lengths)):
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
        raise ArgumentError("data", f"must be arrays with a common first axis of examples, got shapes {shapes}")
    return next(iter(lengths))[0]


def _is_optimizer(optimizer: Any) -> bool:
    return hasattr(optimizer, "init") and hasattr(optimizer, "update")


def _parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters that may be passed by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind in kinds}


def _takes_all(function: Callable) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _call(function: Any, *arguments: Any, hyperparameters: Mapping[str, Any]) -> Any:
    """The function of these arguments, and of those hyper-parameters that it takes by name."""
    names = list(_parameters(function))[len(arguments) :]
    taken = hyperparameters if _takes_all(function) else {n: v for n, v in hyperparameters.items() if n in names}
    return function(*arguments, **taken)


def _only_read(*arguments: Any) -> Any:
    raise ValueError("this task was read from a results folder: make it again from its functions to train it")


def _described(function: Any) -> Any:
    """A function as JSON can hold it, so that results of another are refused."""
    if isinstance(function, functools.partial):
        arguments = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return [_described(function.func), *arguments]
    if _is_optimizer(function):
        return [_described(function.init), _described(function.update)]
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    try:
        source = inspect.getsource(function)
        used = inspect.getclosurevars(function)
    except (OSError, TypeError, ValueError):
        return name
    values = {k: v for k, v in {**used.nonlocals, **used.globals}.items() if isinstance(v, (bool, int, float, str))}
    return f"{name} {hashlib.sha256(f'{source}{sorted(values.items())}'.encode()).hexdigest()[:16]}"


def _digest(tree: PyTree) -> str:
    digest = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

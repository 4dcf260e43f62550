"""A task made of a model of your own, a loss and data."""

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
from clockwork.training.fingerprint import digest, fingerprint
from clockwork.training.search import Search
from clockwork.training.task import MAX_EPOCHS, MAX_RUNS, MAX_SEED, Condition, Loss, PyTree, Step, Task

# Columns of `runs.csv`: a hyper-parameter has a column too.
RESERVED = {"task", "network", "size", "parameters", "data", "run", "seed", "epochs", "error", "diverged"}
NAME = re.compile(r"[A-Za-z0-9_.+-]{1,80}")  # becomes part of a file's name


class ModelTask(Task):
    """A task that trains a model of your own: all runs of all points of a search, in one program.

    ``model`` or ``init``, ``loss`` and ``optimizer`` may take any hyper-parameter of the search by name. The value
    is a traced float32 scalar: a module that keeps it as an attribute must hold it in an ``nnx.Variable``, and Python
    code cannot branch on it. ``loss`` may also take ``key``, a random key of the run and update, and ``carry``. An
    nnx module is in training mode for ``loss`` and in evaluation mode for ``error`` and ``outputs``; all of its state
    is kept: parameters, batch statistics, random streams.

    Run i of a condition is a function of ``key = jax.random.fold_in(jax.random.key(seed), i)``: its model is made by
    ``model(nnx.Rngs(key))`` or ``init(key)``. Draw random data from a different seed than the task's, or the data may
    be the same numbers as a run's weights. A results folder can be continued only by the same task: equal
    arguments, equal data, and unchanged source code of its functions and of everything that they use.

    Args:
        model: a function of ``nnx.Rngs`` that makes an nnx module, such as ``lambda rngs: Net(rngs=rngs)``, or
            `linen_model`; or several such functions by the names of the networks.
        init: in place of ``model``, a function of a key that makes a tree of parameters; or several by name.
        loss: a function of the model (of ``init``: the parameters) and a batch; returns a scalar, or with
            ``begin_carry`` the scalar and the carry for the next update.
        data: arrays, or a tree of arrays, with a common first axis of examples.
        error: a function of the model and data that returns the scalar to report; if None, the loss, which must then
            take the model and the data alone.
        outputs: a function of the model and data whose result, an array or a dictionary of arrays, is stored for the
            ``kept_outputs`` runs of a condition with the lowest errors.
        validation: data on which the error is measured before every epoch; it is what ``patience`` watches. If None,
            ``patience`` watches the mean training loss of an epoch.
        test: data on which the error of a trained model is measured; ``validation`` if None, else ``data``.
        optimizer: an optax optimiser, or a function that makes one, such as ``optax.adam``.
        search: the points of the search: `grid` or `random`, or any list of hyper-parameters by name.
        batch_size: the number of examples of an update; None for all. An incomplete last batch is dropped.
        shuffle: whether each run draws a new order of the examples for each epoch; by default it does unless there is
            a ``begin_carry``.
        begin_carry: a function without arguments that makes the carry of a run's first update, such as the hidden
            state of a sequence that is trained in pieces. The carry is passed on from one epoch to the next.
        runs: training runs of each point of the search.
        epochs: passes over the data, at most.
        patience: stop a run after this many epochs without improvement; it keeps its last parameters. None to never
            stop early.
        kept_outputs: for how many runs of a condition ``outputs`` are stored.
        seed: from 0 to 2**32 - 1.
        name: of the task.

    Raises:
        ValueError: if an argument is out of range, no function takes a hyper-parameter, or a hyper-parameter that the
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
        shuffle: bool | None = None,
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
        if not (callable(optimizer) or _is_optimizer(optimizer)):
            raise ArgumentError("optimizer", f"must be an optax optimiser or a function, got {shown(optimizer)}")
        _check_names(name, self._networks)
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
        self._shuffle = begin_carry is None if shuffle is None else bool(shuffle)
        self.curve_ends_with_error = False  # without validation data, curves are of the training loss
        self.updates = 1 if self._batch_size is None else self._examples // self._batch_size
        self._search = _points(search)
        self._check_search()
        self._description = self._describe()

    def _check_search(self) -> None:
        """Raise ``ValueError`` unless every hyper-parameter has a function that takes it, and no function lacks one."""
        names = set(self._search[0])
        makers: list[Any] = [] if _is_optimizer(self._optimizer) else [self._optimizer]
        loss: Any = self._functions["loss"]
        takers = [(function, 1) for function in self._networks.values()] + [(loss, 2)] + [(m, 0) for m in makers]
        taken = set().union(*(_parameters(function, given) for function, given in takers)) - {"key", "carry", "rngs"}
        for name in names:
            if name in RESERVED | {"key", "carry", "rngs"} or not name.isidentifier():
                raise ArgumentError("search", f"must not have a hyper-parameter named {name!r}")
            if name not in taken and not any(_takes_all(function) for function, _ in takers):
                raise ArgumentError(
                    "search", f"has the hyper-parameter {name!r}, which no function takes; they take {sorted(taken)}"
                )
        for function, given, what in [*((maker, 0, "the optimiser") for maker in makers), (loss, 2, "the loss")]:
            for name, parameter in _parameters(function, given).items():
                if parameter.default is parameter.empty and name not in names | ({"key", "carry"} if given else set()):
                    raise ArgumentError(
                        "search", f"must give {name}, which {what} needs, such as grid({name}=(1e-3, 1e-2))"
                    )
        more = set(_parameters(loss, 2)) & (names | {"key", "carry"})
        if self._functions["error"] is None and more:
            raise ArgumentError("error", f"must be given, since the loss takes {', '.join(sorted(more))}")

    def _describe(self) -> dict[str, Any]:
        functions = {**self._functions, "optimizer": self._optimizer, "class": type(self)}
        trees = {"data": self._data, "validation": self._validation, "test": self._test}
        return {
            "runs": self.runs,
            "epochs": self.epochs,
            "patience": self.patience,
            "seed": self.seed,
            "kept_outputs": self.kept_outputs,
            "name": self.name,
            "networks": {name: fingerprint(function) for name, function in self._networks.items()},
            "search": self._search,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
            "validated": self._validation is not None,
            "functions": {name: fingerprint(f) for name, f in functions.items() if f is not None},
            "sha256": {name: digest(tree) for name, tree in trees.items() if tree is not None},
        }

    def settings(self) -> dict[str, Any]:
        """The arguments, with a digest in place of each function and of each array."""
        return self._description

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """A task whose results can be read and reported; it has no functions and no data, and cannot be trained."""
        task = object.__new__(cls)
        try:
            task._description = {name: value for name, value in settings.items() if name != "task"}
            task._pure, task._networks = False, dict.fromkeys(settings["networks"], _only_read)
            task.name, patience = settings["name"], settings["patience"]
            task.runs = integer("runs", settings["runs"], 1, MAX_RUNS)
            task.epochs = integer("epochs", settings["epochs"], 1, MAX_EPOCHS)
            task.seed = integer("seed", settings["seed"], 0, MAX_SEED)
            task.patience = None if patience is None else integer("patience", patience, 1)
            task.kept_outputs = integer("kept_outputs", settings["kept_outputs"], 1, task.runs)
            task._search = _points(settings["search"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"these are not the settings of a ModelTask: {error!r}") from None
        _check_names(task.name, task._networks)
        return task

    def conditions(self) -> list[Condition]:
        """A condition for each network and point of the search."""
        return [Condition(network, 0, "", tuple(point.items())) for network in self._networks for point in self._search]

    def data(self, condition: Condition) -> PyTree:
        """Training, validation and test data."""
        del condition
        if not hasattr(self, "_data"):
            _only_read()
        return self._data, self._validation, self._test

    def model(self, name: str, size: int, rngs: nnx.Rngs, hyperparameters: dict[str, Array]) -> PyTree:
        """The model that the function of this name makes."""
        del size
        function = self._networks[name]
        if self._pure:
            return _call(function, rngs.default.key[...], named=hyperparameters)
        rngs_by_name = _parameters(function).get("rngs")
        if rngs_by_name is not None and rngs_by_name.kind is rngs_by_name.KEYWORD_ONLY:
            return _call(function, named={**hyperparameters, "rngs": rngs})
        return _call(function, rngs, named=hyperparameters)

    def optimizer(self, hyperparameters: dict[str, Array]) -> optax.GradientTransformation:
        """The optimiser, made with those hyper-parameters that it takes."""
        if _is_optimizer(self._optimizer):
            return self._optimizer  # pyright: ignore[reportReturnType]
        return _call(self._optimizer, named=hyperparameters)

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
        found = _call(self._functions["loss"], model, batch, named=extra)
        value, carry = (found, ()) if self._functions["begin_carry"] is None else found
        return Loss(value, value, carry)

    def watch(self, model: PyTree, data: PyTree) -> Array | None:
        """The error on the validation data; None if there are none."""
        return None if self._validation is None else self._error(model, data[1])

    def result(self, model: PyTree, data: PyTree) -> tuple[Array, PyTree]:
        """The error of a trained model, and its outputs."""
        _, validation, test = data
        measured = next(part for part in (test, validation, data[0]) if part is not None)
        error = self._error(model, measured)  # first: it puts the model into evaluation mode
        function: Any = self._functions["outputs"]
        return error, jnp.zeros(0) if function is None else function(model, measured)

    def _error(self, model: PyTree, data: PyTree) -> Array:
        if isinstance(model, nnx.Module):
            model.eval()
        function: Any = self._functions["error"] or self._functions["loss"]
        return function(model, data)


def _check_names(name: Any, networks: Mapping[Any, Any]) -> None:
    if not (isinstance(name, str) and name):
        raise ArgumentError("name", f"must be a string, got {shown(name)}")
    for network in networks:
        if not (isinstance(network, str) and NAME.fullmatch(network)):
            raise ValueError(
                f"the name of a network must be letters, digits and any of _.+- (at most 80), got {network!r}"
            )


def _points(search: Any) -> list[dict[str, float]]:
    """The points of a search; ``ValueError`` unless they are different values of the same hyper-parameters."""
    points = list(search) if isinstance(search, (list, tuple)) else []
    if not points or not all(isinstance(point, Mapping) and set(point) == set(points[0]) for point in points):
        raise ArgumentError("search", "must be one or more points that name the same hyper-parameters, such as grid()")
    found = [{str(name): finite(str(name), point[name]) for name in points[0]} for point in points]
    if len({tuple(point.values()) for point in found}) < len(found):
        raise ArgumentError("search", "must have each point once")
    return found


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


def _parameters(function: Callable, given: int = 0) -> dict[str, inspect.Parameter]:
    """The parameters that may be passed by name, besides the first ``given`` ones.

    Of a class they are those of its ``__init__``: what `inspect.signature` says of an nnx module is its metaclass's.
    """
    called, given = (function.__init__, given + 1) if inspect.isclass(function) else (function, given)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = list(inspect.signature(called).parameters.values())
    first = [p for p in found if p.kind is not p.KEYWORD_ONLY][:given]
    return {p.name: p for p in found if p.kind in kinds and p not in first}


def _takes_all(function: Callable) -> bool:
    called = function.__init__ if inspect.isclass(function) else function
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(called).parameters.values())


def _call(function: Any, *arguments: Any, named: Mapping[str, Any]) -> Any:
    """The function of these arguments, and of those named ones that it takes."""
    names = _parameters(function, len(arguments))
    return function(*arguments, **(named if _takes_all(function) else {n: v for n, v in named.items() if n in names}))


def _only_read(*arguments: Any) -> Any:
    raise ValueError("this task was read from a results folder: make it again from its functions to train it")

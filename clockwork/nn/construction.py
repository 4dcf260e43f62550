"""The checks that the layers of both Flax APIs make in their constructors. This file uses no Flax API."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from clockwork.checks import shown
from clockwork.recurrence import METHODS, Method

Merge = str | Callable[[Array, Array], Array]


class Layer:
    """The base class of layers. Passing a layer to ``RNN``, which takes a cell, raises an error that says so."""

    @property
    def num_feature_axes(self) -> int:
        """Raise ``ValueError``: ``RNN`` reads this property of a cell first, and a layer is not a cell."""
        kind = type(self).__name__
        raise ValueError(f"RNN takes a cell, and {kind} is a layer, which takes whole sequences: call it without RNN")


def check_layers(layers: Any) -> list[Any]:
    """Return the layers of a stack; raise ``ValueError`` if there is none, or an element is not a layer."""
    if not isinstance(layers, Iterable) or not (made := list(layers)):
        raise ValueError(f"a stack must have at least one layer, as in Stack([layer, ...]), got {shown(layers)}")
    return [check_layer(layer) for layer in made]


def check_layer(layer: Any) -> Any:
    """Return the layer; raise ``ValueError`` if it cannot be called like ``RNN``."""
    if isinstance(layer, Layer):
        return layer
    cell = hasattr(layer, "num_feature_axes")
    if cell or isinstance(layer, type) or not callable(layer):
        hint = "; RNN(cell) makes a layer of a cell" if cell else ""
        raise ValueError(f"a layer must be one such as Clockwork(...) or RNN(cell), got {shown(layer)}{hint}")
    return layer


def check_method(method: Method) -> Method:
    """Return the method; raise ``ValueError`` if it is unknown."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    return method


def own_modules_only(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if an option of `ClockworkCell` is given along with a cell of another kind."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{name} is not passed on to cells, got {value!r}: give functools.partial(cell, ...) as cell"
            )


def constructor(name: str, given: Mapping[str, Any]) -> str:
    """The call that makes a module, for its ``repr``.

    Args:
        name: the class.
        given: its arguments by name, in their order.

    Returns:
        One line, or a line for each argument if one of them needs several lines or is itself a layer.

    Example:
        >>> constructor("Clockwork", {"in_features": 13, "dtype": jnp.float32, "activation": jnp.tanh})
        'Clockwork(in_features=13, dtype=float32, activation=tanh)'
    """
    texts, lines = [], False
    for argument, value in given.items():
        texts.append(f"{argument}={_text(value, 'dtype' in argument)}")
        lines = lines or isinstance(value, list) or argument.endswith("_rnn") or "\n" in texts[-1]
    if not lines:
        return f"{name}({', '.join(texts)})"
    inside = ",\n".join(texts).replace("\n", "\n  ")
    return f"{name}(\n  {inside},\n)"


def _text(value: Any, dtype: bool = False) -> str:
    if isinstance(value, list):
        inside = ",\n".join(map(_text, value)).replace("\n", "\n  ")
        return f"[\n  {inside},\n]"
    if isinstance(value, functools.partial):
        options = {f"{position}": argument for position, argument in enumerate(value.args)} | value.keywords
        return f"partial({', '.join([_text(value.func), *(f'{k}={_text(v)}' for k, v in options.items())])})"
    if dtype and value is not None:
        return jnp.dtype(value).name
    if callable(value) and isinstance(name := getattr(value, "__name__", None), str):
        return name
    return repr(value)


def merge_function(merge: Merge) -> Callable[[Array, Array], Array]:
    """Return the function that merges the two outputs of a bidirectional layer, by its name."""
    if callable(merge):
        return merge
    if merge not in MERGES:
        raise ValueError(f"merge must be one of {tuple(MERGES)} or a function, got {merge!r}")
    return MERGES[merge]


def one_merge(merge: Merge | None, merge_fn: Callable[[Array, Array], Array] | None) -> Callable[[Array, Array], Array]:
    """The merge function, given as this library's ``merge`` or Flax's ``merge_fn``; concatenation by default.

    Raises:
        ValueError: if both are given, the merge is unknown, or ``merge_fn`` is not a function.
    """
    if merge is not None and merge_fn is not None:
        raise ValueError(f"give either merge or merge_fn, got merge={_text(merge)} and merge_fn={_text(merge_fn)}")
    if merge_fn is not None and not callable(merge_fn):
        raise ValueError(f"merge_fn must be a function of both outputs, got {merge_fn!r}; names are for merge")
    return merge_fn or merge_function("concatenate" if merge is None else merge)


def merge_name(merge_fn: Callable[[Array, Array], Array]) -> Merge:
    """The inverse of `merge_function`."""
    return next((name for name, function in MERGES.items() if function is merge_fn), merge_fn)


def _concatenate(forward: Array, backward: Array) -> Array:
    return jnp.concatenate([forward, backward], -1)


def _sum(forward: Array, backward: Array) -> Array:
    if forward.shape != backward.shape:
        raise ValueError(f"outputs to be summed must have the same shape, got {forward.shape} and {backward.shape}")
    return forward + backward


MERGES: dict[str, Callable[[Array, Array], Array]] = {"concatenate": _concatenate, "sum": _sum}

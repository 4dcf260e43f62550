"""What the layers of both Flax APIs check when they are made. Independent of a Flax API."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from clockwork.checks import shown
from clockwork.recurrence import METHODS, Method

Merge = str | Callable[[Array, Array], Array]


class Layer:
    """A base of layers, which says that they are layers where ``RNN`` wants a cell."""

    @property
    def num_feature_axes(self) -> int:
        """What ``RNN`` asks of a cell first: raises ``ValueError``."""
        kind = type(self).__name__
        raise ValueError(f"RNN takes a cell, and {kind} is a layer, which takes whole sequences: call it without RNN")


def check_layers(layers: Any) -> list[Any]:
    """The layers of a stack, if there are any and they are layers, else ``ValueError``."""
    if not isinstance(layers, Iterable) or not (made := list(layers)):
        raise ValueError(f"a stack must have at least one layer, as in Stack([layer, ...]), got {shown(layers)}")
    return [check_layer(layer) for layer in made]


def check_layer(layer: Any) -> Any:
    """The layer, if it may have the call of ``RNN``, else ``ValueError``."""
    if isinstance(layer, Layer):
        return layer
    cell = hasattr(layer, "num_feature_axes")
    if cell or isinstance(layer, type) or not callable(layer):
        hint = "; RNN(cell) makes a layer of a cell" if cell else ""
        raise ValueError(f"a layer must be one such as Clockwork(...) or RNN(cell), got {shown(layer)}{hint}")
    return layer


def check_method(method: Method) -> Method:
    """The method, if there is such a one, else ``ValueError``."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    return method


def own_modules_only(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if one of the options of a clockwork's own modules is given along with a cell."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{name} is not passed on to cells, got {value!r}: give functools.partial(cell, ...) as cell"
            )


def merge_function(merge: Merge) -> Callable[[Array, Array], Array]:
    """What a bidirectional layer does with its two outputs, by name."""
    if callable(merge):
        return merge
    if merge not in MERGES:
        raise ValueError(f"merge must be one of {tuple(MERGES)} or a function, got {merge!r}")
    return MERGES[merge]


def _concatenate(forward: Array, backward: Array) -> Array:
    return jnp.concatenate([forward, backward], -1)


def _sum(forward: Array, backward: Array) -> Array:
    if forward.shape != backward.shape:
        raise ValueError(f"outputs to be added must have one shape, got {forward.shape} and {backward.shape}")
    return forward + backward


MERGES: dict[str, Callable[[Array, Array], Array]] = {"concatenate": _concatenate, "sum": _sum}

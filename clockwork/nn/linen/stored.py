"""The parameters of linen modules as flat dictionaries of arrays, under the same names as in nnx."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import Array
from jax.typing import ArrayLike

from clockwork.clock import Clock
from clockwork.nn.linen.described import own_fields
from clockwork.nn.stored_names import stored_clocks


def flat(module: nn.Module, variables: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """The parameters and clocks of a cell or layer as a flat dictionary, in the format of `clockwork.nn.flat`.

    The names are the paths of the parameters joined by dots, with ``.0`` for linen's ``_0``. The layers of this package
    thus have the same names as in nnx, and `from_flat` reads the output of `clockwork.nn.flat`. Flax's own cells have
    other names in linen than in nnx.

    Args:
        module: a layer or cell, or a module with layers or cells as fields. The clocks of layers that a module makes
            in its own ``setup`` or ``compact`` method are not stored.
        variables: the result of ``module.init``; its ``"params"`` are stored.
        prefix: put before every name, such as ``"encoder."``.

    Returns:
        Arrays of NumPy by name, such as ``cell.clock``, ``cell.input``, ``cell.recurrent.0`` and ``cell.bias``.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from clockwork.nn import linen
        >>> layer = linen.Clockwork(cw.Clock(periods=(1, 2), sizes=(4, 3)))
        >>> arrays = linen.flat(layer, layer.init(jax.random.key(0), jnp.ones((320, 13))))
        >>> sorted(arrays)
        ['cell.bias', 'cell.clock', 'cell.input', 'cell.recurrent.0', 'cell.recurrent.1']
        >>> layer.apply(linen.from_flat(layer, arrays), jnp.ones((320, 13))).shape
        (320, 7)
    """
    found: dict[str, np.ndarray] = {}
    for path, clock in _clocks(module):
        found |= clock.flat("".join(f"{name}." for name in path))
    found |= {
        ".".join(path): np.asarray(x, order="C") for path, x in traverse_util.flatten_dict(variables["params"]).items()
    }
    return {prefix + _dotted(name): array for name, array in found.items()}


def from_flat(module: nn.Module, arrays: Mapping[str, ArrayLike], prefix: str = "") -> dict[str, Any]:
    """The inverse of `flat`: the variables for ``module.apply``.

    Args:
        module: the layer or cell.
        arrays: the arrays by name; those whose name does not begin with the prefix are ignored.
        prefix: the prefix of every name.

    Returns:
        ``{"params": ...}``.

    Raises:
        ValueError: if a stored clock differs from the layer's, or there is no array with this prefix. Shapes are
            checked when the module is called.

    Example:
        >>> import clockwork as cw
        >>> from clockwork.nn import linen
        >>> layer = linen.Clockwork(cw.Clock(periods=(1,), sizes=(3,)))
        >>> arrays = {"cell.input": np.ones((2, 3)), "cell.recurrent.0": np.ones((3, 3)), "cell.bias": np.zeros(3)}
        >>> sorted(linen.from_flat(layer, arrays)["params"]["cell"])
        ['bias', 'input', 'recurrent_0']
    """
    given = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if not given:
        raise ValueError(f"at least one array must have a name that begins with {prefix!r}, got {sorted(arrays)}")
    clocks = stored_clocks(given, {_dotted(".".join(path)): clock for path, clock in _clocks(module)})
    params: dict[tuple[str, ...], Array] = {}
    for name, array in given.items():
        if name not in clocks:
            params[tuple(re.sub(r"\.(\d+)(?=\.|$)", r"_\1", name).split("."))] = jnp.asarray(array)
    return {"params": traverse_util.unflatten_dict(params)}


def _dotted(name: str) -> str:
    return re.sub(r"_(\d+)(?=\.|$)", r".\1", name)


def _clocks(module: nn.Module, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Clock]]:
    values = {field.name: getattr(module, field.name) for field in own_fields(module)}
    inner = {name: value for name, value in values.items() if isinstance(value, nn.Module)}
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            inner |= {f"{name}_{i}": one for i, one in enumerate(value) if isinstance(one, nn.Module)}
    if isinstance(values.get("clock"), Clock) and not hasattr(inner.get("cell"), "clock"):  # else it is the cell's
        yield path, values["clock"]
    for name, value in inner.items():
        yield from _clocks(value, (*path, name))

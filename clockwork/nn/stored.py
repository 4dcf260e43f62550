"""The parameters of nnx modules as flat dictionaries of arrays, as safetensors and other formats keep them."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from clockwork.clock import Clock
from clockwork.nn.stored_names import check_names, stored_clocks


def flat(module: nnx.Module, prefix: str = "") -> dict[str, np.ndarray]:
    """The parameters of a cell, layer, network or any nnx module as a flat dictionary, with the clocks of its layers.

    The names are the paths of the parameters in the module, joined by dots. `clockwork.nn.linen.flat` gives the same
    names for the same layer, and the names below a cell are those of `clockwork.Weights.flat`.

    Args:
        module: any module of nnx. All its variables are stored, except for the states of random streams.
        prefix: put before every name, such as ``"encoder."``.

    Returns:
        Arrays of NumPy by name, such as ``cell.clock``, ``cell.input``, ``cell.recurrent.0`` and ``cell.bias`` for a
        `Clockwork`. Each clock is an entry ``(2, G)``, int32; see `clockwork.Clock.flat`.

    Example:
        >>> import clockwork as cw
        >>> from flax import nnx
        >>> from clockwork.nn import Clockwork, flat
        >>> layer = Clockwork(cw.Clock(periods=(1, 2), sizes=(4, 3)), 13, rngs=nnx.Rngs(0))
        >>> sorted(flat(layer))
        ['cell.bias', 'cell.clock', 'cell.input', 'cell.recurrent.0', 'cell.recurrent.1']

        A file of safetensors, and back:

        >>> from safetensors.numpy import load_file, save_file
        >>> save_file(flat(layer), "layer.safetensors")
        >>> arrays = load_file("layer.safetensors")
        >>> again = Clockwork(cw.Clock.from_flat(arrays, "cell."), 13, rngs=nnx.Rngs(1))
        >>> set_flat(again, arrays)
    """
    found: dict[str, np.ndarray] = {}
    for path, clock in _clocks(module):
        found |= clock.flat(prefix + "".join(f"{name}." for name in path))
    return found | {
        prefix + name: np.asarray(variable[...], order="C") for name, variable in _variables(module).items()
    }


def set_flat(module: nnx.Module, arrays: Mapping[str, ArrayLike], prefix: str = "") -> None:
    """Replace the parameters of a module by arrays that `flat` returned.

    Args:
        module: a module with the same layers.
        arrays: the arrays by name; those whose name does not begin with the prefix are ignored. They are converted to
            the parameters' dtypes. Clocks may be left out.
        prefix: the prefix of every name.

    Raises:
        ValueError: if a name is missing or unknown, an array has another shape than the parameter, or a stored clock
            differs from the layer's. In these cases nothing is replaced.

    Example:
        >>> import clockwork as cw
        >>> from clockwork.nn import Clockwork, flat
        >>> one, other = (Clockwork(cw.Clock((1, 2), (4, 3)), 13, rngs=nnx.Rngs(seed)) for seed in (0, 1))
        >>> set_flat(other, flat(one))
        >>> bool((other.cell.weights.input == one.cell.weights.input).all())
        True
    """
    variables = _variables(module)
    given = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    clocks = stored_clocks(given, {".".join(map(str, path)): clock for path, clock in _clocks(module)})
    new = {name: jnp.asarray(array) for name, array in given.items() if name not in clocks}
    check_names(new, variables)
    for name, variable in variables.items():
        if new[name].shape != variable.shape:
            raise ValueError(f"{name} must have shape {variable.shape}, got {new[name].shape}")
    for name, variable in variables.items():
        variable[...] = new[name].astype(variable.dtype)


def _variables(module: nnx.Module) -> dict[str, Any]:
    state = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState)))
    return {".".join(map(str, path)): variable for path, variable in state}


def _clocks(module: nnx.Module) -> Iterator[tuple[tuple[Any, ...], Clock]]:
    for path, part in nnx.iter_modules(module):
        if isinstance(clock := vars(part).get("clock"), Clock):
            yield path, clock

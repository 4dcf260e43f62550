"""The parameters of linen cells, from and to the functional weights."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from clockwork.weights import Weights, as_weights, no_inputs


def weights(params: Mapping[str, Array]) -> Weights:
    """Convert the parameters of a `ClockworkCell` to functional weights.

    Args:
        params: ``variables["params"]`` of a cell, or ``variables["params"]["cell"]`` of a layer or an ``nn.RNN``.

    Raises:
        ValueError: if these are not the parameters of a `ClockworkCell`.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from clockwork.nn.linen import Clockwork
        >>> layer = Clockwork(cw.Clock.exponential(width=40, modules=9))
        >>> variables = layer.init(jax.random.key(0), jnp.ones((320, 13)))
        >>> weights(variables["params"]["cell"]).input.shape
        (13, 40)
    """
    blocks = [f"recurrent_{j}" for j in range(sum(name.startswith("recurrent_") for name in params))]
    if not blocks or set(params) - {"input"} != {*blocks, "bias"}:
        raise ValueError(f"parameters of a clockwork cell are input, recurrent_0, ... and bias, got {sorted(params)}")
    bias = jnp.asarray(params["bias"])
    given = params.get("input", no_inputs(bias))  # a layer without inputs has none
    return Weights(jnp.asarray(given), tuple(jnp.asarray(params[name]) for name in blocks), bias)


def params(weights: Weights) -> dict[str, Array]:
    """The inverse of `weights`: the parameters of a `ClockworkCell`, which a layer has under ``["cell"]``.

    Args:
        weights: the weights of the layer.

    Raises:
        ValueError: if these are not `clockwork.Weights`.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from clockwork.nn.linen import Clockwork
        >>> clock = cw.Clock.exponential(width=40, modules=9)
        >>> drawn = cw.init(jax.random.key(0), clock, inputs=13)
        >>> Clockwork(clock).apply({"params": {"cell": params(drawn)}}, jnp.ones((320, 13))).shape
        (320, 40)

        A layer's ``init`` draws these weights with the key that Flax gives to its cell:

        >>> from flax import linen as nn
        >>> layer, key = Clockwork(clock), jax.random.key(0)
        >>> of_cell = nn.apply(lambda layer: layer.cell.make_rng("params"), layer)({}, rngs={"params": key})
        >>> want = params(cw.init(of_cell, clock, inputs=13))
        >>> got = layer.init(key, jnp.ones((320, 13)))["params"]["cell"]
        >>> all((got[name] == want[name]).all() for name in want)
        True
    """
    return {name.replace(".", "_"): array for name, array in as_weights(weights).flat().items() if array.size}


def parameters_of(module: nn.Module, features: int, draw: Callable[[Array], Mapping[str, Array]]) -> dict[str, Array]:
    """The parameters of a cell, all drawn with one key. The ``compact`` method of the cell calls this."""
    if module.has_variable("params", "bias"):
        known = module.get_variable("params", "input")
        if features != (0 if known is None else known.shape[0]):
            raise ValueError(f"inputs must have {0 if known is None else known.shape[0]} features, got {features}")
    shapes = jax.eval_shape(draw, jax.random.key(0))
    drawn: Mapping[str, Array] = {}
    if module.is_mutable_collection("params") and not module.has_variable("params", "bias"):
        drawn = draw(module.make_rng("params"))

    def initial(key: Array, name: str) -> Array:
        del key
        return drawn[name] if drawn else jnp.zeros(shapes[name].shape, shapes[name].dtype)

    return {name: module.param(name, initial, name) for name in shapes}

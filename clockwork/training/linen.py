"""A linen module as a model that a sweep can train."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import linen, nnx

# What a module's call may take to know whether it is trained, and what that is in evaluation.
MODES = {"train": False, "training": False, "is_training": False, "deterministic": True, "use_running_average": True}


def linen_model(module: linen.Module, *inputs: Any, **options: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    """A linen module for `ModelTask`: a function of random streams that returns it, initialised.

    The model is called like the module, ``model(x)``. If the module's call takes an argument ``train``, ``training``,
    ``is_training``, ``deterministic`` or ``use_running_average``, the model gives it: it is in training mode for the
    loss and in evaluation mode for the error. Its collections other than ``params``, such as ``batch_stats``, are
    updated by every call, and every call has a random key of its own for dropout and the like.

    Args:
        module: the module.
        *inputs: examples of what it is called with; only shapes and dtypes matter.
        **options: of its calls.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import linen, nnx
        >>> model = linen_model(linen.Dense(3), jnp.ones((1, 2)))(nnx.Rngs(0))
        >>> model(jnp.ones((5, 2))).shape
        (5, 3)
    """
    return lambda rngs: _LinenModel(module, inputs, options, rngs)


class _LinenModel(nnx.Module):
    """The variables of a linen module; collection ``params`` is trained, the others are not."""

    def __init__(self, module: linen.Module, inputs: tuple, options: dict[str, Any], rngs: nnx.Rngs) -> None:
        self.module = module
        self.options = tuple(options.items())
        self.deterministic = True  # `train` and `eval` of nnx set it
        variables = dict(module.init({"params": rngs.params()}, *inputs, **self._with_mode({})))
        self.params = nnx.data(jax.tree.map(nnx.Param, variables.pop("params", {})))
        self.collections = nnx.data(jax.tree.map(nnx.Variable, variables))
        self.rngs = nnx.Rngs(rngs())

    def _with_mode(self, options: dict[str, Any]) -> dict[str, Any]:
        taken = inspect.signature(type(self.module).__call__).parameters
        modes = {name: value == self.deterministic for name, value in MODES.items() if name in taken}
        return {**modes, **dict(self.options), **options}

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        variables = {"params": _values(self.params), **_values(self.collections)}
        outputs, updates = self.module.apply(
            variables,
            *inputs,
            rngs={"params": self.rngs()},
            mutable=list(self.collections),
            **self._with_mode(options),
        )
        old, new = jax.tree.leaves(self.collections, is_leaf=_is_variable), jax.tree.leaves(updates)
        for variable, value in zip(old, new, strict=True):
            variable[...] = value
        return outputs


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _values(tree: Any) -> Any:
    return jax.tree.map(lambda variable: variable[...], tree, is_leaf=_is_variable)

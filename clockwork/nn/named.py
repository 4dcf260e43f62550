"""JAX's functions as attributes that can be copied and pickled. This file uses no Flax API."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

MODULES = ("jax.numpy", "jax.nn", "jax.lax")


@dataclasses.dataclass(frozen=True)
class Named:
    """A wrapper of a function whose copies share the function, and which pickles JAX's own functions by name.

    JAX's compiled functions, such as ``jnp.tanh``, cannot be pickled, and a copy of one is compiled anew.

    Example:
        >>> import pickle, jax.numpy as jnp
        >>> pickle.loads(pickle.dumps(Named(jnp.tanh))).function is jnp.tanh
        True
    """

    function: Callable[..., Any]

    def __copy__(self) -> "Named":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Named":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        name = getattr(self.function, "__name__", "")
        for module in MODULES:
            if getattr(importlib.import_module(module), name, None) is self.function:
                return _of, (module, name)
        return Named, (self.function,)


def _of(module: str, name: str) -> Named:
    return Named(getattr(importlib.import_module(module), name))

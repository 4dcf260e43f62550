"""The Clockwork RNN (Koutník, Greff, Gomez, Schmidhuber 2014) for JAX and Flax.

In shapes, ``R`` stands for runs, ``B`` batch, ``T`` time steps, ``I`` inputs, ``N`` hidden units, ``G`` modules and
``O`` outputs; ``()`` is a scalar. Vectors are rows: ``h @ W``. The functions here take one sequence; use ``jax.vmap``
for batches and runs. The cells and layers for Flax in `clockwork.nn` take any batch shape.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clockwork.clock import Clock
    from clockwork.recurrence import State, step, unroll
    from clockwork.weights import Weights, init

__version__ = "0.1.0"
__all__ = ["Clock", "State", "Weights", "init", "step", "unroll"]
_MODULES = {
    "Clock": "clock",
    "State": "recurrence",
    "Weights": "weights",
    "init": "weights",
    "step": "recurrence",
    "unroll": "recurrence",
}


def __getattr__(name: str) -> Any:
    # Imported lazily, so that the command line can report an environment variable that JAX cannot read.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

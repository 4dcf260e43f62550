"""Which values of the hyper-parameters are trained: all combinations, or random ones."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import Array

from clockwork.checks import ArgumentError, finite, integer, shown

Search = Sequence[dict[str, float]]


def grid(**axes: float | Sequence[float]) -> list[dict[str, float]]:
    """Every combination of the values of hyper-parameters.

    Args:
        **axes: by name, a value or several.

    Raises:
        ValueError: if a value is not a finite number, or an axis has none.

    Example:
        >>> grid(learning_rate=(1e-3, 1e-2), noise=0.5)
        [{'learning_rate': 0.001, 'noise': 0.5}, {'learning_rate': 0.01, 'noise': 0.5}]
    """
    values = [_values(name, axis) for name, axis in axes.items()]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]


def random(
    count: int, seed: int = 0, **axes: tuple[float, float] | Callable[[np.random.Generator], float]
) -> list[dict[str, float]]:
    """Random values of hyper-parameters.

    Args:
        count: how many.
        seed: of NumPy's generator that draws them.
        **axes: by name, the bounds ``(low, high)``, both above 0, between which the logarithm is drawn uniformly; or a
            function that draws a value with the ``numpy.random.Generator`` that it is given.

    Raises:
        ValueError: if ``count`` is below 1, or bounds are not two ascending numbers above 0.

    Example:
        >>> points = random(3, learning_rate=(1e-4, 1e-1), noise=lambda draw: draw.uniform(0, 1))
        >>> [sorted(point) for point in points]
        [['learning_rate', 'noise'], ['learning_rate', 'noise'], ['learning_rate', 'noise']]
    """
    draw = np.random.default_rng(integer("seed", seed, least=0))
    samplers = {name: axis if callable(axis) else _log_uniform(name, axis) for name, axis in axes.items()}
    return [
        {name: finite(name, float(sample(draw))) for name, sample in samplers.items()}
        for _ in range(integer("count", count, least=1))
    ]


def _values(name: str, axis: Any) -> list[float]:
    values = list(axis) if isinstance(axis, (Sequence, np.ndarray, Array)) and not isinstance(axis, str) else [axis]
    if not values:
        raise ArgumentError(name, "must have at least one value, got none")
    return [finite(name, value) for value in values]


def _log_uniform(name: str, bounds: Any) -> Callable[[np.random.Generator], float]:
    if not (isinstance(bounds, (tuple, list)) and len(bounds) == 2 and 0 < bounds[0] < bounds[1]):
        raise ArgumentError(
            name, f"must be a pair of bounds with 0 < low < high, or a function of a generator, got {shown(bounds)}"
        )
    low, high = (float(np.log(finite(name, bound))) for bound in bounds)
    return lambda draw: float(np.exp(draw.uniform(low, high)))

"""The weights of a layer of gated recurrent units."""

from typing import NamedTuple

import jax
import jax.export
from jax import Array
from jax.typing import DTypeLike

from clockwork.checks import ArgumentError, finite, integer, shown
from clockwork.weights import Normal, draw


class GRUWeights(NamedTuple):
    """Weights of a layer of ``N`` gated recurrent units, in the order reset gate, update gate, candidate.

    All arrays have the same floating-point dtype. The weights are a pytree.

    Attributes:
        input: ``(I, 3 N)``; I is 0 for a layer without inputs.
        recurrent: ``(N, 3 N)``, applied as ``h @ W``.
        bias: ``(3 N,)``.
        recurrent_bias: ``(N,)``, added to what the candidate receives from ``h``, before the reset gate.
    """

    input: Array
    recurrent: Array
    bias: Array
    recurrent_bias: Array


jax.export.register_namedtuple_serialization(GRUWeights, serialized_name="clockwork.nn.GRUWeights")


def gru_init(key: Array, cells: int, inputs: int = 0, stddev: float = 0.1, dtype: DTypeLike = "float32") -> GRUWeights:
    """Draw all weights and biases from N(0, stddev²).

    Args:
        key: a JAX random key.
        cells: ``N``, the number of units.
        inputs: ``I``, the number of inputs; 0 for none.
        stddev: the standard deviation.
        dtype: the floating-point dtype of the weights. They are drawn in at least float32 and rounded.

    Raises:
        ValueError: if there is no unit, ``inputs`` or ``stddev`` is negative, a number is not finite, or ``dtype`` is
            not floating point.

    Example:
        >>> import jax
        >>> from clockwork.nn import gru_init
        >>> gru_init(jax.random.key(0), cells=15).recurrent.shape
        (15, 45)
    """
    cells, inputs = integer("cells", cells, least=1), integer("inputs", inputs, least=0)
    stddev = finite("stddev", stddev, least=0)
    shapes = _shapes(cells, inputs)
    keys = jax.random.split(key, len(shapes))
    return GRUWeights(*(draw(Normal(stddev), k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)))


def check_gru_weights(weights: GRUWeights) -> None:
    """Raise ``ValueError`` unless the weights are those of a layer of gated recurrent units."""
    if not isinstance(weights, GRUWeights):
        raise ArgumentError("weights", f"must be GRUWeights, such as gru_init(key, cells), got {shown(weights)}")
    shapes = _shapes(weights.recurrent.shape[0], weights.input.shape[0])
    if tuple(w.shape for w in weights) != shapes:
        raise ValueError(f"weights must have shapes {shapes}, got {tuple(w.shape for w in weights)}")


def _shapes(cells: int, inputs: int) -> tuple[tuple[int, ...], ...]:
    return (inputs, 3 * cells), (cells, 3 * cells), (3 * cells,), (cells,)

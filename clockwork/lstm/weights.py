"""The weights of a layer of LSTM cells with peepholes."""

from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from clockwork.checks import ArgumentError, finite, integer, shown
from clockwork.weights import Normal, draw


class LSTMWeights(NamedTuple):
    """Weights of a layer of ``N`` peephole LSTM cells; gates in the order input, forget, cell, output.

    Arrays of one floating-point dtype; a pytree.

    Attributes:
        input: ``(I, 4 N)``; I is 0 for a layer without inputs.
        recurrent: ``(N, 4 N)``, applied as ``h @ W``.
        peepholes: ``(3, N)``, of the input, forget and output gates.
        bias: ``(4 N,)``.
    """

    input: Array
    recurrent: Array
    peepholes: Array
    bias: Array


jax.export.register_namedtuple_serialization(LSTMWeights, serialized_name="clockwork.nn.LSTMWeights")


def lstm_init(
    key: Array,
    cells: int,
    inputs: int = 0,
    stddev: float = 0.1,
    forget_bias: float | None = None,
    dtype: DTypeLike = jnp.float32,
) -> LSTMWeights:
    """Draw all weights and biases from N(0, stddev²).

    The cells and networks of `clockwork.nn` draw theirs with this function: the same key gives the same weights.

    Args:
        key: a JAX random key.
        cells: ``N``, the number of cells.
        inputs: ``I``, the number of inputs; 0 for none.
        stddev: the standard deviation.
        forget_bias: the initial bias of every forget gate; None to draw it like all others. The
            paper sets 5 "to encourage the long-term memory" (Koutník et al. 2014, sec. 4.1).
        dtype: of the weights, a type of floating point numbers. They are drawn in at least float32 and rounded.

    Raises:
        ValueError: if there is no cell, ``inputs`` or ``stddev`` is negative, a number is not finite, or ``dtype`` is
            no type of floating point numbers.

    Example:
        >>> import jax
        >>> from clockwork.nn import lstm_init
        >>> weights = lstm_init(jax.random.key(0), cells=15, forget_bias=5.0)
        >>> weights.recurrent.shape, float(weights.bias[15])
        ((15, 60), 5.0)
    """
    cells, inputs = integer("cells", cells, least=1), integer("inputs", inputs, least=0)
    stddev = finite("stddev", stddev, least=0)
    forget_bias = None if forget_bias is None else finite("forget_bias", forget_bias)
    shapes = ((inputs, 4 * cells), (cells, 4 * cells), (3, cells), (4 * cells,))
    keys = jax.random.split(key, len(shapes))
    weights = LSTMWeights(*(draw(Normal(stddev), k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)))
    if forget_bias is not None:
        weights = weights._replace(bias=weights.bias.at[cells : 2 * cells].set(forget_bias))
    return weights


def check_lstm_weights(weights: LSTMWeights) -> None:
    """Raise ``ValueError`` unless the weights are those of a layer of LSTM cells."""
    if not isinstance(weights, LSTMWeights):
        raise ArgumentError("weights", f"must be LSTMWeights, such as lstm_init(key, cells), got {shown(weights)}")
    cells = weights.recurrent.shape[0]
    shapes = ((weights.input.shape[0], 4 * cells), (cells, 4 * cells), (3, cells), (4 * cells,))
    if tuple(w.shape for w in weights) != shapes:
        raise ValueError(f"weights must have shapes {shapes}, got {tuple(w.shape for w in weights)}")

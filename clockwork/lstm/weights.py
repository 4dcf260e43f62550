"""The weights of a layer of LSTM cells with peepholes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import ArgumentError, finite, integer, shown
from clockwork.weights import Normal, draw, no_inputs, torch_arrays


class LSTMWeights(NamedTuple):
    """Weights of a layer of ``N`` peephole LSTM cells; gates in the order input, forget, cell, output.

    All arrays have the same floating-point dtype. The weights are a pytree.

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

    def flat(self, prefix: str = "") -> dict[str, Array]:
        """The same weights as a flat dictionary of arrays, for safetensors and other formats.

        Args:
            prefix: put before every name, such as ``"encoder."``.

        Returns:
            ``input``, ``recurrent``, ``peepholes`` and ``bias``, of the shapes above.

        Example:
            >>> import jax
            >>> from clockwork.nn import lstm_init
            >>> sorted(lstm_init(jax.random.key(0), cells=4, inputs=2).flat("encoder."))
            ['encoder.bias', 'encoder.input', 'encoder.peepholes', 'encoder.recurrent']
        """
        return {f"{prefix}{name}": array for name, array in self._asdict().items()}

    @classmethod
    def from_flat(cls, arrays: Mapping[str, ArrayLike], prefix: str = "") -> "LSTMWeights":
        """The inverse of `flat`.

        Args:
            arrays: the arrays by name; those whose name does not begin with the prefix are ignored. A layer without
                inputs needs no ``input``.
            prefix: the prefix given to `flat`.

        Raises:
            ValueError: if a name is missing or unknown, or the weights do not fit together.

        Example:
            >>> import jax
            >>> from clockwork.nn import LSTMWeights, lstm_init
            >>> flat = lstm_init(jax.random.key(0), cells=4, inputs=2).flat("encoder.")
            >>> LSTMWeights.from_flat(flat, "encoder.").peepholes.shape
            (3, 4)
        """
        wanted = [f"{prefix}{name}" for name in cls._fields]
        given = {name for name in arrays if name.startswith(prefix)}
        if given not in (set(wanted), set(wanted[1:])):
            raise ValueError(f"weights of an LSTM must be named {wanted}, got {sorted(given)}")
        recurrent, peepholes, bias = (jnp.asarray(arrays[name]) for name in wanted[1:])
        first = arrays[wanted[0]] if wanted[0] in given else no_inputs(bias)
        weights = cls(jnp.asarray(first), recurrent, peepholes, bias)
        check_lstm_weights(weights)
        return weights

    @classmethod
    def from_torch(
        cls, arrays: Mapping[str, Any], *, layer: int = 0, reverse: bool = False, prefix: str = ""
    ) -> "LSTMWeights":
        """Convert the weights of a layer of PyTorch's ``nn.LSTM``, which has no peepholes: they are set to zero.

        Args:
            arrays: the ``state_dict()``; its values are NumPy arrays or CPU tensors.
            layer: the index of the layer.
            reverse: whether to take the weights of the backward direction.
            prefix: the prefix of every name, such as ``"encoder."``.

        Returns:
            The weights. The bias is the sum of PyTorch's two biases. Training changes the peepholes too.

        Raises:
            ValueError: if the layer's arrays are missing, belong to an RNN or a GRU, or the LSTM has ``proj_size``.

        Example:
            >>> import numpy as np
            >>> from clockwork.nn import LSTMWeights
            >>> state = {"weight_ih_l0": np.ones((20, 3), np.float32), "weight_hh_l0": np.ones((20, 5), np.float32)}
            >>> LSTMWeights.from_torch(state).recurrent.shape
            (5, 20)
        """
        input, recurrent, bias = torch_arrays(arrays, "LSTM", 4, layer, reverse, prefix)
        return cls(input, recurrent, jnp.zeros((3, recurrent.shape[0]), recurrent.dtype), bias)


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

    The cells and networks of `clockwork.nn` draw weights with this function: the same key gives the same weights.

    Args:
        key: a JAX random key.
        cells: ``N``, the number of cells.
        inputs: ``I``, the number of inputs; 0 for none.
        stddev: the standard deviation.
        forget_bias: the initial bias of every forget gate; None to draw it like all others. The
            paper sets 5 "to encourage the long-term memory" (Koutník et al. 2014, sec. 4.1).
        dtype: the floating-point dtype of the weights. They are drawn in at least float32 and rounded.

    Raises:
        ValueError: if there is no cell, ``inputs`` or ``stddev`` is negative, a number is not finite, or ``dtype`` is
            not floating point.

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

"""The weights of the core as parameters of nnx modules."""

import jax
from flax import nnx
from jax import Array

from clockwork.checks import shaped
from clockwork.clock import Clock
from clockwork.deep import DeepWeights
from clockwork.deep.weights import check_deep_weights
from clockwork.lstm import LSTMWeights
from clockwork.lstm.weights import check_lstm_weights
from clockwork.nn.described import Described
from clockwork.weights import Weights, check_weights, no_inputs


class ClockworkParameters(Described, nnx.Module):
    """The parameters of a clockwork layer: ``input`` (None without inputs), ``recurrent`` and ``bias``."""

    def __init__(self, clock: Clock, weights: Weights) -> None:
        self.clock = clock
        self.input = _unless_empty(weights.input)
        self.recurrent = nnx.List([nnx.Param(block) for block in weights.recurrent])
        self.bias = nnx.Param(weights.bias)

    @property
    def weights(self) -> Weights:
        """The layer's weights, for the functions of the core."""
        blocks = tuple(block[...] for block in self.recurrent)
        return Weights(_input_weights(self.input, self.bias[...]), blocks, self.bias[...])

    def set_weights(self, weights: Weights) -> None:
        """Replace the layer's weights.

        Args:
            weights: the weights of a layer with the same clock and number of inputs; they are converted to the
                parameters' dtype.

        Raises:
            ValueError: if the weights belong to another clock or number of inputs.
        """
        check_weights(weights, self.clock)
        inputs = 0 if self.input is None else self.input.shape[0]
        shaped("input weights", weights.input, "I N", I=inputs, N=self.clock.width)
        if self.input is not None:
            self.input[...] = weights.input.astype(self.input.dtype)
        for param, block in zip(self.recurrent, weights.recurrent, strict=True):
            param[...] = block.astype(param.dtype)
        self.bias[...] = weights.bias.astype(self.bias.dtype)


class LSTMParameters(Described, nnx.Module):
    """The parameters of a layer of peephole LSTM cells."""

    def __init__(self, weights: LSTMWeights) -> None:
        self.input = _unless_empty(weights.input)
        self.recurrent = nnx.Param(weights.recurrent)
        self.peepholes = nnx.Param(weights.peepholes)
        self.bias = nnx.Param(weights.bias)

    @property
    def weights(self) -> LSTMWeights:
        """The layer's weights, for `lstm_unroll`."""
        bias = self.bias[...]
        return LSTMWeights(_input_weights(self.input, bias), self.recurrent[...], self.peepholes[...], bias)

    def set_weights(self, weights: LSTMWeights) -> None:
        """Replace the layer's weights.

        Args:
            weights: the weights of a layer with the same numbers of cells and inputs; they are converted to the
                parameters' dtype.

        Raises:
            ValueError: if the weights belong to another number of cells or inputs.
        """
        check_lstm_weights(weights)
        cells, inputs = self.recurrent.shape[0], 0 if self.input is None else self.input.shape[0]
        shaped("recurrent weights", weights.recurrent, "N 4N", N=cells)
        shaped("input weights", weights.input, "I 4N", I=inputs, N=cells)
        for param, array in zip((self.input, self.recurrent, self.peepholes, self.bias), weights, strict=True):
            if param is not None:
                param[...] = array.astype(param.dtype)


class DeepParameters(Described, nnx.Module):
    """The parameters of a deep transition: ``input`` (None without inputs), ``recurrent``, ``between`` and ``bias``."""

    def __init__(self, weights: DeepWeights) -> None:
        self.input = _unless_empty(weights.input)
        self.recurrent = nnx.Param(weights.recurrent)
        self.between = nnx.List([nnx.Param(block) for block in weights.between])
        self.bias = nnx.Param(weights.bias)

    @property
    def weights(self) -> DeepWeights:
        """The layer's weights, for `clockwork.deep.deep_unroll`."""
        recurrent, between = self.recurrent[...], tuple(block[...] for block in self.between)
        given = no_inputs(recurrent[0]) if self.input is None else self.input[...]
        return DeepWeights(given, recurrent, between, self.bias[...])

    def set_weights(self, weights: DeepWeights) -> None:
        """Replace the layer's weights.

        Args:
            weights: the weights of a layer of the same sizes; they are converted to the parameters' dtype.

        Raises:
            ValueError: if the weights belong to a layer of other sizes.
        """
        check_deep_weights(weights)
        old, new = jax.tree.leaves(self.weights), jax.tree.leaves(weights)
        if [w.shape for w in new] != [w.shape for w in old]:
            raise ValueError(f"weights must have shapes {[w.shape for w in old]}, got {[w.shape for w in new]}")
        params = [self.input, self.recurrent, *self.between, self.bias]
        for param, array in zip(params, new, strict=True):
            if param is not None:
                param[...] = array.astype(param.dtype)


def _unless_empty(weights: Array) -> nnx.Param[Array] | None:
    """A parameter, or None for weights without elements, which crash XLA when they are sharded over devices."""
    return nnx.Param(weights) if weights.size else None


def _input_weights(param: nnx.Param[Array] | None, bias: Array) -> Array:
    return no_inputs(bias) if param is None else param[...]

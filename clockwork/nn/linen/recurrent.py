"""Recurrent layers of any cell, and of Flax's own GRU and LSTM cells, as Flax (linen) layers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.nn.construction import Layer
from clockwork.nn.linen.described import Described
from clockwork.nn.linen.of_cells import scan_cell
from clockwork.nn.rnn_call import Lengths, over_sequences


class OfCell(Layer, Described, nn.Module):
    """A layer that runs ``self.cell`` and maps its outputs by ``self.predict``."""

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: Any | None = None,
        init_key: Array | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Arguments, results and errors are those of `Clockwork.__call__`, without ``start``. Outputs beyond the length of
        a sequence are set to zero before ``predict`` maps them.
        """
        own: Any = self
        key = jax.random.key(0) if init_key is None else init_key
        return over_sequences(
            lambda x, carry, lengths: scan_cell(own.cell, carry, x, lengths),
            lambda shape: own.cell.initialize_carry(key, shape),
            lambda shape: own.cell.initialize_carry(key, shape),
            inputs,
            features=jnp.shape(inputs)[-1] if jnp.ndim(inputs) else 0,
            slowest=None,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=own.return_carry if return_carry is None else return_carry,
            time_major=own.time_major if time_major is None else time_major,
            reverse=own.reverse if reverse is None else reverse,
            keep_order=own.keep_order if keep_order is None else keep_order,
            predict=own.predict,
        )


class Recurrent(OfCell):
    """A recurrent layer of any cell, called like ``nn.RNN``, with an optional prediction from its hidden states.

    It computes the same as ``nn.RNN(cell)``, with the call signature and the checks of `Clockwork`: ragged batches,
    both directions, streaming. A `DeepTransitionCell`, a `PeepholeLSTMCell` and
    Flax's own LSTM and GRU cells run their fast kernels.

    Attributes:
        cell: an ``nn.RNNCellBase`` of one feature axis.
        predict: maps the outputs ``(*batch, T, N)`` of the cell to predictions ``(*batch, T, O)``, independently for
            each sequence and step; a linen module or a function without parameters. None returns the outputs unchanged.
        time_major: whether time is the first axis of inputs and outputs. This and the next three are defaults, which a
            call can override.
        return_carry: whether to return the carry after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.

    Raises:
        ValueError: if ``cell`` is not a cell of one feature axis, or ``predict`` is not a function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> layer = Recurrent(nn.GRUCell(40))
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)), seq_lengths=jnp.arange(1, 9))[0].shape
        (8, 320, 40)
    """

    cell: Any
    predict: Any = None
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.cell, nn.RNNCellBase) or self.cell.num_feature_axes != 1:
            raise ValueError(
                f"cell must be an nn.RNNCellBase of one feature axis, such as nn.GRUCell(40), got {self.cell!r}"
            )
        check_predict(self.predict)
        super().__post_init__()


class _OfStockCell(OfCell):
    features: int
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    predict: Any = None
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False

    def __post_init__(self) -> None:
        check_predict(self.predict)
        super().__post_init__()

    def setup(self) -> None:
        """The cell."""
        names = ("kernel_init", "recurrent_kernel_init", "bias_init", "dtype")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        self.cell = self._kind(self.features, param_dtype=self.param_dtype, **given)

    @property
    def _kind(self) -> Any:
        raise NotImplementedError


class GRU(_OfStockCell):
    """A layer of gated recurrent units, called like ``nn.RNN``: Flax's ``nn.GRUCell``, run by `gru_unroll`.

    ``r_t = σ(W_r x_t + R_r h_{t-1} + b_r)``, ``z_t = σ(W_z x_t + R_z h_{t-1} + b_z)``,
    ``n_t = tanh(W_n x_t + b_n + r_t (R_n h_{t-1} + c_n))``, ``h_t = (1 - z_t) n_t + z_t h_{t-1}`` (Cho et al. 2014).
    Parameters, outputs and carry are those of ``nn.RNN(nn.GRUCell(...))``.

    Attributes:
        features: ``N``, the number of units.
        kernel_init: draws the input weights; the default of the cell if None, as for the next two.
        recurrent_kernel_init: draws the recurrent weights.
        bias_init: draws the biases.
        dtype: the dtype of the computation. Another one than that of the parameters takes Flax's cell step by step.
        param_dtype: the dtype of the parameters.
        predict: maps hidden states ``(*batch, T, N)`` to predictions; None returns the hidden states.
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the carry after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.

    Raises:
        ValueError: if ``predict`` is not a function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> GRU(40).init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))[0].shape
        (8, 320, 40)
    """

    @property
    def _kind(self) -> Any:
        return nn.GRUCell


class LSTM(_OfStockCell):
    """A layer of LSTM cells, called like ``nn.RNN``: Flax's ``nn.OptimizedLSTMCell``, run by `lstm_unroll`.

    ``i_t = σ(W_i x_t + R_i h_{t-1} + b_i)``, ``f_t = σ(W_f x_t + R_f h_{t-1} + b_f)``,
    ``c_t = f_t c_{t-1} + i_t tanh(W_c x_t + R_c h_{t-1} + b_c)``, ``o_t = σ(W_o x_t + R_o h_{t-1} + b_o)``,
    ``h_t = o_t tanh(c_t)`` (Gers et al. 2000), without peepholes; `PeepholeLSTMCell` has them. Parameters, outputs and
    carry ``(c, h)`` are those of ``nn.RNN(nn.OptimizedLSTMCell(...))``.

    Attributes:
        features: ``N``, the number of units.
        kernel_init: draws the input weights; the default of the cell if None, as for the next two.
        recurrent_kernel_init: draws the recurrent weights.
        bias_init: draws the biases.
        dtype: the dtype of the computation. Another one than that of the parameters takes Flax's cell step by step.
        param_dtype: the dtype of the parameters.
        predict: maps hidden states ``(*batch, T, N)`` to predictions; None returns the hidden states.
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the carry after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.

    Raises:
        ValueError: if ``predict`` is not a function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> LSTM(40).init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))[0].shape
        (8, 320, 40)
    """

    @property
    def _kind(self) -> Any:
        return nn.OptimizedLSTMCell


def check_predict(predict: Any) -> None:
    """Raise ``ValueError`` unless predictions are made by a function, or not at all."""
    if predict is not None and not callable(predict):
        raise ValueError(f"predict must be a function of hidden states, or a module, got {predict!r}")

"""Recurrent layers of any cell, and of Flax's own GRU and LSTM cells, as Flax (nnx) layers."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from clockwork.nn.construction import Layer
from clockwork.nn.described import Described, unless_default
from clockwork.nn.of_cells import scan_cell
from clockwork.nn.rnn_call import Lengths, over_sequences

OPTIONS = ("time_major", "return_carry", "reverse", "keep_order")


class Recurrent(Layer, Described, nnx.Module):
    """A recurrent layer of any cell, called like ``nnx.RNN``, with an optional prediction from its hidden states.

    It computes the same as ``nnx.RNN(cell)``, with the call signature and the checks of `Clockwork`: ragged batches,
    both directions, streaming. A `DeepTransitionCell`, a `PeepholeLSTMCell` and
    Flax's own LSTM and GRU cells run their fast kernels.

    Args:
        cell: an ``nnx.RNNCellBase`` of one feature axis.
        predict: maps the outputs ``(*batch, T, N)`` of the cell to predictions ``(*batch, T, O)``, independently for
            each sequence and step; a function or any nnx module. None returns the outputs unchanged.
        time_major: whether time is the first axis of inputs and outputs. This and the next three are defaults, which a
            call can override.
        return_carry: whether to return the carry after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.

    Raises:
        ValueError: if ``cell`` is not a cell of one feature axis, or ``predict`` is not a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = Recurrent(nnx.GRUCell(13, 40, rngs=nnx.Rngs(0)))
        >>> layer(jnp.ones((8, 320, 13)), seq_lengths=jnp.arange(1, 9)).shape
        (8, 320, 40)
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        predict: Callable[[Array], Array] | None = None,
        *,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
    ) -> None:
        if not isinstance(cell, nnx.RNNCellBase) or cell.num_feature_axes != 1:
            raise ValueError(
                f"cell must be an nnx.RNNCellBase of one feature axis, such as nnx.GRUCell(...), got {cell!r}"
            )
        if predict is not None and not callable(predict):
            raise ValueError(f"predict must be a function of hidden states, or a module, got {predict!r}")
        self.cell: Any = cell
        self.predict: Any = predict
        self.time_major, self.return_carry, self.reverse, self.keep_order = (
            time_major,
            return_carry,
            reverse,
            keep_order,
        )

    def _arguments(self) -> dict[str, Any]:
        given = {"cell": self.cell, "predict": self.predict, **{name: getattr(self, name) for name in OPTIONS}}
        return unless_default(given, predict=None, **dict.fromkeys(OPTIONS, False))

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: Any | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Arguments, results and errors are those of `Clockwork.__call__`, without ``start``. Outputs beyond the length of
        a sequence are set to zero before ``predict`` maps them.
        """
        features = getattr(self.cell, "in_features", jnp.shape(inputs)[-1])
        return over_sequences(
            lambda x, carry, lengths: scan_cell(self.cell, carry, x, lengths),
            lambda shape: self.cell.initialize_carry(shape, nnx.Rngs(0) if rngs is None else rngs),
            lambda shape: self.cell.initialize_carry(shape, nnx.Rngs(0)),
            inputs,
            features=features,
            slowest=None,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
            predict=self.predict,
        )


class OfOwnCell(Recurrent):
    """A layer that makes its cell: the arguments of the cell are its own."""

    def _arguments(self) -> dict[str, Any]:
        given = super()._arguments()
        cell = given.pop("cell")
        own = {"in_features": cell.in_features, "hidden_features": cell.hidden_features}
        return {**(cell._arguments() if isinstance(cell, Described) else own), **given}


class GRU(OfOwnCell):
    """A layer of gated recurrent units, called like ``nnx.RNN``: Flax's ``nnx.GRUCell``, run by `gru_unroll`.

    ``r_t = σ(W_r x_t + R_r h_{t-1} + b_r)``, ``z_t = σ(W_z x_t + R_z h_{t-1} + b_z)``,
    ``n_t = tanh(W_n x_t + b_n + r_t R_n h_{t-1})``, ``h_t = (1 - z_t) n_t + z_t h_{t-1}`` (Cho et al. 2014).
    Parameters, outputs and carry are those of ``nnx.RNN(nnx.GRUCell(...))``.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of units.
        predict: maps hidden states ``(*batch, T, N)`` to predictions; None returns the hidden states.
        rngs: the source of the random keys, as for ``nnx.GRUCell``.
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the hidden state after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
        options: those of ``nnx.GRUCell``. With other functions than sigmoid and tanh, or another dtype than that
            of the parameters, the layer runs Flax's cell step by step.

    Raises:
        ValueError: if ``predict`` is not a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = GRU(13, 40, rngs=nnx.Rngs(0))
        >>> carry, outputs = layer(jnp.ones((8, 320, 13)), return_carry=True)
        >>> outputs.shape, carry.shape
        ((8, 320, 40), (8, 40))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        predict: Callable[[Array], Array] | None = None,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        super().__init__(
            nnx.GRUCell(in_features, hidden_features, rngs=rngs, **options),
            predict, time_major=time_major, return_carry=return_carry, reverse=reverse, keep_order=keep_order,
        )  # fmt: skip


class LSTM(OfOwnCell):
    """A layer of LSTM cells, called like ``nnx.RNN``: Flax's ``nnx.OptimizedLSTMCell``, run by `lstm_unroll`.

    ``i_t = σ(W_i x_t + R_i h_{t-1} + b_i)``, ``f_t = σ(W_f x_t + R_f h_{t-1} + b_f)``,
    ``c_t = f_t c_{t-1} + i_t tanh(W_c x_t + R_c h_{t-1} + b_c)``, ``o_t = σ(W_o x_t + R_o h_{t-1} + b_o)``,
    ``h_t = o_t tanh(c_t)`` (Gers et al. 2000), without peepholes; `PeepholeLSTMCell` has them. Parameters, outputs and
    carry ``(c, h)`` are those of ``nnx.RNN(nnx.OptimizedLSTMCell(...))``.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of cells.
        predict: maps hidden states ``(*batch, T, N)`` to predictions; None returns the hidden states.
        rngs: the source of the random keys, as for ``nnx.OptimizedLSTMCell``.
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the carry ``(c, h)`` after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
        options: those of ``nnx.OptimizedLSTMCell``. With other functions than sigmoid and tanh, or another dtype than
            that of the parameters, the layer runs Flax's cell step by step.

    Raises:
        ValueError: if ``predict`` is not a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = LSTM(13, 40, rngs=nnx.Rngs(0))
        >>> (c, h), outputs = layer(jnp.ones((8, 320, 13)), return_carry=True)
        >>> outputs.shape, c.shape
        ((8, 320, 40), (8, 40))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        predict: Callable[[Array], Array] | None = None,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        super().__init__(
            nnx.OptimizedLSTMCell(in_features, hidden_features, rngs=rngs, **options),
            predict, time_major=time_major, return_carry=return_carry, reverse=reverse, keep_order=keep_order,
        )  # fmt: skip

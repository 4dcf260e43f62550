"""Deep transitions and neural operators (Pascanu et al. 2013) as Flax (nnx) layers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from clockwork.nn.construction import Layer
from clockwork.nn.deep_cells import DeepTransitionCell, OperatorCell
from clockwork.nn.described import Described, unless_default
from clockwork.nn.of_cells import scan_cell
from clockwork.nn.rnn_call import Lengths, over_sequences

OPTIONS = ("time_major", "return_carry", "reverse", "keep_order")


class Recurrent(Layer, Described, nnx.Module):
    """A recurrent layer of any cell, called like ``nnx.RNN``, with an optional prediction from its hidden states.

    It computes the same as ``nnx.RNN(cell)``, with the call signature and the checks of `Clockwork`: ragged batches,
    both directions, streaming. A `DeepTransitionCell` or a `PeepholeLSTMCell` runs its fast kernel.

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


class _OfOwnCell(Recurrent):
    """A layer that makes its cell: the arguments of the cell are its own."""

    def _arguments(self) -> dict[str, Any]:
        given = super()._arguments()
        return {**given.pop("cell")._arguments(), **given}


class DeepTransition(_OfOwnCell):
    """A recurrent layer with a deep transition between hidden states, called like ``nnx.RNN``.

    ``z_1 = f_1(W_1 h_{t-1} + U_1 x_t + b_1)``, ``z_k = f_k(W_k z_{k-1} + S_k h_{t-1} + U_k x_t + b_k)``,
    ``h_t = z_L`` (Pascanu et al. 2013, sec. 3.3.2): DT(S)-RNN in the paper, or DT-RNN without ``shortcuts``, where
    ``S_k`` and ``U_k`` are absent for k > 1. Its gradient is written by hand; see `clockwork.deep.deep_unroll`.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of hidden units.
        middle: the number of units of each layer between two hidden states; without any, it is a simple RNN.
        predict: maps hidden states ``(*batch, T, N)`` to predictions; None returns the hidden states.
        rngs: the source of the random key (stream ``params``).
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the hidden state after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
        options: ``shortcuts``, ``activation``, ``dtype``, ``param_dtype`` and the initialisers of
            `DeepTransitionCell`.

    Raises:
        ValueError: see `DeepTransitionCell`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = DeepTransition(88, 400, middle=(400,), rngs=nnx.Rngs(0))
        >>> carry, outputs = layer(jnp.ones((8, 50, 88)), return_carry=True)
        >>> outputs.shape, carry.shape
        ((8, 50, 400), (8, 400))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        middle: Sequence[int] = (),
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
            DeepTransitionCell(in_features, hidden_features, middle, rngs=rngs, **options),
            predict, time_major=time_major, return_carry=return_carry, reverse=reverse, keep_order=keep_order,
        )  # fmt: skip


class Operators(_OfOwnCell):
    """A recurrent network defined by two operators: ``h' = h ⊕ x`` and ``y = ▷ h`` (Pascanu et al. 2013, sec. 4).

    The paper views a recurrent network as these two functions, each of which may be deep: a deep ``⊕`` gives a DT-RNN,
    a deep ``▷`` a DO-RNN. Both may be any nnx module, or a function without parameters; the layer scans ``⊕`` over
    time and applies ``▷`` to all hidden states at once.

    Args:
        plus: ``⊕``: maps ``h (*batch, N)`` and ``x (*batch, I)`` to the next hidden state.
        predict: ``▷``: maps hidden states ``(*batch, T, N)`` to predictions ``(*batch, T, O)``.
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of hidden units.
        dtype: the dtype of the carry.
        options: ``time_major``, ``return_carry``, ``reverse`` and ``keep_order``; see `Recurrent`.

    Raises:
        ValueError: if an operator cannot be called, or a number of features is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from clockwork.nn import MLP, Transition
        >>> rngs = nnx.Rngs(0)
        >>> plus = Transition(13, 40, middle=(30,), rngs=rngs)
        >>> network = Operators(plus, MLP(40, (30, 2), rngs=rngs), 13, 40)
        >>> network(jnp.ones((8, 320, 13))).shape
        (8, 320, 2)
    """

    def __init__(
        self,
        plus: Callable[[Array, Array], Array],
        predict: Callable[[Array], Array] | None,
        in_features: int,
        hidden_features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        **options: bool,
    ) -> None:
        super().__init__(OperatorCell(plus, in_features, hidden_features, dtype=dtype), predict, **options)

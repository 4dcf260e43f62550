"""Deep transitions and neural operators (Pascanu et al. 2013) as Flax (linen) layers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.nn.construction import Layer
from clockwork.nn.linen.deep_cells import DeepTransitionCell, OperatorCell
from clockwork.nn.linen.described import Described
from clockwork.nn.linen.of_cells import scan_cell
from clockwork.nn.rnn_call import Lengths, over_sequences
from clockwork.ops.linalg import Activation


class _OfCell(Layer, Described, nn.Module):
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


class Recurrent(_OfCell):
    """A recurrent layer of any cell, called like ``nn.RNN``, with an optional prediction from its hidden states.

    It computes the same as ``nn.RNN(cell)``, with the call signature and the checks of `Clockwork`: ragged batches,
    both directions, streaming. A `DeepTransitionCell` or a `PeepholeLSTMCell` runs its fast kernel.

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
        _check_predict(self.predict)
        super().__post_init__()


class DeepTransition(_OfCell):
    """A recurrent layer with a deep transition between hidden states, called like ``nn.RNN``.

    ``z_1 = f_1(W_1 h_{t-1} + U_1 x_t + b_1)``, ``z_k = f_k(W_k z_{k-1} + S_k h_{t-1} + U_k x_t + b_k)``,
    ``h_t = z_L`` (Pascanu et al. 2013, sec. 3.3.2): DT(S)-RNN in the paper, or DT-RNN without ``shortcuts``, where
    ``S_k`` and ``U_k`` are absent for k > 1. Its gradient is written by hand; see `clockwork.deep.deep_unroll`.

    Attributes:
        features: ``N``, the number of hidden units.
        middle: the number of units of each layer between two hidden states; without any, it is a simple RNN.
        shortcuts: whether every layer receives the previous hidden state and the input. For this and the next six, see
            `DeepTransitionCell`.
        activation: ``f``, elementwise, or one for each layer; ``jnp.tanh`` if None.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters.
        kernel_init: draws the input weights of each layer.
        recurrent_kernel_init: draws each matrix from the hidden state and between layers.
        bias_init: draws the biases of each layer.
        predict: maps hidden states ``(*batch, T, N)`` to predictions; None returns the hidden states.
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the hidden state after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.

    Raises:
        ValueError: see `DeepTransitionCell`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = DeepTransition(400, middle=(400,))
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((8, 50, 88)))[0].shape
        (8, 50, 400)
    """

    features: int
    middle: Sequence[int] = ()
    shortcuts: bool = True
    activation: Activation | Sequence[Activation] | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    predict: Any = None
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False

    def __post_init__(self) -> None:
        self._made()
        _check_predict(self.predict)
        super().__post_init__()

    def setup(self) -> None:
        """The cell."""
        self.cell = self._made()

    @nn.nowrap
    def _made(self) -> DeepTransitionCell:
        return DeepTransitionCell(
            self.features, self.middle, self.shortcuts, self.activation, self.dtype, self.param_dtype,
            self.kernel_init, self.recurrent_kernel_init, self.bias_init, parent=None,
        )  # fmt: skip


class Operators(_OfCell):
    """A recurrent network defined by two operators: ``h' = h ⊕ x`` and ``y = ▷ h`` (Pascanu et al. 2013, sec. 4).

    The paper views a recurrent network as these two functions, each of which may be deep: a deep ``⊕`` gives a DT-RNN,
    a deep ``▷`` a DO-RNN. Both may be any linen module, or a function without parameters; the layer scans ``⊕`` over
    time and applies ``▷`` to all hidden states at once.

    Attributes:
        plus: ``⊕``: maps ``h (*batch, N)`` and ``x (*batch, I)`` to the next hidden state.
        predict: ``▷``: maps hidden states ``(*batch, T, N)`` to predictions ``(*batch, T, O)``; None returns the hidden
            states.
        features: ``N``, the number of hidden units.
        dtype: the dtype of the carry.
        time_major: whether time is the first axis of inputs and outputs. A call can override this and the next three.
        return_carry: whether to return the hidden state after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.

    Raises:
        ValueError: if an operator cannot be called, or ``features`` is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from clockwork.nn.linen import MLP, Transition
        >>> network = Operators(Transition(40, middle=(30,)), MLP((30, 2)), 40)
        >>> network.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))[0].shape
        (8, 320, 2)
    """

    plus: Any
    predict: Any
    features: int
    dtype: DTypeLike = jnp.float32
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False

    def __post_init__(self) -> None:
        _check_predict(self.predict)
        super().__post_init__()

    def setup(self) -> None:
        """The cell."""
        self.cell = OperatorCell(self.plus, self.features, self.dtype)


def _check_predict(predict: Any) -> None:
    if predict is not None and not callable(predict):
        raise ValueError(f"predict must be a function of hidden states, or a module, got {predict!r}")

"""Deep transitions and neural operators (Pascanu et al. 2013) as Flax (linen) layers."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from clockwork.nn.linen.deep_cells import DeepTransitionCell, OperatorCell
from clockwork.nn.linen.recurrent import OfCell, check_predict
from clockwork.ops.linalg import Activation


class DeepTransition(OfCell):
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
        check_predict(self.predict)
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


class Operators(OfCell):
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
        check_predict(self.predict)
        super().__post_init__()

    def setup(self) -> None:
        """The cell."""
        self.cell = OperatorCell(self.plus, self.features, self.dtype)

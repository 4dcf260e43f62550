"""Deep transitions and neural operators (Pascanu et al. 2013) as Flax (nnx) layers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from clockwork.nn.deep_cells import DeepTransitionCell, OperatorCell
from clockwork.nn.recurrent import OfOwnCell


class DeepTransition(OfOwnCell):
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


class Operators(OfOwnCell):
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

"""Deep transitions and neural operators (Pascanu et al. 2013) as Flax (nnx) cells."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import integer, shaped
from clockwork.deep.layer import check_activations
from clockwork.deep.weights import check_sizes, initialize_deep
from clockwork.nn.batched import step_deep, unroll_deep
from clockwork.nn.carry import check_carry, last_of
from clockwork.nn.cells import dtype_arguments, first_state
from clockwork.nn.described import Described, unless_default
from clockwork.nn.named import Named
from clockwork.nn.parameters import DeepParameters
from clockwork.ops.linalg import Activation


class DeepTransitionCell(DeepParameters, nnx.RNNCellBase):
    """One step of a recurrent layer with a deep transition between hidden states, as a cell for ``nnx.RNN``.

    ``z_1 = f_1(W_1 h_{t-1} + U_1 x_t + b_1)``, ``z_k = f_k(W_k z_{k-1} + S_k h_{t-1} + U_k x_t + b_k)``,
    ``h_t = z_L`` (Pascanu et al. 2013, sec. 3.3.2): DT(S)-RNN in the paper, or DT-RNN without ``shortcuts``, where
    ``S_k`` and ``U_k`` are absent for k > 1. For whole sequences, `DeepTransition` computes the same faster, with
    the same parameters. As ``cell=`` of a `Clockwork`, each module is a deep transition at its own period.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of hidden units.
        middle: the number of units of each layer between two hidden states; without any, it is a simple RNN.
        shortcuts: whether every layer receives the previous hidden state and the input.
        activation: ``f``, elementwise, or one for each layer; ``jnp.tanh`` if None.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters.
        kernel_init: draws the input weights ``(I, n_k)`` of each layer; N(0, 0.1²) if None, as for the next two.
        recurrent_kernel_init: draws each matrix ``(N, n_k)`` from the hidden state and ``(n_k, n_{k+1})`` between
            layers; `clockwork.deep.Sparse` is the paper's.
        bias_init: draws the biases ``(n_k,)`` of each layer.
        rngs: the source of the random key (stream ``params``). With the default initialisers, the cell's weights
            are ``deep_init(rngs.params(), hidden_features, in_features, middle, shortcuts=shortcuts)``.

    Raises:
        ValueError: if a number of units is out of range, or ``activation`` is neither a function nor one function
            for each layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> cell = DeepTransitionCell(13, 40, middle=(30,), rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((8, 320, 13))).shape
        (8, 320, 40)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        middle: Sequence[int] = (),
        *,
        shortcuts: bool = True,
        activation: Activation | Sequence[Activation] | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        sizes, in_features = check_sizes(hidden_features, middle), integer("in_features", in_features, least=0)
        activations = check_activations(jnp.tanh if activation is None else activation, len(sizes))
        super().__init__(
            initialize_deep(
                rngs.params(), sizes, in_features, shortcuts, kernel_init, recurrent_kernel_init, bias_init, param_dtype
            )
        )
        self.in_features = in_features
        self.hidden_features = sizes[-1]
        self.middle = sizes[:-1]
        self.shortcuts = shortcuts
        self._activations = tuple(map(Named, activations))
        self.dtype: DTypeLike = dtype or param_dtype

    @property
    def activation(self) -> tuple[Activation, ...]:
        """``f_1, ..., f_L``, elementwise."""
        return tuple(named.function for named in self._activations)

    def _arguments(self) -> dict[str, Any]:
        same = all(f is self.activation[0] for f in self.activation)
        given = {
            "in_features": self.in_features, "hidden_features": self.hidden_features, "middle": self.middle,
            "shortcuts": self.shortcuts, "activation": self.activation[0] if same else list(self.activation),
            **dtype_arguments(self.dtype, self.bias.dtype),
        }  # fmt: skip
        return unless_default(given, middle=(), shortcuts=True, activation=jnp.tanh)

    def __call__(self, carry: Array, inputs: ArrayLike) -> tuple[Array, Array]:
        """One step.

        Args:
            carry: ``h_{t-1}``, ``(*batch, N)``.
            inputs: ``(*batch, I)``.

        Returns:
            ``h_t`` twice: the next carry and the output.

        Raises:
            ValueError: if the inputs have the wrong number of features, or the carry has the wrong shape.
        """
        return step_deep(self.weights, carry, inputs, self.dtype, self.activation)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> Array:
        """The hidden state before the first step, ``(*batch, N)``.

        Args:
            input_shape: the shape of one step's inputs, ``(*batch, I)``.
            rngs: the key for ``carry_init``, stream ``carry``.
            carry_init: draws the hidden state; zeros if None.

        Raises:
            ValueError: if ``carry_init`` is given without ``rngs``.
        """
        return first_state((*input_shape[:-1], self.hidden_features), self.dtype, rngs, carry_init)

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def _unroll(self, inputs: Array, carry: Array, lengths: Array | None) -> tuple[Array, Array]:
        """Run the fast kernel over ``(T, B, I)``.

        Args:
            inputs: ``(T, B, I)``.
            carry: ``(B, N)``.
            lengths: ``(B,)``, the number of steps after which each sequence's carry is returned; None for all steps.

        Returns:
            The carry ``(B, N)``, and the outputs ``(T, B, N)``.
        """
        last, y = unroll_deep(self.weights, inputs, carry, self.dtype, self.activation)
        return (last if lengths is None else last_of(y, lengths, carry)), y


class OperatorCell(Described, nnx.RNNCellBase):
    """A recurrent cell made of one function ``h' = h ⊕ x`` of hidden state and input (Pascanu et al. 2013, sec. 4).

    Args:
        plus: maps ``h (*batch, N)`` and ``x (*batch, I)`` to the next hidden state ``(*batch, N)``. Either
            an nnx module, whose parameters become the cell's, or a function without parameters.
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of hidden units.
        dtype: the dtype of the carry.

    Raises:
        ValueError: if ``plus`` cannot be called or a number of features is out of range; when called, if the hidden
            state that ``plus`` returns has the wrong shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from clockwork.nn import Transition
        >>> cell = OperatorCell(Transition(13, 40, middle=(30,), rngs=nnx.Rngs(0)), 13, 40)
        >>> nnx.RNN(cell)(jnp.ones((8, 320, 13))).shape
        (8, 320, 40)
    """

    def __init__(
        self,
        plus: Callable[[Array, Array], Array],
        in_features: int,
        hidden_features: int,
        *,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        if not callable(plus):
            raise ValueError(f"plus must be a function of hidden state and input, or a module, got {plus!r}")
        self.plus = plus
        self.in_features = integer("in_features", in_features, least=0)
        self.hidden_features = integer("hidden_features", hidden_features, least=1)
        self.dtype = dtype

    def _arguments(self) -> dict[str, Any]:
        given = {
            "plus": self.plus, "in_features": self.in_features, "hidden_features": self.hidden_features,
            "dtype": jnp.dtype(self.dtype),
        }  # fmt: skip
        return unless_default(given, dtype=jnp.float32)

    def __call__(self, carry: Array, inputs: ArrayLike) -> tuple[Array, Array]:
        """One step; see `DeepTransitionCell` for arguments, results and errors."""
        x = jnp.asarray(inputs)
        shaped("inputs", x, "*batch I", I=self.in_features)
        wanted = jax.ShapeDtypeStruct((*x.shape[:-1], self.hidden_features), self.dtype)
        check_carry(carry, wanted)
        h = jnp.asarray(self.plus(carry, x))
        shaped("the hidden state that plus returns", h, "*batch N", batch=x.shape[:-1], N=self.hidden_features)
        return h.astype(carry.dtype), h

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> Array:
        """The hidden state before the first step; see `DeepTransitionCell.initialize_carry`."""
        return first_state((*input_shape[:-1], self.hidden_features), self.dtype, rngs, carry_init)

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

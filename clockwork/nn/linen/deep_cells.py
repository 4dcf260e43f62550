"""Deep transitions and neural operators (Pascanu et al. 2013) as Flax (linen) cells."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import integer, shaped
from clockwork.deep import DeepWeights
from clockwork.deep.layer import check_activations
from clockwork.deep.weights import check_sizes, initialize_deep
from clockwork.nn.batched import step_deep, unroll_deep
from clockwork.nn.carry import check_carry, last_of
from clockwork.nn.linen.described import Described
from clockwork.nn.linen.parameters import parameters_of
from clockwork.ops.linalg import Activation


class DeepTransitionCell(Described, nn.RNNCellBase):
    """One step of a recurrent layer with a deep transition between hidden states, as a cell for ``nn.RNN``.

    ``z_1 = f_1(W_1 h_{t-1} + U_1 x_t + b_1)``, ``z_k = f_k(W_k z_{k-1} + S_k h_{t-1} + U_k x_t + b_k)``,
    ``h_t = z_L`` (Pascanu et al. 2013, sec. 3.3.2): DT(S)-RNN in the paper, or DT-RNN without ``shortcuts``, where
    ``S_k`` and ``U_k`` are absent for k > 1. For whole sequences, `DeepTransition` computes the same faster, with
    the same parameters. As ``cell=`` of a `Clockwork`, each module is a deep transition at its own period.

    Attributes:
        features: ``N``, the number of hidden units.
        middle: the number of units of each layer between two hidden states; without any, it is a simple RNN.
        shortcuts: whether every layer receives the previous hidden state and the input.
        activation: ``f``, elementwise, or one for each layer; ``jnp.tanh`` if None.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters.
        kernel_init: draws the input weights ``(I, n_k)`` of each layer; N(0, 0.1²) if None, as for the next two.
        recurrent_kernel_init: draws each matrix ``(N, n_k)`` from the hidden state and ``(n_k, n_{k+1})`` between
            layers; `clockwork.deep.Sparse` is the paper's.
        bias_init: draws the biases ``(n_k,)`` of each layer.

    Raises:
        ValueError: if a number of units is out of range, or ``activation`` is neither a function nor one function
            for each layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> rnn = nn.RNN(DeepTransitionCell(40, middle=(30,)))
        >>> rnn.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))[0].shape
        (8, 320, 40)
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

    def __post_init__(self) -> None:
        sizes = check_sizes(self.features, self.middle)
        check_activations(self.activation or jnp.tanh, len(sizes))
        super().__post_init__()

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
        return step_deep(self._weights(jnp.shape(inputs)[-1]), carry, inputs, self._dtype, self._activations)

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Array:
        """The hidden state before the first step, zeros ``(*batch, N)``.

        Args:
            rng: not used.
            input_shape: the shape of one step's inputs, ``(*batch, I)``.
        """
        return jnp.zeros((*input_shape[:-1], self.features), self._dtype)

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def unroll(self, inputs: Array, carry: Array, lengths: Array | None) -> tuple[Array, Array]:
        """Run the fast kernel over ``(T, B, I)``.

        Args:
            inputs: ``(T, B, I)``.
            carry: ``(B, N)``.
            lengths: ``(B,)``, the number of steps after which each sequence's carry is returned; None for all steps.

        Returns:
            The carry ``(B, N)``, and the outputs ``(T, B, N)``.
        """
        last, y = unroll_deep(self._weights(inputs.shape[-1]), inputs, carry, self._dtype, self._activations)
        return (last if lengths is None else last_of(y, lengths, carry)), y

    @nn.compact
    def _weights(self, features: int) -> DeepWeights:
        sizes = check_sizes(self.features, self.middle)

        def draw(key: Array) -> dict[str, Array]:
            initializers = self.kernel_init, self.recurrent_kernel_init, self.bias_init
            drawn = initialize_deep(key, sizes, features, self.shortcuts, *initializers, self.param_dtype)
            return {name.replace(".", "_"): array for name, array in drawn.flat().items() if array.size}

        found = parameters_of(self, features, draw)
        return DeepWeights.from_flat({name.replace("between_", "between."): array for name, array in found.items()})

    @property
    def _activations(self) -> tuple[Activation, ...]:
        return check_activations(self.activation or jnp.tanh, len(self.middle) + 1)

    @property
    def _dtype(self) -> DTypeLike:
        return self.dtype or self.param_dtype


class OperatorCell(Described, nn.RNNCellBase):
    """A recurrent cell made of one function ``h' = h ⊕ x`` of hidden state and input (Pascanu et al. 2013, sec. 4).

    Attributes:
        plus: maps ``h (*batch, N)`` and ``x (*batch, I)`` to the next hidden state ``(*batch, N)``. Either a
            linen module, whose parameters become the cell's, or a function without parameters.
        features: ``N``, the number of hidden units.
        dtype: the dtype of the carry.

    Raises:
        ValueError: if ``plus`` cannot be called or ``features`` is out of range; when called, if the hidden state that
            ``plus`` returns has the wrong shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from clockwork.nn.linen import Transition
        >>> rnn = nn.RNN(OperatorCell(Transition(40, middle=(30,)), 40))
        >>> rnn.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))[0].shape
        (8, 320, 40)
    """

    plus: Any
    features: int
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if not callable(self.plus):
            raise ValueError(f"plus must be a function of hidden state and input, or a module, got {self.plus!r}")
        integer("features", self.features, least=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, carry: Array, inputs: ArrayLike) -> tuple[Array, Array]:
        """One step; see `DeepTransitionCell` for arguments, results and errors."""
        x = jnp.asarray(inputs)
        check_carry(carry, jax.ShapeDtypeStruct((*x.shape[:-1], self.features), self.dtype))
        h = jnp.asarray(self.plus(carry, x))
        shaped("the hidden state that plus returns", h, "*batch N", batch=x.shape[:-1], N=self.features)
        return h.astype(carry.dtype), h

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Array:
        """The hidden state before the first step; see `DeepTransitionCell.initialize_carry`."""
        return jnp.zeros((*input_shape[:-1], self.features), self.dtype)

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

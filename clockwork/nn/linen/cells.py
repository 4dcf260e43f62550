"""Recurrent cells as Flax (linen) modules: one step each, for ``nn.RNN``, ``nn.Bidirectional`` and `Clockwork`."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.clock import Clock, check_clock
from clockwork.lstm import LSTMWeights, lstm_init
from clockwork.nn.batched import step_clockwork, step_lstm, unroll_clockwork, unroll_lstm
from clockwork.nn.carry import time_zero
from clockwork.nn.linen.described import Described
from clockwork.nn.linen.parameters import parameters_of, params, weights
from clockwork.recurrence import Activation, Method, State, check_activation, check_time
from clockwork.weights import Weights, initialize


class ClockworkCell(Described, nn.RNNCellBase):
    """One step of a clockwork layer, as a cell for ``nn.RNN`` and ``nn.Bidirectional``.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 and 4). The carry holds the time as well as the hidden state.
    For whole sequences, `Clockwork` computes the same faster, with the same parameters.

    Attributes:
        clock: when each module updates.
        activation: ``f``, elementwise; ``jnp.tanh`` if None.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters; float32 if None.
        kernel_init: draws the input weights ``(I, N)``; N(0, 0.1²) as in the paper if None. ``**clockwork.nn.FLAX``
            sets all three initialisers to Flax's.
        recurrent_kernel_init: draws the recurrent weights to each module i, ``(N - a_i, k_i)``, where ``a_i`` is its
            first unit and ``k_i`` its size.
        bias_init: draws the biases ``(N,)``.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> rnn = nn.RNN(ClockworkCell(cw.Clock.exponential(width=40, modules=9)))
        >>> outputs, variables = rnn.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))
        >>> outputs.shape
        (8, 320, 40)
    """

    clock: Clock
    activation: Activation | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike | None = None
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def __post_init__(self) -> None:
        check_clock(self.clock, "ClockworkCell(clock)")
        if self.activation is not None:
            check_activation(self.activation)
        super().__post_init__()

    def __call__(self, carry: State, inputs: ArrayLike) -> tuple[State, Array]:
        """One step.

        Args:
            carry: hidden state ``(*batch, N)`` and time ``(*batch, 1)``.
            inputs: ``(*batch, I)``.

        Returns:
            The next carry, and its hidden values ``(*batch, N)``.

        Raises:
            ValueError: if the inputs have the wrong number of features, or the carry belongs to another clock or batch.
        """
        weights = self._weights(jnp.shape(inputs)[-1])
        return step_clockwork(weights, self.clock, carry, inputs, self._dtype, self.activation or jnp.tanh)

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> State:
        """The carry before the first step: zeros, at time zero.

        Args:
            rng: not used.
            input_shape: the shape of one step's inputs, ``(*batch, I)``.

        Raises:
            ValueError: if the clock's cycle exceeds the range of int32.
        """
        check_time(self.clock)
        return self.first_carry(rng, input_shape)

    @nn.nowrap
    def first_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> State:
        """The carry before the first step, without the check that int32 can count the clock's cycle."""
        hidden = jnp.zeros((*input_shape[:-1], self.clock.width), self._dtype)
        return State(hidden, time_zero(input_shape[:-1]))

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def unroll(
        self, inputs: Array, carry: State, lengths: Array | None, *, start: int | None, method: Method
    ) -> tuple[State, Array]:
        """Run the fast kernels over a batch; `Clockwork` calls this.

        Args:
            inputs: ``(T, B, I)``.
            carry: the carry, with one batch dimension B.
            lengths: ``(B,)``, the number of steps after which each sequence's carry is returned; None for all steps.
            start: the carry's time modulo ``clock.cycle``; None if the caller does not know it.
            method: the layer's method; see `Clockwork`.

        Returns:
            The carry, and the outputs ``(T, B, N)``.
        """
        weights = jax.tree.map(lambda w: w.astype(self._dtype), self._weights(inputs.shape[-1]))
        return unroll_clockwork(
            weights, self.clock, inputs.astype(self._dtype), carry, lengths,
            start=start, method=method, activation=self.activation or jnp.tanh,
        )  # fmt: skip

    @nn.compact
    def _weights(self, features: int) -> Weights:
        def draw(key: Array) -> dict[str, Array]:
            initializers = self.kernel_init, self.recurrent_kernel_init, self.bias_init
            return params(initialize(key, self.clock, features, *initializers, self.param_dtype or jnp.float32))

        return weights(parameters_of(self, features, draw))

    @property
    def _dtype(self) -> DTypeLike:
        return self.dtype or self.param_dtype or jnp.float32


class PeepholeLSTMCell(Described, nn.RNNCellBase):
    """One step of a layer of LSTM cells with peepholes (Graves 2008; Gers et al. 2002), as a cell for ``nn.RNN``.

    The equations are those of `clockwork.nn.lstm_unroll`. A `Clockwork` of these cells runs the kernel of
    `lstm_unroll`.

    Attributes:
        features: ``N``, the number of LSTM cells.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        forget_bias: the initial bias of every forget gate; None to draw it like all others.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> outputs, variables = nn.RNN(PeepholeLSTMCell(15)).init_with_output(jax.random.key(0), jnp.ones((320, 13)))
        >>> outputs.shape
        (320, 15)
    """

    features: int
    stddev: float = 0.1
    forget_bias: float | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    def __call__(self, carry: tuple[Array, Array], inputs: ArrayLike) -> tuple[tuple[Array, Array], Array]:
        """One step.

        Args:
            carry: ``c`` and ``h``, ``(*batch, N)`` each, in the order of flax's LSTM.
            inputs: ``(*batch, I)``.

        Returns:
            The next carry, and ``h``.

        Raises:
            ValueError: if the inputs have the wrong number of features, or the carry has the wrong shape.
        """
        return step_lstm(self._weights(jnp.shape(inputs)[-1]), carry, inputs, self._dtype)

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The carry before the first step, ``c`` and ``h``, zeros.

        Args:
            rng: not used.
            input_shape: the shape of one step's inputs, ``(*batch, I)``.

        Returns:
            Two arrays ``(*batch, N)``.
        """
        zeros = jnp.zeros((*input_shape[:-1], self.features), self._dtype)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def unroll(self, inputs: Array, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        """Run the fast kernel over ``(T, B, I)``; return the last carry, ``c`` and ``h``, and ``y (T, B, N)``."""
        return unroll_lstm(self._weights(inputs.shape[-1]), inputs, carry, self._dtype)

    @nn.compact
    def _weights(self, features: int) -> LSTMWeights:
        def draw(key: Array) -> dict[str, Array]:
            drawn = lstm_init(key, self.features, features, self.stddev, self.forget_bias, self.param_dtype)
            return {name: array for name, array in drawn._asdict().items() if array.size}

        found = parameters_of(self, features, draw)
        return LSTMWeights(**{"input": jnp.zeros((0, 4 * self.features), self.param_dtype), **found})

    @property
    def _dtype(self) -> DTypeLike:
        return self.dtype or self.param_dtype

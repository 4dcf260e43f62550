"""Recurrent cells as Flax (nnx) modules: one step each, for ``nnx.RNN``, ``nnx.Bidirectional`` and `Clockwork`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import integer
from clockwork.clock import Clock, check_clock
from clockwork.lstm import lstm_init
from clockwork.nn.batched import step_clockwork, step_lstm, unroll_clockwork, unroll_lstm
from clockwork.nn.carry import time_zero
from clockwork.nn.described import unless_default
from clockwork.nn.named import Named
from clockwork.nn.parameters import ClockworkParameters, LSTMParameters
from clockwork.recurrence import Activation, Method, State, check_activation, check_time
from clockwork.weights import initialize


class ClockworkCell(ClockworkParameters, nnx.RNNCellBase):
    """One step of a clockwork layer, as a cell for ``nnx.RNN`` and ``nnx.Bidirectional``.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 and 4). The carry holds the time as well as the hidden state.
    For whole sequences, `Clockwork` computes the same faster, with the same parameters.

    Args:
        clock: when each module updates.
        in_features: ``I``, the number of inputs.
        activation: ``f``, elementwise; ``jnp.tanh`` if None.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters.
        kernel_init: draws the input weights ``(I, N)``; N(0, 0.1²) as in the paper if None. ``**clockwork.nn.FLAX``
            sets all three initialisers to Flax's.
        recurrent_kernel_init: draws the recurrent weights to each module i, ``(N - a_i, k_i)``, where ``a_i`` is its
            first unit and ``k_i`` its size.
        bias_init: draws the biases ``(N,)``.
        rngs: the source of the random key (stream ``params``). With the default initialisers, the cell's weights
            are ``clockwork.init(rngs.params(), clock, in_features)``.

    Raises:
        ValueError: if ``clock`` is not a clock, ``in_features`` is negative, or ``activation`` is not a function.

    Example:
        >>> import clockwork as cw, jax.numpy as jnp
        >>> from flax import nnx
        >>> cell = ClockworkCell(cw.Clock.exponential(width=40, modules=9), 13, rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((8, 320, 13))).shape
        (8, 320, 40)
    """

    def __init__(
        self,
        clock: Clock,
        in_features: int,
        *,
        activation: Activation | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_clock(clock, "ClockworkCell(clock, in_features, rngs=rngs)")
        in_features = integer("in_features", in_features, least=0)
        weights = initialize(
            rngs.params(), clock, in_features, kernel_init, recurrent_kernel_init, bias_init, param_dtype
        )
        super().__init__(clock, weights)
        self.in_features = in_features
        self.activation = jnp.tanh if activation is None else check_activation(activation)
        self.dtype: DTypeLike = dtype or param_dtype

    @property
    def activation(self) -> Activation:
        """``f``, elementwise."""
        return self._activation.function

    @activation.setter
    def activation(self, activation: Activation) -> None:
        self._activation = Named(activation)

    def _arguments(self) -> dict[str, Any]:
        given = {
            "clock": self.clock, "in_features": self.in_features, "activation": self.activation,
            **dtype_arguments(self.dtype, self.bias.dtype),
        }  # fmt: skip
        return unless_default(given, activation=jnp.tanh)

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
        return step_clockwork(self.weights, self.clock, carry, inputs, self.dtype, self.activation)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> State:
        """The carry before the first step: zeros, at time zero.

        Args:
            input_shape: the shape of one step's inputs, ``(*batch, I)``.
            rngs: the key for ``carry_init``, stream ``carry``.
            carry_init: draws the hidden state; zeros if None.

        Returns:
            Hidden state ``(*batch, N)``, and time ``(*batch, 1)``, int32.

        Raises:
            ValueError: if ``carry_init`` is given without ``rngs``, or if the clock's cycle exceeds the range of
                int32.
        """
        check_time(self.clock)
        return self._first_carry(input_shape, rngs, carry_init)

    def _first_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> State:
        """The carry before the first step, without the check that int32 can count the clock's cycle."""
        hidden = first_state((*input_shape[:-1], self.clock.width), self.dtype, rngs, carry_init)
        return State(hidden, time_zero(input_shape[:-1]))

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def _unroll(
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
        weights = jax.tree.map(lambda w: w.astype(self.dtype), self.weights)
        return unroll_clockwork(
            weights, self.clock, inputs.astype(self.dtype), carry, lengths,
            start=start, method=method, activation=self.activation,
        )  # fmt: skip


class PeepholeLSTMCell(LSTMParameters, nnx.RNNCellBase):
    """One step of a layer of LSTM cells with peepholes (Graves 2008; Gers et al. 2002), as a cell for ``nnx.RNN``.

    The equations are those of `lstm_unroll`. A `Clockwork` of these cells runs the kernel of `lstm_unroll`.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of LSTM cells.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        forget_bias: the initial bias of every forget gate; None to draw it like all others.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters.
        rngs: the source of the random key (stream ``params``). The cell's weights are
            ``lstm_init(rngs.params(), hidden_features, in_features)``.

    Raises:
        ValueError: if ``in_features``, ``hidden_features`` or ``stddev`` is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> nnx.RNN(PeepholeLSTMCell(13, 15, rngs=nnx.Rngs(0)))(jnp.ones((8, 320, 13))).shape
        (8, 320, 15)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        stddev: float = 0.1,
        forget_bias: float | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        weights = lstm_init(rngs.params(), hidden_features, in_features, stddev, forget_bias, param_dtype)
        super().__init__(weights)
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.dtype: DTypeLike = dtype or param_dtype

    def _arguments(self) -> dict[str, Any]:
        given = {"in_features": self.in_features, "hidden_features": self.hidden_features}
        return {**given, **dtype_arguments(self.dtype, self.bias.dtype)}

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
        return step_lstm(self.weights, carry, inputs, self.dtype)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> tuple[Array, Array]:
        """The carry before the first step, ``c`` and ``h``.

        Args:
            rngs: the keys for ``carry_init``, stream ``carry``.
            input_shape: the shape of one step's inputs, ``(*batch, I)``.
            carry_init: draws both; zeros if None.

        Returns:
            Two arrays ``(*batch, N)``.

        Raises:
            ValueError: if ``carry_init`` is given without ``rngs``.
        """
        return self._first_carry(input_shape, rngs, carry_init)

    def _first_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> tuple[Array, Array]:
        shape = (*input_shape[:-1], self.hidden_features)
        c, h = (first_state(shape, self.dtype, rngs, carry_init) for _ in range(2))
        return c, h

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def _unroll(self, inputs: Array, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        """Run the fast kernel over ``(T, B, I)``; return the last carry, ``c`` and ``h``, and ``y (T, B, N)``."""
        return unroll_lstm(self.weights, inputs, carry, self.dtype)


def first_state(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    rngs: nnx.Rngs | nnx.RngStream | None,
    carry_init: Initializer | None,
) -> Array:
    """An array of a cell's carry before the first step: zeros, or drawn by ``carry_init`` with a key of ``rngs``."""
    if carry_init is None:
        return jnp.zeros(shape, dtype)
    if rngs is None:
        raise ValueError("carry_init needs rngs, got None")
    return carry_init((rngs.carry if isinstance(rngs, nnx.Rngs) else rngs)(), shape, dtype)


def dtype_arguments(dtype: DTypeLike, param_dtype: DTypeLike) -> dict[str, Any]:
    """The arguments ``dtype`` and ``param_dtype`` of a cell, unless they are the default."""
    dtype, param_dtype = jnp.dtype(dtype), jnp.dtype(param_dtype)
    own = {} if dtype == param_dtype else {"dtype": dtype}
    return own | ({} if param_dtype == jnp.float32 else {"param_dtype": param_dtype})

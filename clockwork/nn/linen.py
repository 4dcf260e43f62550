"""The cells and layers of `clockwork.nn` for Flax's linen: the same functions, with the same names of parameters.

The number of inputs is that of the first call. `weights` and `params` go from the parameters of a cell to the
functional `clockwork.Weights` and back, and so to and from the nnx modules.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import shown
from clockwork.clock import Clock, check_clock
from clockwork.lstm import LSTMWeights, lstm_init
from clockwork.nn import modules
from clockwork.nn.cells import step_lstm, unroll_lstm
from clockwork.nn.initializers import initialize
from clockwork.nn.modules import CellsState
from clockwork.nn.sequence import (
    Layer,
    Merge,
    check_carry,
    check_layer,
    check_layers,
    check_method,
    merge_function,
    over_sequences,
    own_modules_only,
    stacked,
    start_for,
    step_batch,
    time_zero,
    unroll_batch,
)
from clockwork.recurrence import Activation, Method, State, check_activation, check_time
from clockwork.weights import Weights, as_weights

__all__ = [
    "Bidirectional",
    "Clockwork",
    "ClockworkCell",
    "ClockworkOfCells",
    "PeepholeLSTMCell",
    "Stack",
    "params",
    "weights",
]

PyTree = Any


def weights(params: Mapping[str, Array]) -> Weights:
    """The functional weights from the parameters of a `ClockworkCell`.

    Args:
        params: of the cell: ``variables["params"]``, and of a layer or ``nn.RNN`` its ``["cell"]``.

    Raises:
        ValueError: if these are no such parameters.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> layer = Clockwork(cw.Clock.exponential(width=40, modules=9))
        >>> variables = layer.init(jax.random.key(0), jnp.ones((320, 13)))
        >>> weights(variables["params"]["cell"]).input.shape
        (13, 40)
    """
    blocks = [f"recurrent_{j}" for j in range(sum(name.startswith("recurrent_") for name in params))]
    if not blocks or set(params) - {"input"} != {*blocks, "bias"}:
        raise ValueError(f"parameters of a clockwork cell are input, recurrent_0, ... and bias, got {sorted(params)}")
    bias = jnp.asarray(params["bias"])
    given = params.get("input", jnp.zeros((0, *bias.shape), bias.dtype))  # a layer without inputs has none
    return Weights(jnp.asarray(given), tuple(jnp.asarray(params[name]) for name in blocks), bias)


def params(weights: Weights) -> dict[str, Array]:
    """The inverse of `weights`: the parameters of a `ClockworkCell`, and under ``["cell"]`` of a layer.

    Args:
        weights: of the layer.

    Raises:
        ValueError: if these are no weights.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> clock = cw.Clock.exponential(width=40, modules=9)
        >>> drawn = cw.init(jax.random.key(0), clock, inputs=13)
        >>> Clockwork(clock).apply({"params": {"cell": params(drawn)}}, jnp.ones((320, 13))).shape
        (320, 40)
    """
    return {name.replace(".", "_"): array for name, array in as_weights(weights).flat().items() if array.size}


def _parameters(module: nn.Module, features: int, draw: Callable[[Array], Mapping[str, Array]]) -> dict[str, Array]:
    """The parameters of a cell that are drawn together, from one key; to be called from its ``compact`` method."""
    if module.has_variable("params", "bias"):
        known = module.get_variable("params", "input")
        if features != (0 if known is None else known.shape[0]):
            raise ValueError(f"inputs must have {0 if known is None else known.shape[0]} features, got {features}")
    shapes = jax.eval_shape(draw, jax.random.key(0))
    drawn: Mapping[str, Array] = {}
    if module.is_mutable_collection("params") and not module.has_variable("params", "bias"):
        drawn = draw(module.make_rng("params"))

    def initial(key: Array, name: str) -> Array:
        del key
        return drawn[name] if drawn else jnp.zeros(shapes[name].shape, shapes[name].dtype)

    return {name: module.param(name, initial, name) for name in shapes}


class ClockworkCell(nn.RNNCellBase):
    """One step of a clockwork layer, as a cell for ``nn.RNN`` and ``nn.Bidirectional``.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 and 4). The carry holds the clock as well as the values.
    Over whole sequences, `Clockwork` is the same function with the same parameters, and faster.

    Attributes:
        clock: when each module updates.
        activation: ``f``, elementwise; ``jnp.tanh`` if None.
        dtype: of computation and carry; that of the parameters if None.
        param_dtype: of the parameters; float32 if None.
        kernel_init: of the input weights ``(I, N)``; the paper's N(0, 0.1²) if None. All three as Flax
            has them: ``**clockwork.nn.FLAX``.
        recurrent_kernel_init: of what each module receives, ``(N - a_i, k_i)``.
        bias_init: of the biases ``(N,)``.

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
            ValueError: if the inputs have another width, or the carry is of another clock or batch.
        """
        weights = self._weights(jnp.shape(inputs)[-1])
        return step_batch(weights, self.clock, carry, inputs, self._dtype, self.activation or jnp.tanh)

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> State:
        """The carry before the first step: zeros, at time zero.

        Args:
            rng: not used.
            input_shape: of the inputs of a step, ``(*batch, I)``.

        Raises:
            ValueError: if the clock's cycle is longer than an int32 can count.
        """
        check_time(self.clock)
        return self.first_carry(rng, input_shape)

    @nn.nowrap
    def first_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> State:
        """The same of any clock, for a call that does not go on from a carry."""
        hidden = jnp.zeros((*input_shape[:-1], self.clock.width), self._dtype)
        return State(hidden, time_zero(input_shape[:-1]))

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes are features: one."""
        return 1

    def unroll(
        self, inputs: Array, carry: State, lengths: Array | None, *, start: int | None, method: Method
    ) -> tuple[State, Array]:
        """The fast kernels over a batch; what `Clockwork` calls.

        Args:
            inputs: ``(T, B, I)``.
            carry: with B its one batch dimension.
            lengths: ``(B,)``, the steps after which the returned carry is taken; None for all.
            start: what the caller knows of the carry's time, up to whole cycles; None for nothing.
            method: as of `Clockwork`.

        Returns:
            The carry, and the outputs ``(T, B, N)``.
        """
        weights = jax.tree.map(lambda w: w.astype(self._dtype), self._weights(inputs.shape[-1]))
        return unroll_batch(
            weights, self.clock, inputs.astype(self._dtype), carry, lengths,
            start=start, method=method, activation=self.activation or jnp.tanh,
        )  # fmt: skip

    @nn.compact
    def _weights(self, features: int) -> Weights:
        def draw(key: Array) -> dict[str, Array]:
            drawn = initialize(
                key, self.clock, features, kernel_init=self.kernel_init, bias_init=self.bias_init,
                recurrent_kernel_init=self.recurrent_kernel_init, dtype=self.param_dtype or jnp.float32,
            )  # fmt: skip
            return params(drawn)

        return weights(_parameters(self, features, draw))

    @property
    def _dtype(self) -> DTypeLike:
        return self.dtype or self.param_dtype or jnp.float32


class PeepholeLSTMCell(nn.RNNCellBase):
    """One step of a layer of LSTM cells with peepholes (Graves 2008; Gers et al. 2002), as a cell for ``nn.RNN``.

    The equations are those of `clockwork.nn.lstm_unroll`. As the cell of a `Clockwork`, its modules run that kernel.

    Attributes:
        features: ``N``, the number of LSTM cells.
        stddev: all weights and biases are drawn from N(0, stddev²).
        forget_bias: the initial bias of every forget gate; None to draw it like all others.
        dtype: of computation and carry; that of the parameters if None.
        param_dtype: of the parameters.

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
            ValueError: if the inputs have another width, or the carry another shape.
        """
        return step_lstm(self._weights(jnp.shape(inputs)[-1]), carry, inputs, self._dtype)

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The carry before the first step, ``c`` and ``h``, zeros.

        Args:
            rng: not used.
            input_shape: of the inputs of a step, ``(*batch, I)``.

        Returns:
            Two arrays ``(*batch, N)``.
        """
        zeros = jnp.zeros((*input_shape[:-1], self.features), self._dtype)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes are features: one."""
        return 1

    def unroll(self, inputs: Array, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        """The fast kernel over ``(T, B, I)``: the last carry, ``(B, N)`` each, and the outputs ``(T, B, N)``."""
        return unroll_lstm(self._weights(inputs.shape[-1]), inputs, carry, self._dtype)

    @nn.compact
    def _weights(self, features: int) -> LSTMWeights:
        def draw(key: Array) -> dict[str, Array]:
            drawn = lstm_init(key, self.features, features, self.stddev, self.forget_bias, self.param_dtype)
            return {name: array for name, array in drawn._asdict().items() if array.size}

        found = _parameters(self, features, draw)
        return LSTMWeights(**{"input": jnp.zeros((0, 4 * self.features), self.param_dtype), **found})

    @property
    def _dtype(self) -> DTypeLike:
        return self.dtype or self.param_dtype


class ClockworkOfCells(nn.RNNCellBase):
    """One step of a clockwork whose modules are cells of any kind, itself a cell for ``nn.RNN``.

    At the ticks of module i, ``c_i, y_i = cell_i(c_i, [x_t, y_{i+1}, ..., y_G])`` with the outputs that the
    slower modules held before; at all other steps it holds its output and its whole carry. With
    ``nn.SimpleCell`` that is the clockwork layer (Koutník et al. 2014, eqs. 1 and 4).
    Over whole sequences, ``Clockwork(clock, cell=...)`` is the same function, and faster.

    Attributes:
        clock: when each module updates; ``sizes`` are the features of the cells.
        cell: makes a cell, called as ``cell(features)``: ``nn.LSTMCell``, ``nn.GRUCell``, ``nn.SimpleCell``,
            `PeepholeLSTMCell`, one's own; other arguments by ``functools.partial``.

    Raises:
        ValueError: if ``clock`` is no clock or ``cell`` no function, and when called if it makes no cell.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> rnn = nn.RNN(ClockworkOfCells(cw.Clock.exponential(width=12, modules=3), nn.GRUCell))
        >>> outputs, variables = rnn.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))
        >>> outputs.shape
        (8, 320, 12)
    """

    clock: Clock
    cell: Callable[..., nn.RNNCellBase]

    def __post_init__(self) -> None:
        check_clock(self.clock, "ClockworkOfCells(clock, cell)")
        if not callable(self.cell):
            raise ValueError(
                f"cell must be a class or function such as nn.LSTMCell, got {shown(self.cell)}; "
                "the number of inputs is not given, but that of the first call"
            )
        super().__post_init__()

    def setup(self) -> None:
        """The cells, fastest first."""
        self.cells = [_make(self.cell, size) for size in self.clock.sizes]

    def __call__(self, carry: CellsState, inputs: ArrayLike) -> tuple[CellsState, Array]:
        """One step.

        Args:
            carry: of the cells, their held outputs ``(*batch, N)`` and time ``(*batch, 1)``.
            inputs: ``(*batch, I)``.

        Returns:
            The next carry, and the held outputs ``(*batch, N)``.

        Raises:
            ValueError: if the carry is of another clock or batch, or a cell puts out another shape than it should.
        """
        check_carry(carry, jax.eval_shape(lambda: self.initialize_carry(None, jnp.shape(inputs))))
        return modules.step(self.clock, carry, jnp.asarray(inputs), lambda j, c, x: self.cells[j](c, x))

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> CellsState:
        """The carry before the first step: of each cell its own, no outputs yet, at time zero.

        Args:
            rng: for the cells' carries; ``jax.random.key(0)`` if None.
            input_shape: of the inputs of a step, ``(*batch, I)``.

        Raises:
            ValueError: if the clock's cycle is longer than an int32 can count.
        """
        check_time(self.clock)
        return self.first_carry(rng, input_shape)

    @nn.nowrap
    def first_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> CellsState:
        """The same of any clock, for a call that does not go on from a carry."""
        *batch, features = input_shape
        cells = self.cells if self.scope is not None else [_make(self.cell, size) for size in self.clock.sizes]
        keys = jax.random.split(jax.random.key(0) if rng is None else rng, len(cells))
        widths = modules.widths(self.clock, features)
        carries = [c.initialize_carry(k, (*batch, width)) for c, k, width in zip(cells, keys, widths, strict=True)]
        return modules.initial(self.clock, tuple(carries), tuple(batch))

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes are features: one."""
        return 1

    def unroll(
        self, inputs: Array, carry: CellsState, lengths: Array | None, *, start: int | None, method: Method
    ) -> tuple[CellsState, Array]:
        """The cascade over a batch; what `Clockwork` calls.

        Args:
            inputs: ``(T, B, I)``.
            carry: with B its one batch dimension.
            lengths: ``(B,)``, the steps after which the returned carry is taken; None for all.
            start: what the caller knows of the carry's time, up to whole cycles; None for nothing.
            method: as of `Clockwork`.

        Returns:
            The carry, and the outputs ``(T, B, N)``.
        """
        return modules.unroll(
            self.clock, inputs, carry, lengths, start=start, method=method,
            scan=lambda j, c, x, ticks: _scan(self.cells[j], c, x, ticks),
            stepwise=lambda c, x, ticks: _scan(self, c, x, ticks),
        )  # fmt: skip


class Clockwork(Layer, nn.Module):
    """A clockwork layer, with the call of ``nn.RNN`` and the fast kernels.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 to 4). Or, with ``cell``, a clockwork whose modules are cells of any
    kind; see `ClockworkOfCells`. It is ``nn.RNN(layer.cell)`` with the same variables; only what is beyond the length
    of a sequence differs.

    NaN or infinity in a fast module can reach slower ones, as in `clockwork.unroll`. A clock whose cycle an int32
    cannot count takes whole sequences alone: it is refused with an ``initial_carry``.

    Attributes:
        clock: when each module updates.
        cell: makes the cell of each module, as ``cell(features)``; None for the clockwork layer itself. What was made
            is in its place afterwards: a `ClockworkCell` or a `ClockworkOfCells`.
        activation: ``f``, elementwise; ``jnp.tanh`` if None. This and the next five are those of `ClockworkCell`; to
            cells of another kind, give theirs with ``functools.partial``.
        dtype: of computation and carry; that of the parameters if None.
        param_dtype: of the parameters; float32 if None.
        kernel_init: of the input weights ``(I, N)``; the paper's N(0, 0.1²) if None. All three as Flax
            has them: ``**clockwork.nn.FLAX``.
        recurrent_kernel_init: of what each module receives, ``(N - a_i, k_i)``.
        bias_init: of the biases ``(N,)``.
        method: how the layer is evaluated; see `clockwork.unroll`. Of a clockwork of cells, ``"masked"`` calls every
            cell at every step.
        time_major: whether time is the first axis of inputs and outputs; the default of the call, like the next three.
        return_carry: whether to return the last carry too.
        reverse: whether to go from the last step to the first.
        keep_order: whether the outputs of ``reverse`` are in the order of the inputs nonetheless.

    Raises:
        ValueError: if ``clock`` is no clock, ``activation`` no function, the method unknown, or (when called) ``cell``
            makes no cell.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> layer = Clockwork(cw.Clock.exponential(width=40, modules=9))
        >>> variables = layer.init(jax.random.key(0), jnp.ones((8, 320, 13)))
        >>> carry, outputs = layer.apply(variables, jnp.ones((8, 320, 13)), return_carry=True)
        >>> outputs.shape, carry.hidden.shape
        ((8, 320, 40), (8, 40))
        >>> lstms = Clockwork(cw.Clock.exponential(width=8, modules=4), cell=nn.LSTMCell)
        >>> lstms.init_with_output(jax.random.key(0), jnp.ones((320, 13)))[0].shape
        (320, 8)
    """

    clock: Clock
    cell: Any = None
    activation: Activation | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike | None = None
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    method: Method = "auto"
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False

    def __post_init__(self) -> None:
        check_clock(self.clock, "Clockwork(clock)")
        check_method(self.method)
        options = {name: getattr(self, name) for name in OPTIONS}
        made = self.cell
        if isinstance(made, (ClockworkCell, ClockworkOfCells)):  # a clone, perhaps with other fields
            if isinstance(made, ClockworkOfCells):
                own_modules_only(options)
                options = {}
            changed = {"clock": self.clock, **options}
            if any(getattr(made, name) != value for name, value in changed.items()):
                made = made.clone(**changed)
        elif made is None:
            made = ClockworkCell(self.clock, **options, parent=None)
        else:
            own_modules_only(options)
            made = ClockworkOfCells(self.clock, made, parent=None)
        object.__setattr__(self, "cell", made)
        super().__post_init__()

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: PyTree | None = None,
        init_key: Array | None = None,
        seq_lengths: ArrayLike | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        start: int | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Args:
            inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` where ``time_major``; any batch dimensions or none.
            initial_carry: a carry that was returned, to continue; None for that of the first step.
            init_key: for the initial carry of cells that draw theirs.
            seq_lengths: ``(*batch)`` integers of 0 to T. What is beyond a sequence's length is not read, whatever is
                there, and the outputs there are zeros; a sequence of length 0 returns its carry unchanged.
            return_carry: whether to return the carry after the last step of each sequence too; like the
                next three, as constructed if None.
            time_major: where the axis of time is.
            reverse: whether to go from the last step of each sequence to its first.
            keep_order: whether outputs are in the order of the inputs nonetheless.
            start: what the clock of ``initial_carry`` shows, up to whole cycles, for use under ``jit``. There it is
                not known before compilation, and each step then computes every module; with
                chunks of a multiple of ``clock.cycle`` steps, ``start=0`` is true and the fast kernels serve.

        Returns:
            Outputs ``(*batch, T, N)``, or ``(T, *batch, N)``; before them the carry where asked for.

        Raises:
            ValueError: if the inputs have another width or no step, the carry is of another clock, a length is
                out of range, or ``start`` is not the carry's time, as far as these are known before compilation.
        """
        start = start_for(self.clock, initial_carry, start)
        # Parameters do not depend on the method, and the masked scan is compiled soonest.
        method = "masked" if self.is_initializing() else self.method
        return over_sequences(
            lambda x, carry, lengths: self.cell.unroll(x, carry, lengths, start=start, method=method),
            lambda shape: self.cell.first_carry(init_key, shape),
            lambda shape: self.cell.first_carry(None, shape),
            inputs,
            features=jnp.shape(inputs)[-1] if jnp.ndim(inputs) else 0,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
        )


class Bidirectional(Layer, nn.Bidirectional):
    """Two layers, one forwards and one backwards in time: ``nn.Bidirectional`` with the usual merges by name.

    It is called as `Clockwork` is, but
    ``reverse`` and ``keep_order`` mean nothing to it, as in flax. Outputs are ``(*batch, T, N_1 + N_2)``, or what else
    ``merge`` makes of them; with ``return_carry`` a pair of carries comes before them.

    Attributes:
        forward_rnn: a layer with the call of ``nn.RNN``: `Clockwork`, ``nn.RNN``, `Stack`, ...
        backward_rnn: another.
        merge: ``"concatenate"``, ``"sum"`` or a function of both outputs; None for flax's ``merge_fn``, which
            concatenates if it is not given.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return both carries too.

    Raises:
        ValueError: if one is no layer, for an unknown merge, and when called if a sum is of different widths.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> clock = cw.Clock.exponential(width=40, modules=9)
        >>> layer = Bidirectional(Clockwork(clock), Clockwork(clock), merge="sum")
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)), seq_lengths=jnp.arange(1, 9))[0].shape
        (8, 320, 40)
    """

    merge: Merge | None = None

    def __post_init__(self) -> None:
        if self.merge is not None:
            object.__setattr__(self, "merge_fn", merge_function(self.merge))
        check_layer(self.forward_rnn)
        check_layer(self.backward_rnn)
        super().__post_init__()


class Stack(Layer, nn.Module):
    """Layers on layers, each with its own clock, with the call of ``nn.RNN``.

    ``y^1 = layer_1(x)``, ``y^l = layer_l(y^{l-1})``; the output is that of the last. With skip connections
    (Graves 2013, "Generating sequences with recurrent neural networks", sec. 2),
    ``y^l = layer_l([x, y^{l-1}])`` and the output is ``[y^1, ..., y^L]``.

    Attributes:
        layers: with the call of ``nn.RNN``: `Clockwork`, ``nn.RNN``, `Bidirectional`, ...
        skip: whether there are skip connections.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return a tuple of the layers' carries too.

    Raises:
        ValueError: if there is no layer, or one is none, and when called if there is not one carry for each.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> fast = cw.Clock.exponential(width=16, modules=3)  # periods 1, 2, 4
        >>> slow = cw.Clock.exponential(width=8, modules=2, fastest=8)  # periods 8, 16
        >>> stack = Stack([Clockwork(fast), Clockwork(slow)], skip=True)
        >>> stack.init_with_output(jax.random.key(0), jnp.ones((5, 320, 13)))[0].shape
        (5, 320, 24)
    """

    layers: Sequence[Any]
    skip: bool = False
    time_major: bool = False
    return_carry: bool = False

    def __post_init__(self) -> None:
        check_layers(self.layers)
        super().__post_init__()

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: Sequence[PyTree] | None = None,
        init_key: Array | None = None,
        seq_lengths: ArrayLike | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool = False,
        keep_order: bool = False,
    ) -> Any:
        """Run all layers.

        Arguments and errors are those of `Clockwork.__call__`, but for ``start``; ``initial_carry`` has one carry for
        each layer.

        Returns:
            Outputs ``(*batch, T, N)`` of the last layer, with ``skip`` of all, side by side; before them a tuple of
            the layers' carries where asked for.
        """
        return stacked(
            self.layers, jnp.asarray(inputs), skip=self.skip, initial_carry=initial_carry, seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major, reverse=reverse, keep_order=keep_order,
            options={"init_key": init_key},
        )  # fmt: skip


# What a layer passes on to its own cell.
OPTIONS = ("activation", "dtype", "param_dtype", "kernel_init", "recurrent_kernel_init", "bias_init")


def _make(cell: Callable[..., nn.RNNCellBase], size: int) -> nn.RNNCellBase:
    try:
        made = cell(size)
    except TypeError as error:
        raise ValueError(f"cell must be called as cell(features): {error}") from error
    if not isinstance(made, nn.RNNCellBase) or made.num_feature_axes != 1:
        raise ValueError(f"cell must make an nn.RNNCellBase of one feature axis, such as nn.LSTMCell, got {type(made)}")
    return made


def _scan(cell: nn.RNNCellBase, carry: PyTree, inputs: Array, ticks: Array | None) -> tuple[PyTree, Array]:
    """A cell over ``(S, B, I)``."""
    if isinstance(cell, PeepholeLSTMCell) and ticks is None:
        return cell.unroll(inputs, carry)

    def tick(cell: nn.RNNCellBase, carry: PyTree, xs: tuple[Array, Array]) -> tuple[PyTree, Array]:
        return modules.scan_ticks(cell, ticks)(carry, xs)

    scan = nn.scan(tick, variable_broadcast="params", split_rngs={"params": False})
    return scan(cell, jax.tree.map(jnp.asarray, carry), (jnp.arange(inputs.shape[0]), inputs))

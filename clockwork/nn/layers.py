"""Recurrent layers as Flax (nnx) modules, called like ``nnx.RNN``: unidirectional, bidirectional and stacked."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.clock import Clock, check_clock
from clockwork.nn.carry import start_for
from clockwork.nn.cells import ClockworkCell
from clockwork.nn.construction import (
    Layer,
    Merge,
    check_layer,
    check_layers,
    check_method,
    merge_name,
    one_merge,
    own_modules_only,
)
from clockwork.nn.described import Described, unless_default
from clockwork.nn.of_cells import ClockworkOfCells
from clockwork.nn.rnn_call import Lengths, both_ways, over_sequences, stacked
from clockwork.nn.typed import CallOptions, Options
from clockwork.recurrence import Activation, Method

PyTree = Any


if TYPE_CHECKING:
    from typing_extensions import TypeVar  # the default is new in Python 3.13

    Cell = TypeVar("Cell", bound=ClockworkCell | ClockworkOfCells, default=ClockworkCell)
else:
    Cell = TypeVar("Cell")


class Clockwork(Layer, Described, nnx.Module, Generic[Cell]):
    """A clockwork layer with the call signature of ``nnx.RNN`` and fast kernels.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 to 4). With ``cell``, the modules are cells of any kind instead; see
    `ClockworkOfCells`. The layer computes the same as ``nnx.RNN(layer.cell)`` and has the same parameters under the
    same names, so that either can load the state of the other. Only outputs beyond the length of a sequence differ.

    NaN or infinity in a fast module can reach slower ones, as in `clockwork.unroll`. If the clock's cycle does not fit
    an int32, the layer runs whole sequences only and refuses an ``initial_carry``.

    For type checkers, ``Clockwork`` is a layer of a `ClockworkCell`, and ``Clockwork[ClockworkOfCells]`` is a layer
    made with ``cell``.

    Args:
        clock: when each module updates.
        in_features: ``I``, the number of inputs.
        cell: a class or function that makes the cell of each module, called as
            ``cell(in_features, hidden_features, rngs=rngs)``; None for a `ClockworkCell`.
        activation: ``f``, elementwise; ``jnp.tanh`` if None. This and the next five are options of `ClockworkCell`; set
            options of other cells with ``cell=functools.partial(...)``.
        dtype: the dtype of computation and carry; the parameters' dtype if None.
        param_dtype: the dtype of the parameters; float32 if None.
        kernel_init: draws the input weights ``(I, N)``; N(0, 0.1²) as in the paper if None. ``**clockwork.nn.FLAX``
            sets all three initialisers to Flax's.
        recurrent_kernel_init: draws the recurrent weights to each module i, ``(N - a_i, k_i)``, where ``a_i`` is its
            first unit and ``k_i`` its size.
        bias_init: draws the biases ``(N,)``.
        method: how the layer is evaluated; see `clockwork.unroll`. With ``cell``, ``"masked"`` calls every cell at
            every step.
        time_major: whether time is the first axis of inputs and outputs. This and the next three are defaults, which a
            call can override.
        return_carry: whether to return the carry after the last step too.
        reverse: whether to process each sequence from its last step to its first.
        keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
        rngs: the source of the random keys (stream ``params``). With the default options, the layer's weights are
            ``clockwork.init(rngs.params(), clock, in_features)``.

    Raises:
        ValueError: if ``clock`` is not a clock, ``in_features`` is negative, ``activation`` is not a function, the
            method is unknown, or ``cell`` does not make a cell.

    Example:
        >>> import clockwork as cw, jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = Clockwork(cw.Clock.exponential(width=40, modules=9), 13, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((8, 320, 13))).shape
        (8, 320, 40)
        >>> lengths = jnp.array([320, 7, 100, 1, 320, 320, 2, 3])
        >>> carry, outputs = layer(jnp.ones((8, 320, 13)), seq_lengths=lengths, return_carry=True)
        >>> carry.hidden.shape, carry.time[:, 0].tolist()
        ((8, 40), [320, 7, 100, 1, 320, 320, 2, 3])
        >>> Clockwork(cw.Clock.exponential(width=8, modules=4), 13, cell=nnx.LSTMCell, rngs=nnx.Rngs(0))(
        ...     jnp.ones((320, 13))
        ... ).shape
        (320, 8)
    """

    # For type checkers: which kind of cell ``self.cell`` is.
    @overload
    def __init__(
        self: "Clockwork[ClockworkCell]",
        clock: Clock,
        in_features: int,
        *,
        cell: None = None,
        **options: Unpack[Options],
    ) -> None: ...

    @overload
    def __init__(
        self: "Clockwork[ClockworkOfCells]",
        clock: Clock,
        in_features: int,
        *,
        cell: Callable[..., nnx.RNNCellBase],
        **options: Unpack[CallOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: "Clockwork[Any]",
        clock: Clock,
        in_features: int,
        *,
        cell: Callable[..., nnx.RNNCellBase] | None,
        **options: Unpack[Options],
    ) -> None: ...

    def __init__(
        self,
        clock: Clock,
        in_features: int,
        *,
        cell: Callable[..., nnx.RNNCellBase] | None = None,
        activation: Activation | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike | None = None,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        method: Method = "auto",
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check_clock(clock, "Clockwork(clock, in_features, rngs=rngs)")
        options = {
            "activation": activation, "dtype": dtype, "param_dtype": param_dtype, "kernel_init": kernel_init,
            "recurrent_kernel_init": recurrent_kernel_init, "bias_init": bias_init,
        }  # fmt: skip
        if cell is None:
            given = {name: value for name, value in options.items() if value is not None}
            made: Any = ClockworkCell(clock, in_features, rngs=rngs, **given)
        else:
            own_modules_only(options)
            made = ClockworkOfCells(clock, in_features, cell, rngs=rngs)
        self.cell: Cell = made
        self.method: Method = check_method(method)
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order

    @property
    def clock(self) -> Clock:
        """When each module updates."""
        return self.cell.clock

    def _arguments(self) -> dict[str, Any]:
        names = ("method", "time_major", "return_carry", "reverse", "keep_order")
        given = {**self.cell._arguments(), **{name: getattr(self, name) for name in names}}
        return unless_default(given, **dict.fromkeys(names, False) | {"method": "auto"})

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: PyTree | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        start: int | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Args:
            inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` if ``time_major``; any batch dimensions or none.
            initial_carry: the carry to continue from, as an earlier call returned it; None to start at step 0.
            seq_lengths: ``(*batch)``, integers from 0 to T. The layer ignores steps beyond a sequence's length and
                outputs zeros there; a sequence of length 0 returns its carry unchanged.
            return_carry: whether to return the carry after the last step of each sequence too. If None, this and the
                next three take the constructor's value.
            time_major: whether time is the first axis.
            reverse: whether to process each sequence from its last step to its first.
            keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
            rngs: the source of the keys for cells that draw their initial carry.
            start: the time of ``initial_carry`` modulo ``clock.cycle``. Pass it under ``jit``, where the time is traced
                and would force the masked scan. Chunks of a multiple of ``clock.cycle`` steps all have ``start=0``, and
                use the fast kernels.

        Returns:
            The outputs ``(*batch, T, N)``, or ``(T, *batch, N)`` if ``time_major``. With ``return_carry``, a pair of
            carry and outputs.

        Warns:
            UserWarning: if the slowest period is longer than the sequence, in a call with neither ``initial_carry``
                nor ``return_carry``.

        Raises:
            ValueError: if the inputs have the wrong number of features or no step, the carry belongs to another clock,
                a length is out of range, or ``start`` differs from the carry's time modulo ``clock.cycle``. Traced
                lengths and times are not checked.
        """
        start = start_for(self.clock, initial_carry, start)
        return over_sequences(
            lambda x, carry, lengths: self.cell._unroll(x, carry, lengths, start=start, method=self.method),
            lambda shape: self.cell._first_carry(shape, rngs),
            self.cell._first_carry,  # draws nothing from ``rngs``
            inputs,
            features=self.cell.in_features,
            slowest=self.clock.periods[-1],
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
        )


class Bidirectional(Layer, Described, nnx.Bidirectional):
    """Two layers, one running forwards and one backwards in time, with merged outputs.

    A subclass of ``nnx.Bidirectional`` with the same arguments, which also takes the usual merges by name. Unlike
    Flax's, it has no random state unless ``rngs`` is given. It is called like `Clockwork`, but ignores ``reverse`` and
    ``keep_order``, as in Flax. It returns the merged outputs, by default ``(*batch, T, N_1 + N_2)``; with
    ``return_carry``, a pair of carries comes before them.

    Args:
        forward_rnn: the layer that runs forwards in time, called like ``nnx.RNN``: `Clockwork`, ``nnx.RNN``, `Stack`,
            ...
        backward_rnn: the layer that runs backwards in time.
        merge: ``"concatenate"``, ``"sum"`` or a function of both outputs; ``"concatenate"`` if neither this nor
            ``merge_fn`` is given.
        merge_fn: Flax's name for ``merge``; a function of both outputs.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return both carries too.
        rngs: the source of the keys for cells that draw their initial carry. Its stream ``carry`` is forked, as in
            Flax; True makes a stream with seed 0, Flax's default.

    Raises:
        ValueError: if ``forward_rnn`` or ``backward_rnn`` is not a layer, the merge is unknown, or both ``merge`` and
            ``merge_fn`` are given; when called, if the outputs to be summed differ in width.

    Example:
        >>> import clockwork as cw, jax.numpy as jnp
        >>> from flax import nnx
        >>> rngs, clock = nnx.Rngs(0), cw.Clock.exponential(width=40, modules=9)
        >>> layer = Bidirectional(Clockwork(clock, 13, rngs=rngs), Clockwork(clock, 13, rngs=rngs), merge="sum")
        >>> layer(jnp.ones((8, 320, 13)), seq_lengths=jnp.arange(1, 9)).shape
        (8, 320, 40)
    """

    def __init__(
        self,
        forward_rnn: Any,
        backward_rnn: Any,
        *,
        merge: Merge | None = None,
        merge_fn: Callable[[Array, Array], Array] | None = None,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | bool = False,
    ) -> None:
        merged = one_merge(merge, merge_fn)
        super().__init__(
            check_layer(forward_rnn), check_layer(backward_rnn), merge_fn=merged, time_major=time_major,
            return_carry=return_carry, rngs=rngs,
        )  # fmt: skip

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: tuple[PyTree, PyTree] | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Run both layers and merge their outputs.

        Arguments and errors are those of `Clockwork.__call__`, except that there is no ``start`` and that
        ``initial_carry`` is a pair of carries. ``reverse`` and ``keep_order`` are ignored, as in Flax.

        Returns:
            The merged outputs. With ``return_carry``, the pair of carries comes before them.
        """
        rngs = self.rngs if rngs is None else rngs
        stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
        return both_ways(
            (self.forward_rnn, self.backward_rnn), self.merge_fn, jnp.asarray(inputs), initial_carry=initial_carry,
            seq_lengths=seq_lengths, return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            options=[{} if stream is None else {"rngs": stream}] * 2,
        )  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        given = {
            "forward_rnn": self.forward_rnn, "backward_rnn": self.backward_rnn, "merge": merge_name(self.merge_fn),
            "time_major": self.time_major, "return_carry": self.return_carry,
        }  # fmt: skip
        return unless_default(given, merge="concatenate", time_major=False, return_carry=False)


class Stack(Layer, Described, nnx.Module):
    """A stack of recurrent layers, each with its own clock, called like ``nnx.RNN``.

    ``y^1 = layer_1(x)``, ``y^l = layer_l(y^{l-1})``; the output is that of the last layer. With skip connections
    (Graves 2013, "Generating sequences with recurrent neural networks", sec. 2),
    ``y^l = layer_l([x, y^{l-1}])`` and the output is ``[y^1, ..., y^L]``.

    Args:
        layers: the layers from input to output, each called like ``nnx.RNN``: `Clockwork`, ``nnx.RNN``,
            `Bidirectional`, ... Each must take the output features of the layer below and, with ``skip``, also the
            features of the inputs.
        skip: whether there are skip connections.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return a tuple of the layers' carries too.

    Raises:
        ValueError: if there is no layer or an element is not a layer; when called, if ``initial_carry`` does not have
            one carry for each layer.

    Example:
        >>> import clockwork as cw, jax.numpy as jnp
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> fast = cw.Clock.exponential(width=16, modules=3)  # periods 1, 2, 4
        >>> slow = cw.Clock.exponential(width=8, modules=2, fastest=8)  # periods 8, 16
        >>> stack = Stack([Clockwork(fast, 13, rngs=rngs), Clockwork(slow, 13 + 16, rngs=rngs)], skip=True)
        >>> stack(jnp.ones((5, 320, 13))).shape
        (5, 320, 24)
    """

    def __init__(
        self, layers: Sequence[Any], *, skip: bool = False, time_major: bool = False, return_carry: bool = False
    ) -> None:
        self.layers = nnx.List(check_layers(layers))
        self.skip = skip
        self.time_major = time_major
        self.return_carry = return_carry

    def _arguments(self) -> dict[str, Any]:
        names = ("skip", "time_major", "return_carry")
        given = {"layers": list(self.layers), **{name: getattr(self, name) for name in names}}
        return unless_default(given, **dict.fromkeys(names, False))

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: Sequence[PyTree] | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool = False,
        keep_order: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """Run all layers.

        Arguments and errors are those of `Clockwork.__call__`, except that there is no ``start`` and that
        ``initial_carry`` has one carry for each layer.

        Returns:
            The outputs ``(*batch, T, N)`` of the last layer, or with ``skip`` those of all layers, concatenated. With
            ``return_carry``, a tuple of the layers' carries comes before them.
        """
        return stacked(
            self.layers, jnp.asarray(inputs), skip=self.skip, initial_carry=initial_carry, seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major, reverse=reverse, keep_order=keep_order,
            options={} if rngs is None else {"rngs": rngs},
        )  # fmt: skip

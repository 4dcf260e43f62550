"""Recurrent layers as Flax (linen) modules, called like ``nn.RNN``: unidirectional, bidirectional and stacked."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.clock import Clock, check_clock
from clockwork.nn.carry import start_for
from clockwork.nn.construction import (
    Layer,
    Merge,
    check_layer,
    check_layers,
    check_method,
    merge_function,
    one_merge,
    own_modules_only,
)
from clockwork.nn.linen.cells import ClockworkCell
from clockwork.nn.linen.described import Described
from clockwork.nn.linen.of_cells import ClockworkOfCells
from clockwork.nn.rnn_call import Lengths, both_ways, over_sequences, stacked
from clockwork.recurrence import Activation, Method

PyTree = Any
# The options that a layer passes to its `ClockworkCell`.
OPTIONS = ("activation", "dtype", "param_dtype", "kernel_init", "recurrent_kernel_init", "bias_init")


class Clockwork(Layer, Described, nn.Module):
    """A clockwork layer with the call signature of ``nn.RNN`` and fast kernels.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 to 4). With ``cell``, the modules are cells of any kind instead; see
    `ClockworkOfCells`. The layer computes the same as ``nn.RNN(layer.cell)``, with the same variables. Only outputs
    beyond the length of a sequence differ.

    NaN or infinity in a fast module can reach slower ones, as in `clockwork.unroll`. If the clock's cycle does not fit
    an int32, the layer runs whole sequences only and refuses an ``initial_carry``.

    Attributes:
        clock: when each module updates.
        cell: a class or function that makes the cell of each module, called as ``cell(features)``; None for a
            `ClockworkCell`. After construction, this field holds the layer's cell, a `ClockworkCell` or a
            `ClockworkOfCells`.
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

    Raises:
        ValueError: if ``clock`` is not a clock, ``activation`` is not a function or the method is unknown; when called,
            if ``cell`` does not make a cell.

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
        if isinstance(made, (ClockworkCell, ClockworkOfCells)):  # this module is a clone, perhaps with other fields
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

    def _arguments(self) -> dict[str, Any]:
        given = super()._arguments()
        cell = given.pop("cell")
        return given if isinstance(cell, ClockworkCell) else {**given, "cell": cell.cell}

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: PyTree | None = None,
        init_key: Array | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        start: int | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Args:
            inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` if ``time_major``; any batch dimensions or none.
            initial_carry: the carry to continue from, as an earlier call returned it; None to start at step 0.
            init_key: the key for cells that draw their initial carry.
            seq_lengths: ``(*batch)``, integers from 0 to T. The layer ignores steps beyond a sequence's length and
                outputs zeros there; a sequence of length 0 returns its carry unchanged.
            return_carry: whether to return the carry after the last step of each sequence too. If None, this and the
                next three take the constructor's value.
            time_major: whether time is the first axis.
            reverse: whether to process each sequence from its last step to its first.
            keep_order: whether ``reverse`` returns the outputs in the order of the inputs.
            start: the time of ``initial_carry`` modulo ``clock.cycle``. Pass it under ``jit``, where the time is traced
                and would force the masked scan. Chunks of a multiple of ``clock.cycle`` steps all have ``start=0``, and
                use the fast kernels.

        Returns:
            The outputs ``(*batch, T, N)``, or ``(T, *batch, N)`` if ``time_major``. With ``return_carry``, a pair of
            carry and outputs.

        Warns:
            UserWarning: if the slowest period is longer than the sequence, in a call with neither ``initial_carry``
                nor ``return_carry``. ``init`` does not warn.

        Raises:
            ValueError: if the inputs have the wrong number of features or no step, the carry belongs to another clock,
                a length is out of range, or ``start`` differs from the carry's time modulo ``clock.cycle``. Traced
                lengths and times are not checked.
        """
        start = start_for(self.clock, initial_carry, start)
        # The parameters do not depend on the method, and the masked scan compiles fastest.
        method = "masked" if self.is_initializing() else self.method
        return over_sequences(
            lambda x, carry, lengths: self.cell.unroll(x, carry, lengths, start=start, method=method),
            lambda shape: self.cell.first_carry(init_key, shape),
            lambda shape: self.cell.first_carry(None, shape),
            inputs,
            features=jnp.shape(inputs)[-1] if jnp.ndim(inputs) else 0,
            slowest=None if self.is_initializing() else self.clock.periods[-1],
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
        )


class Bidirectional(Layer, Described, nn.Bidirectional):
    """Two layers, one running forwards and one backwards in time: ``nn.Bidirectional`` with merges by name.

    It is called like `Clockwork`, but ignores ``reverse`` and ``keep_order``, as in Flax. It returns the merged
    outputs, by default ``(*batch, T, N_1 + N_2)``; with ``return_carry``, a pair of carries comes before them.

    Attributes:
        forward_rnn: the layer that runs forwards in time, called like ``nn.RNN``: `Clockwork`, ``nn.RNN``, `Stack`, ...
        backward_rnn: the layer that runs backwards in time.
        merge_fn: Flax's name for ``merge``; a function of both outputs.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return both carries too.
        merge: ``"concatenate"``, ``"sum"`` or a function of both outputs; None to use ``merge_fn``, which by default
            concatenates.

    Raises:
        ValueError: if ``forward_rnn`` or ``backward_rnn`` is not a layer, the merge is unknown, or both ``merge`` and
            ``merge_fn`` are given; when called, if the outputs to be summed differ in width.

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
            made = merge_function(self.merge)
            given = None if self.merge_fn in (nn.Bidirectional.merge_fn, made) else self.merge_fn  # made: for a clone
            object.__setattr__(self, "merge_fn", made if given is None else one_merge(self.merge, given))
        check_layer(self.forward_rnn)
        check_layer(self.backward_rnn)
        super().__post_init__()

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: tuple[PyTree, PyTree] | None = None,
        init_key: Array | None = None,
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
        keys = (None, None) if init_key is None else jax.random.split(init_key)
        return both_ways(
            (self.forward_rnn, self.backward_rnn), self.merge_fn, jnp.asarray(inputs), initial_carry=initial_carry,
            seq_lengths=seq_lengths, return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            options=[{"init_key": key} for key in keys],
        )  # fmt: skip

    @nn.nowrap
    def clone(self, **updates: Any) -> Any:
        """A copy with updated fields; a new ``merge`` or ``merge_fn`` replaces the merge of this module."""
        if "merge" in updates:
            updates = {"merge_fn": nn.Bidirectional.merge_fn, **updates}
        elif "merge_fn" in updates:
            updates = {"merge": None, **updates}
        return super().clone(**updates)

    def _arguments(self) -> dict[str, Any]:
        given = super()._arguments()
        return {name: value for name, value in given.items() if name != "merge_fn" or self.merge is None}


class Stack(Layer, Described, nn.Module):
    """A stack of recurrent layers, each with its own clock, called like ``nn.RNN``.

    ``y^1 = layer_1(x)``, ``y^l = layer_l(y^{l-1})``; the output is that of the last layer. With skip connections
    (Graves 2013, "Generating sequences with recurrent neural networks", sec. 2),
    ``y^l = layer_l([x, y^{l-1}])`` and the output is ``[y^1, ..., y^L]``.

    Attributes:
        layers: the layers from input to output, each called like ``nn.RNN``: `Clockwork`, ``nn.RNN``, `Bidirectional`,
            ...
        skip: whether there are skip connections.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return a tuple of the layers' carries too.

    Raises:
        ValueError: if there is no layer or an element is not a layer; when called, if ``initial_carry`` does not have
            one carry for each layer.

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
        seq_lengths: Lengths | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool = False,
        keep_order: bool = False,
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
            options={"init_key": init_key},
        )  # fmt: skip

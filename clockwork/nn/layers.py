"""Recurrent layers as Flax (nnx) modules, with the call of ``nnx.RNN``: over sequences, both ways, on each other."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
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
    merge_function,
    own_modules_only,
)
from clockwork.nn.of_cells import ClockworkOfCells
from clockwork.nn.rnn_call import over_sequences, stacked
from clockwork.recurrence import Activation, Method

PyTree = Any


class Clockwork(Layer, nnx.Module):
    """A clockwork layer, with the call of ``nnx.RNN`` and the fast kernels.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others keep
    their value (Koutník et al. 2014, eqs. 1 to 4). Or, with ``cell``, a clockwork whose modules are cells of any
    kind; see `ClockworkOfCells`. It is ``nnx.RNN(layer.cell)`` with the same parameters under the same names,
    so that a state of one is a state of the other; only what is beyond the length of a sequence differs.

    NaN or infinity in a fast module can reach slower ones, as in `clockwork.unroll`. A clock whose cycle an int32
    cannot count takes whole sequences alone: it is refused with an ``initial_carry``.

    Args:
        clock: when each module updates.
        in_features: ``I``, the number of inputs.
        cell: makes the cell of each module, as ``cell(in_features, hidden_features, rngs=rngs)``; None for the
            clockwork layer itself.
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
        rngs: the source of the keys, stream ``params``.

    Raises:
        ValueError: if ``clock`` is no clock, ``in_features`` is negative, ``activation`` is no function, the method is
            unknown, or ``cell`` makes no cell.

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
            self.cell: Any = ClockworkCell(clock, in_features, rngs=rngs, **given)
        else:
            own_modules_only(options)
            self.cell = ClockworkOfCells(clock, in_features, cell, rngs=rngs)
        self.method: Method = check_method(method)
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order

    @property
    def clock(self) -> Clock:
        """When each module updates."""
        return self.cell.clock

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: PyTree | None = None,
        seq_lengths: ArrayLike | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        start: int | None = None,
    ) -> Any:
        """Run the layer over sequences.

        Args:
            inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` where ``time_major``; any batch dimensions or none.
            initial_carry: a carry that was returned, to continue; None for that of the first step.
            seq_lengths: ``(*batch)`` integers of 0 to T. What is beyond a sequence's length is not read, whatever is
                there, and the outputs there are zeros; a sequence of length 0 returns its carry unchanged.
            return_carry: whether to return the carry after the last step of each sequence too; like the
                next three, as constructed if None.
            time_major: where the axis of time is.
            reverse: whether to go from the last step of each sequence to its first.
            keep_order: whether outputs are in the order of the inputs nonetheless.
            rngs: for the initial carry of cells that draw theirs.
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
        return over_sequences(
            lambda x, carry, lengths: self.cell.unroll(x, carry, lengths, start=start, method=self.method),
            lambda shape: self.cell.first_carry(shape, rngs),
            self.cell.first_carry,  # draws nothing from ``rngs``
            inputs,
            features=self.cell.in_features,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=self.return_carry if return_carry is None else return_carry,
            time_major=self.time_major if time_major is None else time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
        )


class Bidirectional(Layer, nnx.Bidirectional):
    """Two layers, one forwards and one backwards in time, and how their outputs are merged.

    ``nnx.Bidirectional`` with the usual merges by name, and no random state of its own. It is called as `Clockwork` is,
    but ``reverse`` and ``keep_order`` mean nothing to it, as in flax. Outputs are ``(*batch, T, N_1 + N_2)``, or what
    else ``merge`` makes of them; with ``return_carry`` a pair of carries comes before them.

    Args:
        forward_rnn: a layer with the call of ``nnx.RNN``: `Clockwork`, ``nnx.RNN``, `Stack`, ...
        backward_rnn: another.
        merge: ``"concatenate"``, ``"sum"`` or a function of both outputs.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return both carries too.

    Raises:
        ValueError: if one is no layer, for an unknown merge, and when called if a sum is of different widths.

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
        merge: Merge = "concatenate",
        time_major: bool = False,
        return_carry: bool = False,
    ) -> None:
        merge_fn = merge_function(merge)
        super().__init__(
            check_layer(forward_rnn), check_layer(backward_rnn), merge_fn=merge_fn, time_major=time_major,
            return_carry=return_carry, rngs=False,
        )  # fmt: skip


class Stack(Layer, nnx.Module):
    """Layers on layers, each with its own clock, with the call of ``nnx.RNN``.

    ``y^1 = layer_1(x)``, ``y^l = layer_l(y^{l-1})``; the output is that of the last. With skip connections
    (Graves 2013, "Generating sequences with recurrent neural networks", sec. 2),
    ``y^l = layer_l([x, y^{l-1}])`` and the output is ``[y^1, ..., y^L]``.

    Args:
        layers: with the call of ``nnx.RNN``: `Clockwork`, ``nnx.RNN``, `Bidirectional`, ...; each must take the
            features that the one below puts out, and with ``skip`` those of the inputs before them.
        skip: whether there are skip connections.
        time_major: whether time is the first axis of inputs and outputs.
        return_carry: whether to return a tuple of the layers' carries too.

    Raises:
        ValueError: if there is no layer, or one is none, and when called if there is not one carry for each.

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

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: Sequence[PyTree] | None = None,
        seq_lengths: ArrayLike | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool = False,
        keep_order: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
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
            options={} if rngs is None else {"rngs": rngs},
        )  # fmt: skip

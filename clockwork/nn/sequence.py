"""What the layers of both Flax APIs share: the call of ``RNN`` around a function of time-major batches."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.nnx.nn.recurrent import flip_sequences
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import shown, static_integer
from clockwork.clock import Clock
from clockwork.ops.sharded import spread, spread_over
from clockwork.recurrence import METHODS, Activation, Method, State, advance, as_time, check_time, step, unroll
from clockwork.weights import Weights

PyTree = Any
# Inputs (T, B, I), a carry, lengths (B,) or None: to the carry after so many steps, None for all, and (T, B, N).
Unroll = Callable[[Array, PyTree, Array | None], tuple[PyTree, Array]]
Merge = str | Callable[[Array, Array], Array]


def over_sequences(
    run: Unroll,
    initialize_carry: Callable[[tuple[int, ...]], PyTree],
    carry_like: Callable[[tuple[int, ...]], PyTree],
    inputs: ArrayLike,
    *,
    features: int,
    initial_carry: PyTree | None,
    seq_lengths: ArrayLike | None,
    return_carry: bool,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
) -> Array | tuple[PyTree, Array]:
    """The call of ``nnx.RNN`` and ``nn.RNN``: any batch dimensions, lengths, order and axis of time.

    What is beyond a sequence's length is not read, whatever is there, and the outputs there are zeros.

    Args:
        run: see `Unroll`; where there are no batch dimensions B is 1.
        initialize_carry: the shape of the inputs without time to a carry.
        carry_like: the same, for its shapes alone.
        inputs: ``(*batch, T, I)``, or ``(T, *batch, I)`` where ``time_major``.
        features: ``I``.
        initial_carry: leaves ``(*batch, ...)``; None for what ``initialize_carry`` makes.
        seq_lengths: ``(*batch)`` integers of 0 to T; a sequence of length 0 leaves its carry as it was.
        return_carry: whether to return the last carry too, that after the last step of each sequence.
        time_major: where the axis of time is.
        reverse: whether to go from the last step of each sequence to its first.
        keep_order: whether outputs are in the order of the inputs nonetheless.

    Raises:
        ValueError: if the inputs have another shape or no step, if the carry is another network's, or if a length
            is out of range (where its value is known, not under ``jit``).
    """
    inputs = jnp.asarray(inputs)
    if inputs.ndim < 2 or features != inputs.shape[-1]:
        shape = "(T, *batch, I)" if time_major else "(*batch, T, I)"
        raise ValueError(f"inputs must have shape {shape} with I = {features}, got {inputs.shape}")
    x = inputs if time_major else jnp.moveaxis(inputs, -2, 0)
    steps, *batch, width = x.shape
    count = math.prod(batch)
    if steps < 1:
        raise ValueError(f"a sequence must have at least one step, got inputs of shape {inputs.shape}")
    lengths = None if seq_lengths is None else check_lengths(seq_lengths, tuple(batch), steps)
    if initial_carry is None:
        carry = initialize_carry((count, width))
    else:
        check_carry(initial_carry, jax.eval_shape(lambda: carry_like((*batch, width))))
        carry = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[len(batch) :]), initial_carry)
    x = x.reshape(steps, count, width)  # (T, B, I)
    over = spread_over(x, 1)  # a carry and lengths go where the inputs are
    carry = jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else spread(leaf, 0, over), carry)
    lengths = None if lengths is None else spread(lengths.reshape(count), 0, over)
    if reverse:
        x = flip_sequences(x, lengths, num_batch_dims=1, time_major=True)
    valid = None if lengths is None else (jnp.arange(steps)[:, None] < lengths[None])[..., None]  # (T, B, 1)
    if valid is not None:
        x = jnp.where(valid, x, jnp.zeros((), x.dtype))
    carry, y = run(x, carry, lengths if return_carry else None)
    if valid is not None:
        y = jnp.where(valid, y, jnp.zeros((), y.dtype))
    if reverse and keep_order:
        y = flip_sequences(y, lengths, num_batch_dims=1, time_major=True)
    y = y.reshape(steps, *batch, y.shape[-1])
    y = y if time_major else jnp.moveaxis(y, 0, -2)
    if not return_carry:
        return y
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), carry), y


def check_lengths(seq_lengths: ArrayLike, batch: tuple[int, ...], steps: int) -> Array:
    """The lengths, if they are integers of this shape from 0 to the steps, as far as is known, else ``ValueError``."""
    given = seq_lengths if isinstance(seq_lengths, np.ndarray) else jnp.asarray(seq_lengths)
    if given.shape != batch or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(f"seq_lengths must be integers of shape {batch}, got {given.dtype} of shape {given.shape}")
    known = known_values(given)
    if known is not None and known.size and (known.min() < 0 or known.max() > steps):
        wrong = known[(known < 0) | (known > steps)]
        raise ValueError(f"seq_lengths must be from 0 to the {steps} steps of the inputs, got {wrong.flat[0]}")
    lengths = jnp.asarray(given)
    return jnp.clip(lengths, 0, min(steps, int(jnp.iinfo(lengths.dtype).max))).astype(int)


def check_carry(carry: PyTree, like: PyTree) -> None:
    """Raise ``ValueError`` unless a carry has the structure and shapes of another, and integers where that has."""

    def kinds(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.issubdtype(jnp.result_type(leaf), jnp.integer)), tree)

    if jax.tree.structure(carry) != jax.tree.structure(like) or kinds(carry) != kinds(like):
        raise ValueError(f"the carry must be {_describe(like)}, got {_describe(carry)}; is it that of another clock?")


def _describe(tree: PyTree) -> str:
    described = jax.tree.map(lambda leaf: _Words(f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"), tree)
    return repr(described)


class _Words(str):
    """Text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def known_values(x: ArrayLike) -> np.ndarray | None:
    """The values of an array, None while they are not known."""
    return None if isinstance(x, Tracer) else np.asarray(x)


def start_of(clock: Clock, time: ArrayLike, start: int | None, method: Method) -> int | Array:
    """Where the clock stands: a number if it is known and serves a compiled program again, else ``(B,)``.

    A program for each of the places that a sequence may be cut at would be compiled for each of them,
    so that only the beginning of the clock's cycle is taken as known, what the caller says, and any
    place where the caller insists on the cascade.

    Args:
        clock: the layer's clock.
        time: of the carry, ``(B, 1)``.
        start: what the caller says; None for nothing.
        method: how the layer is to be evaluated.

    Raises:
        ValueError: if the carry's time is known and is not ``start``, up to whole cycles.
    """
    known = known_values(time)
    known = None if known is None else known.astype(object)  # a cycle may be longer than int32 can count
    if start is not None:
        if known is not None and ((known - start) % clock.cycle).any():
            wrong = known[(known - start) % clock.cycle != 0]
            raise ValueError(f"start must be the time of the carry up to whole cycles, {wrong.flat[0]}, got {start}")
        return start % clock.cycle
    phases = None if known is None else set((known % clock.cycle).flat) or {0}
    if phases is not None and len(phases) == 1 and (method in ("cascade", "fused") or 0 in phases):
        return int(phases.pop())
    return as_time(clock, time)[:, 0]


def time_zero(batch: tuple[int, ...]) -> Any:
    """The time of a carry before the first step, ``(*batch, 1)``: known, but for a batch of any size (`jax.export`)."""
    numpy = all(isinstance(size, int) for size in batch)
    return (np if numpy else jnp).zeros((*batch, 1), np.int32)


def time_after(clock: Clock, time: ArrayLike, steps: int, lengths: Array | None) -> Array:
    """The time of a carry ``(B, 1)`` after ``steps``, or after each sequence's length; known if it was known."""
    known = known_values(time)
    if known is not None and lengths is None:
        return advance(clock, known, steps)
    time = as_time(clock, time)
    return advance(clock, time, steps if lengths is None else lengths[:, None])


def last_of(y: Array, lengths: Array, first: Array) -> Array:
    """The row of ``y (T, B, N)`` at each sequence's last step, ``(B, N)``; that of ``first`` where it has no step."""
    last = jax.vmap(lambda y, length: y[length - 1], in_axes=(1, 0))(y, lengths)
    return jnp.where(lengths[:, None] > 0, last, first)


def unroll_batch(
    weights: Weights,
    clock: Clock,
    inputs: Array,
    state: State,
    lengths: Array | None,
    *,
    start: int | None,
    method: Method,
    activation: Activation,
) -> tuple[State, Array]:
    """A clockwork layer's `Unroll`: ``clockwork.unroll`` over a batch, with a carry ``(B, N)``, ``(B, 1)``."""
    steps, _, width = inputs.shape
    begin, hidden = start_of(clock, state.time, start, method), state.hidden.astype(weights.bias.dtype)

    def each(inputs: Array | None, hidden: Array, begin: int | Array) -> tuple[Array, Array]:
        length = steps if inputs is None else None
        return unroll(
            weights, clock, inputs, steps=length, start=begin, hidden=hidden, method=method, activation=activation
        )

    known = isinstance(begin, int)
    if known:
        over = jax.vmap(lambda x, h: each(x, h, begin), in_axes=(1, 0), out_axes=(1, 0))
        y, last = over(inputs if width else None, hidden)
    else:
        over = jax.vmap(each, in_axes=(1, 0, 0), out_axes=(1, 0))
        y, last = over(inputs if width else None, hidden, begin)
    if lengths is not None:
        last = last_of(y, lengths, hidden)
    return State(last, time_after(clock, state.time, steps, lengths)), y


def step_batch(
    weights: Weights, clock: Clock, state: State, x_t: ArrayLike, dtype: DTypeLike, activation: Activation
) -> tuple[State, Array]:
    """A clockwork cell's step: ``clockwork.step`` over any batch dimensions."""
    x_t = jnp.asarray(x_t).astype(dtype)
    check_features(x_t, weights.input.shape[0])
    batch, width = x_t.shape[:-1], x_t.shape[-1]
    wanted = (jax.ShapeDtypeStruct((*batch, clock.width), dtype), jax.ShapeDtypeStruct((*batch, 1), jnp.int32))
    check_carry(state, State(*wanted))  # pyright: ignore[reportArgumentType]
    dense = jax.tree.map(lambda w: w.astype(dtype), weights.dense(clock))

    def each(hidden: Array, time: Array, x_t: Array) -> State:
        return step(dense, clock, State(hidden, time), x_t if width else None, activation=activation)[0]

    hidden, time = jnp.asarray(state.hidden), as_time(clock, state.time)
    count = math.prod(batch)
    flat = (hidden.reshape(count, clock.width).astype(dtype), time.reshape(count), x_t.reshape(count, width))
    new = jax.vmap(each)(*flat)
    h_t = new.hidden.reshape(hidden.shape).astype(hidden.dtype)
    return State(h_t, new.time.reshape(time.shape)), h_t


def check_features(x: Array, features: int) -> None:
    """Raise ``ValueError`` unless the inputs of a step, ``(*batch, I)``, have so many features."""
    if x.ndim < 1 or x.shape[-1] != features:
        raise ValueError(f"inputs must have {features} features, got shape {x.shape}")


def check_method(method: Method) -> Method:
    """The method, if there is such a one, else ``ValueError``."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    return method


class Layer:
    """A base of layers, which says that they are layers where ``RNN`` wants a cell."""

    @property
    def num_feature_axes(self) -> int:
        """What ``RNN`` asks of a cell first: raises ``ValueError``."""
        kind = type(self).__name__
        raise ValueError(f"RNN takes a cell, and {kind} is a layer, which takes whole sequences: call it without RNN")


def check_layers(layers: Any) -> list[Any]:
    """The layers of a stack, if there are any and they are layers, else ``ValueError``."""
    if not isinstance(layers, Iterable) or not (made := list(layers)):
        raise ValueError(f"a stack must have at least one layer, as in Stack([layer, ...]), got {shown(layers)}")
    return [check_layer(layer) for layer in made]


def check_layer(layer: Any) -> Any:
    """The layer, if it may have the call of ``RNN``, else ``ValueError``."""
    if isinstance(layer, Layer):
        return layer
    cell = hasattr(layer, "num_feature_axes")
    if cell or isinstance(layer, type) or not callable(layer):
        hint = "; RNN(cell) makes a layer of a cell" if cell else ""
        raise ValueError(f"a layer must be one such as Clockwork(...) or RNN(cell), got {shown(layer)}{hint}")
    return layer


def own_modules_only(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if one of the options of a clockwork's own modules is given along with a cell."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{name} is not passed on to cells, got {value!r}: give functools.partial(cell, ...) as cell"
            )


def start_for(clock: Clock, initial_carry: PyTree | None, start: int | None) -> int | None:
    """What the caller says of the clock, if it is a number of steps: without a carry, that it stands at zero.

    Args:
        clock: the layer's clock.
        initial_carry: what the layer is called with; None for none.
        start: what the layer is called with; None for nothing said.

    Raises:
        ValueError: if ``start`` is not a number of steps or there is no carry that it is the time of, or if the time
            of the carry cannot count the clock's cycle.
    """
    if start is not None:
        start = static_integer("start", start, least=0)
    if initial_carry is not None:
        time = getattr(initial_carry, "time", np.int32(0))  # another carry is refused by its structure
        check_time(clock, np.dtype(getattr(time, "dtype", np.int32)))
        return start
    if start:
        raise ValueError(f"start is the time of initial_carry, which is not given, got {start}")
    return 0


def merge_function(merge: Merge) -> Callable[[Array, Array], Array]:
    """What a bidirectional layer does with its two outputs, by name."""
    if callable(merge):
        return merge
    if merge not in MERGES:
        raise ValueError(f"merge must be one of {tuple(MERGES)} or a function, got {merge!r}")
    return MERGES[merge]


def _concatenate(forward: Array, backward: Array) -> Array:
    return jnp.concatenate([forward, backward], -1)


def _sum(forward: Array, backward: Array) -> Array:
    if forward.shape != backward.shape:
        raise ValueError(f"outputs to be added must have one shape, got {forward.shape} and {backward.shape}")
    return forward + backward


MERGES: dict[str, Callable[[Array, Array], Array]] = {"concatenate": _concatenate, "sum": _sum}


def stacked(
    layers: Sequence[Callable[..., Any]],
    inputs: Array,
    *,
    skip: bool,
    initial_carry: Sequence[PyTree] | None,
    seq_lengths: ArrayLike | None,
    return_carry: bool,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
    options: Mapping[str, Any],
) -> Array | tuple[tuple[PyTree, ...], Array]:
    """Layers on layers: the outputs of the last, or with ``skip`` of all; before them their carries if asked for."""
    carries: list[PyTree] = [None] * len(layers) if initial_carry is None else list(initial_carry)
    if len(carries) != len(layers):
        raise ValueError(f"initial_carry must have one carry for each of the {len(layers)} layers, got {len(carries)}")
    steps, *batch = inputs.shape[:-1] if time_major else (inputs.shape[-2], *inputs.shape[:-2])
    lengths = None if seq_lengths is None else check_lengths(seq_lengths, tuple(batch), steps)

    def flip(x: Array) -> Array:
        return flip_sequences(x, lengths, num_batch_dims=x.ndim - 2, time_major=time_major)

    if reverse:
        inputs = flip(inputs)
    below, outputs = inputs, []
    for i, layer in enumerate(layers):
        y = layer(
            below,
            initial_carry=carries[i],
            seq_lengths=seq_lengths,
            return_carry=return_carry,
            time_major=time_major,
            **options,
        )
        if return_carry:
            carries[i], y = y
        outputs.append(y)
        below = jnp.concatenate([inputs.astype(y.dtype), y], -1) if skip else y
    y = jnp.concatenate(outputs, -1) if skip else outputs[-1]
    y = flip(y) if reverse and keep_order else y
    return (tuple(carries), y) if return_carry else y

"""The functional core over batches, as cells and layers call it. This file uses no Flax API."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import shaped
from clockwork.clock import Clock
from clockwork.deep import DeepWeights, deep_unroll
from clockwork.gru import GRUWeights, gru_unroll
from clockwork.lstm import LSTMWeights, lstm_unroll
from clockwork.nn.carry import check_carry, last_of, start_of, time_after
from clockwork.recurrence import Activation, Method, State, as_time, step, unroll
from clockwork.weights import Weights


def step_clockwork(
    weights: Weights, clock: Clock, state: State, x_t: ArrayLike, dtype: DTypeLike, activation: Activation
) -> tuple[State, Array]:
    """One step of a clockwork cell: ``clockwork.step`` over any batch dimensions."""
    x_t = jnp.asarray(x_t).astype(dtype)
    shaped("inputs", x_t, "*batch I", I=weights.input.shape[0])
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


def unroll_clockwork(
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
    """The `Unroll` of a clockwork layer: ``clockwork.unroll`` over a batch; the carry is ``(B, N)`` and ``(B, 1)``."""
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


def step_lstm(
    weights: LSTMWeights, carry: tuple[Array, Array], inputs: ArrayLike, dtype: DTypeLike
) -> tuple[tuple[Array, Array], Array]:
    """One step of peephole LSTM cells: a carry of ``c`` and ``h``, ``(*batch, N)`` each, and inputs ``(*batch, I)``."""
    x = jnp.asarray(inputs)
    shaped("inputs", x, "*batch I", I=weights.input.shape[0])
    batch, cells = x.shape[:-1], weights.recurrent.shape[0]
    wanted = jax.ShapeDtypeStruct((*batch, cells), dtype)
    check_carry(carry, (wanted, wanted))
    count = math.prod(batch)
    flat = jax.tree.map(lambda leaf: leaf.reshape(count, cells), carry)
    new, _ = unroll_lstm(weights, x.reshape(1, count, x.shape[-1]), flat, dtype)
    c, h = (leaf.reshape(old.shape).astype(old.dtype) for leaf, old in zip(new, carry, strict=True))
    return (c, h), h


def unroll_lstm(
    weights: LSTMWeights, inputs: Array, carry: tuple[Array, Array], dtype: DTypeLike
) -> tuple[tuple[Array, Array], Array]:
    """`lstm_unroll` over a batch ``(T, B, I)``, with a carry in Flax's order: ``c`` and ``h``, ``(B, N)`` each."""
    weights, inputs, (c, h) = jax.tree.map(lambda x: x.astype(dtype), (weights, inputs, carry))
    steps, _, width = inputs.shape

    def each(x: Array | None, h: Array, c: Array) -> tuple[Array, tuple[Array, Array]]:
        return lstm_unroll(weights, x, steps=steps if x is None else None, hidden=(h, c))

    y, (h, c) = jax.vmap(each, in_axes=(1, 0, 0), out_axes=(1, 0))(inputs if width else None, h, c)
    return (c, h), y


def unroll_gru(weights: GRUWeights, inputs: Array, hidden: Array) -> tuple[Array, Array]:
    """`gru_unroll` over a batch ``(T, B, I)`` from hidden states ``(B, N)``; return the last ones and all outputs."""
    inputs = inputs.astype(weights.bias.dtype)
    steps, _, width = inputs.shape

    def each(x: Array | None, h: Array) -> tuple[Array, Array]:
        return gru_unroll(weights, x, steps=steps if x is None else None, hidden=h)

    y, last = jax.vmap(each, in_axes=(1, 0), out_axes=(1, 0))(inputs if width else None, hidden)
    return last, y


def step_deep(
    weights: DeepWeights, carry: Array, inputs: ArrayLike, dtype: DTypeLike, activation: tuple[Activation, ...]
) -> tuple[Array, Array]:
    """One step of a deep transition: a carry ``(*batch, N)`` and inputs ``(*batch, I)``."""
    x = jnp.asarray(inputs)
    shaped("inputs", x, "*batch I", I=weights.input.shape[0])
    batch, width = x.shape[:-1], weights.sizes[-1]
    check_carry(carry, jax.ShapeDtypeStruct((*batch, width), dtype))
    count = math.prod(batch)
    last, _ = unroll_deep(weights, x.reshape(1, count, x.shape[-1]), carry.reshape(count, width), dtype, activation)
    h_t = last.reshape(carry.shape).astype(carry.dtype)
    return h_t, h_t


def unroll_deep(
    weights: DeepWeights, inputs: Array, hidden: Array, dtype: DTypeLike, activation: tuple[Activation, ...]
) -> tuple[Array, Array]:
    """`deep_unroll` over a batch ``(T, B, I)`` from hidden states ``(B, N)``; return the last ones and all outputs."""
    weights, inputs, hidden = jax.tree.map(lambda x: x.astype(dtype), (weights, inputs, hidden))
    steps, _, width = inputs.shape

    def each(x: Array | None, h: Array) -> tuple[Array, Array]:
        return deep_unroll(weights, x, steps=steps if x is None else None, hidden=h, activation=activation)

    y, last = jax.vmap(each, in_axes=(1, 0), out_axes=(1, 0))(inputs if width else None, hidden)
    return last, y

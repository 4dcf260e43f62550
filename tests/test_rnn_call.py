# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""Cells and layers, nnx and linen, in every mode of ``RNN`` against the oracle; padding, and sequences cut in two."""

import functools
from typing import Any, NamedTuple

import chex
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import linen as nn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import CLOCKS, INPUTS, LENGTHS, STEPS, weights_for

import clockwork as cw
from clockwork.nn import Bidirectional, Clockwork, ClockworkCell, PeepholeLSTMCell, linen


@pytest.fixture(autouse=True)
def _no_trace_is_counted_from_another_test():
    chex.clear_trace_counter()


class Mode(NamedTuple):
    """A way to call ``RNN``."""

    batch: tuple[int, ...] = (3,)
    lengths: Any = None
    bidirectional: bool = False
    call: dict[str, bool] = {}  # noqa: RUF012


MODES = {
    "plain": Mode(),
    "seq_lengths": Mode(lengths=LENGTHS),
    "reverse": Mode(call={"reverse": True}),
    "reverse, seq_lengths": Mode(lengths=LENGTHS, call={"reverse": True}),
    "reverse + keep_order": Mode(lengths=LENGTHS, call={"reverse": True, "keep_order": True}),
    "Bidirectional": Mode(lengths=LENGTHS, bidirectional=True),
    "time_major": Mode(lengths=LENGTHS, call={"time_major": True}),
    "return_carry": Mode(call={"return_carry": True}),
    "return_carry, seq_lengths": Mode(lengths=LENGTHS, call={"return_carry": True}),
    "unbatched": Mode(batch=(), lengths=np.array(6), call={"return_carry": True}),
    "two batch dimensions": Mode(batch=(2, 2), lengths=np.array([[9, 1], [4, 6]])),
}


def recurrent_network(api, kind, clock, mode):
    """A function of weights and inputs: outputs, and the carry if it is asked for."""
    options: dict[str, Any] = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    make: Any
    if api == "nnx":

        def make_nnx():
            rngs = nnx.Rngs(0)
            if kind == "layer":
                return Clockwork(clock, INPUTS, method="cascade", **options, rngs=rngs)
            return nnx.RNN(ClockworkCell(clock, INPUTS, **options, rngs=rngs))

        def apply(weights, inputs, **call):
            model: Any = make_nnx()
            model.cell.set_weights(weights[0])
            if mode.bidirectional:
                backwards = make_nnx()
                backwards.cell.set_weights(weights[1])
                model = nnx.Bidirectional(model, backwards)
            return model(inputs, **call)

        return apply
    layer = functools.partial(linen.Clockwork, clock, method="cascade", **options)
    cell = functools.partial(linen.ClockworkCell, clock, **options)
    make = layer if kind == "layer" else lambda: nn.RNN(cell())

    def apply_linen(weights, inputs, **call):
        found = [{"cell": linen.params(w)} for w in weights]
        if mode.bidirectional:
            return nn.Bidirectional(make(), make()).apply(
                {"params": {"forward_rnn": found[0], "backward_rnn": found[1]}}, inputs, **call
            )
        return make().apply({"params": found[0]}, inputs, **call)

    return apply_linen


def expected(clock, weights, inputs, lengths, outputs_bar, last_bar, reverse, keep_order):
    """The oracle over a flat batch ``(B, T, I)``: outputs, last states, and the gradients of weights and inputs."""
    dense = [np.asarray(w) for w in weights.dense(clock)]
    outputs, lasts, inputs_bar = np.zeros_like(outputs_bar), [], np.zeros_like(inputs)
    totals = [np.zeros_like(w) for w in dense]
    zeros = np.zeros(clock.width)
    for b, length in enumerate(lengths):
        there = np.arange(length)[::-1] if reverse else np.arange(length)
        back = there if keep_order else np.arange(length)
        x = inputs[b, there]
        y = oracle.forward(clock, *dense, x, 0, zeros)
        outputs[b, back] = y
        lasts.append(y[-1])
        *bars, x_bar, _ = oracle.backward(clock, *dense, x, 0, zeros, outputs_bar[b, back], last_bar[b])
        inputs_bar[b, there] = x_bar
        for total, bar in zip(totals, bars, strict=True):
            total += bar
    return outputs, np.stack(lasts), totals, inputs_bar


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize(("kind", "clock"), [("cell", CLOCKS[1]), ("layer", CLOCKS[0]), ("layer", CLOCKS[1])], ids=str)
@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_every_mode_equals_the_oracle(float64, api, kind, clock, name):
    mode = MODES[name]
    rng = np.random.default_rng(1)
    count = int(np.prod(mode.batch))
    directions = 2 if mode.bidirectional else 1
    lengths = np.full(count, STEPS) if mode.lengths is None else mode.lengths.reshape(count)
    weights = tuple(weights_for(clock, seed) for seed in range(directions))
    inputs = rng.normal(size=(count, STEPS, INPUTS))
    valid = (np.arange(STEPS) < lengths[:, None])[..., None]
    outputs_bar = valid * rng.normal(size=(count, STEPS, directions * clock.width))
    carries = mode.call.get("return_carry", False)
    last_bar = carries * rng.normal(size=(count, clock.width))
    time_major = mode.call.get("time_major", False)
    call = {**mode.call, **({} if mode.lengths is None else {"seq_lengths": jnp.asarray(mode.lengths)})}
    apply = recurrent_network(api, kind, clock, mode)

    def shaped(x):
        x = x.reshape(*mode.batch, STEPS, -1)
        return jnp.moveaxis(x, -2, 0) if time_major else x

    def function(weights, inputs):
        found = apply(weights, inputs, **call)
        return found if carries else (cw.State(jnp.zeros((*mode.batch, clock.width)), jnp.int32(0)), found)

    @jax.jit
    def evaluate(weights, inputs, outputs_bar, last_bar):
        def differentiable(weights, inputs):
            carry, outputs = function(weights, inputs)
            return (outputs, carry.hidden), carry.time

        found, vjp, time = jax.vjp(differentiable, weights, inputs, has_aux=True)
        return found, time, vjp((outputs_bar, last_bar))

    (outputs, last), time, (weights_bar, inputs_bar) = evaluate(
        weights, shaped(inputs), shaped(outputs_bar), last_bar.reshape(*mode.batch, -1)
    )
    flat = functools.partial(np.moveaxis, source=0, destination=-2) if time_major else np.asarray
    outputs, inputs_bar = (flat(x).reshape(count, STEPS, -1) for x in (outputs, inputs_bar))
    wanted_inputs_bar = 0
    for direction in range(directions):
        units = slice(direction * clock.width, (direction + 1) * clock.width)
        want, lasts, dense_bars, x_bar = expected(
            clock, weights[direction], inputs, lengths, outputs_bar[..., units], last_bar,
            mode.call.get("reverse", False) or direction == 1, mode.call.get("keep_order", False) or direction == 1,
        )  # fmt: skip
        np.testing.assert_allclose(np.where(valid, outputs[..., units], 0), want, atol=1e-11)
        if kind == "layer":
            np.testing.assert_array_equal(np.where(valid, 0, outputs[..., units]), 0)
        if carries:
            np.testing.assert_allclose(np.reshape(last, (count, -1)), lasts, atol=1e-11)
            np.testing.assert_array_equal(np.reshape(time, count), lengths)
        found = weights_bar[direction].dense(clock)
        allowed = np.asarray(jax.tree.map(jnp.ones_like, weights[direction]).dense(clock)[1])
        for got, want in zip(found, (dense_bars[0], dense_bars[1] * allowed, dense_bars[2]), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-11)
        wanted_inputs_bar = wanted_inputs_bar + x_bar
    np.testing.assert_allclose(inputs_bar, wanted_inputs_bar, atol=1e-11)


def test_what_stock_flax_cannot_do_either():
    # Listed in the README. If one of these begins to work, the list is to be shortened.
    x, lengths = jnp.ones((2, 3, 5, INPUTS)), jnp.ones((2, 3), int)
    stock, ours = nnx.RNN(nnx.SimpleCell(INPUTS, 4, rngs=nnx.Rngs(0))), Clockwork(CLOCKS[0], INPUTS, rngs=nnx.Rngs(0))
    for rnn in (stock, nnx.RNN(ours.cell)):
        with pytest.raises(ValueError, match="Incompatible shapes"):  # two batch dimensions, lengths and the carry
            rnn(x, seq_lengths=lengths, return_carry=True)
        padded = x[0].at[:, 1:].set(jnp.nan)  # NaN in the padding: in the gradient of the weights
        grads = nnx.grad(lambda rnn, x=padded: rnn(x, seq_lengths=lengths[0])[:, 0].sum())(rnn)
        assert any(jnp.isnan(leaf).any() for leaf in jax.tree.leaves(grads))
        with pytest.raises((ValueError, flax.errors.TraceContextError), match="trace level"):  # parameters from outside
            jax.vmap(lambda x, rnn=rnn: rnn(x))(x)
    with pytest.raises(TypeError, match="carry input and carry output must have equal types"):  # bfloat16
        nnx.RNN(nnx.SimpleCell(INPUTS, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))(x)
    assert ours(x, seq_lengths=lengths, return_carry=True)[0].hidden.shape == (2, 3, 5)
    assert jax.vmap(ours)(x).shape == (2, 3, 5, 5)


@functools.cache
def padded_gradient(cell, bidirectional):
    rngs = nnx.Rngs(0)
    make = lambda: Clockwork(CLOCKS[1], INPUTS, cell=cell, method="cascade", rngs=rngs)  # noqa: E731
    layer = Bidirectional(make(), make(), merge="sum") if bidirectional else make()
    graph, state = nnx.split(layer)

    @jax.jit
    def evaluate(inputs, lengths):
        def loss(state, inputs):
            (carry), outputs = nnx.merge(graph, state)(inputs, seq_lengths=lengths, return_carry=True)
            last = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(carry) if leaf.dtype == jnp.float32)
            valid = (jnp.arange(STEPS)[None] < lengths[:, None])[..., None]
            return jnp.where(valid, jnp.sin(outputs), 0).sum() + last, outputs

        (_, outputs), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(state, inputs)
        return outputs, grads

    return evaluate


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", [None, nnx.SimpleCell])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, STEPS), min_size=2, max_size=2),
    garbage=st.sampled_from([np.nan, np.inf, -np.inf, 3e38, 7.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_padding_changes_nothing(cell, bidirectional, lengths, garbage, seed):
    lengths = np.array([*lengths, 1, STEPS])
    clean = np.random.default_rng(seed).normal(size=(4, STEPS, INPUTS)).astype(np.float32)
    valid = np.arange(STEPS) < lengths[:, None]
    evaluate = padded_gradient(cell, bidirectional)
    got = evaluate(np.where(valid[..., None], clean, np.float32(garbage)), jnp.asarray(lengths))
    want = evaluate(np.where(valid[..., None], clean, np.float32(0)), jnp.asarray(lengths))
    chex.assert_trees_all_equal(got, want)
    chex.assert_tree_all_finite(got)
    np.testing.assert_array_equal(got[0][~valid], 0)


CELLS = {
    "own": None,
    "LSTM": nnx.LSTMCell,
    "GRU": nnx.GRUCell,
    "PeepholeLSTM": functools.partial(PeepholeLSTMCell, forget_bias=1.0),
}


@pytest.mark.parametrize(("cell", "cut"), [("own", 1), *((name, 6) for name in CELLS)])
def test_a_sequence_cut_anywhere_and_continued_equals_the_whole(cell, cut):
    clock = CLOCKS[0]
    layer = Clockwork(clock, INPUTS, cell=CELLS[cell], rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    inputs = jax.random.normal(jax.random.key(0), (3, 11, INPUTS))

    def loss(carry, outputs):
        floats = [leaf for leaf in jax.tree.leaves(carry) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.sin(outputs).sum() + sum(jnp.square(leaf).sum() for leaf in floats)

    def whole(state, inputs):
        carry, outputs = nnx.merge(graph, state)(inputs, return_carry=True)
        return loss(carry, outputs), (carry, outputs)

    def in_two(state, inputs):
        layer = nnx.merge(graph, state)
        carry, first = layer(inputs[:, :cut], return_carry=True)
        carry, second = layer(inputs[:, cut:], initial_carry=carry, return_carry=True)
        outputs = jnp.concatenate([first, second], 1)
        return loss(carry, outputs), (carry, outputs)

    want, got = (jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(state, inputs) for f in (whole, in_two))
    chex.assert_trees_all_close(got, want, rtol=1e-7, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_and_from_ragged_ends_equals_the_whole(cell):
    clock = CLOCKS[1]
    layer = Clockwork(clock, INPUTS, cell=CELLS[cell], rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (3, 14, INPUTS))
    want = layer(inputs)
    carry, outputs = layer.cell.initialize_carry((3, INPUTS), nnx.Rngs(0)), []
    for t in range(14):
        carry, y_t = layer.cell(carry, inputs[:, t])
        outputs.append(y_t)
    np.testing.assert_allclose(jnp.stack(outputs, 1), want, atol=1e-5)
    # Every sequence goes on from an end of its own.
    ends = np.array([7, 1, 4])
    carry, _ = layer(inputs[:, :7], seq_lengths=ends, return_carry=True)
    rest = jnp.stack([inputs[b, end : end + 7] for b, end in enumerate(ends)])
    last, outputs = layer(rest, initial_carry=carry, return_carry=True)
    for b, end in enumerate(ends):
        np.testing.assert_allclose(outputs[b], want[b, end : end + 7], atol=1e-5)
    np.testing.assert_array_equal(last.time[:, 0], ends + 7)


def test_pieces_that_begin_a_cycle_run_the_fast_kernels():
    clock = CLOCKS[0]
    layer = Clockwork(clock, INPUTS, rngs=nnx.Rngs(0), method="cascade")
    inputs = jax.random.normal(jax.random.key(0), (3, 2 * clock.cycle, INPUTS))
    carry, first = layer(inputs[:, : clock.cycle], return_carry=True)
    later, second = layer(inputs[:, clock.cycle :], initial_carry=carry, return_carry=True)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), layer(inputs), atol=1e-5)

    @jax.jit
    def piece(carry, inputs, known):
        return layer(inputs, initial_carry=carry, return_carry=True, **known)

    with pytest.raises(ValueError, match="known before compilation"):
        piece(carry, inputs, {})
    jitted = jax.jit(functools.partial(layer, return_carry=True, start=0))
    continued = jitted(inputs[:, clock.cycle :], initial_carry=carry)
    chex.assert_trees_all_close(continued, (later, second), rtol=1e-7, atol=1e-6)


def test_pieces_under_jit_need_no_start():
    layer = Clockwork(CLOCKS[1], INPUTS, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (3, 15, INPUTS))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def piece(inputs, carry):
        return layer(inputs, initial_carry=carry, return_carry=True)

    carry, outputs = layer.cell.initialize_carry((3, INPUTS)), []
    for first in range(0, 15, 5):
        carry, y = piece(inputs[:, first : first + 5], carry)
        outputs.append(y)
    np.testing.assert_allclose(jnp.concatenate(outputs, 1), layer(inputs), atol=1e-5)


@pytest.mark.parametrize("cell", [None, nnx.SimpleCell])
def test_the_layer_is_compiled_once_for_each_shape(cell):
    layer = Clockwork(CLOCKS[0], INPUTS, cell=cell, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)

    @jax.jit
    @chex.assert_max_traces(n=2)
    def loss(state, inputs, lengths):
        return jnp.square(nnx.merge(graph, state)(inputs, seq_lengths=lengths)).sum()

    rng = np.random.default_rng(0)
    for steps in (5, 5, 5, 6):
        x = jnp.asarray(rng.normal(size=(2, steps, INPUTS)), jnp.float32)
        state = jax.tree.map(lambda p: p + 1, state)
        jax.block_until_ready(loss(state, x, jnp.asarray(rng.integers(1, steps + 1, 2))))

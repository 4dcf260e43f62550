# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""Cells and layers, nnx and linen, in every mode of ``RNN`` against the oracle; and the layers' own promises."""

import ast
import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from clocks import layer as drawn_layer
from flax import linen as nn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import over_two_devices

import clockwork as cw
from clockwork.nn import FLAX, Bidirectional, Clockwork, ClockworkCell, ClockworkOfCells, PeepholeLSTMCell, Stack, linen


@pytest.fixture(autouse=True)
def _no_trace_is_counted_from_another_test():
    chex.clear_trace_counter()


CLOCKS = [cw.Clock(periods=(1, 2, 4), sizes=(2, 2, 1)), cw.Clock(periods=(2, 3, 7), sizes=(1, 2, 2))]
STEPS, INPUTS = 9, 2


class Mode(NamedTuple):
    """A way to call ``RNN``."""

    batch: tuple[int, ...] = (3,)
    lengths: Any = None
    bidirectional: bool = False
    call: dict[str, bool] = {}  # noqa: RUF012


LENGTHS = np.array([9, 1, 4])
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


def test_neither_flax_api_is_built_on_the_other():
    folder = Path(cw.__file__).parent / "nn"
    imported = {
        path: {f"{node.module}.{alias.name}" for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.ImportFrom) for alias in node.names}
        for path in folder.rglob("*.py")
    }  # fmt: skip
    of_nnx = {path.stem for path, names in imported.items() if "flax.nnx" in names}
    assert of_nnx == {"cells", "layers", "networks", "of_cells", "parameters"}
    forbidden = re.compile(rf"flax\.nnx|clockwork\.nn\.(?:{'|'.join(of_nnx)}|[A-Z]\w*)(?:\.|$)")
    for path, names in imported.items():
        if path.parent.name == "linen":
            assert not [name for name in names if forbidden.match(name)], path
        elif path.stem not in {*of_nnx, "__init__"}:
            assert not [name for name in names if name.startswith("flax")], path


def weights_for(clock, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(w, float), drawn_layer(clock, STEPS, 0, INPUTS, rng).weights)


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


@pytest.mark.parametrize("cell", [None, pytest.param(nnx.SimpleCell, marks=pytest.mark.slow)])
def test_transformations_of_the_layer(cell):
    layer = Clockwork(CLOCKS[0], INPUTS, cell=cell, method="cascade", rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    inputs = jax.random.normal(jax.random.key(0), (4, STEPS, INPUTS))

    def apply(state, inputs):
        return nnx.merge(graph, state)(inputs)

    def loss(state, inputs):
        return jnp.sin(apply(state, inputs)).sum()

    close = functools.partial(chex.assert_trees_all_close, rtol=1e-7, atol=1e-5)
    want = jax.grad(loss)(state, inputs)
    close(jax.jit(jax.grad(loss))(state, inputs), want)
    close(jax.grad(jax.checkpoint(loss))(state, inputs), want)
    close(jax.vmap(apply, in_axes=(None, 0))(state, inputs), apply(state, inputs))
    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(state, inputs)
    close(jax.tree.map(lambda a: a.sum(0), each), want)
    runs = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), state)
    both = jax.vmap(jax.grad(loss), in_axes=(0, None))(runs, inputs)
    close(jax.tree.map(lambda a: a[0], both), want)
    exported = jax.export.export(jax.jit(jax.grad(loss)))(state, inputs)
    close(exported.call(state, inputs), want)
    for platform in ("cuda", "tpu"):
        assert jax.jit(jax.grad(loss)).trace(state, inputs).lower(lowering_platforms=(platform,)).as_text()
    outputs = over_two_devices(apply)(state, inputs)
    assert len(outputs.sharding.device_set) == 2
    close(outputs, apply(state, inputs))
    close(over_two_devices(jax.grad(loss))(state, inputs), want)


@pytest.mark.parametrize("api", ["nnx", "linen"])
@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_a_clockwork_of_simple_cells_is_the_clockwork_layer(float64, api, clock):
    weights = weights_for(clock)
    w_in, w_rec, bias = weights.dense(clock)
    ends = [a + k for a, k in zip(clock.starts, clock.sizes, strict=True)]
    spans = list(zip(clock.starts, ends, strict=True))
    kernels = [
        {
            "i": {"kernel": jnp.concatenate([w_in[:, a:b], w_rec[b:, a:b]]), "bias": bias[a:b]},
            "h": {"kernel": w_rec[a:b, a:b]},
        }
        for a, b in spans
    ]
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(3, 2 * STEPS, INPUTS)))
    if api == "nnx":
        simple = functools.partial(nnx.SimpleCell, dtype=jnp.float64, param_dtype=jnp.float64)
        layer = Clockwork(clock, INPUTS, cell=simple, rngs=nnx.Rngs(0))
        assert isinstance(layer.cell, ClockworkOfCells)
        for cell, kernel in zip(layer.cell.cells, kernels, strict=True):
            cell.dense_i.kernel[...], cell.dense_i.bias[...] = kernel["i"]["kernel"], kernel["i"]["bias"]
            cell.dense_h.kernel[...] = kernel["h"]["kernel"]
        call = layer
    else:
        simple = functools.partial(nn.SimpleCell, dtype=jnp.float64, param_dtype=jnp.float64)
        variables = {"params": {"cell": {f"cells_{j}": kernel for j, kernel in enumerate(kernels)}}}
        call = functools.partial(linen.Clockwork(clock, cell=simple).apply, variables)
    want, last = jax.vmap(lambda x: cw.unroll(weights, clock, x, method="masked"))(inputs)
    carry, got = call(inputs, return_carry=True)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(carry.hidden, last, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("api", ["nnx", "linen"])
@pytest.mark.parametrize("name", ["LSTM", "PeepholeLSTM"])
def test_the_cascade_of_cells_equals_calling_each_at_every_step(float64, api, name, lengths):
    clock, options = CLOCKS[1], {"dtype": jnp.float64, "param_dtype": jnp.float64}
    inputs = jnp.asarray(np.random.default_rng(3).normal(size=(3, STEPS, INPUTS)))
    cells = {"nnx": (nnx.LSTMCell, PeepholeLSTMCell), "linen": (nn.LSTMCell, linen.PeepholeLSTMCell)}
    cell = functools.partial(cells[api][name == "PeepholeLSTM"], **options)
    call = {"seq_lengths": lengths, "return_carry": True}
    if api == "nnx":
        graph, variables = nnx.split(Clockwork(clock, INPUTS, cell=cell, rngs=nnx.Rngs(0)))
    else:
        graph, variables = None, linen.Clockwork(clock, cell=cell).init(jax.random.key(0), inputs)

    def apply(variables, inputs, method):
        if graph is None:
            return linen.Clockwork(clock, cell=cell, method=method).apply(variables, inputs, **call)
        layer = nnx.merge(graph, variables)
        layer.method = method
        return layer(inputs, **call)

    @functools.partial(jax.jit, static_argnames="method")
    def evaluate(variables, inputs, method):
        def loss(variables, inputs):
            carry, outputs = apply(variables, inputs, method)
            floats = (carry.cells, carry.hidden, outputs)
            return sum(jnp.sin(i + leaf).sum() for i, leaf in enumerate(jax.tree.leaves(floats))), (carry, outputs)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, inputs)

    got, want = evaluate(variables, inputs, "cascade"), evaluate(variables, inputs, "masked")
    chex.assert_trees_all_close(got, want, rtol=1e-7, atol=1e-11)


def test_a_cell_of_ones_own_with_state_of_its_own():
    class Counting(nnx.RNNCellBase):
        """Puts out how often it was called, and twice its input's sum."""

        def __init__(self, in_features, hidden_features, *, rngs):
            self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
            self.features = hidden_features

        def __call__(self, carry, inputs):
            self.calls[...] += 1
            carry = carry + 1
            return carry, jnp.broadcast_to(carry, (*inputs.shape[:-1], self.features))

        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.zeros((*input_shape[:-1], 1))

        @property
        def num_feature_axes(self):
            return 1

    clock = cw.Clock(periods=(1, 2, 5), sizes=(2, 1, 1))
    layer = Clockwork(clock, INPUTS, cell=Counting, rngs=nnx.Rngs(0))
    outputs = layer(jnp.zeros((11, INPUTS)))
    np.testing.assert_array_equal(outputs[:, 0], jnp.arange(1, 12))
    np.testing.assert_array_equal(outputs[:, 2], [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6])
    np.testing.assert_array_equal(outputs[:, 3], [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3])
    assert isinstance(layer.cell, ClockworkOfCells)
    assert [int(cell.calls[...]) for cell in layer.cell.cells] == [11, 6, 3]


def test_peephole_cells_are_the_peephole_lstm():
    cell = PeepholeLSTMCell(INPUTS, 4, forget_bias=2.0, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (STEPS, INPUTS))
    want, (h, c) = jax.jit(cw.nn.lstm_unroll)(cell.weights, inputs)
    carry, got = nnx.RNN(cell)(inputs, return_carry=True)
    chex.assert_trees_all_close((got, carry), (want, (c, h)), rtol=1e-7, atol=1e-6)
    variables = {"params": cell.weights._asdict()}
    y = nn.RNN(linen.PeepholeLSTMCell(4)).apply({"params": {"cell": variables["params"]}}, inputs)
    np.testing.assert_allclose(y, want, atol=1e-6)


def test_parameters_interchange_everywhere(tmp_path):
    clock = CLOCKS[1]
    layer = Clockwork(clock, INPUTS, rngs=nnx.Rngs(0))
    other = nnx.RNN(ClockworkCell(clock, INPUTS, rngs=nnx.Rngs(1)))
    inputs = jax.random.normal(jax.random.key(0), (3, STEPS, INPUTS))
    want = layer(inputs)
    assert not np.allclose(other(inputs), want)
    nnx.update(other, nnx.state(layer))  # the same names
    np.testing.assert_allclose(other(inputs), want, atol=1e-6)
    weights = layer.cell.weights
    np.savez(tmp_path / "weights.npz", **weights.flat("encoder."))
    with np.load(tmp_path / "weights.npz") as stored:
        read = cw.Weights.from_flat(clock, {**stored, "decoder.bias": 0}, "encoder.")
    chex.assert_trees_all_equal(read, weights)
    again = Clockwork(clock, INPUTS, rngs=nnx.Rngs(2))
    again.cell.set_weights(cw.Weights.from_dense(clock, *read.dense(clock)))
    np.testing.assert_array_equal(again(inputs), want)
    variables = {"params": {"cell": linen.params(weights)}}
    for module in (linen.Clockwork(clock), nn.RNN(linen.ClockworkCell(clock))):
        np.testing.assert_allclose(module.apply(variables, inputs), want, atol=1e-6)
        shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
        chex.assert_trees_all_equal_shapes(shapes, variables)
    chex.assert_trees_all_equal(linen.weights(variables["params"]["cell"]), weights)


def test_weights_of_another_layer_are_refused():
    clock, cell = CLOCKS[0], ClockworkCell(CLOCKS[0], INPUTS, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"input weights must have shape \(2, 5\), got \(3, 5\)"):
        cell.set_weights(cw.init(jax.random.key(0), clock, 3))
    with pytest.raises(ValueError, match="recurrent weights"):
        cell.set_weights(cw.init(jax.random.key(0), CLOCKS[1], INPUTS))
    flat = cell.weights.flat()
    with pytest.raises(ValueError, match=r"must be named .*'recurrent\.2'.*, got \['input'\]"):
        cw.Weights.from_flat(clock, {"input": flat["input"]})
    with pytest.raises(ValueError, match="parameters of a clockwork cell are"):
        linen.weights({"kernel": flat["input"]})


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_stack_is_its_layers_by_hand(skip, reverse):
    rngs = nnx.Rngs(0)
    fast, slow = cw.Clock.exponential(5, 2), cw.Clock.exponential(4, 2, fastest=4)
    first, second = Clockwork(fast, INPUTS, rngs=rngs), Clockwork(slow, 5 + skip * INPUTS, rngs=rngs)
    stack = Stack([first, second], skip=skip)
    inputs = jax.random.normal(jax.random.key(0), (3, STEPS, INPUTS))
    order = {"seq_lengths": LENGTHS, "reverse": reverse}
    h1 = first(inputs, **order, keep_order=True)
    below = jnp.concatenate([inputs, h1], -1) if skip else h1
    h2 = second(below, **order, keep_order=True)
    want = jnp.concatenate([h1, h2], -1) if skip else h2
    carries, got = stack(inputs, **order, keep_order=True, return_carry=True)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert [carry.hidden.shape for carry in carries] == [(3, 5), (3, 4)]
    if not reverse:
        carries, start = stack(inputs[:, :4], return_carry=True)
        rest = stack(inputs[:, 4:], initial_carry=carries)
        np.testing.assert_allclose(jnp.concatenate([start, rest], 1), stack(inputs), atol=1e-5)
    cells = [first.cell, second.cell]
    variables = {"params": {f"layers_{i}": {"cell": linen.params(c.weights)} for i, c in enumerate(cells)}}
    module = linen.Stack([linen.Clockwork(fast), linen.Clockwork(slow)], skip=skip)
    np.testing.assert_allclose(module.apply(variables, inputs, **order, keep_order=True), got, atol=1e-6)


@pytest.mark.parametrize(
    ("merge", "want"),
    [
        ("concatenate", lambda a, b: jnp.concatenate([a, b], -1)),
        ("sum", lambda a, b: a + b),
        (jnp.maximum, jnp.maximum),
    ],
)
def test_both_ways_merged(merge, want):
    rngs = nnx.Rngs(0)
    forwards, backwards = (Clockwork(CLOCKS[0], INPUTS, rngs=rngs) for _ in range(2))
    inputs = jax.random.normal(jax.random.key(0), (2, 3, STEPS, INPUTS))
    lengths = jnp.asarray([[9, 1, 3], [2, 9, 8]])
    both = want(
        forwards(inputs, seq_lengths=lengths), backwards(inputs, seq_lengths=lengths, reverse=True, keep_order=True)
    )
    layer = Bidirectional(forwards, backwards, merge=merge)
    np.testing.assert_allclose(layer(inputs, seq_lengths=lengths), both, atol=1e-6)
    assert not jax.tree.leaves(nnx.state(layer, nnx.RngState))
    cells = [forwards.cell, backwards.cell]
    found = [{"cell": linen.params(cell.weights)} for cell in cells]
    module = linen.Bidirectional(linen.Clockwork(CLOCKS[0]), linen.Clockwork(CLOCKS[0]), merge=merge)
    variables = {"params": {"forward_rnn": found[0], "backward_rnn": found[1]}}
    np.testing.assert_allclose(module.apply(variables, inputs, seq_lengths=lengths), both, atol=1e-6)


@pytest.mark.parametrize("cell", [None, functools.partial(nnx.LSTMCell, dtype=jnp.bfloat16)])
def test_bfloat16_computes_with_float32_parameters(cell):
    layer = Clockwork(CLOCKS[0], INPUTS, cell=cell, dtype=None if cell else jnp.bfloat16, rngs=nnx.Rngs(0))
    chex.assert_type(jax.tree.leaves(nnx.state(layer, nnx.Param)), jnp.float32)
    inputs = jax.random.normal(jax.random.key(0), (2, STEPS, INPUTS))
    with jax.numpy_dtype_promotion("standard" if cell else "strict"):  # flax's LSTM mixes them itself
        carry, outputs = layer(inputs, return_carry=True)
        again, stepwise = nnx.RNN(layer.cell)(inputs, return_carry=True)
        grads = nnx.grad(lambda layer: layer(inputs).astype(jnp.float32).sum())(layer)
    assert outputs.dtype == stepwise.dtype == carry.hidden.dtype == again.hidden.dtype
    if cell is None:
        assert outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(outputs, np.float32), np.asarray(stepwise, np.float32), atol=2e-2)
    chex.assert_type(jax.tree.leaves(grads), jnp.float32)


def test_initialisers():
    clock = cw.Clock.exponential(width=400, modules=2)
    paper = ClockworkCell(clock, 300, rngs=nnx.Rngs(0)).weights
    for leaf in jax.tree.leaves(paper):
        np.testing.assert_allclose(leaf.std(), 0.1, rtol=0.15)
    flax = ClockworkCell(clock, 300, **FLAX, rngs=nnx.Rngs(0)).weights
    np.testing.assert_allclose(flax.input.std(), 1 / np.sqrt(300), rtol=0.05)
    np.testing.assert_array_equal(flax.bias, 0)
    dense = np.asarray(flax.dense(clock)[1])
    for columns, senders in ((dense[:, :200], 400), (dense[200:, 200:], 200)):  # orthonormal for each receiver
        assert columns.shape[0] == senders
        np.testing.assert_allclose(columns.T @ columns, np.eye(200), atol=1e-5)
    one = cw.Clock(periods=(1,), sizes=(6,))
    ours, theirs = Clockwork(one, 3, **FLAX, rngs=nnx.Rngs(0)), nnx.RNN(nnx.SimpleCell(3, 6, rngs=nnx.Rngs(0)))
    bias = theirs.cell.dense_i.bias
    ours.cell.set_weights(cw.Weights(theirs.cell.dense_i.kernel[...], (theirs.cell.dense_h.kernel[...],), bias[...]))
    inputs = jax.random.normal(jax.random.key(0), (2, STEPS, 3))
    np.testing.assert_allclose(ours(inputs), theirs(inputs), atol=1e-6)
    half = ClockworkCell(clock, 3, **FLAX, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)).weights
    chex.assert_type(jax.tree.leaves(half), jnp.bfloat16)


def test_an_activation_is_an_argument():
    clock = CLOCKS[1]
    layer = Clockwork(clock, INPUTS, activation=jax.nn.relu, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (STEPS, INPUTS))
    want, _ = cw.unroll(layer.cell.weights, clock, inputs, activation=jax.nn.relu, method="masked")
    np.testing.assert_allclose(layer(inputs), want, atol=1e-6)
    np.testing.assert_allclose(nnx.RNN(layer.cell)(inputs), want, atol=1e-6)


def test_a_layer_without_inputs():
    for cell in (None, functools.partial(PeepholeLSTMCell, stddev=1.0)):
        layer = Clockwork(CLOCKS[0], 0, cell=cell, rngs=nnx.Rngs(0))
        outputs = layer(jnp.zeros((2, STEPS, 0)))
        np.testing.assert_allclose(outputs, nnx.RNN(layer.cell)(jnp.zeros((2, STEPS, 0))), atol=1e-6)
        assert jnp.abs(outputs).min() > 0
    module = linen.Clockwork(CLOCKS[0])
    outputs, variables = module.init_with_output(jax.random.key(0), jnp.zeros((2, STEPS, 0)))
    assert "input" not in variables["params"]["cell"]
    assert linen.weights(variables["params"]["cell"]).input.shape == (0, 5)


def test_a_carry_is_drawn_where_asked():
    cell = ClockworkCell(CLOCKS[0], INPUTS, rngs=nnx.Rngs(0))
    drawn = cell.initialize_carry((3, INPUTS), nnx.Rngs(0), jax.nn.initializers.normal(1.0))
    assert drawn.hidden.shape == (3, 5)
    assert drawn.time.shape == (3, 1)
    assert jnp.abs(drawn.hidden).min() > 0
    with pytest.raises(ValueError, match="carry_init needs rngs"):
        cell.initialize_carry((3, INPUTS), None, jax.nn.initializers.normal(1.0))


def test_empty_batches_and_batches_of_any_size():
    x = jax.random.normal(jax.random.key(0), (3, STEPS, INPUTS))
    (size,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((size, STEPS, INPUTS), jnp.float32)
    layer = Clockwork(CLOCKS[0], INPUTS, method="cascade", rngs=nnx.Rngs(0))
    exported = jax.export.export(jax.jit(lambda x: layer(x)))(shape)
    np.testing.assert_allclose(exported.call(x), layer(x), atol=1e-6)
    assert jax.grad(lambda x: layer(x).sum())(x[:0]).shape == (0, STEPS, INPUTS)
    cells = Clockwork(CLOCKS[0], INPUTS, cell=nnx.SimpleCell, rngs=nnx.Rngs(0))
    assert cells(x[:0]).shape == (0, STEPS, 5)


def test_flaxs_bidirectional_continues_a_clockwork_of_cells():
    make = lambda: Clockwork(CLOCKS[0], INPUTS, cell=nnx.GRUCell, rngs=nnx.Rngs(0))  # noqa: E731
    layer, x = nnx.Bidirectional(make(), make()), jnp.ones((2, STEPS, INPUTS))
    carry, _ = layer(x, return_carry=True)
    _, later = layer(x, initial_carry=carry, return_carry=True)
    np.testing.assert_allclose(later[..., :5], layer.forward_rnn(x, initial_carry=carry[0]), atol=1e-6)


def test_linen_modules_cloned_with_other_fields():
    x = jnp.ones((2, STEPS, INPUTS))
    layer = linen.Clockwork(CLOCKS[0])
    variables = layer.init(jax.random.key(0), x)
    want = linen.Clockwork(CLOCKS[0], activation=jax.nn.relu).apply(variables, x)
    np.testing.assert_array_equal(layer.clone(activation=jax.nn.relu).apply(variables, x), want)
    both = linen.Bidirectional(layer, linen.Clockwork(CLOCKS[0]), merge_fn=jnp.add)
    assert both.init_with_output(jax.random.key(0), x)[0].shape == (2, STEPS, 5)


def test_a_stack_asks_for_no_carry_that_is_not_wanted():
    stack = Stack([nnx.RNN(nnx.SimpleCell(INPUTS, 3, rngs=nnx.Rngs(0)))])
    assert stack(jnp.ones((2, 2, STEPS, INPUTS)), seq_lengths=jnp.ones((2, 2), int)).shape == (2, 2, STEPS, 3)


X = np.zeros((2, STEPS, INPUTS), np.float32)
BAD_CALLS = {
    "width": (X[..., :1], {}, r"inputs must have shape \(\*batch, T, 2\), got \(2, 9, 1\)"),
    "one axis": (X[0, 0], {}, r"inputs must have shape \(\*batch, T, 2\), got \(2,\)"),
    "one axis, time first": (X[0, 0], {"time_major": True}, r"inputs must have shape \(T, \*batch, 2\), got \(2,\)"),
    "no step": (X[:, :0], {}, "at least one step"),
    "too long": (X, {"seq_lengths": [3, 10]}, "seq_lengths must be from 0 to the 9 steps of the inputs, got 10"),
    "too short": (X, {"seq_lengths": [-1, 9]}, "seq_lengths must be from 0 to the 9 steps of the inputs, got -1"),
    "how many": (X, {"seq_lengths": [3]}, r"seq_lengths must have shape \(2,\), got \(1,\)"),
    "not whole": (X, {"seq_lengths": [3.0, 2.0]}, "seq_lengths must be integers, got float"),
    "carry": (
        X,
        {"initial_carry": cw.State(np.zeros((2, 4), np.float32), np.zeros((2, 1), np.int32))},
        r"must be State\(hidden=float32\[2, 5\], time=int32\[2, 1\]\), got State\(.*\[2, 4\].*another clock",
    ),
    "no clock": (X, {"initial_carry": np.zeros((2, 5), np.float32)}, r"must be State\(.*got float32\[2, 5\]"),
    "start of another kind": (X, {"start": 3.0}, "start must be an integer known before compilation, got 3.0"),
    "negative start": (X, {"start": -1}, "start must be at least 0, got -1"),
    "start": (X, {"start": 3}, "start is the time of initial_carry, which is not given, got 3"),
    "wrong start": (
        X,
        {"start": 3, "initial_carry": cw.State(np.zeros((2, 5), np.float32), np.full((2, 1), 5, np.int32))},
        "start must be the time of the carry up to whole cycles, 5, got 3",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_get_one_sentence(case):
    inputs, call, sentence = BAD_CALLS[case]
    call = {name: np.asarray(x) if name == "seq_lengths" else x for name, x in call.items()}
    if "seq_lengths" in call and call["seq_lengths"].dtype == np.int64:
        call["seq_lengths"] = call["seq_lengths"].astype(np.int32)
    with pytest.raises(ValueError, match=sentence):
        Clockwork(CLOCKS[0], INPUTS, rngs=nnx.Rngs(0))(inputs, **call)


RNGS = nnx.Rngs(0)
BAD_LAYERS = {
    "no cell": (lambda: Clockwork(CLOCKS[0], 2, cell=3, rngs=RNGS), "cell must be a class or function such"),
    "an instance": (
        lambda: Clockwork(CLOCKS[0], 2, cell=nnx.LSTMCell(2, 3, rngs=RNGS), rngs=RNGS),
        "cell must be called as cell",
    ),
    "a layer": (lambda: Clockwork(CLOCKS[0], 2, cell=nnx.Linear, rngs=RNGS), "cell must make an nnx.RNNCellBase"),
    "linen's": (lambda: Clockwork(CLOCKS[0], 2, cell=nn.LSTMCell, rngs=RNGS), "cell must be called as cell"),
    "options": (
        lambda: Clockwork(CLOCKS[0], 2, cell=nnx.LSTMCell, activation=jnp.tanh, rngs=RNGS),
        "activation is not passed on to cells",
    ),
    "method": (lambda: Clockwork(CLOCKS[0], 2, method="fast", rngs=RNGS), "method must be one of"),
    "features": (lambda: Clockwork(CLOCKS[0], -1, rngs=RNGS), "in_features must be an integer, 0 or more, got -1"),
    "linen: no cell": (
        lambda: linen.Clockwork(CLOCKS[0], cell=nn.Dense).init(jax.random.key(0), X),
        "cell must make an nn.RNNCellBase",
    ),
    "linen: width": (
        lambda: linen.Clockwork(CLOCKS[0]).apply(
            {"params": {"cell": linen.params(weights_for(CLOCKS[0]))}}, X[..., :1]
        ),
        "inputs must have 2 features, got 1",
    ),
    "merge": (lambda: Bidirectional(None, None, merge="mean"), r"merge must be one of \('concatenate', 'sum'\)"),
    "sum": (
        lambda: Bidirectional(
            Clockwork(CLOCKS[0], 2, rngs=RNGS), Clockwork(cw.Clock((1,), (2,)), 2, rngs=RNGS), merge="sum"
        )(X),
        r"outputs to be added must have one shape, got \(2, 9, 5\) and \(2, 9, 2\)",
    ),
    "no layer": (lambda: Stack([]), "a stack must have at least one layer"),
    "linen: no layer": (lambda: linen.Stack([]), "a stack must have at least one layer"),
    "cells' carry": (
        lambda: ClockworkOfCells(CLOCKS[0], 2, nnx.GRUCell, rngs=RNGS)(cw.State.initial(CLOCKS[0]), X[0, 0]),
        r"the carry must be CellsState\(",
    ),
    "carries": (
        lambda: Stack([Clockwork(CLOCKS[0], 2, rngs=RNGS)])(X, initial_carry=()),
        "initial_carry must have one carry for each of the 1 layers, got 0",
    ),
    "cell's width": (
        lambda: ClockworkCell(CLOCKS[0], 2, rngs=RNGS)(cw.State.initial(CLOCKS[0]), np.zeros(3, np.float32)),
        r"inputs must have shape \(\*batch, 2\), got \(3,\)",
    ),
    "cell's carry": (
        lambda: ClockworkCell(CLOCKS[0], 2, rngs=RNGS)(cw.State.initial(CLOCKS[0]), np.zeros(2, np.float32)),
        r"the carry must be State\(hidden=float32\[5\], time=int32\[1\]\), got .*time=int32\[\]",
    ),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_bad_layers_get_one_sentence(case):
    make, sentence = BAD_LAYERS[case]
    with pytest.raises(ValueError, match=sentence):
        make()

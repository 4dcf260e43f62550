# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""Cells, a clockwork of cells, their parameters, dtypes and initialisers, in nnx and linen."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from small_layers import CLOCKS, INPUTS, LENGTHS, STEPS, weights_for

import clockwork as cw
from clockwork.nn import FLAX, Clockwork, ClockworkCell, ClockworkOfCells, PeepholeLSTMCell, linen


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


@pytest.mark.parametrize("api", ["nnx", "linen"])
@pytest.mark.parametrize(("name", "lengths"), [("LSTM", LENGTHS), ("PeepholeLSTM", None)])
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


def test_flaxs_bidirectional_continues_a_clockwork_of_cells():
    make = lambda: Clockwork(CLOCKS[0], INPUTS, cell=nnx.GRUCell, rngs=nnx.Rngs(0))  # noqa: E731
    layer, x = nnx.Bidirectional(make(), make()), jnp.ones((2, STEPS, INPUTS))
    carry, _ = layer(x, return_carry=True)
    _, later = layer(x, initial_carry=carry, return_carry=True)
    np.testing.assert_allclose(later[..., :5], layer.forward_rnn(x, initial_carry=carry[0]), atol=1e-6)

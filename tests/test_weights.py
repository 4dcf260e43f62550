import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_linen
from flax import nnx

import clockwork as cw
from clockwork import nn
from clockwork.nn import linen
from clockwork.weights import initialize

CLOCK = cw.Clock(periods=(1, 2, 4), sizes=(4, 4, 3))


def test_dense_weights_are_block_lower_triangular_and_come_back():
    weights = cw.init(jax.random.key(0), CLOCK, inputs=2)
    w_in, w_rec, bias = weights.dense(CLOCK)
    assert (w_in.shape, w_rec.shape, bias.shape) == ((2, 11), (11, 11), (11,))
    # h @ W: rows send, columns receive; nothing goes from a faster to a slower module.
    assert not w_rec[:4, 4:].any()
    assert not w_rec[4:8, 8:].any()
    assert w_rec[8:, :].all()
    chex.assert_trees_all_equal(cw.Weights.from_dense(CLOCK, w_in, w_rec, bias), weights, strict=True)


def test_stored_weights_are_exactly_the_papers_number():
    weights = cw.init(jax.random.key(0), CLOCK)
    assert sum(block.size for block in weights.recurrent) == CLOCK.recurrent_parameters == 4 * 4 + 4 * 8 + 3 * 11


def test_weights_are_drawn_from_the_given_normal():
    clock = cw.Clock.exponential(width=200, modules=2)
    weights = cw.init(jax.random.key(0), clock, inputs=100, stddev=0.1, dtype=jnp.float32)
    for leaf in jax.tree.leaves(weights):
        assert leaf.dtype == jnp.float32
        assert abs(float(leaf.std()) - 0.1) < 0.1 * 5 / np.sqrt(2 * leaf.size)
        assert abs(float(leaf.mean())) < 0.1 * 5 / np.sqrt(leaf.size)
    again = cw.init(jax.random.key(0), clock, inputs=100)
    chex.assert_trees_all_equal(weights, again, strict=True)


def test_from_dense_under_jit_takes_the_blocks():
    w_in, w_rec, bias = cw.init(jax.random.key(0), CLOCK).dense(CLOCK)
    blocks = jax.jit(lambda *dense: cw.Weights.from_dense(CLOCK, *dense))(w_in, w_rec, bias)
    np.testing.assert_array_equal(blocks.dense(CLOCK)[1], w_rec)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, r, b: (i, r.at[1, 5].set(0.5), b), "must be zero, got 0.5 from unit 1 to unit 5"),
        (lambda i, r, b: (i, r.T, b), "from a faster to a slower module must be zero"),
        (lambda i, r, b: (i, r[:5], b), r"must have shape \(11, 11\), got \(5, 11\)"),
        (lambda i, r, b: (i[0], r, b), r"input weights must have shape \(I, 11\), got \(11,\)"),
        (lambda i, r, b: (i, r, b[:3]), r"bias must have shape \(11,\), got \(3,\)"),
        (lambda i, r, b: (i, r, np.zeros(11, np.int32)), "bias must be floating point numbers, got int32"),
    ],
)
def test_dense_weights_that_do_not_fit_are_refused(change, sentence):
    dense = cw.init(jax.random.key(0), CLOCK, inputs=2).dense(CLOCK)
    with pytest.raises(ValueError, match=sentence):
        cw.Weights.from_dense(CLOCK, *change(*dense))


def test_bad_arguments_of_init_are_refused():
    with pytest.raises(ValueError, match="inputs must be an integer, 0 or more, got -1"):
        cw.init(jax.random.key(0), CLOCK, inputs=-1)
    with pytest.raises(ValueError, match=r"stddev must be finite and at least 0, got -0\.1"):
        cw.init(jax.random.key(0), CLOCK, stddev=-0.1)


def test_dense_refuses_another_clock():
    with pytest.raises(ValueError, match="must have shapes"):
        cw.init(jax.random.key(0), CLOCK).dense(cw.Clock((1, 2), (4, 4)))


def test_init_refuses_a_dtype_without_fractions():
    with pytest.raises(ValueError, match="dtype must be a type of floating point numbers, got int32"):
        cw.init(jax.random.key(0), CLOCK, dtype=jnp.int32)


KEY = jax.random.key(7)
MODULE_KEY = nnx.Rngs(7).params()  # the first key that a module takes from nnx.Rngs(7)


def cell_key(module, find):
    """The key with which a cell inside a linen module draws its parameters."""
    return flax_linen.apply(lambda bound: find(bound).make_rng("params"), module)({}, rngs={"params": KEY})


@pytest.mark.parametrize("inputs", [0, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_same_key_gives_cells_and_layers_the_weights_of_init(inputs, dtype):
    want = cw.init(MODULE_KEY, CLOCK, inputs, dtype=dtype)
    for make in (nn.ClockworkCell, functools.partial(nn.ClockworkCell, **nn.PAPER), nn.Clockwork):
        module = make(CLOCK, inputs, param_dtype=dtype, rngs=nnx.Rngs(7))
        cell = module if isinstance(module, nn.ClockworkCell) else module.cell
        chex.assert_trees_all_equal(cell.weights, want, strict=True)


@pytest.mark.parametrize("inputs", [0, 3])
def test_the_same_key_gives_networks_the_weights_of_init(inputs):
    network = nn.ClockworkRNN(CLOCK, inputs, stddev=0.7, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(network.weights, cw.init(MODULE_KEY, CLOCK, inputs, 0.7), strict=True)
    simple = nn.SimpleRNN(5, inputs, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(simple.weights, cw.init(MODULE_KEY, cw.Clock((1,), (5,)), inputs), strict=True)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("inputs", [0, 3])
def test_the_same_key_gives_linen_modules_the_weights_of_init(inputs, dtype):
    sequence = jnp.zeros((2, 4, inputs))
    cell = linen.ClockworkCell(CLOCK, param_dtype=dtype)
    drawn = cell.init(KEY, cell.initialize_carry(None, (inputs,)), sequence[0, 0])["params"]
    want = cw.init(cell_key(cell, lambda cell: cell), CLOCK, inputs, dtype=dtype)
    chex.assert_trees_all_equal(linen.weights(drawn), want, strict=True)
    for layer in (linen.Clockwork(CLOCK, param_dtype=dtype), flax_linen.RNN(cell)):
        key, drawn = cell_key(layer, lambda layer: layer.cell), layer.init(KEY, sequence)["params"]["cell"]
        chex.assert_trees_all_equal(linen.weights(drawn), cw.init(key, CLOCK, inputs, dtype=dtype), strict=True)


def test_the_same_key_gives_a_layer_inside_linens_modules_the_weights_of_init():
    stack = linen.Stack([linen.Clockwork(CLOCK), linen.Clockwork(CLOCK)])
    drawn = stack.init(KEY, jnp.zeros((4, 3)))["params"]
    keys = [cell_key(stack, lambda stack, layer=layer: stack.layers[layer].cell) for layer in (0, 1)]
    for layer, inputs in ((0, 3), (1, CLOCK.width)):
        want = cw.init(keys[layer], CLOCK, inputs)
        chex.assert_trees_all_equal(linen.weights(drawn[f"layers_{layer}"]["cell"]), want, strict=True)
    assert (cw.init(keys[0], CLOCK).bias != cw.init(keys[1], CLOCK).bias).any()


def test_the_same_key_gives_both_apis_the_same_weights_by_flaxs_initialisers():
    want = initialize(MODULE_KEY, CLOCK, 3, **nn.FLAX)
    cell = nn.ClockworkCell(CLOCK, 3, **nn.FLAX, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(cell.weights, want, strict=True)
    layer = linen.Clockwork(CLOCK, **nn.FLAX)
    drawn = layer.init(KEY, jnp.zeros((4, 3)))["params"]["cell"]
    want = initialize(cell_key(layer, lambda layer: layer.cell), CLOCK, 3, **nn.FLAX)
    chex.assert_trees_all_equal(linen.weights(drawn), want, strict=True)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("inputs", [0, 3])
def test_the_same_key_gives_lstms_the_weights_of_lstm_init(inputs, dtype):
    want = nn.lstm_init(MODULE_KEY, 5, inputs, forget_bias=5.0, dtype=dtype)
    cell = nn.PeepholeLSTMCell(inputs, 5, forget_bias=5.0, param_dtype=dtype, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(cell.weights, want, strict=True)
    if dtype == jnp.float32:
        network = nn.PeepholeLSTM(5, inputs, forget_bias=5.0, rngs=nnx.Rngs(7))
        chex.assert_trees_all_equal(network.weights, want, strict=True)
    layer = flax_linen.RNN(linen.PeepholeLSTMCell(5, forget_bias=5.0, param_dtype=dtype))
    drawn = layer.init(KEY, jnp.zeros((2, 4, inputs)))["params"]["cell"]
    want = nn.lstm_init(cell_key(layer, lambda layer: layer.cell), 5, inputs, forget_bias=5.0, dtype=dtype)
    chex.assert_trees_all_equal(drawn, {k: v for k, v in want._asdict().items() if v.size}, strict=True)


def test_the_same_key_gives_each_run_of_a_batch_the_weights_of_init():
    keys = jax.random.split(KEY, 3)
    for draw in (lambda key: cw.init(key, CLOCK, 3), lambda key: nn.lstm_init(key, 5, 3)):
        each = [draw(key) for key in keys]
        runs = jax.jit(jax.vmap(draw))(keys)
        chex.assert_trees_all_close(runs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each), rtol=1e-6)


def test_weights_of_few_bits_are_drawn_in_float32_and_rounded():
    for draw in (lambda dtype: cw.init(KEY, CLOCK, 3, dtype=dtype), lambda dtype: nn.lstm_init(KEY, 5, 3, dtype=dtype)):
        rounded = jax.tree.map(lambda w: w.astype(jnp.bfloat16), draw(jnp.float32))
        chex.assert_trees_all_equal(draw(jnp.bfloat16), rounded, strict=True)


def test_the_papers_weights_are_drawn_by_one_draw_of_each_kind():
    clock = cw.Clock.exponential(width=40, modules=9)
    drawn = jax.make_jaxpr(lambda key: cw.init(key, clock, 13))(KEY)
    assert str(drawn).count("random_bits") == 3  # input weights, recurrent weights and biases

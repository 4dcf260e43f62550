"""GRU and LSTM layers: Flax's own cells, run by the library's kernels."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from clockwork.nn import GRU, LSTM, GRUWeights, Recurrent, gru_init, gru_unroll, stock
from clockwork.nn import linen as ours

STEPS, BATCH, INPUTS, CELLS = 9, 3, 2, 5
KINDS = {
    "gru": (GRU, nnx.GRUCell, ours.GRU, linen.GRUCell),
    "lstm": (LSTM, nnx.OptimizedLSTMCell, ours.LSTM, linen.OptimizedLSTMCell),
}


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def oracle(weights, inputs, h):
    """The equations, step by step, in NumPy."""
    into, recurrent, bias, extra = (np.asarray(w, np.float64) for w in weights)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    found = []
    for x in inputs:
        x_r, x_z, x_n = np.split(x @ into + bias, 3)
        s_r, s_z, s_n = np.split(h @ recurrent, 3)
        r, z = sigmoid(x_r + s_r), sigmoid(x_z + s_z)
        h = (1 - z) * np.tanh(x_n + r * (s_n + extra)) + z * h
        found.append(h)
    return np.stack(found)


def plain(weights, inputs, h):
    """The same in JAX, which differentiates it."""

    def tick(h, x):
        x_r, x_z, x_n = jnp.split(x @ weights.input + weights.bias, 3)
        s_r, s_z, s_n = jnp.split(h @ weights.recurrent, 3)
        r, z = jax.nn.sigmoid(x_r + s_r), jax.nn.sigmoid(x_z + s_z)
        h = (1 - z) * jnp.tanh(x_n + r * (s_n + weights.recurrent_bias)) + z * h
        return h, h

    last, y = jax.lax.scan(tick, h, inputs)
    return y, last


@pytest.mark.parametrize(("inputs", "cells", "readout"), [(INPUTS, CELLS, True), (0, CELLS, False), (INPUTS, 18, True)])
@pytest.mark.parametrize("layout", ["one", "batch", "runs", "runs of a batch", "batch of runs"])
def test_a_gru_equals_its_equations_in_every_layout(float64, inputs, cells, readout, layout):
    runs, batch = [4] if "runs" in layout else [], [BATCH] if "batch" in layout else []
    make = functools.partial(gru_init, cells=cells, inputs=inputs, stddev=0.5, dtype=jnp.float64)
    weights = jax.vmap(make)(jax.random.split(jax.random.key(0), 4)) if runs else make(jax.random.key(0))
    x, h = drawn(*runs, *batch, STEPS, inputs), drawn(*runs, *batch, cells, seed=1)
    kernel = drawn(*runs, cells, 3, seed=2) if readout else None

    def loss(run, weights, kernel, x, h):
        def one(weights, kernel, x, h):
            y, last = run(weights, x, h)
            y = y if kernel is None else y @ kernel
            return jnp.sin(y).sum() + jnp.square(last).sum()

        over = one
        if layout == "batch of runs":  # runs inside, then the batch
            over = jax.vmap(over, in_axes=(0, None if kernel is None else 0, 0, 0))
            return jax.vmap(over, in_axes=(None, None, 1, 1))(weights, kernel, x, h).sum()
        over = jax.vmap(over, in_axes=(None, None, 0, 0)) if batch else over
        return over(weights, kernel, x, h).sum()

    def fast(weights, x, h):
        return gru_unroll(weights, x if inputs else None, steps=None if inputs else STEPS, hidden=h)

    def evaluate(run):
        gradient = jax.value_and_grad(functools.partial(loss, run), argnums=(0, 1, 2, 3) if readout else (0, 2, 3))
        if layout in ("runs", "runs of a batch"):
            gradient = jax.vmap(gradient, in_axes=(0, 0 if readout else None, 0, 0))
        return jax.jit(gradient)(weights, kernel, x, h)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), evaluate(fast), evaluate(plain))


def test_a_gru_is_that_of_the_oracle(float64):
    weights = gru_init(jax.random.key(0), CELLS, INPUTS, stddev=0.7, dtype=jnp.float64)
    x, h = drawn(STEPS, INPUTS), drawn(CELLS, seed=1)
    outputs, last = gru_unroll(weights, x, hidden=h)
    np.testing.assert_allclose(outputs, oracle(weights, x, h), atol=1e-12)
    np.testing.assert_allclose(last, outputs[-1])
    read = drawn(CELLS, 2)
    np.testing.assert_allclose(gru_unroll(weights, x, hidden=h, readout=read)[0], outputs @ read, atol=1e-12)


def test_a_long_gru_is_cut_into_chunks(float64):
    weights = gru_init(jax.random.key(0), 3, 1, dtype=jnp.float64)
    x, h = drawn(1100, 1), drawn(3, seed=1)
    run = lambda f: jax.jit(jax.value_and_grad(lambda w, x, h: jnp.sin(f(w, x, h)[0]).sum(), (0, 1, 2)))(weights, x, h)  # noqa: E731
    found = run(lambda w, x, h: gru_unroll(w, x, hidden=h))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, run(plain))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda w: gru_unroll(w), "give either inputs or steps, got neither"),
        (lambda w: gru_unroll(w, steps=3), "weights are those of a layer with 2 inputs, got none"),
        (lambda w: gru_unroll(w, jnp.ones((0, 2))), "a sequence must have at least one step, got 0"),
        (lambda w: gru_unroll(w._replace(bias=jnp.ones(3)), jnp.ones((4, 2))), "weights must have shapes"),
        (lambda w: gru_unroll(w._asdict(), jnp.ones((4, 2))), "weights must be GRUWeights"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(gru_init(jax.random.key(0), CELLS, INPUTS))


@pytest.fixture
def kernels(monkeypatch):
    """Counts the calls that the library's kernels took from Flax."""
    taken = []
    for name in ("unroll_gru", "unroll_lstm"):
        run = getattr(stock, name)
        monkeypatch.setattr(stock, name, lambda *args, run=run, name=name: (taken.append(name), run(*args))[1])
    return taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True])
def test_nnx_layers_equal_flax(kind, ragged, kernels):
    layer_of, cell_of, _, _ = KINDS[kind]
    layer, rnn = layer_of(INPUTS, CELLS, rngs=nnx.Rngs(0)), nnx.RNN(cell_of(INPUTS, CELLS, rngs=nnx.Rngs(0)))
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    lengths = jnp.asarray([2, 9, 5]) if ragged else None

    def loss(model, x):
        carry, y = model(x, seq_lengths=lengths, return_carry=True)
        y = y if lengths is None else jnp.where(jnp.arange(STEPS)[None, :, None] < lengths[:, None, None], y, 0)
        return jnp.sin(y).sum() + sum(jnp.square(c).sum() for c in jax.tree.leaves(carry))

    found, wanted = (nnx.jit(nnx.value_and_grad(loss))(model, x) for model in (layer, rnn))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), jax.tree.leaves(found), jax.tree.leaves(wanted)
    )
    assert bool(kernels) == (kind == "gru" or not ragged)  # the last carry of a ragged LSTM is Flax's
    assert f"{layer_of.__name__}({INPUTS}, {CELLS})" in repr(layer).replace("in_features=", "").replace(
        "hidden_features=", ""
    )


@pytest.mark.parametrize("kind", KINDS)
def test_linen_layers_equal_flax(kind, kernels):
    _, _, layer_of, cell_of = KINDS[kind]
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    layer, rnn = layer_of(CELLS), linen.RNN(cell_of(CELLS))
    variables = rnn.init(jax.random.key(1), x)
    assert jax.tree.structure(layer.init(jax.random.key(0), x)) == jax.tree.structure(variables)

    def loss(model, variables, x):
        return jnp.sin(model.apply(variables, x)).sum()

    found, wanted = (jax.jit(jax.grad(functools.partial(loss, m), (0, 1)))(variables, x) for m in (layer, rnn))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted)
    assert kernels


@pytest.mark.parametrize(
    "cell",
    [
        lambda rngs: nnx.GRUCell(INPUTS, CELLS, gate_fn=jax.nn.hard_sigmoid, rngs=rngs),
        lambda rngs: nnx.LSTMCell(INPUTS, CELLS, activation_fn=jax.nn.relu, rngs=rngs),
        lambda rngs: nnx.SimpleCell(INPUTS, CELLS, rngs=rngs),
    ],
)
def test_other_cells_are_flaxs_own(cell, kernels):
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    np.testing.assert_allclose(Recurrent(cell(nnx.Rngs(0)))(x), nnx.RNN(cell(nnx.Rngs(0)))(x), atol=1e-6)
    assert not kernels


def test_a_cell_with_other_layers_inside_is_flaxs_own(kernels):
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    cell = nnx.GRUCell(INPUTS, CELLS, rngs=nnx.Rngs(0))
    cell.dense_h = nnx.LoRALinear(CELLS, 3 * CELLS, lora_rank=2, use_bias=False, rngs=nnx.Rngs(1))
    np.testing.assert_allclose(Recurrent(cell)(x), nnx.RNN(cell)(x), atol=1e-6)
    assert not kernels


def test_partitioned_parameters_of_linen(kernels):
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    init: Any = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "model"))
    layer = ours.GRU(CELLS, kernel_init=init)
    variables = layer.init(jax.random.key(0), x)
    wanted = linen.RNN(linen.GRUCell(CELLS)).apply(linen.meta.unbox(variables), x)
    np.testing.assert_allclose(np.asarray(layer.apply(variables, x)), np.asarray(wanted), atol=1e-6)
    assert kernels == ["unroll_gru"]


def test_an_lstm_cell_of_four_matrices_too(kernels):
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    cell = nnx.LSTMCell(INPUTS, CELLS, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(Recurrent(cell)(x), nnx.RNN(cell)(x), atol=1e-6)
    assert kernels == ["unroll_lstm"]


def test_many_networks_of_a_gru_layer_under_vmap():
    graph, states = nnx.split(
        nnx.vmap(lambda key: GRU(INPUTS, CELLS, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 4))
    )
    x = drawn(BATCH, STEPS, INPUTS).astype(jnp.float32)
    found = jax.vmap(lambda state: nnx.merge(graph, state)(x))(states)
    for run in range(4):
        one = nnx.merge(graph, jax.tree.map(lambda leaf, run=run: leaf[run], states))
        np.testing.assert_allclose(found[run], one(x), atol=1e-6)


def test_weights_are_a_pytree_of_four_arrays():
    assert [w.shape for w in gru_init(jax.random.key(0), CELLS, INPUTS)] == [(2, 15), (5, 15), (15,), (5,)]
    assert isinstance(jax.tree.map(lambda x: x, gru_init(jax.random.key(0), 2)), GRUWeights)


def in_half(values: Any, *, dtype: Any = None, inexact: bool = True) -> Any:
    del dtype, inexact
    return tuple(jax.tree.map(lambda x: x * jnp.asarray(0.5, x.dtype), values))


@pytest.mark.parametrize("kind", [nnx.GRUCell, nnx.OptimizedLSTMCell])
def test_a_cell_whose_layers_were_replaced_computes_what_flax_computes(kind):
    width = 3 * CELLS if kind is nnx.GRUCell else 4 * CELLS
    inner, biased = ("dense_h", "dense_i") if kind is nnx.GRUCell else ("dense_i", "dense_h")
    x = jnp.asarray(drawn(BATCH, STEPS, INPUTS), jnp.float32)
    for change in ("bias more", "bias less", "promotion"):
        cell = kind(INPUTS, CELLS, rngs=nnx.Rngs(0))
        if change == "promotion":
            cell = kind(INPUTS, CELLS, rngs=nnx.Rngs(0), promote_dtype=in_half)
        else:
            name, bias = (inner, True) if change == "bias more" else (biased, False)
            features = CELLS if name == "dense_h" else INPUTS
            ones = nnx.initializers.ones
            setattr(cell, name, nnx.Linear(features, width, use_bias=bias, bias_init=ones, rngs=nnx.Rngs(1)))
        np.testing.assert_allclose(Recurrent(cell)(x), nnx.RNN(cell)(x), atol=1e-5, err_msg=change)

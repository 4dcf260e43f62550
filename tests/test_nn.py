import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from variants import VARIANTS

import clockwork as cw
from clockwork.nn import ClockworkLSTM, ClockworkRNN, PeepholeLSTM, SimpleRNN, lstm_init, lstm_unroll


def plain_lstm(weights, inputs, steps, h, c):
    """The peephole LSTM as a plain scan, differentiated by JAX."""
    n = h.shape[0]

    def tick(carry, x_t):
        h, c = carry
        z = h @ weights.recurrent + weights.bias + (0 if x_t is None else x_t @ weights.input)
        i = jax.nn.sigmoid(z[:n] + weights.peepholes[0] * c)
        f = jax.nn.sigmoid(z[n : 2 * n] + weights.peepholes[1] * c)
        c = f * c + i * jnp.tanh(z[2 * n : 3 * n])
        o = jax.nn.sigmoid(z[3 * n :] + weights.peepholes[2] * c)
        h = o * jnp.tanh(c)
        return (h, c), h

    (h, c), outputs = lax.scan(tick, (h, c), inputs, length=steps)
    return outputs, (h, c)


@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize("runs", [None, 3])
def test_the_lstm_equals_a_plain_scan(float64, inputs, runs):
    rng = np.random.default_rng(0)
    cells, steps = 4, 9
    weights = lstm_init(jax.random.key(0), cells, inputs, stddev=0.7, dtype=jnp.float64)
    if runs:
        weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(runs, *x.shape))), weights)
    sequence = jnp.asarray(rng.normal(size=(steps, inputs))) if inputs else None
    h, c = jnp.asarray(rng.normal(size=(2, cells)))
    kernel = jnp.asarray(rng.normal(size=(cells, 2)))

    def ours(weights, sequence, h, c, readout):
        length = None if inputs else steps
        kernel_or_none = kernel if readout else None
        return lstm_unroll(weights, sequence, steps=length, hidden=(h, c), readout=kernel_or_none)

    def theirs(weights, sequence, h, c, readout):
        outputs, last = plain_lstm(weights, sequence, steps, h, c)
        return (outputs @ kernel if readout else outputs), last

    def loss(weights, sequence, h, c, function, readout):
        leaves = jax.tree.leaves(function(weights, sequence, h, c, readout))
        return sum(jnp.sin(i + leaf).sum() for i, leaf in enumerate(leaves))

    for readout in (False, True):
        results = []
        for function in (ours, theirs):
            grad = jax.value_and_grad(functools.partial(loss, function=function, readout=readout), argnums=(0, 2, 3))
            batched = jax.vmap(grad, in_axes=(0, None, None, None)) if runs else grad
            results.append(jax.jit(batched)(weights, sequence, h, c))
        chex.assert_trees_all_close(*results, rtol=1e-7, atol=1e-11)


def test_the_lstms_inputs_have_the_gradient_of_a_plain_scan(float64):
    rng = np.random.default_rng(1)
    weights = lstm_init(jax.random.key(0), 3, 2, stddev=0.7, dtype=jnp.float64)
    inputs = jnp.asarray(rng.normal(size=(6, 2)))
    ours = jax.grad(lambda x: jnp.sin(lstm_unroll(weights, x)[0]).sum())(inputs)
    zeros = jnp.zeros(3)
    theirs = jax.grad(lambda x: jnp.sin(plain_lstm(weights, x, None, zeros, zeros)[0]).sum())(inputs)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_lstm_without_peepholes_equals_flaxs():
    cell = nnx.OptimizedLSTMCell(3, 5, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(1), (7, 3))
    bias = cell.dense_h.bias
    assert bias is not None
    weights = lstm_init(jax.random.key(0), 5, 3)._replace(
        input=cell.dense_i.kernel[...], recurrent=cell.dense_h.kernel[...], bias=bias[...], peepholes=jnp.zeros((3, 5))
    )
    np.testing.assert_allclose(lstm_unroll(weights, inputs)[0], nnx.RNN(cell)(inputs), atol=1e-6)


def test_the_forget_bias_is_set_where_asked():
    weights = lstm_init(jax.random.key(0), 4, forget_bias=5.0)
    np.testing.assert_array_equal(weights.bias[4:8], 5)
    assert (jnp.abs(weights.bias[:4]) < 1).all()
    assert (jnp.abs(lstm_init(jax.random.key(0), 4).bias) < 1).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cells": 0}, "cells must be an integer, 1 or more, got 0"),
        ({"cells": 2, "inputs": -1}, "inputs must be an integer, 0 or more, got -1"),
        ({"cells": 2, "stddev": -1.0}, "stddev must be finite and at least 0"),
    ],
)
def test_impossible_lstms_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        lstm_init(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "got neither"),
        ({"inputs": np.zeros((3, 2), np.float32), "steps": 3}, "got both"),
        ({"inputs": np.zeros((3, 4), np.float32)}, r"inputs must have shape \(T, 2\), got \(3, 4\)"),
        ({"steps": 3}, "2 inputs, got none"),
        ({"inputs": np.zeros((0, 2), np.float32)}, "at least one step"),
        ({"steps": 3.5}, "2 inputs, got none"),
        (
            {"inputs": np.zeros((3, 2), np.float32), "hidden": (np.zeros(3), np.zeros(4))},
            r"hidden\[0\] must have shape",
        ),
        ({"inputs": np.zeros((3, 2), np.float32), "readout": np.zeros((3, 1))}, r"readout must have shape \(4, O\)"),
    ],
)
def test_bad_calls_of_the_lstm_are_refused(arguments, sentence):
    weights = lstm_init(jax.random.key(0), 4, inputs=2)
    arguments = jax.tree.map(lambda x: np.asarray(x, np.float32) if isinstance(x, np.ndarray) else x, arguments)
    with pytest.raises(ValueError, match=sentence):
        lstm_unroll(weights, **arguments)


def test_lstm_weights_that_do_not_fit_together_are_refused():
    weights = lstm_init(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="weights must have shapes"):
        lstm_unroll(weights._replace(bias=jnp.zeros(4)), steps=3)
    with pytest.raises(ValueError, match=r"steps must be an integer known before compilation, got 3\.5"):
        lstm_unroll(weights, steps=3.5)  # pyright: ignore[reportArgumentType]


TABLE1 = [
    # Koutník et al. 2014, Table 1, with the parameters that its units give.
    (100, "srn", 9, 100), (250, "srn", 15, 256), (500, "srn", 22, 529), (1000, "srn", 31, 1024),
    (100, "lstm", 4, 97), (250, "lstm", 7, 253), (500, "lstm", 10, 481), (1000, "lstm", 15, 1021),
    (100, "cwrnn", 11, 100), (250, "cwrnn", 19, 249), (500, "cwrnn", 27, 469), (1000, "cwrnn", 40, 980),
    # Not in it: clockworks of LSTMs of about as many parameters.
    (100, "cwlstm", 5, 106), (250, "cwlstm", 8, 226), (500, "cwlstm", 13, 518), (1000, "cwlstm", 19, 1026),
]  # fmt: skip


@pytest.mark.parametrize(("nominal", "name", "units", "parameters"), TABLE1)
def test_networks_have_table_1s_sizes(nominal, name, units, parameters):
    from clockwork.tasks import Generation
    from clockwork.tasks.generation.task import UNITS

    assert UNITS[nominal][name] == units
    network = Generation().network(name, nominal, nnx.Rngs(0))
    assert network.num_parameters == parameters
    stored = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    assert stored == parameters - {"cwrnn": 9, "cwlstm": 5}.get(name, 0)  # periods are counted and not learnt


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "network",
    [
        ClockworkRNN(cw.Clock.exponential(6, 3), inputs=2, outputs=3, rngs=nnx.Rngs(0)),
        SimpleRNN(6, inputs=2, outputs=3, rngs=nnx.Rngs(0)),
        PeepholeLSTM(6, inputs=2, outputs=3, rngs=nnx.Rngs(0)),
        ClockworkLSTM(cw.Clock.exponential(6, 3), inputs=2, outputs=3, rngs=nnx.Rngs(0)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_networks_read_their_hidden_layer_out(network, variant):
    inputs = jax.random.normal(jax.random.key(0), (8, 2))
    if isinstance(network, PeepholeLSTM):
        hidden, _ = lstm_unroll(network.weights, inputs)
    elif isinstance(network, ClockworkLSTM):
        hidden: Any = nnx.RNN(network.layer.cell)(inputs)
    else:
        hidden, _ = cw.unroll(network.weights, network.clock, inputs, method="masked")
    want = hidden @ network.readout.kernel[...] + network.readout.bias[...][None]
    np.testing.assert_allclose(network(inputs), want, atol=1e-6)
    batch = jnp.stack([inputs, -inputs])
    np.testing.assert_allclose(variant(jax.vmap(network))(batch)[0], want, atol=1e-6)


def test_a_network_trains_with_nnx_and_keeps_its_clock():
    network = ClockworkRNN(cw.Clock.exponential(6, 3), rngs=nnx.Rngs(0))
    target = jnp.sin(jnp.arange(20.0))

    @nnx.jit
    def loss_and_grad(network):
        return nnx.value_and_grad(lambda n: jnp.square(n(steps=20)[:, 0] - target).mean())(network)

    loss, grads = loss_and_grad(network)
    assert jnp.isfinite(loss)
    assert all(jnp.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(grads))


def test_a_clockwork_of_lstms_has_inputs_or_steps():
    network = ClockworkLSTM(cw.Clock.exponential(6, 3), forget_bias=5.0, rngs=nnx.Rngs(0))
    assert network(steps=7).shape == (7, 1)
    cells: Any = network.layer.cell.cells  # two LSTM cells each
    assert all((cell.bias[2:4] == 5).all() for cell in cells)
    with pytest.raises(ValueError, match="give either inputs or steps, got neither"):
        network()


def test_networks_without_outputs_are_refused():
    with pytest.raises(ValueError, match="outputs must be an integer, 1 or more, got 0"):
        SimpleRNN(3, outputs=0, rngs=nnx.Rngs(0))

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""A sequence of length 0 puts out zeros and returns the carry that it was given, whatever the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import clockwork as cw
from clockwork.nn import Bidirectional, Clockwork, PeepholeLSTMCell, Stack, linen

CLOCK = cw.Clock(periods=(1, 2, 3), sizes=(2, 2, 1))
STEPS, INPUTS = 7, 2
LENGTHS = np.array([0, 7, 3])
X = np.random.default_rng(0).normal(size=(3, STEPS, INPUTS)).astype(np.float32)


def clockwork(inputs=INPUTS, **options):
    return Clockwork(CLOCK, inputs, rngs=nnx.Rngs(0), **options)


NETWORKS = {
    "cascade": lambda: clockwork(method="cascade"),
    "masked": lambda: clockwork(method="masked"),
    "reverse": lambda: clockwork(reverse=True, keep_order=True),
    "cells": lambda: clockwork(cell=nnx.GRUCell),
    "cells, masked": lambda: clockwork(cell=nnx.GRUCell, method="masked"),
    "LSTMs": lambda: clockwork(cell=PeepholeLSTMCell),
    "both ways": lambda: Bidirectional(clockwork(), clockwork(cell=nnx.SimpleCell)),
    "stack": lambda: Stack([clockwork(), clockwork(5, method="masked")], skip=False),
}


def drawn(carry):
    """The same structure, with a hidden state that is not zero, some steps from the clock's beginning."""
    rng = np.random.default_rng(1)

    def leaf(x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            return np.full(x.shape, 4, np.int32)
        return jnp.asarray(rng.normal(size=x.shape), x.dtype)

    return jax.tree.map(leaf, carry)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sequence_without_steps(name):
    network = NETWORKS[name]()
    start: dict[str, int] = {"start": 4} if name == "cascade" else {}  # of `drawn`, which is traced

    @nnx.jit
    def traced(network, carry, lengths):
        carry, outputs = network(X, initial_carry=carry, seq_lengths=lengths, return_carry=True, **start)
        return carry, outputs

    @nnx.jit
    def known(network, carry):
        return network(X, initial_carry=carry, seq_lengths=LENGTHS, return_carry=True, **start)

    before = drawn(jax.eval_shape(lambda: network(X, return_carry=True)[0]))
    without, whole = traced(network, before, LENGTHS), traced(network, before, np.full(3, STEPS))
    for last, outputs in (without, known(network, before)):
        np.testing.assert_array_equal(outputs[0], 0)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), last, before)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b[1], atol=1e-6), (last, outputs), whole)
    clamped = traced(network, before, np.array([-3, 99, 3]))
    jax.tree.map(np.testing.assert_array_equal, clamped, without)


def test_without_jit_in_any_integers_and_with_a_gradient():
    layer = clockwork()
    for dtype in (np.int8, np.uint32, np.int64):
        carry, outputs = layer(X, seq_lengths=LENGTHS.astype(dtype), return_carry=True)
        assert carry.time[:, 0].tolist() == [0, 7, 3]
        np.testing.assert_array_equal(carry.hidden[0], 0)
        np.testing.assert_array_equal(outputs[0], 0)

    def total(x, hidden):
        carry = cw.State(hidden, np.zeros((3, 1), np.int32))
        last, outputs = layer(x, initial_carry=carry, seq_lengths=LENGTHS, return_carry=True)
        return outputs.sum() + (2 * last.hidden).sum()

    x_bar, hidden_bar = jax.jit(jax.grad(total, argnums=(0, 1)))(jnp.asarray(X), jnp.ones((3, CLOCK.width)))
    np.testing.assert_array_equal(x_bar[0], 0)
    np.testing.assert_array_equal(hidden_bar[0], 2)
    with pytest.raises(ValueError, match="from 0 to the 7 steps of the inputs, got 4294967299"):
        layer(X, seq_lengths=np.array([0, 7, 2**32 + 3]))


@pytest.mark.parametrize("make", [linen.Clockwork, lambda clock: linen.Stack([linen.Clockwork(clock)])])
def test_linen_takes_the_lengths_of_flaxs_seq2seq_example(make):
    layer = make(CLOCK)
    run = functools.partial(layer.init_with_output, jax.random.key(0), X)
    (_, outputs), variables = run(seq_lengths=np.zeros(3, np.int32), return_carry=True)
    np.testing.assert_array_equal(outputs, 0)
    outputs = layer.apply(variables, X, seq_lengths=LENGTHS)
    np.testing.assert_array_equal(outputs[0], 0)
    np.testing.assert_allclose(outputs[1], layer.apply(variables, X)[1], atol=1e-6)

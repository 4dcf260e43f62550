# pyright: reportArgumentType=false, reportCallIssue=false
"""What is easily given by mistake is refused at once, in a sentence that says what is wrong and what would be right."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_linen
from flax import nnx

import clockwork as cw
from clockwork import nn
from clockwork.data.mfcc import mfcc
from clockwork.nn import linen

CLOCK = cw.Clock(periods=(1, 2, 4), sizes=(2, 2, 1))
RNGS = nnx.Rngs(0)
KEY = jax.random.key(0)
X = np.zeros((5, 2), np.float32)


def weights():
    return cw.init(KEY, CLOCK, 2)


def layer():
    return nn.Clockwork(CLOCK, 2, rngs=RNGS)


A_CLOCK = r"clock must be a clockwork\.Clock, such as Clock\.exponential\(width=40, modules=9\), got "
BAD = {
    "clock: a width": (lambda: nn.Clockwork(64, 13, rngs=RNGS), A_CLOCK + r"64; the call is Clockwork\(clock, in_f"),
    "clock: periods": (lambda: nn.Clockwork((1, 2, 4), 13, rngs=RNGS), A_CLOCK + r"\(1, 2, 4\); the call is"),
    "clock: swapped": (lambda: nn.Clockwork(13, CLOCK, rngs=RNGS), A_CLOCK + "13; the call is"),
    "clock: cell": (lambda: nn.ClockworkCell(64, 13, rngs=RNGS), A_CLOCK + r"64; the call is ClockworkCell\("),
    "clock: cells": (lambda: nn.ClockworkOfCells(13, CLOCK, nnx.GRUCell, rngs=RNGS), A_CLOCK + "13; the call is"),
    "clock: network": (lambda: nn.ClockworkRNN(40, rngs=RNGS), A_CLOCK + r"40; the call is ClockworkRNN\("),
    "clock: LSTMs": (lambda: nn.ClockworkLSTM(40, rngs=RNGS), A_CLOCK + r"40; the call is ClockworkLSTM\("),
    "clock: linen": (lambda: linen.Clockwork(64), A_CLOCK + r"64; the call is Clockwork\(clock\)"),
    "clock: linen's cell": (lambda: linen.ClockworkCell(64), A_CLOCK + "64"),
    "clock: linen's cells": (lambda: linen.ClockworkOfCells(64, flax_linen.GRUCell), A_CLOCK + "64"),
    "clock: init": (lambda: cw.init(KEY, 64), A_CLOCK + r"64; the call is init\(key, clock, inputs\)"),
    "clock: unroll": (lambda: cw.unroll(weights(), 64, X), A_CLOCK + "64"),
    "clock: step": (lambda: cw.step(weights(), 64, cw.State.initial(CLOCK), X[0]), A_CLOCK + "64"),
    "clock: state": (lambda: cw.State.initial(64), A_CLOCK + "64"),
    "clock: dense": (lambda: weights().dense(5), A_CLOCK + "5"),
    "clock: from_dense": (lambda: cw.Weights.from_dense(5, *weights().dense(CLOCK)), A_CLOCK + "5"),
    "clock: from_flat": (lambda: cw.Weights.from_flat(5, weights().flat()), A_CLOCK + "5"),
    "weights: swapped": (
        lambda: cw.unroll(CLOCK, weights(), X),
        r"weights must be a clockwork\.Weights, .* got Clock\(.*; weights come first, then the clock",
    ),
    "weights: an array": (
        lambda: cw.unroll(X, CLOCK, X),
        r"weights must be a clockwork\.Weights, .* got float32\[5,2\]",
    ),
    "weights: step": (
        lambda: cw.step(CLOCK, CLOCK, cw.State.initial(CLOCK), X[0]),
        r"weights must be a clockwork\.Weights or its dense\(clock\), got Clock",
    ),
    "weights: LSTM": (lambda: nn.lstm_unroll(weights(), X), r"weights must be LSTMWeights, .* got Weights\("),
    "weights: set": (lambda: layer().cell.set_weights(X), r"weights must be a clockwork\.Weights"),
    "weights: linen": (lambda: linen.params(X), r"weights must be a clockwork\.Weights"),
    "state": (lambda: cw.step(weights(), CLOCK, X[0], X[0]), r"state must be a clockwork\.State, .* got float32\[2\]"),
    "time": (
        lambda: cw.step(weights(), CLOCK, cw.State(jnp.zeros(5), jnp.zeros(())), X[0]),
        "time of a state or carry must be integers, got float32",
    ),
    "activation: unroll": (
        lambda: cw.unroll(weights(), CLOCK, X, activation="tanh"),
        r"activation must be a function such as jnp\.tanh, got 'tanh'",
    ),
    "activation: step": (
        lambda: cw.step(weights(), CLOCK, cw.State.initial(CLOCK), X[0], activation="tanh"),
        "activation must be a function",
    ),
    "activation: layer": (
        lambda: nn.Clockwork(CLOCK, 2, activation="tanh", rngs=RNGS),
        "activation must be a function",
    ),
    "activation: linen": (lambda: linen.Clockwork(CLOCK, activation="tanh"), "activation must be a function"),
    "cell: linen's inputs": (
        lambda: linen.Clockwork(CLOCK, 13),
        r"cell must be a class or function .*, got 13; linen cells take the number of inputs from the first call",
    ),
    "a layer for a cell": (
        lambda: nnx.RNN(layer())(X),
        "RNN takes a cell, and Clockwork is a layer, which takes whole sequences: call it without RNN",
    ),
    "a linen layer for a cell": (
        lambda: flax_linen.RNN(linen.Clockwork(CLOCK)).init(KEY, X),
        "RNN takes a cell, and Clockwork is a layer",
    ),
    "a stack for a cell": (lambda: nnx.RNN(nn.Stack([layer()]))(X), "RNN takes a cell, and Stack is a layer"),
    "both ways of numbers": (
        lambda: nn.Bidirectional(1, 2),
        r"a layer must be one such as Clockwork\(\.\.\.\) or RNN\(cell\), got 1",
    ),
    "linen: both ways of numbers": (lambda: linen.Bidirectional(1, 2), "a layer must be one such as .* got 1"),
    "both ways of cells": (
        lambda: nn.Bidirectional(layer().cell, layer().cell),
        r"a layer must be one .*; RNN\(cell\) makes a layer of a cell",
    ),
    "a stack of nothing": (lambda: nn.Stack([]), r"at least one layer, as in Stack\(\[layer, \.\.\.\]\), got \[\]"),
    "a stack of one": (lambda: nn.Stack(layer()), "at least one layer, as in Stack"),
    "a stack of numbers": (lambda: nn.Stack([1]), "a layer must be one such as .* got 1"),
    "linen: a stack of a class": (lambda: linen.Stack([linen.Clockwork]), "a layer must be one such as .* got <class"),
    "stddev": (lambda: cw.init(KEY, CLOCK, stddev=math.nan), "stddev must be finite and at least 0, got nan"),
    "stddev: LSTM": (lambda: nn.lstm_init(KEY, 3, stddev=math.inf), "stddev must be finite and at least 0, got inf"),
    "forget bias": (lambda: nn.lstm_init(KEY, 3, forget_bias=math.nan), "forget_bias must be finite, got nan"),
    "stddev: network": (lambda: nn.SimpleRNN(3, stddev=math.nan, rngs=RNGS), "stddev must be finite"),
    "inputs": (lambda: cw.init(KEY, CLOCK, inputs=1.5), "inputs must be an integer, 0 or more, got 1.5"),
    "in_features": (lambda: nn.Clockwork(CLOCK, 1.5, rngs=RNGS), "in_features must be an integer, 0 or more, got 1.5"),
    "parameters": (lambda: CLOCK.parameters(-1), "inputs must be an integer, 0 or more, got -1"),
    "parameters: outputs": (lambda: CLOCK.parameters(1, -1), "outputs must be an integer, 0 or more, got -1"),
    "multiply_adds": (lambda: CLOCK.multiply_adds(inputs=-1), "inputs must be an integer, 0 or more, got -1"),
    "active": (lambda: CLOCK.active(1.5), "time must be an integer, 0 or more, got 1.5"),
    "at": (
        lambda: nn.SimpleRNN(3, rngs=RNGS)(steps=5, at=99),
        "at must be an integer from -5 to 4, got 99",
    ),
    "at: LSTM": (lambda: nn.PeepholeLSTM(3, rngs=RNGS)(steps=5, at=-6), "at must be an integer from -5 to 4, got -6"),
    "at: no number": (lambda: nn.SimpleRNN(3, rngs=RNGS)(steps=5, at=1.0), "at must be an integer from -5 to 4"),
    "rate": (lambda: mfcc(np.zeros(9000), math.nan), "rate must be finite, at least 8000 and at most .* got nan"),
    "endless rate": (lambda: mfcc(np.zeros(9000), math.inf), "rate must be finite, at least 8000 .* got inf"),
    "cells of another clock": (
        lambda: nn.Clockwork(CLOCK, 2, cell=nnx.GRUCell, rngs=RNGS)(
            X,
            initial_carry=nn.Clockwork(cw.Clock((1, 2), (2, 3)), 2, cell=nnx.GRUCell, rngs=RNGS)(X, return_carry=True)[
                0
            ],
        ),
        r"the carry must be CellsState\(.* does it belong to another clock\?",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_one_sentence_says_what_would_be_right(case):
    call, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    told = str(error.value).split("\n----")[0]  # what JAX adds under jit
    assert "\n" not in told


def test_a_step_that_is_known_only_to_the_program():
    network = nn.SimpleRNN(3, rngs=RNGS)
    at = jax.jit(lambda at: network(steps=5, at=at))
    np.testing.assert_allclose(at(3), network(steps=5)[3], atol=1e-6)
    np.testing.assert_allclose(network(steps=5, at=-1), network(steps=5)[-1], atol=1e-6)

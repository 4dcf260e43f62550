"""What a printed clock, cell, layer or network says."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

import clockwork as cw
from clockwork.nn import (
    Bidirectional,
    Clockwork,
    ClockworkCell,
    ClockworkLSTM,
    ClockworkOfCells,
    ClockworkRNN,
    PeepholeLSTM,
    PeepholeLSTMCell,
    SimpleRNN,
    Stack,
    linen,
)

CLOCK = cw.Clock(periods=(1, 2, 4), sizes=(5, 5, 5))
ONE = "Clock(periods=(1, 2, 4), sizes=(5, 5, 5))"
RNGS = nnx.Rngs(0)


def layer(**options):
    return Clockwork(CLOCK, 13, **options, rngs=RNGS)


PRINTED = [
    (CLOCK, ONE),
    (ClockworkCell(CLOCK, 13, rngs=RNGS), f"ClockworkCell(clock={ONE}, in_features=13)"),
    (
        ClockworkCell(CLOCK, 13, activation=jax.nn.relu, dtype=jnp.bfloat16, rngs=RNGS),
        f"ClockworkCell(clock={ONE}, in_features=13, activation=relu, dtype=bfloat16)",
    ),
    (
        PeepholeLSTMCell(3, 4, param_dtype=jnp.bfloat16, rngs=RNGS),
        "PeepholeLSTMCell(in_features=3, hidden_features=4, param_dtype=bfloat16)",
    ),
    (
        ClockworkOfCells(CLOCK, 13, nnx.GRUCell, rngs=RNGS),
        f"ClockworkOfCells(clock={ONE}, in_features=13, cell=GRUCell)",
    ),
    (layer(), f"Clockwork(clock={ONE}, in_features=13)"),
    (
        layer(method="cascade", reverse=True),
        f"Clockwork(clock={ONE}, in_features=13, method='cascade', reverse=True)",
    ),
    (layer(cell=nnx.LSTMCell), f"Clockwork(clock={ONE}, in_features=13, cell=LSTMCell)"),
    (
        Bidirectional(layer(), layer(), merge="sum"),
        f"""\
Bidirectional(
  forward_rnn=Clockwork(clock={ONE}, in_features=13),
  backward_rnn=Clockwork(clock={ONE}, in_features=13),
  merge='sum',
)""",
    ),
    (
        Stack([layer()], skip=True),
        f"""\
Stack(
  layers=[
    Clockwork(clock={ONE}, in_features=13),
  ],
  skip=True,
)""",
    ),
    (ClockworkRNN(CLOCK, 13, 2, rngs=RNGS), f"ClockworkRNN(clock={ONE}, inputs=13, outputs=2)"),
    (SimpleRNN(31, rngs=RNGS), "SimpleRNN(width=31, inputs=0, outputs=1)"),
    (PeepholeLSTM(15, 3, rngs=RNGS), "PeepholeLSTM(cells=15, inputs=3, outputs=1)"),
    (ClockworkLSTM(CLOCK, rngs=RNGS), f"ClockworkLSTM(clock={ONE}, inputs=0, outputs=1)"),
    (ClockworkLSTM(CLOCK, rngs=RNGS).readout, "Readout(width=15, outputs=1)"),
    (linen.ClockworkCell(CLOCK), f"ClockworkCell(clock={ONE})"),
    (linen.PeepholeLSTMCell(4, forget_bias=5.0), "PeepholeLSTMCell(features=4, forget_bias=5.0)"),
    (linen.Clockwork(CLOCK, dtype=jnp.bfloat16), f"Clockwork(clock={ONE}, dtype=bfloat16)"),
    (
        linen.Clockwork(CLOCK, cell=functools.partial(nn.LSTMCell, param_dtype=jnp.bfloat16)),
        f"Clockwork(clock={ONE}, cell=partial(LSTMCell, param_dtype=bfloat16))",
    ),
    (
        linen.Stack([linen.Bidirectional(linen.Clockwork(CLOCK), linen.Clockwork(CLOCK), merge="sum")]),
        f"""\
Stack(
  layers=[
    Bidirectional(
      forward_rnn=Clockwork(clock={ONE}),
      backward_rnn=Clockwork(clock={ONE}),
      merge='sum',
    ),
  ],
)""",
    ),
]


@pytest.mark.parametrize(("thing", "text"), PRINTED, ids=[type(thing).__name__ for thing, _ in PRINTED])
def test_the_repr_is_the_call_that_makes_it(thing, text):
    assert repr(thing) == str(thing) == text


def test_it_is_short_inside_a_model_of_ones_own():
    class Model(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.layer = Clockwork(CLOCK, 13, rngs=rngs)
            self.stack = Stack([Clockwork(CLOCK, 13, rngs=rngs)])

    lines = repr(Model()).splitlines()
    one = f"Clockwork(clock={ONE}, in_features=13)"
    assert lines[1:] == [f"  layer={one},", "  stack=Stack(", "    layers=[", f"      {one},", "    ],", "  )", ")"]
    model = nnx.eval_shape(Model)
    assert repr(model.layer) == one

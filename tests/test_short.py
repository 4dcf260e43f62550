# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""The warning that sequences are shorter than the slowest period."""

import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import clockwork as cw
from clockwork.nn import Bidirectional, Clockwork, ClockworkLSTM, PeepholeLSTMCell, Stack, linen
from clockwork.nn.short import warn_if_short

CLOCK = cw.Clock(periods=(1, 4, 16), sizes=(2, 2, 1))
SHORT, LONG = jnp.ones((2, 9, 2)), jnp.ones((2, 16, 2))
SENTENCE = "the slowest period, 16, is longer than the sequence of 9 steps, .*: choose periods of at most 9, or"


def layer(inputs=2, **options):
    return Clockwork(CLOCK, inputs, **options, rngs=nnx.Rngs(0))


CALLS = {
    "Clockwork": lambda: layer(),
    "of LSTMs": lambda: layer(cell=PeepholeLSTMCell),
    "Bidirectional": lambda: Bidirectional(layer(), layer()),
    "Stack": lambda: Stack([layer(), layer(5)]),
    "jit": lambda: jax.jit(layer()),
    "vmap": lambda: jax.vmap(layer()),
    "nnx.jit": lambda: functools.partial(nnx.jit(lambda layer, x: layer(x)), layer()),
    "network": lambda: jax.vmap(ClockworkLSTM(CLOCK, 2, rngs=nnx.Rngs(0))),
    "linen": lambda: lambda x: linen.Clockwork(CLOCK).apply(linen.Clockwork(CLOCK).init(jax.random.key(0), x), x),
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_short_sequence_warns_at_the_users_line(kind):
    call = CALLS[kind]()
    call(LONG)
    with pytest.warns(UserWarning, match=SENTENCE) as caught:
        call(SHORT)
    assert {warning.filename for warning in caught} == {__file__}


def test_it_is_shown_once_for_each_line():
    made = layer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            made(SHORT)
        made(SHORT)
    lines, first = inspect.getsourcelines(test_it_is_shown_once_for_each_line)
    shown = [lines[warning.lineno - first].strip() for warning in caught]
    assert shown == ["made(SHORT)"] * 2


def test_chunks_do_not_warn():
    made = layer()
    carry, _ = made(SHORT, return_carry=True)
    made(SHORT, initial_carry=carry)
    carry, _ = Bidirectional(made, layer())(SHORT, return_carry=True)
    module = linen.Clockwork(CLOCK)
    variables = module.init(jax.random.key(0), SHORT)  # a sample of any length
    carry, _ = module.apply(variables, SHORT, return_carry=True)
    module.apply(variables, SHORT, initial_carry=carry)
    cw.unroll(made.cell.weights, CLOCK, SHORT[0])


def test_the_librarys_own_networks_do_not_warn():
    from clockwork.tasks.handwriting.network import Transcriber

    network = Transcriber("cwlstm", 9, 2, 3, modules=5, rngs=nnx.Rngs(0))
    jax.eval_shape(network, SHORT, jnp.array([9, 3]))


def test_a_symbolic_number_of_steps_does_not_warn():
    (steps,) = jax.export.symbolic_shape("t")
    warn_if_short(16, steps)

"""The cascade in parallel along time: exact, with as many rounds as the weights ask for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clockwork as cw
from clockwork.recurrence import parallel
from clockwork.recurrence.parallel import rounds

STEPS, START, INPUTS, OUTPUTS = 203, 3, 2, 2
CLOCKS = [cw.Clock((1, 2, 4), (3, 2, 3)), cw.Clock((2, 3, 5), (3, 1, 2)), cw.Clock((1,), (4,))]


def arguments(clock, scale, batch=(), steps=STEPS, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    shapes = jax.eval_shape(lambda: cw.init(jax.random.key(0), clock, INPUTS))
    weights = jax.tree.map(lambda x: scale * draw(*x.shape), shapes)
    return weights, draw(clock.width, OUTPUTS), draw(*batch, steps, INPUTS), draw(*batch, clock.width) / 2


def loss(method, clock, weights, readout, inputs, hidden, activation=jnp.tanh, batched=False):
    def one(inputs, hidden):
        outputs, last = cw.unroll(
            weights, clock, inputs, start=START, hidden=hidden, readout=readout, method=method, activation=activation
        )
        return jnp.sin(outputs).sum() + jnp.square(last).sum()

    return jax.vmap(one)(inputs, hidden).sum() if batched else one(inputs, hidden)


def assert_the_same(clock, given, **options):
    found, wanted = (
        jax.jit(jax.value_and_grad(functools.partial(loss, method, clock, **options), argnums=(0, 1, 2, 3)))(*given)
        for method in ("parallel", "masked")
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
@pytest.mark.parametrize(("scale", "batch", "activation"), [(0.2, (), jnp.tanh), (1.0, (2,), jax.nn.sigmoid)])
def test_values_and_gradients_are_those_of_the_masked_scan(float64, clock, scale, batch, activation):
    assert_the_same(clock, arguments(clock, scale, batch), activation=activation, batched=bool(batch))


def test_runs_of_networks(float64):
    clock = CLOCKS[0]
    given = jax.tree.map(lambda x: jnp.stack([x, x / 2]), arguments(clock, 0.5))
    found, wanted = (
        jax.jit(jax.vmap(jax.grad(functools.partial(loss, method, clock))))(*given) for method in ("parallel", "masked")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10 * max(1, np.abs(b).max())), found, wanted)


def counted(clock, given):
    weights, _, inputs, hidden = given
    return jax.jit(lambda w, x, h: rounds(w, clock, x, start=START, hidden=h))(weights, inputs, hidden).tolist()


def rotation(gain):
    """A module of two units that turns its state and, with a gain of 1, hardly forgets it."""
    clock = cw.Clock((1,), (2,))
    turn = gain * jnp.asarray([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    zeros = jnp.zeros((INPUTS, 2)), turn, jnp.zeros(2)
    given = arguments(clock, 0.0)
    hidden = jnp.asarray([0.4, 0.0])
    return clock, (cw.Weights.from_dense(clock, *zeros), given[1], 0 * given[2], hidden)


def test_a_module_that_forgets_needs_two_rounds_and_one_that_does_not_needs_newtons_method(float64):
    clock = CLOCKS[0]
    assert counted(clock, arguments(clock, 0.01)) == [2, 2, 2]
    clock, given = rotation(1.0)
    (found,) = counted(clock, given)
    assert parallel.PLAIN_ROUNDS < found <= parallel.MAX_ROUNDS
    assert_the_same(clock, given)


def test_a_chaotic_module_is_evaluated_step_by_step(float64):
    rng = np.random.default_rng(1)
    clock = cw.Clock((1, 2), (8, 2))
    given = arguments(clock, 0.3)
    w_in, w_rec, bias = given[0].dense(clock)
    chaotic = jnp.asarray(rng.normal(size=(8, 8)) * 4)
    weights = cw.Weights.from_dense(clock, w_in, w_rec.at[:8, :8].set(chaotic), bias)
    assert counted(clock, (weights, *given[1:]))[0] == -1
    found, wanted = (
        cw.unroll(weights, clock, given[2], start=START, hidden=given[3], method=method)[0][:20]
        for method in ("parallel", "cascade")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-8)  # chaos multiplies what the last digit differs in


def test_a_module_of_few_ticks_is_not_cut():
    clock = cw.Clock((1, 16), (2, 2))
    weights = cw.init(jax.random.key(0), clock)
    assert rounds(weights, clock, steps=64).tolist() == [2, 0]


def test_nan_is_passed_on_and_does_not_hang():
    clock = CLOCKS[0]
    weights, _, inputs, _ = arguments(clock, 0.3, dtype=jnp.float32)
    outputs, _ = cw.unroll(weights, clock, inputs.at[100].set(jnp.nan), method="parallel")
    wanted, _ = cw.unroll(weights, clock, inputs.at[100].set(jnp.nan), method="cascade")
    np.testing.assert_array_equal(jnp.isnan(outputs), jnp.isnan(wanted))
    np.testing.assert_allclose(outputs[:100], wanted[:100], atol=1e-5)


def test_float32_to_a_few_roundings():
    clock = CLOCKS[0]
    weights, _, inputs, hidden = arguments(clock, 0.3, steps=2000, dtype=jnp.float32)
    found, wanted = (cw.unroll(weights, clock, inputs, hidden=hidden, method=m)[0] for m in ("parallel", "masked"))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_it_cannot_do_is_refused_and_it_is_never_chosen_unasked():
    clock = CLOCKS[0]
    weights = cw.init(jax.random.key(0), clock, dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match=r'^method "parallel" takes float32 and float64, got bfloat16$'):
        cw.unroll(weights, clock, steps=40, method="parallel")
    assert cw.recurrence.explain(clock, 10**6)[0][0] != "parallel"


def test_tangents_meet_where_the_values_of_a_silent_start_already_do(float64):
    clock = cw.Clock((1,), (2,))
    weights = cw.init(jax.random.key(0), clock, INPUTS)._replace(recurrent=(0.99 * jnp.eye(2),), bias=jnp.zeros(2))
    silence = jnp.zeros((256, INPUTS))
    found, wanted = (
        jax.jvp(lambda x: cw.unroll(weights, clock, x, method=method), (silence,), (silence + 1,))[1]  # noqa: B023
        for method in ("parallel", "masked")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, wanted)

"""What public implementations of the clockwork RNN get wrong; ours must not, in any method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clockwork as cw

CLOCK = cw.Clock(periods=(1, 4), sizes=(2, 2))


@pytest.fixture(params=["masked", "cascade"])
def run(request):
    weights = cw.init(jax.random.key(0), CLOCK, inputs=1, stddev=1.0)

    def unroll(steps=9, inputs=None, weights=weights, **kwargs):
        inputs = jnp.ones((steps, 1)) if inputs is None else inputs
        return np.asarray(cw.unroll(weights, CLOCK, inputs, method=request.param, **kwargs)[0])

    return unroll


def test_the_clock_starts_at_zero(run):
    # Mistake: counting from 1, so that a module of period 4 first ticks at the fourth step.
    slow = run()[:, 2:]
    changes = [t for t in range(1, 9) if (slow[t] != slow[t - 1]).any()]
    assert changes == [4, 8]


def test_slow_modules_speak_before_their_second_tick(run):
    # Mistake: slow modules stay silent (zero) until a whole period has passed.
    assert (run(steps=1)[0, 2:] != 0).all()


def test_held_values_do_not_pass_through_the_activation_again(run):
    # Mistake: h_t = tanh(mask * z + (1 - mask) * h): held values shrink at every step.
    slow = run()[:, 2:]
    np.testing.assert_array_equal(slow[1], slow[0])
    np.testing.assert_array_equal(slow[3], slow[0])


def test_slow_feeds_fast_and_not_the_reverse(run):
    # Mistake: the triangle the wrong way round.
    weights = cw.init(jax.random.key(0), CLOCK, inputs=1, stddev=1.0)
    w_in, w_rec, bias = weights.dense(CLOCK)
    deaf = cw.Weights.from_dense(CLOCK, w_in, w_rec.at[2:, :2].set(0), bias)
    np.testing.assert_array_equal(run(weights=deaf)[:, 2:], run()[:, 2:])
    assert (run(weights=deaf)[1:, :2] != run()[1:, :2]).any()


def test_a_fast_module_sees_the_slow_one_as_it_was_a_step_before(run):
    # Mistake: evaluating slow modules first and feeding their new value to faster ones at the same step.
    weights = cw.init(jax.random.key(0), CLOCK, inputs=1, stddev=1.0)
    w_in, w_rec, bias = map(np.asarray, weights.dense(CLOCK))
    outputs = run()
    np.testing.assert_allclose(outputs[0], np.tanh(w_in[0] + bias), atol=1e-6)
    np.testing.assert_allclose(outputs[4], np.tanh(outputs[3] @ w_rec + w_in[0] + bias), atol=1e-6)


def test_an_inactive_module_does_not_read_its_input(run):
    # Mistake: the input of skipped steps leaks into slow modules (a sum or mean over the span).
    inputs = jnp.ones((9, 1))
    np.testing.assert_array_equal(run(inputs=inputs.at[1:4].set(7.0))[:, 2:], run(inputs=inputs)[:, 2:])


def test_networks_generate_without_seeing_the_target():
    # Mistake: the target fed as input, which makes generation a one-step prediction.
    from flax import nnx

    from clockwork.tasks import Generation

    task = Generation()
    for name in task.networks:
        network = task.network(name, 100, nnx.Rngs(0))
        assert network.weights.input.shape[0] == 0  # pyright: ignore[reportAttributeAccessIssue]
        target = jnp.linspace(-1, 1, 20)
        np.testing.assert_array_equal(task.generated(network, target), task.generated(network, -target))

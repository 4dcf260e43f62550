"""The gradients of the LSTM in a batch, in chunks and where a gate is shut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clockwork.nn import lstm_init, lstm_unroll
from clockwork.ops import chunked

STEPS, INPUTS = 19, 2


@pytest.mark.parametrize("read", [True, False])
def test_the_lstms_batches_share_the_gradient_of_their_weights(float64, read):
    rng = np.random.default_rng(2)
    weights = lstm_init(jax.random.key(0), 5, INPUTS, stddev=0.7, dtype=jnp.float64)
    readout = jnp.asarray(rng.normal(size=(5, 2))) if read else None
    inputs, h, c = (jnp.asarray(rng.normal(size=(4, *shape))) for shape in ((STEPS, INPUTS), (5,), (5,)))

    def one(weights, inputs, h, c):
        outputs, (h, c) = lstm_unroll(weights, inputs, hidden=(h, c), readout=readout)
        return jnp.sin(outputs).sum() + (h * c).sum()

    def together(*args):
        return jax.vmap(one, in_axes=(None, 0, 0, 0))(*args).sum()

    def in_turn(weights, *args):
        return sum(one(weights, *(x[i] for x in args)) for i in range(4))

    found = [jax.jit(jax.grad(f, argnums=(0, 1, 2, 3)))(weights, inputs, h, c) for f in (together, in_turn)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), *found)


def test_long_sequences_of_many_lstms_go_chunk_by_chunk(float64, monkeypatch):
    rng = np.random.default_rng(3)
    weights = jax.vmap(lambda key: lstm_init(key, 4, INPUTS, 0.7, dtype=jnp.float64))(
        jax.random.split(jax.random.key(0), 3)
    )
    inputs, h, c = (jnp.asarray(rng.normal(size=shape)) for shape in ((STEPS, INPUTS), (4,), (4,)))

    def loss(weights, inputs, h, c):
        outputs, (h, c) = lstm_unroll(weights, inputs, hidden=(h, c))
        return jnp.sin(outputs).sum() + (h * c).sum()

    def grads():
        grad = jax.vmap(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)), in_axes=(0, None, None, None))
        return jax.jit(grad)(weights, inputs, h, c)

    whole = grads()
    monkeypatch.setattr(chunked, "CHUNK_MIN_STEPS", 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), grads(), whole)


def test_an_lstm_gate_that_is_shut_has_a_finite_gradient():
    weights = lstm_init(jax.random.key(0), 3)
    shut = weights._replace(bias=weights.bias.at[9:].set(-1e4))
    grad = jax.grad(lambda w: lstm_unroll(w, steps=5)[0].sum())(shut)
    assert all(jnp.isfinite(leaf).all() for leaf in grad)

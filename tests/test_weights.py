import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clockwork as cw

CLOCK = cw.Clock(periods=(1, 2, 4), sizes=(4, 4, 3))


def test_dense_weights_are_block_lower_triangular_and_come_back():
    weights = cw.init(jax.random.key(0), CLOCK, inputs=2)
    w_in, w_rec, bias = weights.dense(CLOCK)
    assert (w_in.shape, w_rec.shape, bias.shape) == ((2, 11), (11, 11), (11,))
    # h @ W: rows send, columns receive; nothing goes from a faster to a slower module.
    assert not w_rec[:4, 4:].any()
    assert not w_rec[4:8, 8:].any()
    assert w_rec[8:, :].all()
    jax.tree.map(np.testing.assert_array_equal, cw.Weights.from_dense(CLOCK, w_in, w_rec, bias), weights)


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
    jax.tree.map(np.testing.assert_array_equal, weights, again)


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

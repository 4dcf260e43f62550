"""The CTC loss: against every path there is, against a sum in the log domain and against optax, at every edge."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from clockwork import ctc

T, L, O = 5, 3, 3  # noqa: E741
loss = jax.jit(ctc.loss)
both = jax.jit(jax.value_and_grad(ctc.loss))


def merged(path, blank=0):
    """What a path reads."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


def enumerated(logits, labels, blank=0):
    """The loss and its gradient as sums over all paths, in float64."""
    logits = np.asarray(logits, np.float64)
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    total, occupied = 0.0, np.zeros_like(softmax)
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        if merged(path, blank) == list(labels):
            share = np.prod(softmax[np.arange(len(path)), path])
            total += share
            occupied[np.arange(len(path)), path] += share
    return -np.log(total), softmax - occupied / total


def in_logs(logits, labels):
    """The loss by the forward sum over a text with blanks in between, in logarithms and float64."""
    logits = np.asarray(logits, np.float64)
    scores = logits - logits.max(1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(1, keepdims=True))
    places = [0]
    for label in labels:
        places += [int(label), 0]
    a = np.full(len(places) + 2, -np.inf)
    a[2] = 0  # before the first frame: as if in the first blank
    for t, frame in enumerate(scores):
        new = np.full_like(a, -np.inf)
        for s, place in enumerate(places):
            skip = place != 0 and (s < 2 or place != places[s - 2])
            into = [a[s + 2], a[s + 1]] + [a[s]] * skip if t else [a[s + 2], a[s + 1]]
            new[s + 2] = np.logaddexp.reduce(into) + frame[place]
        a = new
    return -np.logaddexp(a[-1], a[-2] if len(places) > 1 else -np.inf)


def drawn(rng, *shape, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(np.float32)


TEXTS = [[1, 2, 1], [1, 1, 2], [2, 2, 2], [1, 2], [2, 2], [1], []]


@pytest.mark.parametrize("labels", TEXTS)
def test_values_and_gradients_are_sums_over_all_paths(labels):
    rng = np.random.default_rng(len(labels))
    padded = jnp.asarray([*labels, *[2] * (L - len(labels))], jnp.int32)
    for scale in (0.1, 1.0, 5.0):
        logits = drawn(rng, T, O, scale=scale)
        value, gradient = both(logits, padded, jnp.int32(T), jnp.int32(len(labels)))
        expected, slopes = enumerated(logits, labels)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, slopes, atol=1e-5)


def test_any_output_may_be_the_blank():
    logits = drawn(np.random.default_rng(0), T, O)
    for blank, labels in ((1, [0, 2]), (2, [1, 1])):
        value, gradient = jax.value_and_grad(ctc.loss)(logits, jnp.asarray(labels), blank=blank)
        expected, slopes = enumerated(logits, labels, blank)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, slopes, atol=1e-5)


def test_what_is_beyond_the_lengths_counts_for_nothing():
    rng = np.random.default_rng(1)
    logits, labels = drawn(rng, T, O), np.asarray([1, 2, 1], np.int32)
    for length, count in ((3, 2), (4, 1), (2, 0), (0, 0), (3, 3)):
        beyond, garbage = logits.copy(), labels.copy()
        beyond[length:], garbage[count:] = np.nan, 99
        value, gradient = both(beyond, garbage, jnp.int32(length), jnp.int32(count))
        expected, slopes = enumerated(logits[:length], labels[:count])
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient[:length], slopes, atol=1e-5)
        np.testing.assert_array_equal(gradient[length:], 0)


def test_as_many_frames_as_labels_leave_one_path():
    logits = drawn(np.random.default_rng(2), L, O)
    value = ctc.loss(logits, jnp.asarray([1, 2, 1]))
    scores = np.asarray(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(value, -scores[np.arange(L), [1, 2, 1]].sum(), rtol=1e-5)


def test_texts_that_do_not_fit_are_refused_or_infinitely_wrong():
    logits = drawn(np.random.default_rng(3), L, O)
    with pytest.raises(ValueError, match=r"3 labels need at least 4 frames, .* got 3"):
        ctc.loss(logits, jnp.asarray([1, 1, 2]))
    value, gradient = both(logits, jnp.asarray([1, 1, 2]), jnp.int32(3), jnp.int32(3))
    assert value == jnp.inf
    np.testing.assert_array_equal(gradient, 0)


def test_a_label_of_probability_zero_is_infinitely_wrong():
    logits = drawn(np.random.default_rng(4), T, O)
    logits[:, 2] = -np.inf
    value, gradient = both(logits, jnp.asarray([1, 2, 1]), jnp.int32(T), jnp.int32(3))
    assert value == jnp.inf
    np.testing.assert_array_equal(gradient, 0)
    expected, slopes = enumerated(logits, [1])  # while other texts are as they were
    value, gradient = both(logits, jnp.asarray([1, 2, 1]), jnp.int32(T), jnp.int32(1))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_not_hidden(wrong):
    logits = drawn(np.random.default_rng(5), T, O)
    logits[1, 2] = wrong
    value, gradient = both(logits, jnp.asarray([1, 1, 1]), jnp.int32(T), jnp.int32(2))
    assert np.isnan(value)
    assert np.isnan(gradient).any()


LONG = 300


@pytest.mark.parametrize("scale", [1.0, 50.0, 500.0])
@pytest.mark.parametrize("lean", [0.0, 30.0])
def test_long_lines_and_extreme_logits_neither_underflow_nor_lose_digits(scale, lean):
    # With a lean the blank is likelier than anything by e^30 at every frame: the text's share is below e^-1000.
    rng = np.random.default_rng(6)
    labels = rng.integers(1, 9, 60).astype(np.int32)
    logits = drawn(rng, LONG, 9, scale=scale)
    logits[:, 0] += lean
    value, gradient = both(logits, labels, jnp.int32(LONG), jnp.int32(60))
    np.testing.assert_allclose(value, in_logs(logits, labels), rtol=2e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(1), 0, atol=2e-5)  # both are distributions
    short = jnp.int32(ctc.required_steps(labels))
    value, _ = both(logits, labels, short, jnp.int32(60))
    np.testing.assert_allclose(value, in_logs(logits[:short], labels), rtol=2e-5)


def test_in_float64_gradients_are_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(7)
        logits, labels = rng.normal(size=(12, 4)), np.asarray([1, 1, 3, 2], np.int32)
        value, gradient = jax.value_and_grad(ctc.loss)(logits, labels)
        assert value.dtype == gradient.dtype == np.float64
        np.testing.assert_allclose(value, in_logs(logits, labels), rtol=1e-13)
        for t, k in ((0, 0), (3, 1), (11, 2)):
            nudge = np.zeros_like(logits)
            nudge[t, k] = 1e-5
            difference = (in_logs(logits + nudge, labels) - in_logs(logits - nudge, labels)) / 2e-5
            np.testing.assert_allclose(gradient[t, k], difference, atol=1e-9)


def test_products_have_the_precision_of_their_inputs_on_accelerators_too():
    gradient = jax.jit(jax.grad(ctc.loss)).trace(jnp.zeros((4, 3)), jnp.asarray([1, 2]))
    products = [
        line for line in gradient.lower(lowering_platforms=("cuda",)).as_text().splitlines() if "dot_gen" in line
    ]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_low_precision_logits_are_computed_in_float32():
    logits, labels = jnp.asarray(drawn(np.random.default_rng(8), T, O), jnp.bfloat16), jnp.asarray([1, 2, 1])
    value, gradient = jax.value_and_grad(ctc.loss)(logits, labels)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(value, ctc.loss(logits.astype(jnp.float32), labels))


def batch(rng, *lead, steps=20, labels=6, outputs=7):
    lengths = rng.integers(labels * 2, steps + 1, lead)
    return (
        jnp.asarray(drawn(rng, *lead, steps, outputs, scale=2)),
        jnp.asarray(rng.integers(1, outputs, (*lead, labels)), jnp.int32),
        jnp.asarray(lengths, jnp.int32),
        jnp.asarray(rng.integers(0, labels + 1, lead), jnp.int32),
    )


def test_values_and_gradients_are_those_of_optax():
    logits, labels, lengths, counts = batch(np.random.default_rng(9), 8)

    def theirs(logits):
        frames = (jnp.arange(logits.shape[1])[None] >= lengths[:, None]).astype(jnp.float32)
        places = (jnp.arange(labels.shape[1])[None] >= counts[:, None]).astype(jnp.float32)
        return optax.ctc_loss(logits, frames, labels, places)

    with jax.numpy_dtype_promotion("standard"):
        expected, slopes = theirs(logits), jax.grad(lambda x: theirs(x).sum())(logits)
    ours = jax.jit(jax.vmap(jax.value_and_grad(ctc.loss)))(logits, labels, lengths, counts)
    np.testing.assert_allclose(ours[0], expected, rtol=1e-4)
    np.testing.assert_allclose(ours[1], slopes, atol=1e-4)


def test_however_vmap_is_nested_the_numbers_are_those_of_a_loop():
    arguments = batch(np.random.default_rng(10), 2, 3)
    expected = [[both(*(leaf[r, b] for leaf in arguments)) for b in range(3)] for r in range(2)]
    values = np.asarray([[float(value) for value, _ in row] for row in expected])
    slopes = np.asarray([[gradient for _, gradient in row] for row in expected])
    inside = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(ctc.loss))))(*arguments)
    np.testing.assert_allclose(inside[0], values, rtol=1e-5)
    np.testing.assert_allclose(inside[1], slopes, atol=1e-5)
    losses = jax.vmap(jax.vmap(ctc.loss, (1, 0, 0, 0)))  # lines in the middle, as a layer with time first has them
    outside = jax.jit(jax.grad(lambda logits, *rest: losses(logits, *rest).sum()))
    np.testing.assert_allclose(
        jnp.swapaxes(outside(jnp.swapaxes(arguments[0], 1, 2), *arguments[1:]), 1, 2), slopes, atol=1e-5
    )


def test_one_text_can_be_shared_by_a_batch():
    logits, labels, lengths, _ = batch(np.random.default_rng(11), 4)
    shared = jax.vmap(ctc.loss, (0, None, 0))(logits, labels[0], lengths)
    np.testing.assert_allclose(shared, [loss(x, labels[0], n) for x, n in zip(logits, lengths, strict=True)], rtol=1e-5)


def test_lengths_do_not_compile_anew():
    logits, labels, lengths, counts = batch(np.random.default_rng(12), 4)
    traced = []

    @jax.jit
    def losses(*arguments):
        traced.append(1)
        return jax.vmap(ctc.loss)(*arguments)

    losses(logits, labels, lengths, counts)
    losses(logits, labels, lengths // 2 + 6, counts // 2)
    assert len(traced) == 1


def test_it_runs_within_branches_and_on_several_devices():
    logits, labels, lengths, counts = batch(np.random.default_rng(13), 4)
    losses = jax.vmap(ctc.loss)
    expected = losses(logits, labels, lengths, counts)
    chosen = jax.jit(
        lambda i: jax.lax.switch(i, [lambda: expected * 0, lambda: losses(logits, labels, lengths, counts)])
    )
    np.testing.assert_allclose(chosen(1), expected, rtol=1e-5)
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("lines",))
    spread = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=PartitionSpec("lines"), out_specs=PartitionSpec("lines")
    )
    np.testing.assert_allclose(jax.jit(spread(losses))(logits, labels, lengths, counts), expected, rtol=1e-5)


GOOD = (np.zeros((4, 3), np.float32), np.asarray([1, 2], np.int32))


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((GOOD[0][None], GOOD[1]), {}, r"logits must be floating point numbers \(T, O\), got float32 \(1, 4, 3\)"),
        ((np.zeros((4, 3), np.int32), GOOD[1]), {}, "logits must be floating point numbers"),
        ((np.zeros((4, 0), np.float32), GOOD[1]), {}, "logits must have at least one output"),
        ((GOOD[0], GOOD[1][None]), {}, r"labels must be integers \(L,\), got int32 \(1, 2\)"),
        ((GOOD[0], np.zeros(2, np.float32)), {}, "labels must be integers"),
        ((GOOD[0], [1, 3]), {}, "labels must be from 0 to 2 and not the blank, 0; got 3"),
        ((GOOD[0], [1, 0]), {}, "not the blank, 0; got 0"),
        ((GOOD[0], GOOD[1], 5), {}, "length must be an integer from 0 to 4, got 5"),
        ((GOOD[0], GOOD[1], 4, 3), {}, "label_length must be an integer from 0 to 2, got 3"),
        ((GOOD[0], GOOD[1], 1.5), {}, "length must be an integer from 0 to 4, got 1.5"),
        (GOOD, {"blank": 3}, "blank must be an integer from 0 to 2, got 3"),
    ],
)
def test_bad_input_is_named(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ctc.loss(*arguments, **options)


def test_lengths_of_a_batch_want_vmap():
    with pytest.raises(ValueError, match=r"length must be one integer, got int32 \(2,\); use jax.vmap"):
        jax.jit(ctc.loss)(*GOOD, jnp.asarray([4, 4]))

"""The fused kernels: Pallas' interpreter against the oracle, and lowering for CUDA on a machine without a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from clocks import layer

import clockwork as cw
from clockwork.recurrence import gpu

CLOCKS = {
    "one a unit": cw.Clock(periods=(1, 2, 4), sizes=(1, 1, 1)),
    "paper": cw.Clock.exponential(width=40, modules=9),
    "not nested": cw.Clock(periods=(1, 2, 3, 5, 8), sizes=(2, 1, 3, 1, 2)),
    "equal, late": cw.Clock(periods=(3, 3, 7), sizes=(2, 2, 1)),
    "srn": cw.Clock(periods=(1,), sizes=(31,)),
    "a whole warp": cw.Clock(periods=(1, 2), sizes=(32, 5)),
    "a whole block": cw.Clock(periods=(1, 4), sizes=(33, 128)),
}


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(gpu, "INTERPRET", True)


def wanted(layer, weights, outputs_bar, last_bar):
    dense = tuple(np.asarray(w, np.float64) for w in weights.dense(layer.clock))
    outputs = oracle.forward(layer.clock, *dense, layer.sequence, layer.start, layer.hidden)
    bars = oracle.backward(layer.clock, *dense, layer.sequence, layer.start, layer.hidden, outputs_bar, last_bar)
    return outputs, bars


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize(("steps", "start", "inputs"), [(37, 5, 2), (3, 0, 0)])
@pytest.mark.parametrize("apart", [False, True])
def test_values_and_gradients_equal_the_oracles(interpreted, monkeypatch, clock, steps, start, inputs, apart):
    if apart:  # each module by itself, none joined with its neighbours
        fused = pytest.importorskip("clockwork.recurrence.fused")
        free = fused.loops(True)._replace(price=fused.PRICE._replace(loop=0))
        monkeypatch.setattr(fused, "loops", lambda interpret: free)
    rng = np.random.default_rng(0)
    drawn = layer(clock, steps, start, inputs, rng)
    outputs_bar, last_bar = rng.normal(size=(steps, clock.width)), rng.normal(size=clock.width)
    single = lambda x: None if x is None else jnp.asarray(x, jnp.float32)  # noqa: E731

    @jax.jit
    def evaluate(weights, inputs, hidden, cotangents):
        call = functools.partial(cw.unroll, clock=clock, method="fused", **drawn.call())
        results, vjp = jax.vjp(lambda w, x, h: call(w, inputs=x, hidden=h), weights, inputs, hidden)
        return results, vjp(cotangents)

    arguments = [single(x) for x in (drawn.inputs, drawn.hidden)]
    (outputs, last), (weights_bar, inputs_bar, hidden_bar) = evaluate(
        drawn.weights, *arguments, (single(outputs_bar), single(last_bar))
    )
    right, (w_in_bar, w_rec_bar, bias_bar, x_bar, h_bar) = wanted(drawn, drawn.weights, outputs_bar, last_bar)
    np.testing.assert_allclose(outputs, right, atol=1e-5)
    np.testing.assert_allclose(last, right[-1], atol=1e-5)
    triangle = cw.Weights.from_dense(clock, *(jnp.asarray(x) for x in _cut(clock, w_in_bar, w_rec_bar, bias_bar)))
    for got, want in zip(jax.tree.leaves(weights_bar), jax.tree.leaves(triangle), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)
    if inputs:
        np.testing.assert_allclose(inputs_bar, x_bar, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(hidden_bar, h_bar, atol=2e-5, rtol=1e-4)


def _cut(clock, w_in, w_rec, bias):
    allowed = np.zeros((clock.width, clock.width), bool)
    for a, k in zip(clock.starts, clock.sizes, strict=True):
        allowed[a : a + k, : a + k] = True
    return w_in, np.where(allowed, w_rec, 0), bias

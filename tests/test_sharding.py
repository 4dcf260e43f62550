"""Batches and runs over a mesh with explicit axes: types, values and gradients are those of the masked scan."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import clockwork as cw
from clockwork.nn import Bidirectional, Clockwork, lstm_init, lstm_unroll

CLOCK = cw.Clock.exponential(width=6, modules=3)
RUNS, BATCH, STEPS, INPUTS = 4, 2, 7, 3


def explicit(shape=(2,), names=("d",)):
    return jax.make_mesh(shape, names, axis_types=(AxisType.Explicit,) * len(shape))


def put(tree, mesh, *spec):
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec))), tree)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def weights(runs=None):
    make = functools.partial(cw.init, clock=CLOCK, inputs=INPUTS, stddev=0.5, dtype=jnp.float64)
    key = jax.random.key(0)
    return make(key) if runs is None else jax.vmap(make)(jax.random.split(key, runs))


def loss(weights, inputs, method):
    outputs, last = cw.unroll(weights, CLOCK, inputs, method=method)
    return jnp.sin(outputs).sum() + jnp.square(last).sum(), outputs


def a_batch(method):
    def total(weights, inputs):
        losses, outputs = jax.vmap(functools.partial(loss, method=method), in_axes=(None, 0))(weights, inputs)
        return losses.sum(), outputs

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)


def each_sequence(method):
    grad = jax.grad(functools.partial(loss, method=method), argnums=(0, 1), has_aux=True)
    return jax.vmap(grad, in_axes=(None, 0))


def many_runs(method):
    return jax.vmap(jax.value_and_grad(functools.partial(loss, method=method), argnums=(0, 1), has_aux=True))


def a_batch_each(method):
    return jax.vmap(a_batch(method))


def types(tree):
    return [jax.typeof(x) for x in jax.tree.leaves(tree)]


CASES = {
    "a batch": (a_batch, None, (RUNS,), (), ("d",)),
    "each sequence of a batch": (each_sequence, None, (RUNS,), (), ("d",)),
    "many runs": (many_runs, RUNS, (RUNS,), ("d",), ("d",)),
    "runs of a batch each, runs spread": (a_batch_each, RUNS, (RUNS, BATCH), ("d",), ("d",)),
    "runs of a batch each, batch spread": (a_batch_each, RUNS, (RUNS, BATCH), (), (None, "d")),
    "runs of a batch each, both spread": (a_batch_each, RUNS, (RUNS, BATCH), ("d",), ("d", "e")),
}


@pytest.mark.parametrize("method", ["cascade", "native"])
@pytest.mark.parametrize("case", CASES)
def test_explicit_axes_pass_through_a_layer_and_its_gradient(float64, case, method):
    make, runs, batch, spread, inputs_spread = CASES[case]
    mesh = explicit((2, 1), ("d", "e"))
    with jax.set_mesh(mesh):
        arguments = put(weights(runs), mesh, *spread), put(draw(*batch, STEPS, INPUTS), mesh, *inputs_spread)
        found, masked = (jax.jit(make(m))(*arguments) for m in (method, "masked"))
    assert types(found) == types(masked)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, masked)


def test_devices_exchange_nothing_but_the_gradient_of_shared_weights(float64):
    mesh = explicit()
    with jax.set_mesh(mesh):
        batch = put(weights(), mesh), put(draw(4, STEPS, INPUTS), mesh, "d")
        runs = put((weights(RUNS), draw(RUNS, STEPS, INPUTS)), mesh, "d")
        forward = jax.vmap(lambda w, x: loss(w, x, "auto")[1], in_axes=(None, 0))
        compiled = [
            jax.jit(f).lower(*arguments).compile().as_text() or ""
            for f, arguments in (
                (forward, batch),
                *((a_batch(method), batch) for method in ("cascade", "native")),
                *((many_runs(method), runs) for method in ("cascade", "native")),
            )
        ]
    exchanged = [set(re.findall(r"(all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", text)) for text in compiled]
    assert exchanged == [set(), {"all-reduce"}, {"all-reduce"}, set(), set()]


def test_runs_without_inputs(float64):
    mesh = explicit()
    make = functools.partial(cw.init, clock=CLOCK, stddev=0.5, dtype=jnp.float64)
    layers = jax.vmap(make)(jax.random.split(jax.random.key(0), RUNS))

    def gradient(method):
        return jax.vmap(jax.grad(lambda w: jnp.sin(cw.unroll(w, CLOCK, steps=STEPS, method=method)[0]).sum()))

    with jax.set_mesh(mesh):
        found, masked = (jax.jit(gradient(method))(put(layers, mesh, "d")) for method in ("cascade", "masked"))
    assert types(found) == types(masked)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, masked)


def test_inputs_that_were_put_on_a_mesh_take_it_along(float64):
    mesh = explicit()
    inputs = draw(4, STEPS, INPUTS)
    found, plain = (jax.jit(a_batch("cascade"))(weights(), x) for x in (put(inputs, mesh, "d"), inputs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, plain)
    (_, outputs), (weights_bar, inputs_bar) = found
    assert outputs.sharding.spec[0] == inputs_bar.sharding.spec[0] == "d"
    assert weights_bar.bias.sharding.is_fully_replicated


def test_outside_jit_and_without_it(float64):
    mesh = explicit()
    with jax.set_mesh(mesh):
        arguments = put(weights(), mesh), put(draw(4, STEPS, INPUTS), mesh, "d")
        found, masked = (a_batch(method)(*arguments) for method in ("cascade", "masked"))
    assert types(found) == types(masked)
    with jax.disable_jit():
        outputs, _ = cw.unroll(weights(), CLOCK, draw(STEPS, INPUTS), method="cascade")
    assert outputs.shape == (STEPS, CLOCK.width)


def test_inside_a_shard_map_over_another_axis(float64):
    mesh = explicit((1, 2), ("e", "d"))
    spec = PartitionSpec("d")

    def make(method):
        run = jax.vmap(lambda w, x: loss(w, x, method)[1], in_axes=(None, 0))
        return jax.shard_map(run, in_specs=(PartitionSpec(), spec), out_specs=spec, axis_names={"d"})

    with jax.set_mesh(mesh):
        arguments = put(weights(), mesh), put(draw(4, STEPS, INPUTS), mesh, "d")
        found, masked = (jax.jit(make(method))(*arguments) for method in ("cascade", "masked"))
    assert types(found) == types(masked)
    np.testing.assert_allclose(found, masked, atol=1e-11)


def test_what_is_neither_batch_nor_runs_cannot_be_spread(float64):
    mesh = explicit()
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"sharded .* over batch and runs .* float64\[8@d,3\]"):
        cw.unroll(put(weights(), mesh), CLOCK, put(draw(8, INPUTS), mesh, "d"), method="cascade")


def test_the_lstm_over_explicit_axes(float64):
    mesh = explicit()
    layer = lstm_init(jax.random.key(0), 3, INPUTS, 0.5, dtype=jnp.float64)
    inputs = draw(4, STEPS, INPUTS)

    def one(weights, inputs):
        outputs, (h, c) = lstm_unroll(weights, inputs)
        return jnp.sin(outputs).sum() + (h * c).sum()

    grad = jax.jit(jax.grad(lambda w, x: jax.vmap(one, in_axes=(None, 0))(w, x).sum(), argnums=(0, 1)))
    plain = grad(layer, inputs)
    with jax.set_mesh(mesh):
        found = grad(put(layer, mesh), put(inputs, mesh, "d"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, plain)
    assert found[1].sharding.spec[0] == "d"
    assert found[0].recurrent.sharding.is_fully_replicated


@pytest.mark.parametrize("cell", [None, nnx.GRUCell])
def test_layers_over_explicit_axes(cell):
    mesh, rngs = explicit(), nnx.Rngs(0)
    make = functools.partial(Clockwork, CLOCK, INPUTS, cell=cell, rngs=rngs)
    both, one = Bidirectional(make(), make()), make()
    inputs, lengths = draw(4, STEPS, INPUTS).astype(jnp.float32), np.array([0, STEPS, 3, 1])

    @nnx.jit
    def run(both, one, x, carry):
        def total(both, x):
            return jnp.sin(both(x, seq_lengths=lengths)).sum()

        after, outputs = one(x, initial_carry=carry, seq_lengths=lengths, return_carry=True)
        return *nnx.grad(total, argnums=(0, 1))(both, x), after, outputs

    plain = run(both, one, inputs, one(inputs, return_carry=True)[0])
    with jax.set_mesh(mesh):
        spread = put(inputs, mesh, "d")
        found = run(both, one, spread, one(spread, return_carry=True)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, plain)
    parameters_bar, inputs_bar, carry, outputs = found
    assert {leaf.sharding.spec[0] for leaf in (inputs_bar, outputs, carry.hidden, carry.time)} == {"d"}
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(parameters_bar))

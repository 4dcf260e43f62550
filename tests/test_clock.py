# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import clockwork as cw
from clockwork.nn import Clockwork
from clockwork.nn.linen import Clockwork as LinenClockwork

CLOCK = cw.Clock(periods=(1, 2, 4), sizes=(2, 2, 1))


def test_units_are_spread_as_in_the_paper():
    clock = cw.Clock.exponential(width=40, modules=9)
    assert clock.periods == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert clock.sizes == (5, 5, 5, 5, 4, 4, 4, 4, 4)
    assert clock.starts == (0, 5, 10, 15, 20, 24, 28, 32, 36)
    assert (clock.width, clock.modules, clock.cycle) == (40, 9, 256)


def test_active_modules_are_those_whose_period_divides_the_step():
    clock = cw.Clock(periods=(1, 2, 3, 5), sizes=(1, 1, 1, 1))
    assert clock.active(0).all()  # the clock starts at 0: every module ticks at the first step
    np.testing.assert_array_equal(clock.active(6), [True, True, True, False])
    np.testing.assert_array_equal(clock.active(25), [True, False, False, True])
    np.testing.assert_array_equal(clock.unit_periods, [1, 2, 3, 5])


def test_parameters_and_operations_follow_the_appendix():
    g, k, m = 5, 3, 7
    clock = cw.Clock.exponential(width=g * k, modules=g)
    n = g * k
    assert clock.recurrent_parameters == n**2 / 2 + n * k / 2
    paper = k**2 * sum((g - i) / 2**i for i in range(g)) + sum(k * m / 2**i for i in range(g))
    assert clock.multiply_adds(inputs=m, method="paper") == pytest.approx(paper)
    assert clock.multiply_adds(method="paper") <= k**2 * (2 * g - 2) + k**2 * g / 2 ** (g - 1)
    assert clock.multiply_adds(inputs=m, method="masked") == n * (n + m)
    cascade = sum(k * (i + 1) * k / 2**i + k * m / 2**i for i in range(g))
    assert clock.multiply_adds(inputs=m) == pytest.approx(cascade)


def test_the_cascade_makes_about_a_quarter_of_the_papers_operations():
    clock = cw.Clock.exponential(width=40, modules=9)
    counts = [clock.multiply_adds(method=m) for m in ("masked", "paper", "cascade")]
    assert counts == [1600, 348.6875, 94.5]


def test_the_triangle_is_counted_in_units_not_in_modules():
    # A public mistake: g (g + 1) / 2 blocks taken as weights, or unequal modules taken as equal.
    clock = cw.Clock(periods=(1, 2), sizes=(3, 1))
    assert clock.recurrent_parameters == 3 * 3 + 1 * 4


def test_a_clock_is_a_value():
    clock = cw.Clock(periods=[1, np.int64(2)], sizes=[2, 2])
    assert clock == cw.Clock((1, 2), (2, 2))
    assert len({clock, cw.Clock((1, 2), (2, 2))}) == 1
    with pytest.raises(AttributeError):
        clock.periods = (1, 3)


@pytest.mark.parametrize(
    ("periods", "sizes", "sentence"),
    [
        ((), (), r"at least one module, got \(\)"),
        ((0, 1), (1, 1), r"positive and in ascending order, got \(0, 1\)"),
        ((-2, 1), (1, 1), r"positive and in ascending order, got \(-2, 1\)"),
        ((1, 4, 2), (1, 1, 1), r"positive and in ascending order, got \(1, 4, 2\)"),
        ((1, 2.0), (1, 1), r"periods must be integers, got \(1, 2.0\)"),
        ((True, 2), (1, 1), r"periods must be integers, got \(True, 2\)"),
        (3, (1,), "periods must be integers, got 3"),
        ((1, 2**31), (1, 1), "periods must fit a 32-bit integer"),
        ((1, 2), (1,), r"one entry for each of the 2 periods, got \(1,\)"),
        ((1, 2), (1, 0), r"sizes must be at least 1, got \(1, 0\)"),
        ((1, 2), (1, 1.5), r"sizes must be integers, got \(1, 1.5\)"),
    ],
)
def test_impossible_clocks_are_refused(periods, sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        cw.Clock(periods, sizes)


def test_fewer_units_than_modules_are_refused():
    with pytest.raises(ValueError, match="one unit for each of the 9 modules, got 8"):
        cw.Clock.exponential(width=8, modules=9)
    with pytest.raises(ValueError, match="modules must be an integer, 1 or more, got 0"):
        cw.Clock.exponential(width=8, modules=0)
    with pytest.raises(ValueError, match="at least one module"):
        cw.Clock.even(3, ())
    with pytest.raises(ValueError, match="method must be"):
        cw.Clock((1,), (1,)).multiply_adds(method="fast")


def problem():
    inputs = jax.random.normal(jax.random.key(1), (3, 9, 2))
    return (cw.init(jax.random.key(0), CLOCK, inputs=2), CLOCK), inputs


def loss(layer, inputs):
    weights, clock = layer
    return jnp.sin(cw.unroll(weights, clock, inputs, method="cascade")[0]).sum()


def test_a_clock_is_an_argument_of_transformed_functions():
    layer, inputs = problem()
    want = loss(layer, inputs[0])
    np.testing.assert_allclose(jax.jit(loss)(layer, inputs[0]), want, rtol=1e-6)
    for axes in (None, (0, None)):  # None or a tree of them: a clock has no leaf that could have an axis
        weights = layer[0] if axes is None else jax.tree.map(lambda w: jnp.stack([w] * 3), layer[0])
        each = jax.jit(jax.vmap(loss, in_axes=(axes, 0)))((weights, CLOCK), inputs)
        np.testing.assert_allclose(each[0], want, rtol=1e-5)
    grads = jax.jit(jax.grad(loss))(layer, inputs[0])
    assert grads[1] == CLOCK
    chex.assert_trees_all_close(grads[0], jax.grad(lambda w: loss((w, CLOCK), inputs[0]))(layer[0]), rtol=1e-5)
    state = cw.State.initial(CLOCK)
    (_, carried), _ = jax.lax.scan(
        lambda c, x: ((cw.step(layer[0], c[1], c[0], x)[0], c[1]), x), (state, CLOCK), inputs[0]
    )
    assert carried == CLOCK


def test_another_clock_is_compiled_anew_and_an_equal_one_is_not():
    @jax.jit
    @chex.assert_max_traces(n=2)
    def width(clock, x):
        return x * clock.width

    chex.clear_trace_counter()
    for clock in (CLOCK, cw.Clock((1, 2, 4), (2, 2, 1)), cw.Clock((1, 2), (2, 2)), CLOCK):
        assert width(clock, 1) == clock.width
    static = jax.jit(lambda clock, x: x * clock.width, static_argnames="clock")  # as it was before
    assert static(CLOCK, 1) == static(clock=CLOCK, x=1) == 5


def test_a_clock_in_trees_of_parameters_stays_as_it_is():
    layer, inputs = problem()
    optimiser = optax.sgd(0.01, momentum=0.9)

    @jax.jit
    def update(layer, state):
        updates, state = optimiser.update(jax.grad(loss)(layer, inputs[0]), state)
        return optax.apply_updates(layer, updates), state

    later, state = update(layer, optimiser.init(layer))
    assert later[1] == CLOCK
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((later, state)))
    assert loss(later, inputs[0]) < loss(layer, inputs[0])


def test_clocks_of_flax_modules_stay_static():
    class Model(nnx.Module):
        def __init__(self):
            self.layer = Clockwork(CLOCK, 2, rngs=nnx.Rngs(0))
            self.clocks = (CLOCK,)
            self.given = nnx.List([CLOCK])

    model, (_, inputs) = Model(), problem()
    graph, state = nnx.split(model)
    assert len(jax.tree.leaves(state)) == 5
    assert hash(graph) == hash(nnx.graphdef(Model()))
    again = nnx.merge(graph, state)
    assert again.layer.clock == again.clocks[0] == again.given[0] == CLOCK
    call = nnx.jit(lambda model, clock, x: model.layer(x) * clock.width)
    np.testing.assert_allclose(call(model, CLOCK, inputs), model.layer(inputs) * 5, rtol=1e-4, atol=1e-5)
    module = LinenClockwork(CLOCK)
    assert hash(module) == hash(LinenClockwork(CLOCK))
    scanned = linen.vmap(LinenClockwork, in_axes=0, variable_axes={"params": None}, split_rngs={"params": False})(CLOCK)
    variables = scanned.init(jax.random.key(0), inputs)
    np.testing.assert_allclose(jax.jit(scanned.apply)(variables, inputs), module.apply(variables, inputs), atol=1e-6)


def test_functions_of_clocks_are_exported():
    (weights, clock), inputs = problem()
    exported = jax.export.export(jax.jit(functools.partial(cw.unroll, method="cascade")))(weights, clock, inputs[0])
    want, _ = cw.unroll(weights, clock, inputs[0], method="cascade")
    np.testing.assert_allclose(exported.call(weights, clock, inputs[0])[0], want, atol=1e-6)
    with pytest.raises(ValueError, match="periods"):
        exported.call(weights, cw.Clock((1, 2, 8), (2, 2, 1)), inputs[0])
    pytest.importorskip("flatbuffers")
    step = jax.export.export(jax.jit(cw.step))(weights, clock, cw.State.initial(clock), inputs[0, 0])
    stored = jax.export.deserialize(step.serialize())
    state, h = stored.call(weights, CLOCK, cw.State.initial(clock), inputs[0, 0])
    assert isinstance(state, cw.State)
    np.testing.assert_allclose(h, want[0], atol=1e-6)


def test_without_a_module_of_period_1_the_outputs_repeat_where_none_is_active():
    clock = cw.Clock(periods=(2, 3), sizes=(2, 2))
    weights = cw.init(jax.random.key(0), clock, inputs=2)
    inputs = jax.random.normal(jax.random.key(1), (8, 2))
    for method in ("masked", "cascade"):
        run = functools.partial(cw.unroll, weights, clock, method=method)
        y = run(inputs)[0]
        still = [t for t in range(1, 8) if (y[t] == y[t - 1]).all()]
        assert still == [t for t in range(1, 8) if not clock.active(t).any()] == [1, 5, 7]
        np.testing.assert_array_equal(run(inputs.at[jnp.array(still)].set(9))[0], y)

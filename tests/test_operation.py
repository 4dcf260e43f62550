"""The layouts that ``vmap`` gives a kernel, and its derivatives in every order of transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clocks import layer
from jax.sharding import PartitionSpec

import clockwork as cw
from clockwork.ops import chunked, operation
from clockwork.recurrence import batched, cascade, runs_last
from clockwork.recurrence.partition import MultiplyAdds, cheapest_partition
from clockwork.recurrence.schedule import Schedule

CLOCKS = [
    cw.Clock.exponential(width=11, modules=4),
    cw.Clock(periods=(2, 3, 6), sizes=(2, 1, 3)),
    cw.Clock(periods=(1, 3, 3, 7), sizes=(2, 2, 1, 2)),
]
STEPS, START, INPUTS, OUTPUTS = 19, 5, 2, 3


@pytest.fixture(params=["joined", "apart"])
def parts(request, monkeypatch):
    """Neighbours of many runs joined where that is cheaper, as always for so few runs, and never."""

    def forget():
        operation._forward.shapes.cache_clear()
        jax.clear_caches()

    forget()
    if request.param == "apart":
        monkeypatch.setattr(runs_last, "COST", MultiplyAdds(0, 0, 0))
        monkeypatch.setattr(batched, "XLA_SCAN", batched.XLA_SCAN._replace(cost=MultiplyAdds(0, 0, 0)))
    yield request.param
    forget()


def arguments(clock, runs=(), batch=(), seed=0):
    """Weights and readout with axes for runs before theirs, inputs and hidden state with axes for a batch."""
    rng = np.random.default_rng(seed)
    weights = layer(clock, STEPS, START, INPUTS, rng).weights
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) / 2)  # noqa: E731
    weights = jax.tree.map(lambda x: draw((*runs, *x.shape)), weights)
    readout = draw((*runs, clock.width, OUTPUTS))
    return weights, readout, draw((*batch, STEPS, INPUTS)), draw((*batch, clock.width))


def loss(weights, readout, inputs, hidden, clock, method, activation=jnp.tanh):
    outputs, last = cw.unroll(
        weights, clock, inputs, start=START, hidden=hidden, readout=readout, method=method, activation=activation
    )
    return jnp.sin(outputs).sum() + jnp.square(last).sum()


def assert_methods_agree(make, *args, atol=1e-11, methods=("cascade", "native", "masked")):
    """``make(loss)`` is the same function of the arguments whatever the method."""
    *found, masked = (jax.jit(make(functools.partial(loss, method=method)))(*args) for method in methods)
    for other in found:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), other, masked)


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
@pytest.mark.parametrize("read", [True, False])
def test_a_batch_shares_the_gradient_of_its_weights(float64, clock, read):
    weights, readout, inputs, hidden = arguments(clock, batch=(4,))

    def make(loss):
        def total(weights, readout, inputs, hidden):
            one = functools.partial(loss, weights, readout if read else None, clock=clock)
            return jax.vmap(one)(inputs, hidden).sum()

        return jax.grad(total, argnums=(0, 2, 3))

    assert_methods_agree(make, weights, readout, inputs, hidden)


def test_a_batch_has_no_array_of_gradients_for_each_sequence():
    clock = cw.Clock.exponential(width=24, modules=3)
    weights, readout, inputs, hidden = jax.tree.map(lambda x: x.astype(jnp.float32), arguments(clock, batch=(50,)))

    def total(weights):
        return jax.vmap(functools.partial(loss, weights, readout, clock=clock, method="cascade"))(inputs, hidden).sum()

    compiled = jax.jit(jax.grad(total)).lower(weights).compile().as_text() or ""
    assert "f32[50,8,8]" not in compiled
    assert "f32[50,8,24]" not in compiled


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_some_arguments_of_a_batch_may_be_shared(float64, clock):
    weights, readout, inputs, hidden = arguments(clock, batch=(3,))

    def make(loss):
        def total(weights, inputs, hidden):
            one = functools.partial(loss, weights, readout, clock=clock)
            shared_input = jax.vmap(one, in_axes=(None, 0))(inputs[0], hidden)
            shared_state = jax.vmap(one, in_axes=(0, None))(inputs, hidden[0])
            return (shared_input + shared_state).sum()

        return jax.grad(total, argnums=(0, 1, 2))

    assert_methods_agree(make, weights, inputs, hidden)


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_each_sequences_own_gradient(float64, clock):
    weights, readout, inputs, hidden = arguments(clock, batch=(3,))

    def make(loss):
        return jax.vmap(jax.grad(functools.partial(loss, clock=clock), argnums=(0, 1, 2)), in_axes=(None, None, 0, 0))

    assert_methods_agree(make, weights, readout, inputs, hidden)


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
@pytest.mark.parametrize(("activation", "read"), [(jnp.tanh, False), (jax.nn.sigmoid, True)])
def test_many_runs_of_a_batch_each(float64, parts, clock, activation, read):
    weights, readout, inputs, hidden = arguments(clock, runs=(4,), batch=(4, 3))

    def make(loss):
        def total(weights, readout, inputs, hidden):
            readout = readout if read else None
            one = functools.partial(loss, weights, readout, clock=clock, activation=activation)
            return jax.vmap(one)(inputs, hidden).sum()

        return jax.vmap(jax.value_and_grad(total, argnums=(0, 2, 3)))

    methods = ("cascade", "native", "masked") if activation is jnp.tanh else ("cascade", "masked")
    assert_methods_agree(make, weights, readout, inputs, hidden, methods=methods)


def test_runs_may_be_on_any_axis_and_share_their_inputs(float64, parts):
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = arguments(clock, runs=(4,))
    last = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), weights)

    def make(loss):
        def each(weights, readout, inputs, hidden):
            return jax.grad(functools.partial(loss, clock=clock), argnums=(0, 2))(weights, readout, inputs, hidden)

        return jax.vmap(each, in_axes=(-1, 0, None, None), out_axes=-1)

    assert_methods_agree(make, last, readout, inputs, hidden)


def test_a_branch_that_only_some_of_a_batch_take(float64):
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = arguments(clock, batch=(3,))
    taken = jnp.asarray([True, False, True])

    def make(loss):
        def one(weights, inputs, hidden, take):
            def branch():
                return loss(weights, readout, inputs, hidden, clock=clock)

            return jax.lax.cond(take, branch, lambda: 0.0 * hidden.sum())

        each = jax.vmap(jax.grad(one), in_axes=(None, 0, 0, 0))
        together = jax.grad(lambda w, *args: jax.vmap(one, in_axes=(None, 0, 0, 0))(w, *args).sum())
        return lambda *args: (each(*args), together(*args))

    assert_methods_agree(make, weights, inputs, hidden, taken)


def test_a_loop_over_layers_that_share_a_step(float64):
    clock = CLOCKS[0]
    weights, _, inputs, hidden = arguments(clock, runs=(3,), batch=(2,))

    def make(loss):
        method = loss.keywords["method"]

        def layers(weights, inputs, hidden):
            def layer(total, weights):
                outputs, _ = cw.unroll(weights, clock, inputs, hidden=hidden, method=method)
                return total + jnp.sin(outputs).sum(), None

            return jax.lax.scan(jax.checkpoint(layer), jnp.zeros(()), weights)[0]

        batched = jax.vmap(layers, in_axes=(None, 0, 0))
        return jax.grad(lambda *args: batched(*args).sum(), argnums=(0, 1))

    assert_methods_agree(make, weights, inputs, hidden)


def test_modules_that_never_tick_in_many_runs_with_inputs(float64, parts):
    clock = cw.Clock(periods=(1, 7, 50), sizes=(2, 2, 3))
    weights, readout, inputs, hidden = arguments(clock, runs=(3,))

    def make(loss):
        grad = jax.grad(functools.partial(loss, clock=clock), argnums=(0, 2, 3))
        return jax.vmap(grad, in_axes=(0, 0, None, None))

    assert_methods_agree(make, weights, readout, inputs[:2], hidden)


def test_runs_of_runs(float64, parts):
    clock = CLOCKS[1]
    weights, readout, inputs, hidden = arguments(clock, runs=(2, 3), batch=(2,))

    def make(loss):
        grad = jax.grad(functools.partial(loss, clock=clock), argnums=(0, 1, 3))
        return jax.vmap(jax.vmap(grad, in_axes=(0, 0, None, None)))

    assert_methods_agree(make, weights, readout, inputs, hidden)


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_runs_too_large_to_lie_side_by_side(float64, monkeypatch, clock):
    monkeypatch.setattr(cascade, "RUNS_LAST_MAX_UNITS", 1)
    weights, readout, inputs, hidden = arguments(clock, runs=(2,), batch=(2, 3))

    def make(loss):
        def total(weights, readout, inputs, hidden):
            return jax.vmap(functools.partial(loss, weights, readout, clock=clock))(inputs, hidden).sum()

        return jax.vmap(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))

    assert_methods_agree(make, weights, readout, inputs, hidden)


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_forward_mode(float64, clock):
    weights, readout, inputs, hidden = arguments(clock)

    def make(loss):
        def directions(hidden, inputs):
            one = functools.partial(loss, weights, readout, clock=clock)
            return jax.jacfwd(one)(inputs, hidden), jax.jvp(one, (inputs, hidden), (inputs, hidden))

        return directions

    assert_methods_agree(make, hidden, inputs)


def test_forward_mode_over_weights_and_jacobians(float64):
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = arguments(clock)

    def make(loss):
        one = functools.partial(loss, readout=readout, inputs=inputs, hidden=hidden, clock=clock)
        method = loss.keywords["method"]

        def outputs(weights):
            return cw.unroll(weights, clock, inputs, method=method)[0][-2:]

        return lambda w: (jax.jacfwd(one)(w), jax.jacrev(outputs)(w), jax.jacfwd(outputs)(w))

    assert_methods_agree(make, weights)


def test_second_derivatives_are_refused_with_a_sentence():
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = jax.tree.map(lambda x: x.astype(jnp.float32), arguments(clock))
    grad = jax.grad(functools.partial(loss, clock=clock, method="cascade"))
    with pytest.raises(ValueError, match=r'second derivatives .* use method="masked"'):
        jax.jvp(lambda w: grad(w, readout, inputs, hidden), (weights,), (weights,))
    with pytest.raises(ValueError, match=r'second derivatives .* use method="masked"'):
        jax.grad(lambda w: grad(w, readout, inputs, hidden).bias.sum())(weights)


@pytest.mark.parametrize("check", [True, False])
def test_a_batch_over_two_devices(float64, check):
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = arguments(clock, batch=(4,))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shared, spread = PartitionSpec(), PartitionSpec("data")

    def make(loss):
        def local(weights, readout, inputs, hidden):
            losses = jax.vmap(functools.partial(loss, weights, readout, clock=clock))(inputs, hidden)
            return jax.lax.psum(losses.sum(), "data")

        specs = (shared, shared, spread, spread)
        total = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=shared, check_vma=check)
        return jax.grad(total, argnums=(0, 1, 2, 3))

    assert_methods_agree(make, weights, readout, inputs, hidden)


def test_gradients_taken_inside_a_shard_are_summed_over_the_devices(float64):
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = arguments(clock, batch=(4,))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shared, spread = PartitionSpec(), PartitionSpec("data")

    def make(loss):
        def local(weights, inputs, hidden):
            def total(weights):
                return jax.vmap(functools.partial(loss, weights, readout, clock=clock))(inputs, hidden).sum()

            return jax.grad(total)(weights)

        return jax.shard_map(local, mesh=mesh, in_specs=(shared, spread, spread), out_specs=shared)

    assert_methods_agree(make, weights, inputs, hidden)


def test_checkpointed_chunks_equal_the_whole(float64):
    clock = CLOCKS[0]
    length = clock.cycle
    weights, readout, _, hidden = arguments(clock)
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(3 * length, INPUTS)))

    def whole(weights):
        outputs, _ = cw.unroll(weights, clock, inputs, hidden=hidden, readout=readout)
        return jnp.sin(outputs).sum()

    def chunks(weights):
        @jax.checkpoint
        def chunk(hidden, inputs):
            outputs, hidden = cw.unroll(weights, clock, inputs, hidden=hidden, readout=readout)
            return hidden, jnp.sin(outputs).sum()

        return jax.lax.scan(chunk, hidden, inputs.reshape(3, length, INPUTS))[1].sum()

    a, b = (jax.jit(jax.value_and_grad(f))(weights) for f in (whole, chunks))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-11), a, b)


def test_a_layer_is_exported_and_lowers_for_accelerators():
    clock = CLOCKS[0]
    weights, readout, inputs, hidden = jax.tree.map(lambda x: x.astype(jnp.float32), arguments(clock, runs=(4,)))
    grad = jax.jit(
        jax.vmap(
            jax.grad(functools.partial(loss, clock=clock, method="cascade"), argnums=(0, 1)), in_axes=(0, 0, None, None)
        )
    )
    exported = jax.export.export(grad)(weights, readout, inputs, hidden)
    again = exported.call(weights, readout, inputs, hidden)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again, grad(weights, readout, inputs, hidden)
    )
    for platform in ("cuda", "tpu"):
        assert grad.trace(weights, readout, inputs, hidden).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
@pytest.mark.parametrize("read", [True, False])
def test_long_sequences_of_many_runs_go_chunk_by_chunk(float64, monkeypatch, clock, read):
    monkeypatch.setattr(chunked, "CHUNK_MIN_STEPS", 3)
    weights, readout, _, hidden = arguments(clock, runs=(3,), batch=(3,))
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(2 * clock.cycle + 5, INPUTS)))

    def make(loss):
        def each(weights, readout, inputs, hidden):
            return loss(weights, readout if read else None, inputs, hidden, clock=clock)

        return jax.vmap(jax.value_and_grad(each, argnums=(0, 2, 3)), in_axes=(0, 0, None, 0))

    assert_methods_agree(make, weights, readout, inputs, hidden)


def test_long_sequences_of_many_runs_keep_the_states_between_chunks_alone():
    clock = cw.Clock.exponential(width=16, modules=4)
    weights = jax.vmap(lambda key: cw.init(key, clock))(jax.random.split(jax.random.key(0), 8))

    def memory(steps):
        grad = jax.grad(lambda w: jnp.square(cw.unroll(w, clock, steps=steps, readout=jnp.ones((16, 1)))[0]).sum())
        found = jax.jit(jax.vmap(grad)).lower(weights).compile().memory_analysis()
        assert found is not None
        return found.temp_size_in_bytes

    outputs = 8 * 4 * (16_384 - 4_096)  # bytes of what is longer: float32 outputs of 8 runs
    assert memory(16_384) - memory(4_096) < 6 * outputs


@pytest.mark.parametrize("runs", [1, 100, 10_000])
def test_parts_are_neighbours_that_cover_the_layer(runs):
    schedule = Schedule(cw.Clock.exponential(width=40, modules=9), 3, 320)
    parts = cheapest_partition(schedule, 1, runs, runs_last.COST)
    assert [j for part in parts for j in part] == list(range(9))


def test_neighbours_are_joined_only_where_loops_are_dear():
    schedule = Schedule(cw.Clock.exponential(width=40, modules=9), 0, 320)
    counts = [len(cheapest_partition(schedule, 1, runs, runs_last.COST)) for runs in (1, 100, 10_000)]
    assert counts[0] < counts[1] < counts[2] == 9


def with_nan(method):
    """Outputs where an input that only the fast module reads is not a number, and where it is one."""
    clock = cw.Clock(periods=(1, 4), sizes=(2, 2))
    weights, inputs = cw.init(jax.random.key(0), clock, 1, stddev=1.0), jnp.ones((12, 1))
    return [cw.unroll(weights, clock, x, method=method)[0] for x in (inputs.at[2].set(jnp.nan), inputs)]


@pytest.mark.parametrize("method", ["masked", "cascade"])
def test_a_slow_module_is_not_reached_by_nan_of_a_fast_one_before_its_next_tick(parts, method):
    outputs, clean = with_nan(method)
    np.testing.assert_array_equal(outputs[:2], clean[:2])
    assert jnp.isnan(outputs[2:, :2]).all()
    np.testing.assert_array_equal(outputs[:4, 2:], clean[:4, 2:])
    # The docstring warns of what comes after that, and of it alone: modules that are evaluated apart keep it out.
    if method == "cascade" and parts == "apart":
        np.testing.assert_array_equal(outputs[:, 2:], clean[:, 2:])

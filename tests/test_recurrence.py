"""Every method of ``unroll`` against the oracle, and what else holds of the recurrence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from clocks import layer, layers
from flax import nnx
from hypothesis import HealthCheck, given, settings

import clockwork as cw

METHODS = ("masked", "cascade", "native")


def triangle(clock):
    """Where recurrent weights may be: (N, N) booleans."""
    allowed = np.zeros((clock.width, clock.width), bool)
    for a, k in zip(clock.starts, clock.sizes, strict=True):
        allowed[a : a + k, : a + k] = True
    return allowed


def drawn(examples):
    """So many clocks, the same each time: each has a shape of its own, and so is compiled anew."""
    unhealthy = (HealthCheck.too_slow, HealthCheck.data_too_large)
    chosen = settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=unhealthy)
    return lambda test: chosen(given(layer=layers())(test))


@drawn(30)
def test_values_and_gradients_equal_the_oracles(layer):
    check_against_the_oracle(layer)


@pytest.mark.slow
@drawn(200)
def test_values_and_gradients_equal_the_oracles_for_many_clocks(layer):
    check_against_the_oracle(layer)


def check_against_the_oracle(layer):
    with jax.enable_x64(True):
        clock, steps, start = layer.clock, layer.steps, layer.start
        weights = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), layer.weights)
        rng = np.random.default_rng(0)
        outputs_bar, last_bar = rng.normal(size=(steps, clock.width)), rng.normal(size=clock.width)

        @jax.jit
        def evaluate(weights, inputs, hidden, cotangents):
            found = {}
            for method in METHODS:
                call = functools.partial(cw.unroll, clock=clock, method=method, **layer.call())
                (outputs, last), vjp = jax.vjp(lambda w, x, h: call(w, inputs=x, hidden=h), weights, inputs, hidden)  # noqa: B023
                weights_bar, inputs_bar, hidden_bar = vjp(cotangents)
                found[method] = (outputs, last, *weights_bar.dense(clock), inputs_bar, hidden_bar)
            return found

        found = evaluate(weights, layer.inputs, layer.hidden, (outputs_bar, last_bar))
        w_in, w_rec, bias = map(np.asarray, weights.dense(clock))
        outputs = oracle.forward(clock, w_in, w_rec, bias, layer.sequence, start, layer.hidden)
        w_in_bar, w_rec_bar, *rest = oracle.backward(
            clock, w_in, w_rec, bias, layer.sequence, start, layer.hidden, outputs_bar, last_bar
        )
        wanted = [outputs, outputs[-1], w_in_bar, np.where(triangle(clock), w_rec_bar, 0), *rest]
        names = ("outputs", "last", "input weights", "recurrent weights", "bias", "inputs", "hidden")
        for method in METHODS:
            for name, got, want in zip(names, found[method], wanted, strict=True):
                if got is not None:
                    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10, err_msg=f"{method}: {name}")


CASES = [
    cw.Clock.exponential(width=11, modules=4),
    cw.Clock(periods=(1, 2, 3, 5, 8), sizes=(2, 1, 3, 1, 2)),
    cw.Clock(periods=(3, 3, 7), sizes=(2, 2, 1)),
    cw.Clock(periods=(1,), sizes=(5,)),
]


@pytest.mark.parametrize("clock", CASES, ids=str)
@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_methods_agree_in_low_precision(clock, inputs, dtype, tolerance):
    drawn = layer(clock, 40, 5, inputs, np.random.default_rng(1))
    weights, sequence, hidden = jax.tree.map(
        lambda x: jnp.asarray(x, dtype), (drawn.weights, drawn.inputs, drawn.hidden)
    )

    @functools.partial(jax.jit, static_argnames="method")
    def loss(weights, sequence, hidden, method):
        def f(weights):
            outputs, last = cw.unroll(weights, clock, sequence, hidden=hidden, method=method, **drawn.call())
            assert outputs.dtype == last.dtype == dtype
            return jnp.square(outputs.astype(jnp.float32)).mean()

        return jax.value_and_grad(f)(weights)

    masked, *others = (
        loss(weights, sequence, hidden, method) for method in METHODS if method != "native" or dtype == jnp.float32
    )
    for other in others:
        for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(other), strict=True):
            a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("clock", CASES, ids=str)
@pytest.mark.parametrize(
    ("method", "activation", "readout"),
    [("cascade", jnp.tanh, True), ("cascade", jax.nn.sigmoid, False), ("native", jnp.tanh, True)],
)
def test_runs_side_by_side_equal_single_runs(float64, clock, method, readout, activation):
    rng = np.random.default_rng(2)
    drawn = layer(clock, 23, 3, 2, rng)
    runs = 3
    weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(runs, *x.shape)), jnp.float64), drawn.weights)
    kernel = jnp.asarray(rng.normal(size=(runs, clock.width, 2))) if readout else None
    inputs = jnp.asarray(drawn.inputs)

    def loss(weights, kernel, inputs, method):
        outputs, last = cw.unroll(weights, clock, inputs, start=3, readout=kernel, activation=activation, method=method)
        return jnp.sin(outputs).sum() + jnp.square(last).sum()

    axes = (0, 0 if readout else None, None)

    @jax.jit
    def together(weights, kernel, inputs):
        grad = jax.grad(functools.partial(loss, method=method), argnums=(0, 2))
        return jax.vmap(grad, in_axes=axes)(weights, kernel, inputs)

    @jax.jit
    def vmap_inside(weights, kernel, inputs):
        def total(weights, inputs):
            return jax.vmap(functools.partial(loss, method=method), in_axes=axes)(weights, kernel, inputs).sum()

        return jax.grad(total, argnums=(0, 1))(weights, inputs)

    @jax.jit
    def single(weights, kernel, inputs):
        return jax.grad(functools.partial(loss, method="masked"), argnums=(0, 2))(weights, kernel, inputs)

    found = together(weights, kernel, inputs)
    inside = vmap_inside(weights, kernel, inputs)
    each = [single(*jax.tree.map(lambda x, r=r: x[r], (weights, kernel)), inputs) for r in range(runs)]
    want = jax.tree.map(lambda *xs: jnp.stack(xs), *each)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), inside, (want[0], want[1].sum(0)))


@pytest.mark.parametrize("method", ["cascade", "native"])
def test_a_batch_of_sequences_shares_its_weights(float64, method):
    clock, rng = CASES[1], np.random.default_rng(3)
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), layer(clock, 9, 0, 2, rng).weights)
    batch = jnp.asarray(rng.normal(size=(4, 9, 2)))

    @functools.partial(jax.jit, static_argnames="method")
    def grad(weights, batch, method):
        def loss(weights, batch):
            outputs, _ = jax.vmap(lambda x: cw.unroll(weights, clock, x, method=method))(batch)
            return jnp.sin(outputs).sum()

        return jax.grad(loss, argnums=(0, 1))(weights, batch)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11),
        grad(weights, batch, method),
        grad(weights, batch, "masked"),
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_readout_is_a_product_with_the_outputs(float64, method):
    clock, rng = CASES[1], np.random.default_rng(4)
    drawn = layer(clock, 17, 4, 0, rng)
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), drawn.weights)
    kernel = jnp.asarray(rng.normal(size=(clock.width, 3)))

    @jax.jit
    def both(weights, kernel):
        def read(weights, kernel):
            return cw.unroll(weights, clock, steps=17, start=4, readout=kernel, method=method)[0]

        def multiply(weights, kernel):
            return cw.unroll(weights, clock, steps=17, start=4, method=method)[0] @ kernel

        cotangent = jnp.cos(jnp.arange(51.0)).reshape(17, 3)
        results = [jax.vjp(f, weights, kernel) for f in (read, multiply)]
        return [(out, vjp(cotangent)) for out, vjp in results]

    got, want = both(weights, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


@pytest.mark.parametrize("method", METHODS)
def test_a_sequence_cut_anywhere_and_continued_equals_the_whole(float64, method):
    clock = CASES[1]
    drawn = layer(clock, 13, 2, 2, np.random.default_rng(5))
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), drawn.weights)
    unroll = jax.jit(functools.partial(cw.unroll, weights, clock, method=method), static_argnames="start")
    whole, last = unroll(drawn.sequence, start=2, hidden=drawn.hidden)
    for cut in (1, 6, 12):
        first, between = unroll(drawn.sequence[:cut], start=2, hidden=drawn.hidden)
        rest, end = unroll(drawn.sequence[cut:], start=2 + cut, hidden=between)
        np.testing.assert_allclose(jnp.concatenate([first, rest]), whole, atol=1e-12)
        np.testing.assert_allclose(end, last, atol=1e-12)


def test_steps_one_by_one_equal_unroll(float64):
    clock = CASES[1]
    drawn = layer(clock, 20, 0, 2, np.random.default_rng(6))
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), drawn.weights)
    state = cw.State.initial(clock, jnp.float64)
    outputs = []
    for x_t in drawn.sequence:
        state, y_t = cw.step(weights, clock, state, x_t)
        outputs.append(y_t)
    np.testing.assert_allclose(jnp.stack(outputs), cw.unroll(weights, clock, drawn.inputs)[0], atol=1e-12)
    assert int(state.time) == 20


def test_the_clock_of_a_state_goes_on_past_32_bits():
    clock = cw.Clock(periods=(1, 3), sizes=(1, 1))
    weights = cw.init(jax.random.key(0), clock)
    last = (2**31 - 1) // 3 * 3 - 1
    state, _ = cw.step(weights, clock, cw.State(jnp.zeros(2), jnp.asarray(last, jnp.int32)))
    assert int(state.time) == 0


def test_one_module_of_period_one_is_the_simple_rnn_of_flax():
    inputs = jax.random.normal(jax.random.key(0), (12, 3))
    cell = nnx.SimpleCell(3, 5, rngs=nnx.Rngs(0))
    want = nnx.RNN(cell)(inputs)
    clock = cw.Clock(periods=(1,), sizes=(5,))
    bias = cell.dense_i.bias
    assert bias is not None
    weights = cw.Weights.from_dense(clock, cell.dense_i.kernel[...], cell.dense_h.kernel[...], bias[...])
    for method in METHODS:
        np.testing.assert_allclose(cw.unroll(weights, clock, inputs, method=method)[0], want, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_slow_module_never_hears_a_faster_one(method):
    clock = CASES[1]
    drawn = layer(clock, 11, 0, 0, np.random.default_rng(7))

    def slow(fast, j):
        hidden = jnp.asarray(drawn.hidden, jnp.float32)
        hidden = jnp.concatenate([fast, hidden[clock.starts[j] :]])
        return cw.unroll(drawn.weights, clock, steps=11, hidden=hidden, method=method)[0][:, clock.starts[j] :]

    for j in range(1, clock.modules):
        jacobian = jax.jit(jax.jacrev(functools.partial(slow, j=j)))(jnp.ones(clock.starts[j]))
        assert jacobian.shape[-1] == clock.starts[j]
        assert not jacobian.any()


def test_a_clock_that_starts_late_is_exact_for_any_start():
    clock = cw.Clock(periods=(1, 3), sizes=(2, 2))
    weights = cw.init(jax.random.key(0), clock)
    huge = 3 * 10**18
    for method in METHODS:
        near, _ = cw.unroll(weights, clock, steps=7, start=1, method=method)
        far, _ = cw.unroll(weights, clock, steps=7, start=huge + 1, method=method)
        np.testing.assert_array_equal(near, far)


def test_periods_far_beyond_the_sequence_cost_no_memory():
    clock = cw.Clock(periods=(1, 10**7, 2**31 - 1), sizes=(2, 2, 2))
    drawn = layer(clock, 6, 2**31 - 3, 0, np.random.default_rng(9))

    def loss(weights, method):
        outputs, _ = cw.unroll(weights, clock, steps=6, start=2**31 - 3, method=method)
        return jnp.sin(outputs).sum(), outputs

    grads = [jax.jit(jax.grad(functools.partial(loss, method=m), has_aux=True)) for m in METHODS]
    masked, *others = (grad(drawn.weights) for grad in grads)
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), masked, other)
    for grad in grads[1:]:
        memory = grad.lower(drawn.weights).compile().memory_analysis()
        assert memory is None or memory.temp_size_in_bytes < 10**6


def test_the_cascade_compiles_once_for_equal_arguments():
    clock = cw.Clock(periods=(1, 2), sizes=(2, 2))
    traces = []

    @functools.partial(jax.jit, static_argnames="clock")
    def run(weights, clock):
        traces.append(clock)
        return cw.unroll(weights, clock, steps=5)[0]

    for seed in range(3):
        run(cw.init(jax.random.key(seed), cw.Clock((1, 2), (2, 2))), clock=cw.Clock((1, 2), (2, 2)))
    run(cw.init(jax.random.key(0), clock), clock=clock)
    assert len(traces) == 1


@pytest.mark.parametrize("method", METHODS)
def test_the_hidden_sequence_has_no_dense_array_where_only_read_out(method):
    clock = cw.Clock.exponential(width=24, modules=4)
    weights = cw.init(jax.random.key(0), clock)

    def read(weights):
        return cw.unroll(weights, clock, steps=64, readout=jnp.ones((24, 1)), method=method)[0]

    shapes = {tuple(v.aval.shape) for eqn in _equations(jax.make_jaxpr(read)(weights).jaxpr) for v in eqn.outvars}
    assert ((64, 24) in shapes) == (method == "masked")


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
            elif hasattr(inner, "jaxpr"):
                yield from _equations(inner.jaxpr)


BAD_CALLS = [
    ({}, "give either inputs or steps, got neither"),
    ({"inputs": np.zeros((3, 2), np.float32), "steps": 3}, "give either inputs or steps, got both"),
    ({"inputs": np.zeros((3, 1), np.float32)}, r"inputs must have shape \(T, 2\), got \(3, 1\)"),
    ({"inputs": np.zeros((1, 3, 2), np.float32)}, r"inputs must have shape \(T, 2\), got \(1, 3, 2\)"),
    ({"inputs": np.zeros((0, 2), np.float32)}, "at least one step, got 0"),
    ({"steps": 3}, "a layer with 2 inputs, got none"),
    ({"inputs": np.zeros((3, 2), np.float32), "start": -1}, "start must be at least 0, got -1"),
    ({"inputs": np.zeros((3, 2), np.float32), "start": 1.5}, "start must be an integer known before compilation"),
    ({"inputs": np.zeros((3, 2), np.float32), "hidden": np.zeros(4, np.float32)}, r"hidden must have shape \(3,\)"),
    ({"inputs": np.zeros((3, 2), np.float32), "readout": np.zeros(3, np.float32)}, r"readout must have shape \(3, O\)"),
    ({"inputs": np.zeros((3, 2), np.float32), "method": "fast"}, "method must be one of .* got 'fast'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD_CALLS)
def test_bad_calls_are_refused_with_a_sentence(arguments, sentence):
    clock = cw.Clock(periods=(1, 2), sizes=(2, 1))
    weights = cw.init(jax.random.key(0), clock, inputs=2)
    with pytest.raises(ValueError, match=sentence):
        cw.unroll(weights, clock, **arguments)


def test_no_steps_are_refused():
    clock = cw.Clock(periods=(1, 2), sizes=(2, 1))
    with pytest.raises(ValueError, match="at least one step, got 0"):
        cw.unroll(cw.init(jax.random.key(0), clock), clock, steps=0)


def test_weights_of_another_clock_are_refused():
    weights = cw.init(jax.random.key(0), cw.Clock(periods=(1, 2), sizes=(2, 1)))
    with pytest.raises(ValueError, match="must have shapes"):
        cw.unroll(weights, cw.Clock(periods=(1, 2), sizes=(1, 2)), steps=3)


def test_a_step_refuses_inputs_that_do_not_fit():
    clock = cw.Clock(periods=(1, 2), sizes=(2, 1))
    weights = cw.init(jax.random.key(0), clock, inputs=2)
    state = cw.State.initial(clock)
    with pytest.raises(ValueError, match=r"x_t must have shape \(2,\), got \(3,\)"):
        cw.step(weights, clock, state, jnp.zeros(3))
    with pytest.raises(ValueError, match="2 inputs, got none"):
        cw.step(weights, clock, state)


@pytest.mark.parametrize("method", ["cascade", "native"])
def test_runs_of_runs_without_inputs_and_a_batch_of_none(method):
    clock = cw.Clock((1, 2), (3, 2))
    weights = cw.init(jax.random.key(0), clock)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, 3, *x.shape)), weights)
    outputs = jax.vmap(jax.vmap(lambda w: cw.unroll(w, clock, steps=40, method=method)[0]))(many)
    assert outputs.shape == (2, 3, 40, 5)
    np.testing.assert_allclose(outputs[1, 2], cw.unroll(weights, clock, steps=40, method="masked")[0], atol=1e-6)
    weights = cw.init(jax.random.key(0), clock, 2)
    loss = lambda x: jax.vmap(lambda x: cw.unroll(weights, clock, x, method=method)[0])(x).sum()  # noqa: E731
    assert jax.grad(loss)(jnp.zeros((0, 9000, 2))).shape == (0, 9000, 2)

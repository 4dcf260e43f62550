# pyright: reportArgumentType=false, reportCallIssue=false
"""Deep transitions as functions: values and gradients against NumPy, in every layout of batch and runs."""

import chex
import deep_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clockwork as cw
from clockwork.deep import DeepWeights, Sparse, deep_init, deep_step, deep_unroll, explain, lp_units, scan

STEPS, INPUTS, WIDTH, OUTPUTS = 7, 3, 4, 2
FUNCTIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
CASES = [
    pytest.param((), True, ("tanh",), id="simple"),
    pytest.param((3,), True, ("tanh", "tanh"), id="shortcuts"),
    pytest.param((3, 5), False, ("sigmoid", "tanh", "sigmoid"), id="no shortcuts"),
]


def drawn(middle, shortcuts, inputs=INPUTS, runs=3):
    """Weights of several runs, sequences and cotangents, NumPy float64."""
    rng = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), runs)
    weights = [deep_init(k, WIDTH, inputs, middle, shortcuts=shortcuts, stddev=0.7, dtype=jnp.float64) for k in keys]
    shapes = {"inputs": (2, STEPS, inputs), "hidden": (2, WIDTH), "y_bar": (2, STEPS, WIDTH), "last_bar": (2, WIDTH)}
    return [jax.tree.map(np.asarray, w) for w in weights], {k: rng.normal(size=s) for k, s in shapes.items()}


def pulled_back(names, method="scan"):
    """Outputs, last state and the gradients of one sequence."""
    activation = tuple(FUNCTIONS[name] for name in names)

    def run(weights, inputs, hidden, y_bar, last_bar):
        def apply(weights, inputs, hidden):
            return deep_unroll(weights, inputs, hidden=hidden, method=method, activation=activation)

        results, pull = jax.vjp(apply, weights, inputs, hidden)
        return results, pull((y_bar, last_bar))

    return run


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("middle", "shortcuts", "names"), CASES)
def test_values_and_gradients_equal_the_oracles(middle, shortcuts, names, monkeypatch):
    monkeypatch.setattr(scan, "GRADIENT_ROWS", 6)  # windows of 6 steps, and of 3 for two sequences; or of all for runs
    weights, given = drawn(middle, shortcuts)
    one, sequences = pulled_back(names), [given[k] for k in ("inputs", "hidden", "y_bar", "last_bar")]
    want = [[_oracle(w, [x[b] for x in sequences], names) for b in range(2)] for w in weights]
    close = lambda got, want: chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-11)  # noqa: E731
    close(jax.jit(one)(weights[0], *(x[0] for x in sequences)), want[0][0])
    stacked = jax.tree.map(lambda *w: np.stack(w), *weights)
    runs = jax.jit(jax.vmap(one, in_axes=(0, None, None, None, None)))(stacked, *(x[0] for x in sequences))
    close(runs, _stack([w[0] for w in want]))

    def batch(weights, *sequences):  # the gradient of shared weights is one for the batch
        def apply(weights, inputs, hidden):
            functions = tuple(FUNCTIONS[name] for name in names)
            each = jax.vmap(lambda x, h: deep_unroll(weights, x, hidden=h, activation=functions))
            return each(inputs, hidden)

        results, pull = jax.vjp(apply, weights, *sequences[:2])
        return results, pull(tuple(sequences[2:]))

    def of_batch(found):
        (y, last), (weights_bar, inputs_bar, hidden_bar) = _stack(found)
        return (y, last), (jax.tree.map(lambda bar: bar.sum(0), weights_bar), inputs_bar, hidden_bar)

    close(jax.jit(batch)(weights[0], *sequences), of_batch(want[0]))
    both = jax.jit(jax.vmap(batch, in_axes=(0, None, None, None, None)))(stacked, *sequences)
    close(both, _stack([of_batch(w) for w in want]))


def _oracle(weights, sequences, names):
    inputs, hidden, y_bar, last_bar = sequences
    outputs, _ = deep_oracle.forward(weights, inputs, hidden, names)
    weights_bar, inputs_bar, hidden_bar = deep_oracle.backward(weights, inputs, hidden, names, y_bar, last_bar)
    return (outputs, outputs[-1]), (DeepWeights(*weights_bar), inputs_bar, hidden_bar)


def _stack(trees):
    return jax.tree.map(lambda *xs: np.stack(xs), *trees)


@pytest.mark.usefixtures("float64")
def test_layers_run_by_run_readouts_steps_and_second_derivatives(monkeypatch):
    monkeypatch.setattr(scan, "RUNS_LAST_MAX_UNITS", 1)  # as wide layers are evaluated
    weights, given = drawn((3,), True)
    stacked = jax.tree.map(lambda *w: jnp.stack(w), *weights)
    readout, inputs = jnp.asarray(np.random.default_rng(1).normal(size=(WIDTH, OUTPUTS))), jnp.asarray(given["inputs"])

    def loss(method, weights, readout):
        each = jax.vmap(lambda x: deep_unroll(weights, x, readout=readout, method=method)[0])
        return jnp.sin(each(inputs)).sum()

    def gradients(method):
        grad = jax.value_and_grad(lambda w, r: loss(method, w, r), argnums=(0, 1))
        return jax.jit(jax.vmap(grad, in_axes=(0, None)))(stacked, readout)

    chex.assert_trees_all_close(gradients("scan"), gradients("reference"), rtol=1e-12)
    outputs, last = deep_unroll(weights[0], inputs[0])
    hidden = jnp.zeros(WIDTH)
    for x_t, y_t in zip(inputs[0], outputs, strict=True):
        hidden = deep_step(weights[0], hidden, x_t)
        np.testing.assert_allclose(hidden, y_t, rtol=1e-13)
    np.testing.assert_array_equal(last, outputs[-1])
    tangents = (jax.tree.map(jnp.ones_like, weights[0]), jnp.ones_like(readout))
    forwards = [
        jax.jvp(lambda w, r, m=m: loss(m, w, r), (weights[0], readout), tangents) for m in ("scan", "reference")
    ]
    chex.assert_trees_all_close(*forwards, rtol=1e-12)
    assert jnp.isfinite(jax.hessian(lambda r: loss("reference", weights[0], r))(readout)).all()
    with pytest.raises(ValueError, match="second derivatives"):
        jax.hessian(lambda r: loss("scan", weights[0], r))(readout)


@pytest.mark.usefixtures("float64")
def test_a_transition_of_one_layer_is_a_simple_rnn_and_no_input_is_needed():
    weights = deep_init(jax.random.key(0), WIDTH, dtype=jnp.float64, stddev=0.7)
    clock = cw.Clock(periods=(1,), sizes=(WIDTH,))
    same = cw.Weights(weights.input, (weights.recurrent,), weights.bias)
    start = jnp.linspace(-1, 1, WIDTH)
    got, want = (
        f(start) for f in (lambda h: deep_unroll(weights, steps=9, hidden=h)[0],
                           lambda h: cw.unroll(same, clock, steps=9, hidden=h)[0])
    )  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_long_sequences_go_chunk_by_chunk_and_dtypes_are_kept(dtype):
    weights = deep_init(jax.random.key(0), WIDTH, INPUTS, (3,), dtype=dtype)
    inputs = jax.random.normal(jax.random.key(1), (1030, INPUTS), dtype)

    def loss(weights, inputs, method):
        outputs, last = deep_unroll(weights, inputs, method=method)
        assert outputs.dtype == last.dtype == weights.bias.dtype
        return outputs.astype(jnp.float32).sum()

    got = jax.jit(jax.grad(loss), static_argnames="method")(weights, inputs, method="scan")
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (weights, inputs))
    want = jax.jit(jax.grad(loss), static_argnames="method")(*exact, method="reference")
    chex.assert_trees_all_equal_dtypes(got, weights)
    for bar, true in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        error = jnp.linalg.norm(bar.astype(jnp.float32) - true) / jnp.linalg.norm(true)
        assert error < (1e-4 if dtype == jnp.float32 else 0.05)


def test_it_lowers_for_accelerators_and_says_who_evaluates_it():
    weights = deep_init(jax.random.key(0), WIDTH, INPUTS, (3,))
    grad = jax.jit(jax.grad(lambda w: deep_unroll(w, jnp.ones((9, INPUTS)))[0].sum()))
    for platform in ("cuda", "tpu"):
        assert grad.trace(weights).lower(lowering_platforms=(platform,)).as_text()
    assert [name for name, _ in explain(hidden=4, steps=9)] == ["scan", "reference"]
    assert explain(hidden=4, steps=9, method="reference")[0][0] == "reference"


def test_stored_weights_come_back():
    weights = deep_init(jax.random.key(0), WIDTH, INPUTS, (3, 5), shortcuts=False)
    assert (weights.sizes, weights.shortcuts) == ((3, 5, WIDTH), False)
    chex.assert_trees_all_equal(DeepWeights.from_flat(weights.flat("a."), "a."), weights)
    with pytest.raises(ValueError, match=r"must be named .*'between.0'.*, got \['between.0', 'bias', 'input'\]"):
        DeepWeights.from_flat({k: v for k, v in weights.flat().items() if k not in ("recurrent", "between.1")})


def test_sparse_matrices_have_so_many_entries_and_this_norm():
    matrix = np.asarray(Sparse(nonzeros=5, norm=1.5)(jax.random.key(0), (30, 40)))
    assert ((matrix != 0).sum(1) == 5).all()
    np.testing.assert_allclose(np.linalg.norm(matrix, 2), 1.5, rtol=5e-3)
    assert (np.asarray(Sparse()(jax.random.key(0), (30, 4))) != 0).all()
    with pytest.raises(ValueError, match=r"draws matrices, got the shape \(3,\)"):
        Sparse()(jax.random.key(0), (3,))


@pytest.mark.usefixtures("float64")
def test_lp_units_are_the_norm_they_are_called_and_never_blow_up():
    pieces = np.random.default_rng(0).normal(size=(5, 3, 4))
    rho = np.array([-2.0, 0.5, 3.0])
    order = 1 + np.log1p(np.exp(rho))
    want = (np.abs(pieces) ** order[:, None]).mean(-1) ** (1 / order)
    np.testing.assert_allclose(lp_units(jnp.asarray(pieces), jnp.asarray(rho)), want, rtol=1e-12)

    def by_hand(pieces, rho):
        order = (1 + jax.nn.softplus(rho))[None, :, None]
        return jnp.exp(jnp.log(jnp.exp(order * jnp.log(jnp.abs(pieces))).mean(-1)) / order[..., 0])

    got, want = (
        jax.grad(lambda d, r, f=f: jnp.sin(f(d, r)).sum(), argnums=(0, 1))(jnp.asarray(pieces), jnp.asarray(rho))
        for f in (lp_units, by_hand)
    )
    chex.assert_trees_all_close(got, want, rtol=1e-10)
    extreme = jnp.array([[[0.0, 0.0], [1e200, 1e199], [1e-200, 0.0]]])
    value, grads = jax.value_and_grad(lambda d, r: jnp.log1p(lp_units(d, r)).sum(), argnums=(0, 1))(
        extreme, jnp.asarray(rho)
    )
    assert all(bool(jnp.isfinite(x).all()) for x in (value, *grads))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: deep_unroll(w, jnp.ones((5, 2))), r"inputs must have shape \(T, 3\)"),
        (lambda w: deep_unroll(w, steps=5), "layer with 3 inputs, got none"),
        (lambda w: deep_unroll(w), "either inputs or steps, got neither"),
        (lambda w: deep_unroll(w, jnp.ones((5, 3)), hidden=jnp.ones(3)), r"hidden must have shape \(4,\)"),
        (lambda w: deep_unroll(w, jnp.ones((5, 3)), readout=jnp.ones((3, 2))), r"readout must have shape \(4, O\)"),
        (lambda w: deep_unroll(w, jnp.ones((5, 3)), activation=(jnp.tanh,)), "or 2, one for each layer, got 1"),
        (lambda w: deep_unroll(w, jnp.ones((5, 3)), activation="tanh"), "must be a function such as jnp.tanh"),
        (lambda w: deep_unroll(w, jnp.ones((5, 3)), method="masked"), "method must be one of .*, got 'masked'"),
        (lambda w: deep_unroll(w._replace(bias=jnp.ones(3)), jnp.ones((5, 3))), r"must have shapes such as"),
        (lambda w: deep_unroll(tuple(w), jnp.ones((5, 3))), r"must be DeepWeights, such as deep_init\(key, hidden\)"),
        (lambda w: deep_step(w, jnp.ones(3), jnp.ones(3)), r"hidden must have shape \(4,\)"),
        (lambda w: deep_init(jax.random.key(0), 4, middle=5), r"middle must be a sequence of layer sizes"),
        (lambda w: deep_init(jax.random.key(0), 4, middle=(0,)), "middle must be an integer, 1 or more, got 0"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call(deep_init(jax.random.key(0), WIDTH, INPUTS, (3,)))
    assert "\n" not in str(raised.value)

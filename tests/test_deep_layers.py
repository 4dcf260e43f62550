# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Deep transitions and neural operators as layers: in nnx and linen, in every mode of a layer, inside a clockwork."""

import functools
import pickle

import chex
import deep_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import clockwork as cw
from clockwork.deep import Sparse
from clockwork.nn import (
    MLP,
    Bidirectional,
    Clockwork,
    DeepRNN,
    DeepTransition,
    DeepTransitionCell,
    LpUnits,
    Maxout,
    Operators,
    Recurrent,
    SequenceNetwork,
    Stack,
    Transition,
    flat,
    linen,
    set_flat,
)

STEPS, INPUTS, WIDTH, BATCH = 9, 2, 4, 3
LENGTHS = np.array([9, 1, 4])
OPTIONS = [
    {"middle": (3,)},
    {"middle": (3, 5), "shortcuts": False, "activation": (jax.nn.sigmoid, jnp.tanh, jax.nn.sigmoid)},
]


def inputs_for(*batch):
    return jnp.asarray(np.random.default_rng(0).normal(size=(*batch, STEPS, INPUTS)), jnp.float32)


def linen_variables(cell):
    """The variables of the linen layer that has the weights of this nnx cell."""
    params = {name.replace("between.", "between_"): x for name, x in cell.weights.flat().items()}
    return {"params": {"cell": params}}


@pytest.mark.parametrize("options", OPTIONS)
def test_every_mode_of_the_layer_in_both_apis(options):
    layer = DeepTransition(INPUTS, WIDTH, **options, rngs=nnx.Rngs(0))
    weights = jax.tree.map(lambda w: np.asarray(w, float), layer.cell.weights)
    names = ["sigmoid" if f is jax.nn.sigmoid else "tanh" for f in layer.cell.activation]
    x = inputs_for(BATCH)
    want = np.stack(
        [deep_oracle.forward(weights, np.asarray(x[b], float), np.zeros(WIDTH), names)[0] for b in range(3)]
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    module, variables = linen.DeepTransition(WIDTH, **options), linen_variables(layer.cell)
    apply = functools.partial(module.apply, variables)
    for run in (layer, apply, nnx.RNN(layer.cell), functools.partial(nn.RNN(_linen_cell(options)).apply, variables)):
        close(run(x), want)
    for run in (layer, apply):
        close(run(jnp.swapaxes(x, 0, 1), time_major=True), jnp.swapaxes(want, 0, 1))
        close(run(x[0]), want[0])
        carry, y = run(x, seq_lengths=LENGTHS, return_carry=True)
        valid = np.arange(STEPS)[None] < LENGTHS[:, None]
        close(y, np.where(valid[..., None], want, 0))
        close(carry, want[np.arange(3), LENGTHS - 1])
        first, begun = run(x[:, :5], return_carry=True)
        close(jnp.concatenate([begun, run(x[:, 5:], initial_carry=first)], 1), want)
        backwards = run(x, seq_lengths=LENGTHS, reverse=True, keep_order=True)
        each = [jnp.flip(run(jnp.flip(x[b, :n], 0)), 0) for b, n in enumerate(LENGTHS)]
        for b, n in enumerate(LENGTHS):
            close(backwards[b, :n], each[b])
    both = Bidirectional(layer, layer)(x, seq_lengths=LENGTHS)
    close(both[..., WIDTH:], layer(x, seq_lengths=LENGTHS, reverse=True, keep_order=True))
    above = DeepTransition(WIDTH, 5, rngs=nnx.Rngs(1))
    close(Stack([layer, above])(x), above(layer(x)))


def _linen_cell(options):
    return linen.DeepTransitionCell(WIDTH, **options)


@pytest.mark.parametrize("middle", [(), (3,)])
def test_a_clockwork_of_deep_transitions_is_its_masked_evaluation(middle):
    clock, x = cw.Clock(periods=(1, 2, 4), sizes=(2, 2, 1)), inputs_for(BATCH)
    cell = functools.partial(DeepTransitionCell, middle=middle)
    layer = Clockwork(clock, INPUTS, cell=cell, rngs=nnx.Rngs(0))
    masked = Clockwork(clock, INPUTS, cell=cell, method="masked", rngs=nnx.Rngs(0))

    def run(layer):
        return jax.jit(nnx.value_and_grad(lambda layer: jnp.sin(layer(x, seq_lengths=LENGTHS)).sum()))(layer)

    chex.assert_trees_all_close(run(layer), run(masked), rtol=1e-4, atol=1e-6)
    carry, y = layer(x, seq_lengths=LENGTHS, return_carry=True)
    same, z = masked(x, seq_lengths=LENGTHS, return_carry=True)
    chex.assert_trees_all_close((carry.cells, carry.hidden, y), (same.cells, same.hidden, z), rtol=1e-5, atol=1e-6)
    if not middle:  # the clockwork of the paper
        blocks = [layer.cell.cells[i].weights for i in range(3)]
        simple = Clockwork(clock, INPUTS, rngs=nnx.Rngs(0))
        rows = [jnp.concatenate([b.recurrent, b.input[INPUTS:]]) for b in blocks]  # from the module, then the slower
        dense = jnp.zeros((5, 5))
        for a, k, block in zip(clock.starts, clock.sizes, rows, strict=True):
            dense = dense.at[a:, a : a + k].set(block)
        first = jnp.concatenate([b.input[:INPUTS] for b in blocks], 1)
        simple.cell.set_weights(cw.Weights.from_dense(clock, first, dense, jnp.concatenate([b.bias for b in blocks])))
        np.testing.assert_allclose(simple(x), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_operators_with_affine_layers_are_the_deep_transition(shortcuts):
    x = inputs_for(BATCH)
    layer = DeepTransition(INPUTS, WIDTH, (3,), shortcuts=shortcuts, predict=MLP(WIDTH, (5, 2), rngs=nnx.Rngs(2)),
                           rngs=nnx.Rngs(0))  # fmt: skip
    plus = Transition(INPUTS, WIDTH, (3,), shortcuts=shortcuts, rngs=nnx.Rngs(1))
    w = layer.cell.weights
    if shortcuts:
        kernels = [jnp.concatenate([w.recurrent[:, :3], w.input[:, :3]]),
                   jnp.concatenate([w.between[0], w.recurrent[:, 3:], w.input[:, 3:]])]  # fmt: skip
    else:
        kernels = [jnp.concatenate([w.recurrent, w.input]), w.between[0]]
    for linear, kernel, bias in zip(plus.layers, kernels, (w.bias[:3], w.bias[3:]), strict=True):
        linear.kernel[...], linear.bias[...] = kernel, bias
    operators = Operators(plus, layer.predict, INPUTS, WIDTH)
    carry, y = operators(x, seq_lengths=LENGTHS, return_carry=True)
    want, z = layer(x, seq_lengths=LENGTHS, return_carry=True)
    chex.assert_trees_all_close((carry, y), (want, z), rtol=1e-5, atol=1e-6)
    arrays = flat(operators)
    module = linen.Operators(linen.Transition(WIDTH, (3,), shortcuts=shortcuts), linen.MLP((5, 2)), WIDTH)
    variables = linen.from_flat(module, {name.replace("cell.plus.", "plus."): a for name, a in arrays.items()})
    np.testing.assert_allclose(module.apply(variables, x, seq_lengths=LENGTHS), y, rtol=1e-5, atol=1e-6)


def test_the_starred_model_trains_with_lp_units_maxout_and_dropout():
    rngs, x = nnx.Rngs(0, dropout=1), inputs_for(BATCH)
    plus = Transition(INPUTS, WIDTH, (3,), unit=functools.partial(LpUnits, pieces=3), dropout=0.2, rngs=rngs)
    predict = MLP(WIDTH, (5, 2), unit=functools.partial(Maxout, pieces=2), dropout=0.2, rngs=rngs)
    network = Operators(plus, predict, INPUTS, WIDTH)
    assert not np.allclose(network(x), network(x))  # the masks differ
    network.eval()
    np.testing.assert_array_equal(network(x), network(x))
    grads = nnx.grad(lambda network: jnp.square(network(x)).sum())(network)
    sizes = {".".join(map(str, path)): float(jnp.abs(leaf[...]).max()) for path, leaf in nnx.to_flat_state(grads)}
    assert all(np.isfinite(size) and size > 0 for size in sizes.values()), sizes
    h, given = jnp.ones((1, WIDTH)), jnp.ones((1, INPUTS))
    pieces = plus.layers[0].linear(jnp.concatenate([h, given], -1)).reshape(3, 3)
    np.testing.assert_allclose(plus.layers[0](jnp.concatenate([h, given], -1))[0],
                               np.sqrt(np.square(pieces).mean(-1)), rtol=1e-5)  # fmt: skip
    maxed = predict.inner[0]
    np.testing.assert_allclose(maxed(h)[0], maxed.linear(h).reshape(5, 2).max(-1), rtol=1e-6)
    module = linen.Operators(linen.Transition(WIDTH, (3,), unit=linen.LpUnits),
                             linen.MLP((5, 2), unit=linen.Maxout), WIDTH)  # fmt: skip
    assert module.init_with_output(jax.random.key(0), x)[0].shape == (BATCH, STEPS, 2)


def test_any_cell_is_a_layer_with_what_it_predicts():
    x, rngs = inputs_for(BATCH), nnx.Rngs(0)
    cell = nnx.GRUCell(INPUTS, WIDTH, rngs=rngs)
    layer, rnn = Recurrent(cell, nnx.Linear(WIDTH, 1, rngs=rngs)), nnx.RNN(cell, rngs=rngs)
    want = rnn(x, seq_lengths=jnp.asarray(LENGTHS))
    valid = np.arange(STEPS)[None] < LENGTHS[:, None]
    hidden = np.where(valid[..., None], want, 0)
    np.testing.assert_allclose(layer(x, seq_lengths=LENGTHS), layer.predict(hidden), rtol=1e-5, atol=1e-6)
    module = linen.Recurrent(nn.GRUCell(WIDTH), nn.Dense(1))
    carry, y = module.init_with_output(jax.random.key(0), x, seq_lengths=LENGTHS, return_carry=True)[0]
    assert (carry.shape, y.shape) == ((BATCH, WIDTH), (BATCH, STEPS, 1))


def test_it_is_stored_copied_shown_and_initialised_as_one_likes():
    layer = DeepTransition(INPUTS, WIDTH, (3,), recurrent_kernel_init=Sparse(2), rngs=nnx.Rngs(0))
    assert ((layer.cell.recurrent[...] != 0).sum(1) == 4).all()  # two entries of a row in each of two matrices
    other = DeepTransition(INPUTS, WIDTH, (3,), rngs=nnx.Rngs(1))
    set_flat(other, flat(layer))
    x = inputs_for()
    np.testing.assert_array_equal(other(x), layer(x))
    other.cell.set_weights(jax.tree.map(jnp.zeros_like, layer.cell.weights))
    assert not other(x).any()
    module = linen.DeepTransition(WIDTH, (3,))
    np.testing.assert_allclose(module.apply(linen.from_flat(module, flat(layer)), x), layer(x), atol=1e-6)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    assert repr(layer) == "DeepTransition(in_features=2, hidden_features=4, middle=(3,))"
    assert repr(module) == "DeepTransition(features=4, middle=(3,))"
    assert repr(Transition(2, 4, (3,), rngs=nnx.Rngs(0))) == "Transition(in_features=2, hidden_features=4, middle=(3,))"
    assert repr(MLP(4, (3, 2), rngs=nnx.Rngs(0))) == "MLP(in_features=4, sizes=(3, 2))"
    operators = Operators(jnp.add, None, 4, 4, dtype=jnp.bfloat16)
    assert repr(operators) == "Operators(plus=add, in_features=4, hidden_features=4, dtype=bfloat16)"
    assert repr(Recurrent(layer.cell)).startswith("Recurrent(cell=DeepTransitionCell(in_features=2")
    without = DeepTransition(0, WIDTH, (3,), rngs=nnx.Rngs(0))
    assert without(jnp.zeros((5, 0))).shape == (5, WIDTH)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepTransition(2, 4, 3, rngs=nnx.Rngs(0)), r"middle must be a sequence of layer sizes .*, got 3"),
        (lambda: DeepTransition(2, 0, rngs=nnx.Rngs(0)), "hidden must be an integer, 1 or more, got 0"),
        (lambda: linen.DeepTransition(4, 3), r"middle must be a sequence of layer sizes .*, got 3"),
        (lambda: linen.DeepTransitionCell(4, activation=3), "activation must be a function"),
        (lambda: Recurrent(jnp.tanh), "cell must be an nnx.RNNCellBase of one feature axis"),
        (lambda: linen.Recurrent(jnp.tanh), "cell must be an nn.RNNCellBase of one feature axis"),
        (lambda: Recurrent(nnx.GRUCell(2, 4, rngs=nnx.Rngs(0)), 3), "predict must be a function of hidden states"),
        (lambda: Operators(3, None, 2, 4), "plus must be a function of hidden state and input"),
        (lambda: linen.OperatorCell(3, 4), "plus must be a function of hidden state and input"),
        (lambda: Operators(lambda h, x: h[..., :2], None, 2, 4)(jnp.ones((5, 2))), "hidden state that plus returns"),
        (lambda: linen.MLP(()), "sizes must be a sequence of at least one layer size"),
        (lambda: linen.MLP((3, 0)), "sizes must be an integer, 1 or more, got 0"),
        (lambda: linen.Transition(4, 3), r"middle must be a sequence of layer sizes .*, got 3"),
        (lambda: linen.LpUnits(4, order=1.0), "order must be"),
        (lambda: linen.Maxout(4, pieces=0), "pieces must be an integer, 1 or more, got 0"),
        (lambda: LpUnits(2, 4, order=1.0, rngs=nnx.Rngs(0)), "order must be"),
        (lambda: MLP(4, (), rngs=nnx.Rngs(0)), "sizes must be a sequence of at least one layer size"),
        (lambda: DeepTransition(2, 4, rngs=nnx.Rngs(0))(jnp.ones((5, 3))), r"inputs must have shape .*T, 2\)"),
        (lambda: DeepTransition(2, 4, rngs=nnx.Rngs(0))(jnp.ones((5, 2)), initial_carry=jnp.ones(3)), "carry must be"),
    ],
)
def test_mistakes_get_one_sentence(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


# Table 1 of Pascanu et al. (2013): features, then the weights of each network, biases not counted.
MUSIC = {"DT(S)": (400, 585_600), "DOT(S)": (400, 745_600), "sRNN": (400, 550_400)}
TABLE_1 = {
    "Nottingham": (88, {"RNN": (600, 465_600), **MUSIC}),
    "JSB Chorales": (88, {"RNN": (200, 75_200), **MUSIC}),
    "MuseData": (88, {"RNN": (600, 465_600), **MUSIC, "sRNN": (600, 1_185_600)}),
    "PTB characters": (
        50, {"RNN": (600, 420_000), "DT(S)": (400, 540_000), "DOT(S)": (400, 790_000), "sRNN": (400, 520_000)},
    ),
    "PTB words": (
        10_000, {"RNN": (200, 4_040_000), "DT(S)": (200, 6_120_000), "DOT(S)": (200, 6_160_000),
                 "sRNN": (400, 8_480_000)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", TABLE_1)
def test_the_networks_of_table_1_have_so_many_weights(data):
    features, networks = TABLE_1[data]
    wide = 600 if data == "PTB characters" else None
    for name, (hidden, count) in networks.items():
        options = {
            "RNN": {}, "sRNN": {"stacked": 2}, "DT(S)": {"middle": (hidden,)},
            "DOT(S)": {"middle": (hidden,), "output": (wide or hidden,)},
        }[name]  # fmt: skip
        made = nnx.eval_shape(lambda h=hidden, o=options: DeepRNN(features, h, features, **o, rngs=nnx.Rngs(0)))
        assert made.num_weights == count, (data, name)


def test_a_network_continued_is_the_whole_and_each_place_can_be_deep():
    x = inputs_for(BATCH)
    network = DeepRNN(INPUTS, WIDTH, 3, middle=(3,), output=(5,), before=(6,), stacked=2, rngs=nnx.Rngs(0))
    whole = network(x)
    carry, first = network(x[:, :4], return_carry=True)
    rest = network(x[:, 4:], initial_carry=carry)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, rtol=1e-5, atol=1e-6)
    by_hand = network.layers[1](network.layers[0](jnp.tanh(network.before.mlp(x))))
    np.testing.assert_allclose(network.predict(by_hand), whole, rtol=1e-5, atol=1e-6)
    assert repr(network) == (
        "DeepRNN(in_features=2, hidden_features=4, out_features=3, middle=(3,), output=(5,), before=(6,), stacked=2)"
    )
    clock = cw.Clock(periods=(1, 2), sizes=(2, 2))
    clocked = SequenceNetwork([Clockwork(clock, INPUTS, rngs=nnx.Rngs(0))], lambda h: h)
    carry, first = clocked(x[:, :4], return_carry=True)
    rest = jax.jit(lambda c, x: clocked(x, initial_carry=c, start=0))(carry, x[:, 4:])
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), clocked(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="one carry for each of the 2 layers, got 1"):
        network(x, initial_carry=(carry,))

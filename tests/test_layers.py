# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""Layers under JAX's transformations, in stacks and both ways, in nnx and linen; and what layers refuse."""

import ast
import functools
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from small_layers import CLOCKS, INPUTS, LENGTHS, STEPS, weights_for
from variants import over_two_devices

import clockwork as cw
from clockwork.nn import Bidirectional, Clockwork, ClockworkCell, ClockworkOfCells, Stack, linen


def test_neither_flax_api_is_built_on_the_other():
    folder = Path(cw.__file__).parent / "nn"
    imported = {
        path: {f"{node.module}.{alias.name}" for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.ImportFrom) for alias in node.names}
        for path in folder.rglob("*.py")
    }  # fmt: skip
    of_nnx = {path.stem for path, names in imported.items() if any(name.startswith("flax.nnx") for name in names)}
    assert of_nnx == {
        "cells",
        "layers",
        "recurrent",
        "networks",
        "of_cells",
        "parameters",
        "described",
        "stored",
        "typed",
        "deep",
        "deep_cells",
        "deep_networks",
        "units",
    }
    forbidden = re.compile(rf"flax\.nnx|clockwork\.nn\.(?:{'|'.join(of_nnx)}|[A-Z]\w*)(?:\.|$)")
    for path, names in imported.items():
        if path.parent.name == "linen":
            assert not [name for name in names if forbidden.match(name)], path
        elif path.stem not in {*of_nnx, "__init__"}:
            assert not [name for name in names if name.startswith("flax")], path


@pytest.mark.parametrize("cell", [None, pytest.param(nnx.SimpleCell, marks=pytest.mark.slow)])
def test_transformations_of_the_layer(cell):
    layer = Clockwork(CLOCKS[0], INPUTS, cell=cell, method="cascade", rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    inputs = jax.random.normal(jax.random.key(0), (4, STEPS, INPUTS))

    def apply(state, inputs):
        return nnx.merge(graph, state)(inputs)

    def loss(state, inputs):
        return jnp.sin(apply(state, inputs)).sum()

    close = functools.partial(chex.assert_trees_all_close, rtol=1e-7, atol=1e-5)
    want = jax.grad(loss)(state, inputs)
    close(jax.jit(jax.grad(loss))(state, inputs), want)
    close(jax.grad(jax.checkpoint(loss))(state, inputs), want)
    close(jax.vmap(apply, in_axes=(None, 0))(state, inputs), apply(state, inputs))
    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(state, inputs)
    close(jax.tree.map(lambda a: a.sum(0), each), want)
    runs = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), state)
    both = jax.vmap(jax.grad(loss), in_axes=(0, None))(runs, inputs)
    close(jax.tree.map(lambda a: a[0], both), want)
    exported = jax.export.export(jax.jit(jax.grad(loss)))(state, inputs)
    close(exported.call(state, inputs), want)
    for platform in ("cuda", "tpu"):
        assert jax.jit(jax.grad(loss)).trace(state, inputs).lower(lowering_platforms=(platform,)).as_text()
    outputs = over_two_devices(apply)(state, inputs)
    assert len(outputs.sharding.device_set) == 2
    close(outputs, apply(state, inputs))
    close(over_two_devices(jax.grad(loss))(state, inputs), want)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_stack_is_its_layers_by_hand(skip, reverse):
    rngs = nnx.Rngs(0)
    fast, slow = cw.Clock.exponential(5, 2), cw.Clock.exponential(4, 2, fastest=4)
    first, second = Clockwork(fast, INPUTS, rngs=rngs), Clockwork(slow, 5 + skip * INPUTS, rngs=rngs)
    stack = Stack([first, second], skip=skip)
    inputs = jax.random.normal(jax.random.key(0), (3, STEPS, INPUTS))
    order = {"seq_lengths": LENGTHS, "reverse": reverse}
    h1 = first(inputs, **order, keep_order=True)
    below = jnp.concatenate([inputs, h1], -1) if skip else h1
    h2 = second(below, **order, keep_order=True)
    want = jnp.concatenate([h1, h2], -1) if skip else h2
    carries, got = stack(inputs, **order, keep_order=True, return_carry=True)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert [carry.hidden.shape for carry in carries] == [(3, 5), (3, 4)]
    if not reverse:
        carries, start = stack(inputs[:, :4], return_carry=True)
        rest = stack(inputs[:, 4:], initial_carry=carries)
        np.testing.assert_allclose(jnp.concatenate([start, rest], 1), stack(inputs), atol=1e-5)
    cells = [first.cell, second.cell]
    variables = {"params": {f"layers_{i}": {"cell": linen.params(c.weights)} for i, c in enumerate(cells)}}
    module = linen.Stack([linen.Clockwork(fast), linen.Clockwork(slow)], skip=skip)
    np.testing.assert_allclose(module.apply(variables, inputs, **order, keep_order=True), got, atol=1e-6)


@pytest.mark.parametrize(
    ("merge", "want"),
    [
        ("concatenate", lambda a, b: jnp.concatenate([a, b], -1)),
        ("sum", lambda a, b: a + b),
        (jnp.maximum, jnp.maximum),
    ],
)
def test_both_ways_merged(merge, want):
    rngs = nnx.Rngs(0)
    forwards, backwards = (Clockwork(CLOCKS[0], INPUTS, rngs=rngs) for _ in range(2))
    inputs = jax.random.normal(jax.random.key(0), (2, 3, STEPS, INPUTS))
    lengths = jnp.asarray([[9, 1, 3], [2, 9, 8]])
    both = want(
        forwards(inputs, seq_lengths=lengths), backwards(inputs, seq_lengths=lengths, reverse=True, keep_order=True)
    )
    layer = Bidirectional(forwards, backwards, merge=merge)
    np.testing.assert_allclose(layer(inputs, seq_lengths=lengths), both, atol=1e-6)
    assert not jax.tree.leaves(nnx.state(layer, nnx.RngState))
    cells = [forwards.cell, backwards.cell]
    found = [{"cell": linen.params(cell.weights)} for cell in cells]
    module = linen.Bidirectional(linen.Clockwork(CLOCKS[0]), linen.Clockwork(CLOCKS[0]), merge=merge)
    variables = {"params": {"forward_rnn": found[0], "backward_rnn": found[1]}}
    np.testing.assert_allclose(module.apply(variables, inputs, seq_lengths=lengths), both, atol=1e-6)


class DrawsItsCarry(nnx.SimpleCell):
    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return super().initialize_carry(input_shape, rngs, nnx.initializers.normal(1.0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"merge_fn": jnp.maximum},
        {"rngs": True},
        {"rngs": False},
        {"merge_fn": jnp.add, "time_major": True, "return_carry": True, "rngs": nnx.Rngs(0)},
        {"rngs": nnx.Rngs(0, carry=1)},
        {"rngs": nnx.Rngs(carry=1).carry},
    ],
    ids=["plain", "merge_fn", "rngs", "no rngs", "all", "carry", "stream"],
)
def test_the_bidirectional_layer_is_called_as_flaxs(options):
    x = jax.random.normal(jax.random.key(0), (3, STEPS, INPUTS))
    found = []
    for kind in (Bidirectional, nnx.Bidirectional):
        rngs = nnx.Rngs(0)
        made = {**options, "rngs": nnx.clone(options["rngs"])} if "rngs" in options else options
        clockworks = [Clockwork(CLOCKS[0], INPUTS, rngs=rngs) for _ in range(2)]
        drawing = [nnx.RNN(DrawsItsCarry(INPUTS, 3, rngs=rngs)) for _ in range(2)]
        for pair in (clockworks, drawing) if options.get("rngs") else (clockworks,):
            layer = kind(*pair, **made)
            found.append(layer(x))
            ragged = {"seq_lengths": jnp.asarray(LENGTHS), "return_carry": False, "time_major": False}
            found.append(layer(x, initial_carry=None, **ragged))
    chex.assert_trees_all_close(found[: len(found) // 2], found[len(found) // 2 :])


def test_linens_bidirectional_layer_is_called_as_flaxs_and_cloned():
    x = jnp.ones((2, STEPS, INPUTS))
    pair = linen.Clockwork(CLOCKS[0]), linen.Clockwork(CLOCKS[0])
    ours, theirs = linen.Bidirectional(*pair, jnp.add, False, True), nn.Bidirectional(*pair, jnp.add, False, True)
    variables = ours.init(jax.random.key(0), x)
    chex.assert_trees_all_close(ours.apply(variables, x), theirs.apply(variables, x))
    by_name = linen.Bidirectional(*pair, merge="sum")
    assert by_name.clone().merge == "sum"
    assert by_name.clone(merge=jnp.maximum).clone(merge="concatenate").apply(variables, x).shape == (2, STEPS, 10)
    of_flax = by_name.clone(merge_fn=jnp.maximum)
    assert (of_flax.merge, of_flax.merge_fn) == (None, jnp.maximum)
    np.testing.assert_allclose(of_flax.clone(merge="sum").apply(variables, x), by_name.apply(variables, x))


def test_empty_batches_and_batches_of_any_size():
    x = jax.random.normal(jax.random.key(0), (3, STEPS, INPUTS))
    (size,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((size, STEPS, INPUTS), jnp.float32)
    layer = Clockwork(CLOCKS[0], INPUTS, method="cascade", rngs=nnx.Rngs(0))
    exported = jax.export.export(jax.jit(lambda x: layer(x)))(shape)
    np.testing.assert_allclose(exported.call(x), layer(x), atol=1e-6)
    assert jax.grad(lambda x: layer(x).sum())(x[:0]).shape == (0, STEPS, INPUTS)
    cells = Clockwork(CLOCKS[0], INPUTS, cell=nnx.SimpleCell, rngs=nnx.Rngs(0))
    assert cells(x[:0]).shape == (0, STEPS, 5)


def test_linen_modules_cloned_with_other_fields():
    x = jnp.ones((2, STEPS, INPUTS))
    layer = linen.Clockwork(CLOCKS[0])
    variables = layer.init(jax.random.key(0), x)
    want = linen.Clockwork(CLOCKS[0], activation=jax.nn.relu).apply(variables, x)
    np.testing.assert_array_equal(layer.clone(activation=jax.nn.relu).apply(variables, x), want)
    both = linen.Bidirectional(layer, linen.Clockwork(CLOCKS[0]), merge_fn=jnp.add)
    assert both.init_with_output(jax.random.key(0), x)[0].shape == (2, STEPS, 5)


def test_a_stack_asks_for_no_carry_that_is_not_wanted():
    stack = Stack([nnx.RNN(nnx.SimpleCell(INPUTS, 3, rngs=nnx.Rngs(0)))])
    assert stack(jnp.ones((2, 2, STEPS, INPUTS)), seq_lengths=jnp.ones((2, 2), int)).shape == (2, 2, STEPS, 3)


X = np.zeros((2, STEPS, INPUTS), np.float32)


BAD_CALLS = {
    "width": (X[..., :1], {}, r"inputs must have shape \(\*batch, T, 2\), got \(2, 9, 1\)"),
    "one axis": (X[0, 0], {}, r"inputs must have shape \(\*batch, T, 2\), got \(2,\)"),
    "one axis, time first": (X[0, 0], {"time_major": True}, r"inputs must have shape \(T, \*batch, 2\), got \(2,\)"),
    "no step": (X[:, :0], {}, "at least one step"),
    "too long": (X, {"seq_lengths": [3, 10]}, "seq_lengths must be from 0 to the 9 steps of the inputs, got 10"),
    "too short": (X, {"seq_lengths": [-1, 9]}, "seq_lengths must be from 0 to the 9 steps of the inputs, got -1"),
    "how many": (X, {"seq_lengths": [3]}, r"seq_lengths must have shape \(2,\), got \(1,\)"),
    "not whole": (X, {"seq_lengths": [3.0, 2.0]}, "seq_lengths must be integers, got float"),
    "carry": (
        X,
        {"initial_carry": cw.State(np.zeros((2, 4), np.float32), np.zeros((2, 1), np.int32))},
        r"must be State\(hidden=float32\[2, 5\], time=int32\[2, 1\]\), got State\(.*\[2, 4\].*another clock",
    ),
    "no clock": (X, {"initial_carry": np.zeros((2, 5), np.float32)}, r"must be State\(.*got float32\[2, 5\]"),
    "start of another kind": (X, {"start": 3.0}, "start must be an integer known before compilation, got 3.0"),
    "negative start": (X, {"start": -1}, "start must be at least 0, got -1"),
    "start": (X, {"start": 3}, "start must be 0 without an initial_carry, got 3"),
    "wrong start": (
        X,
        {"start": 3, "initial_carry": cw.State(np.zeros((2, 5), np.float32), np.full((2, 1), 5, np.int32))},
        "start must equal the carry's time, 5, modulo clock.cycle, got 3",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_get_one_sentence(case):
    inputs, call, sentence = BAD_CALLS[case]
    call = {name: np.asarray(x) if name == "seq_lengths" else x for name, x in call.items()}
    if "seq_lengths" in call and call["seq_lengths"].dtype == np.int64:
        call["seq_lengths"] = call["seq_lengths"].astype(np.int32)
    with pytest.raises(ValueError, match=sentence):
        Clockwork(CLOCKS[0], INPUTS, rngs=nnx.Rngs(0))(inputs, **call)


RNGS = nnx.Rngs(0)


BAD_LAYERS = {
    "no cell": (lambda: Clockwork(CLOCKS[0], 2, cell=3, rngs=RNGS), "cell must be a class or function such"),
    "an instance": (
        lambda: Clockwork(CLOCKS[0], 2, cell=nnx.LSTMCell(2, 3, rngs=RNGS), rngs=RNGS),
        "cell must be called as cell",
    ),
    "a layer": (lambda: Clockwork(CLOCKS[0], 2, cell=nnx.Linear, rngs=RNGS), "cell must make an nnx.RNNCellBase"),
    "linen's": (lambda: Clockwork(CLOCKS[0], 2, cell=nn.LSTMCell, rngs=RNGS), "cell must be called as cell"),
    "options": (
        lambda: Clockwork(CLOCKS[0], 2, cell=nnx.LSTMCell, activation=jnp.tanh, rngs=RNGS),
        "activation is not passed on to cells",
    ),
    "method": (lambda: Clockwork(CLOCKS[0], 2, method="fast", rngs=RNGS), "method must be one of"),
    "features": (lambda: Clockwork(CLOCKS[0], -1, rngs=RNGS), "in_features must be an integer, 0 or more, got -1"),
    "linen: no cell": (
        lambda: linen.Clockwork(CLOCKS[0], cell=nn.Dense).init(jax.random.key(0), X),
        "cell must make an nn.RNNCellBase",
    ),
    "linen: width": (
        lambda: linen.Clockwork(CLOCKS[0]).apply(
            {"params": {"cell": linen.params(weights_for(CLOCKS[0]))}}, X[..., :1]
        ),
        "inputs must have 2 features, got 1",
    ),
    "merge": (lambda: Bidirectional(None, None, merge="mean"), r"merge must be one of \('concatenate', 'sum'\)"),
    "merge_fn": (lambda: Bidirectional(None, None, merge_fn="sum"), "merge_fn must be a function of both outputs, got"),
    "both merges": (
        lambda: Bidirectional(None, None, merge="sum", merge_fn=jnp.maximum),
        "give either merge or merge_fn, got merge='sum' and merge_fn=maximum",
    ),
    "linen: both merges": (
        lambda: linen.Bidirectional(linen.Clockwork(CLOCKS[0]), linen.Clockwork(CLOCKS[0]), jnp.add, merge="sum"),
        "give either merge or merge_fn, got merge='sum' and merge_fn=add",
    ),
    "sum": (
        lambda: Bidirectional(
            Clockwork(CLOCKS[0], 2, rngs=RNGS), Clockwork(cw.Clock((1,), (2,)), 2, rngs=RNGS), merge="sum"
        )(X),
        r"outputs to be summed must have the same shape, got \(2, 9, 5\) and \(2, 9, 2\)",
    ),
    "no layer": (lambda: Stack([]), "a stack must have at least one layer"),
    "linen: no layer": (lambda: linen.Stack([]), "a stack must have at least one layer"),
    "cells' carry": (
        lambda: ClockworkOfCells(CLOCKS[0], 2, nnx.GRUCell, rngs=RNGS)(cw.State.initial(CLOCKS[0]), X[0, 0]),
        r"the carry must be CellsState\(",
    ),
    "carries": (
        lambda: Stack([Clockwork(CLOCKS[0], 2, rngs=RNGS)])(X, initial_carry=()),
        "initial_carry must have one carry for each of the 1 layers, got 0",
    ),
    "cell's width": (
        lambda: ClockworkCell(CLOCKS[0], 2, rngs=RNGS)(cw.State.initial(CLOCKS[0]), np.zeros(3, np.float32)),
        r"inputs must have shape \(\*batch, 2\), got \(3,\)",
    ),
    "cell's carry": (
        lambda: ClockworkCell(CLOCKS[0], 2, rngs=RNGS)(cw.State.initial(CLOCKS[0]), np.zeros(2, np.float32)),
        r"the carry must be State\(hidden=float32\[5\], time=int32\[1\]\), got .*time=int32\[\]",
    ),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_bad_layers_get_one_sentence(case):
    make, sentence = BAD_LAYERS[case]
    with pytest.raises(ValueError, match=sentence):
        make()

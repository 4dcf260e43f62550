# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""Parameters as flat dictionaries: the same names everywhere, safetensors and back, and from PyTorch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
from flax import linen as nn
from flax import nnx
from safetensors.numpy import load_file, save_file

import clockwork as cw
from clockwork.nn import (
    Bidirectional,
    Clockwork,
    ClockworkCell,
    ClockworkLSTM,
    ClockworkRNN,
    LSTMWeights,
    PeepholeLSTM,
    PeepholeLSTMCell,
    SimpleRNN,
    Stack,
    flat,
    linen,
    lstm_init,
    set_flat,
)

CLOCK, SLOW = cw.Clock(periods=(1, 2, 4), sizes=(2, 2, 1)), cw.Clock(periods=(1, 3), sizes=(2, 1))
X = np.random.default_rng(0).normal(size=(2, 9, 2)).astype(np.float32)


def clockwork(clock=CLOCK, inputs=2, **options):
    return lambda rngs: Clockwork(clock, inputs, **options, rngs=rngs)


LAYERS = {
    "cell": (lambda rngs: ClockworkCell(CLOCK, 2, rngs=rngs), linen.ClockworkCell(CLOCK)),
    "Clockwork": (clockwork(), linen.Clockwork(CLOCK)),
    "LSTM": (lambda rngs: nnx.RNN(PeepholeLSTMCell(2, 3, rngs=rngs)), nn.RNN(linen.PeepholeLSTMCell(3))),
    "LSTMs": (clockwork(cell=PeepholeLSTMCell), linen.Clockwork(CLOCK, cell=linen.PeepholeLSTMCell)),
    "clockworks of one clock": (
        clockwork(SLOW, cell=lambda i, n, rngs: ClockworkCell(cw.Clock((1,), (n,)), i, rngs=rngs)),
        linen.Clockwork(SLOW, cell=lambda n: linen.ClockworkCell(cw.Clock((1,), (n,)))),
    ),
    "Bidirectional": (
        lambda rngs: Bidirectional(clockwork()(rngs), clockwork(SLOW)(rngs)),
        linen.Bidirectional(linen.Clockwork(CLOCK), linen.Clockwork(SLOW)),
    ),
    "Stack": (
        lambda rngs: Stack([clockwork()(rngs), clockwork(SLOW, 5, cell=PeepholeLSTMCell)(rngs)]),
        linen.Stack([linen.Clockwork(CLOCK), linen.Clockwork(SLOW, cell=linen.PeepholeLSTMCell)]),
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_names_are_the_same_in_nnx_linen_and_the_weights(kind):
    make, module = LAYERS[kind]
    layer = make(nnx.Rngs(0))
    arrays = flat(layer)
    of_state = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))}
    clocks = {name for name in arrays if name.split(".")[-1] == "clock"}
    assert set(arrays) == of_state | clocks
    if kind == "cell":
        assert {name: x.tolist() for name, x in layer.weights.flat(clock=CLOCK).items()} == {
            name: x.tolist() for name, x in arrays.items()
        }
        return
    variables = module.init(jax.random.key(0), X)
    of_linen = linen.flat(module, variables)
    if kind != "clockworks of one clock":  # those inside are made when the layer runs
        assert set(of_linen) == set(arrays)
    chex.assert_trees_all_equal(linen.from_flat(module, of_linen), variables)
    read = linen.from_flat(module, {name: x for name, x in arrays.items() if name in of_linen})
    np.testing.assert_allclose(module.apply(read, X), layer(X), atol=1e-6)
    again = make(nnx.Rngs(1))
    set_flat(again, of_linen)
    np.testing.assert_allclose(again(X), module.apply(variables, X), atol=1e-6)


NETWORKS = {
    "Clockwork": clockwork(),
    "LSTMs": clockwork(cell=PeepholeLSTMCell),
    "GRUs": clockwork(cell=nnx.GRUCell),
    "bfloat16": clockwork(param_dtype=jnp.bfloat16),
    "Bidirectional": LAYERS["Bidirectional"][0],
    "with rngs": lambda rngs: Bidirectional(clockwork()(rngs), clockwork()(rngs), rngs=rngs),
    "Stack": LAYERS["Stack"][0],
    "ClockworkRNN": lambda rngs: ClockworkRNN(CLOCK, 2, rngs=rngs),
    "SimpleRNN": lambda rngs: SimpleRNN(4, 2, rngs=rngs),
    "PeepholeLSTM": lambda rngs: PeepholeLSTM(4, 2, rngs=rngs),
    "ClockworkLSTM": lambda rngs: ClockworkLSTM(CLOCK, 2, rngs=rngs),
    "without inputs": lambda rngs: ClockworkRNN(CLOCK, rngs=rngs),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_file_of_safetensors_and_back(kind, tmp_path):
    layer = NETWORKS[kind](nnx.Rngs(0))
    save_file(flat(layer), tmp_path / "layer.safetensors")
    again = NETWORKS[kind](nnx.Rngs(1))
    set_flat(again, load_file(tmp_path / "layer.safetensors"))
    want = nnx.state(layer, nnx.Param)
    chex.assert_trees_all_equal(nnx.state(again, nnx.Param), want, strict=True)
    one_more = NETWORKS[kind](nnx.Rngs(2))
    set_flat(one_more, {**flat(layer, "encoder."), "decoder.bias": np.zeros(3)}, "encoder.")
    chex.assert_trees_all_equal(nnx.state(one_more, nnx.Param), want, strict=True)


def test_a_clock_is_read_from_the_file(tmp_path):
    layer = Clockwork(CLOCK, 2, rngs=nnx.Rngs(0))
    save_file(flat(layer), tmp_path / "layer.safetensors")
    arrays = load_file(tmp_path / "layer.safetensors")
    clock = cw.Clock.from_flat(arrays, "cell.")
    assert clock == CLOCK
    chex.assert_trees_all_equal(cw.Weights.from_flat(clock, arrays, "cell."), layer.cell.weights)
    safetensors.flax.save_file(layer.cell.weights.flat(clock=clock), tmp_path / "weights.safetensors")
    chex.assert_trees_all_equal(
        cw.Weights.from_flat(clock, load_file(tmp_path / "weights.safetensors")), layer.cell.weights
    )


def test_models_of_ones_own_are_stored_with_the_clocks_of_their_layers():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.encoder = Clockwork(CLOCK, 2, rngs=rngs)
            self.norm = nnx.BatchNorm(5, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    model, again = Model(nnx.Rngs(0)), Model(nnx.Rngs(1))
    model.norm(model.encoder(X))
    assert {"encoder.cell.clock", "encoder.cell.recurrent.2", "norm.mean"} < set(flat(model))
    set_flat(again, flat(model))
    chex.assert_trees_all_equal(flat(again), flat(model))


def test_without_inputs_there_is_no_input():
    weights = cw.init(jax.random.key(0), CLOCK)
    network = ClockworkRNN(CLOCK, rngs=nnx.Rngs(0))
    stored = {name: array for name, array in flat(network).items() if not name.startswith("readout")}
    read = cw.Weights.from_flat(CLOCK, stored)
    chex.assert_trees_all_equal_shapes_and_dtypes(read, weights)
    lstm = PeepholeLSTMCell(0, 3, rngs=nnx.Rngs(0))
    assert LSTMWeights.from_flat(flat(lstm)).input.shape == (0, 12)
    chex.assert_trees_all_equal(LSTMWeights.from_flat(lstm.weights.flat("a."), "a."), lstm.weights)


def test_arrays_that_do_not_fit_are_refused():
    layer = Clockwork(CLOCK, 2, rngs=nnx.Rngs(0))
    arrays, before = flat(layer), flat(layer)
    other = Clockwork(cw.Clock((1, 2, 8), CLOCK.sizes), 2, rngs=nnx.Rngs(1))
    with pytest.raises(ValueError, match=r"cell\.clock must be that of the layer, Clock\(.*4\).*got Clock\(.*8\)"):
        set_flat(layer, flat(other))
    with pytest.raises(ValueError, match=r"cell\.bias must have shape \(5,\), got \(4,\)"):
        set_flat(layer, {**arrays, "cell.input": arrays["cell.input"] + 1, "cell.bias": np.zeros(4)})
    with pytest.raises(ValueError, match=r"got cell\.bias missing and cell\.kernel unknown"):
        set_flat(layer, {"cell.kernel" if name == "cell.bias" else name: array for name, array in arrays.items()})
    chex.assert_trees_all_equal(flat(layer), before)
    with pytest.raises(ValueError, match=r"the weights must be those of Clock\(.*4\).*got those of Clock\(.*8\)"):
        cw.Weights.from_flat(CLOCK, flat(other), "cell.")
    with pytest.raises(ValueError, match=r"cell\.clock must be that of the layer"):
        linen.from_flat(linen.Clockwork(CLOCK), flat(other))
    with pytest.raises(ValueError, match="name that begins with 'encoder"):
        linen.from_flat(linen.Clockwork(CLOCK), arrays, "encoder.")
    with pytest.raises(ValueError, match=r"arrays must have 'clock', got cell\.bias, "):
        cw.Clock.from_flat(arrays)
    with pytest.raises(ValueError, match=r"clock must have shape \(2, G\), got \(3,\)"):
        cw.Clock.from_flat({"clock": np.ones(3)})
    with pytest.raises(ValueError, match="weights of an LSTM must be named"):
        LSTMWeights.from_flat({"bias": np.ones(3)})


def torch_state(kind, inputs=2, n=3, layers=2):
    """What ``state_dict()`` of a bidirectional ``torch.nn.RNN`` or ``LSTM`` holds."""
    rng, rows = np.random.default_rng(0), {"RNN": 1, "LSTM": 4, "GRU": 3}[kind] * n
    state = {}
    for end in (f"l{layer}{back}" for layer in range(layers) for back in ("", "_reverse")):
        width = inputs if end.startswith("l0") else 2 * n
        shapes = {"weight_ih": (rows, width), "weight_hh": (rows, n), "bias_ih": (rows,), "bias_hh": (rows,)}
        state |= {f"{name}_{end}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return state


def torch_layer(kind, state, end, x):
    """PyTorch's documented equations, unbatched."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_ih, w_hh, b_ih, b_hh = (state[f"{name}_{end}"].astype(float) for name in names)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    h = c = np.zeros(w_hh.shape[1])
    outputs = []
    for x_t in x:
        z = w_ih @ x_t + b_ih + w_hh @ h + b_hh
        if kind == "RNN":
            h = np.tanh(z)
        else:
            i, f, g, o = np.split(z, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def test_from_a_state_dict_of_pytorchs_rnn():
    state = torch_state("RNN")
    layer = Clockwork(cw.Clock(periods=(1,), sizes=(3,)), 2, rngs=nnx.Rngs(0))
    layer.cell.set_weights(cw.Weights.from_torch(state))
    np.testing.assert_allclose(layer(X[0]), torch_layer("RNN", state, "l0", X[0]), atol=1e-5)
    back = Clockwork(cw.Clock(periods=(1,), sizes=(3,)), 6, reverse=True, keep_order=True, rngs=nnx.Rngs(0))
    back.cell.set_weights(cw.Weights.from_torch(state, layer=1, reverse=True))
    x = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_allclose(back(x), torch_layer("RNN", state, "l1_reverse", x[::-1])[::-1], atol=1e-5)
    without = {f"model.{name}": array for name, array in state.items() if "bias" not in name}
    assert not cw.Weights.from_torch(without, prefix="model.").bias.any()


def test_from_a_state_dict_of_pytorchs_lstm():
    state = torch_state("LSTM")
    layer = nnx.RNN(PeepholeLSTMCell(2, 3, rngs=nnx.Rngs(0)))
    layer.cell.set_weights(LSTMWeights.from_torch(state))
    np.testing.assert_allclose(layer(X[0]), torch_layer("LSTM", state, "l0", X[0]), atol=1e-5)
    outputs, _ = cw.nn.lstm_unroll(LSTMWeights.from_torch(state, reverse=True), X[0])
    np.testing.assert_allclose(outputs, torch_layer("LSTM", state, "l0_reverse", X[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("read", "state", "sentence"),
    [
        (cw.Weights.from_torch, torch_state("LSTM"), r"weight_hh_l0 must have shape \(3, 3\), got \(3, 12\)"),
        (LSTMWeights.from_torch, torch_state("GRU"), r"weight_hh_l0 must have shape \(3, 12\), got \(3, 9\)"),
        (cw.Weights.from_torch, {}, "state dict of an nn.RNN must have weight_ih_l0 and weight_hh_l0, got"),
        (functools.partial(LSTMWeights.from_torch, layer=2), torch_state("LSTM"), "an nn.LSTM must have weight_ih_l2"),
        (LSTMWeights.from_torch, {**torch_state("LSTM"), "weight_hr_l0": np.ones((2, 3))}, "proj_size"),
    ],
)
def test_other_state_dicts_are_refused(read, state, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(state)


def test_lstm_weights_of_another_layer_are_refused():
    cell = PeepholeLSTMCell(2, 3, rngs=nnx.Rngs(0))
    for cells, inputs, sentence in ((4, 2, r"recurrent weights must have shape \(3, 12\)"), (3, 1, "input weights")):
        with pytest.raises(ValueError, match=sentence):
            cell.set_weights(lstm_init(jax.random.key(0), cells, inputs))

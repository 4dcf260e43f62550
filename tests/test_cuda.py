"""The fused kernels: by Pallas' interpreter against the oracle, and lowered for CUDA on a machine without a GPU."""

import functools
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from clocks import layer
from flax import nnx

import clockwork as cw
from clockwork import lstm, recurrence
from clockwork.nn import Clockwork, lstm_init, lstm_unroll
from clockwork.ops import backend, chunked, compiled, mosaic
from clockwork.recurrence import cuda
from clockwork.recurrence.partition import cheapest_partition
from clockwork.recurrence.schedule import Schedule

CLOCKS = {
    "one unit each": cw.Clock(periods=(1, 2, 4), sizes=(1, 1, 1)),
    "the paper's": cw.Clock.exponential(width=40, modules=9),
    "periods that do not nest": cw.Clock(periods=(1, 2, 3, 5, 8), sizes=(2, 1, 3, 1, 2)),
    "no module at every step": cw.Clock(periods=(3, 3, 7), sizes=(2, 2, 1)),
    "a simple RNN": cw.Clock(periods=(1,), sizes=(31,)),
    "a whole warp and one more": cw.Clock(periods=(1, 4), sizes=(32, 33)),
}
RUNS, BATCH = 3, 5


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels are computed by Pallas' interpreter."""
    monkeypatch.setattr(mosaic, "INTERPRET", True)


@pytest.fixture
def on_gpu(monkeypatch):
    """The library takes this machine for one with a GPU."""
    monkeypatch.setattr(mosaic, "device_refusal", lambda: None)


def single(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def held_to_the_oracle(clock, steps, start, inputs):
    rng = np.random.default_rng(0)
    drawn = layer(clock, steps, start, inputs, rng)
    bars = rng.normal(size=(steps, clock.width)), rng.normal(size=clock.width)

    @jax.jit
    def evaluate(weights, inputs, hidden, cotangents):
        call = functools.partial(cw.unroll, clock=clock, method="fused", **drawn.call())
        results, vjp = jax.vjp(lambda w, x, h: call(w, inputs=x, hidden=h), weights, inputs, hidden)
        return results, vjp(cotangents)

    (outputs, last), (weights_bar, inputs_bar, hidden_bar) = evaluate(
        drawn.weights, *single((drawn.inputs, drawn.hidden)), single(bars)
    )
    dense = [np.asarray(w, np.float64) for w in drawn.weights.dense(clock)]
    sequence = (drawn.sequence, start, drawn.hidden)
    right = oracle.forward(clock, *dense, *sequence)  # pyright: ignore[reportCallIssue]
    w_in_bar, w_rec_bar, bias_bar, x_bar, h_bar = oracle.backward(
        clock,
        *dense,
        *sequence,
        *bars,  # pyright: ignore[reportCallIssue]
    )
    found = [outputs, last, *weights_bar.dense(clock), hidden_bar]
    wanted = [right, right[-1], w_in_bar, np.where(dense[1] == 0, 0, w_rec_bar), bias_bar, h_bar]
    if inputs:
        found, wanted = [*found, inputs_bar], [*wanted, x_bar]
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)


LARGEST = "a whole warp and one more"


@pytest.mark.parametrize(
    "clock", [pytest.param(c, id=n, marks=[pytest.mark.slow] * (n == LARGEST)) for n, c in CLOCKS.items()]
)
@pytest.mark.parametrize(("steps", "start", "inputs"), [(37, 5, 2), (3, 0, 0)])
def test_values_and_gradients_equal_the_oracles(interpreted, clock, steps, start, inputs):
    held_to_the_oracle(clock, steps, start, inputs)


@pytest.mark.parametrize("name", ["the paper's", "periods that do not nest"])
def test_so_they_do_with_each_module_by_itself(interpreted, monkeypatch, name):
    apart = cuda.group_scan(True)._replace(cost=cuda.COST._replace(per_loop=0, per_unit=1))
    monkeypatch.setattr(cuda, "group_scan", lambda interpret: apart)
    schedule = Schedule(CLOCKS[name], 5, 37)
    assert len(cheapest_partition(schedule, 0, 1, apart.cost)) > len(cheapest_partition(schedule, 0, 1, cuda.COST))
    held_to_the_oracle(CLOCKS[name], 37, 5, 2)


def clockwork_loss(method, clock, weights, readout, x, hidden):
    outputs, last = cw.unroll(weights, clock, x, hidden=hidden, readout=readout, method=method)
    return jnp.sin(outputs.astype(jnp.float32)).sum() + jnp.square(last.astype(jnp.float32)).sum()


def lstm_loss(method, clock, weights, readout, x, hidden):
    del clock
    other = "scan" if method == "cascade" else method
    outputs, last = lstm_unroll(weights, x, hidden=(hidden, hidden / 2), readout=readout, method=other)
    return sum(jnp.sin(x.astype(jnp.float32)).sum() for x in (outputs, *last))


def drawn_for(loss, shape_of, dtype=jnp.float32):
    clock = CLOCKS["the paper's"] if loss is clockwork_loss else None
    cells = clock.width if clock else 7
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(
        lambda: cw.init(jax.random.key(0), clock, 2) if clock else lstm_init(jax.random.key(0), cells, 2)
    )
    draw = lambda x, *more: jnp.asarray(rng.normal(size=(*more, *x)) / 4, dtype)  # noqa: E731
    weights = jax.tree.map(lambda x: draw(x.shape, *shape_of["weights"]), shapes)
    readout = draw((cells, 3), *shape_of["weights"])
    return clock, (weights, readout, draw((11, 2), *shape_of["x"]), draw((cells,), *shape_of["x"]))


def vmapped(loss, order):
    """Over runs of weights, and over a batch of sequences, in a given order, innermost first."""
    axes = {"batch": (None, None, 0, 0), "runs": (0, 0, None, None), "runs of both": (0, 0, 0, 0)}
    return functools.reduce(lambda f, name: jax.vmap(f, in_axes=axes[name]), order, loss)


ORDERS = [
    ((), {"weights": (), "x": ()}),
    (("batch",), {"weights": (), "x": (BATCH,)}),
    (("runs",), {"weights": (RUNS,), "x": ()}),
    (("batch", "runs of both"), {"weights": (RUNS,), "x": (RUNS, BATCH)}),
    (("batch", "runs"), {"weights": (RUNS,), "x": (BATCH,)}),
    (("runs", "batch"), {"weights": (RUNS,), "x": (BATCH,)}),
]


@pytest.mark.parametrize("loss", [clockwork_loss, lstm_loss])
@pytest.mark.parametrize(
    ("order", "shape_of"),
    [
        pytest.param(*case, id=" in ".join(case[0]) or "one", marks=[pytest.mark.slow] * (number > 3))
        for number, case in enumerate(ORDERS)
    ],
)
def test_under_vmap_it_is_what_the_loops_of_xla_are(interpreted, loss, order, shape_of):
    clock, arguments = drawn_for(loss, shape_of)

    def evaluate(method, *arguments):
        total = lambda *arguments: vmapped(functools.partial(loss, method, clock), order)(*arguments).sum()  # noqa: E731
        return jax.value_and_grad(total, argnums=(0, 1, 2, 3))(*arguments)

    found, wanted = (jax.jit(functools.partial(evaluate, method))(*arguments) for method in ("fused", "cascade"))
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("loss", [clockwork_loss, lstm_loss])
def test_bfloat16_is_rounded_where_the_loops_of_xla_round(interpreted, loss):
    clock, arguments = drawn_for(loss, {"weights": (), "x": ()}, jnp.bfloat16)
    found, wanted = (
        jax.jit(jax.value_and_grad(functools.partial(loss, method, clock), argnums=(0, 1, 2, 3)))(*arguments)
        for method in ("fused", "cascade")
    )
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(np.float32(got), np.float32(want), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("loss", [clockwork_loss, lstm_loss])
def test_without_a_gpu_the_loops_of_xla_are_taken_forward_mode_too(loss):
    clock, arguments = drawn_for(loss, {"weights": (RUNS,), "x": (RUNS, BATCH)})

    def evaluate(method, *arguments):
        each = functools.partial(vmapped(functools.partial(loss, method, clock), ("batch", "runs of both")))
        gradient = jax.grad(lambda *arguments: each(*arguments).sum(), argnums=(0, 2))(*arguments)
        return gradient, jax.jvp(each, arguments, arguments)

    found, wanted = (jax.jit(functools.partial(evaluate, method))(*arguments) for method in ("fused", "cascade"))
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)


LOWERED = {
    "CW-RNN N = 40": lambda method: clockwork_case(cw.Clock.exponential(40, 9), 320, 500, method),
    "CW-RNN N = 102": lambda method: clockwork_case(cw.Clock.exponential(102, 7), 101, 20, method),
    "CW-RNN N = 512": lambda method: clockwork_case(cw.Clock.exponential(512, 8), 512, 1, method),
    "SRN N = 31": lambda method: clockwork_case(cw.Clock((1,), (31,)), 320, 4096, method),
    "SRN N = 128": lambda method: clockwork_case(cw.Clock((1,), (128,)), 33, 1, method),
    "CW-RNN N = 40, bfloat16": lambda method: clockwork_case(cw.Clock.exponential(40, 9), 20, 8, method, jnp.bfloat16),
    "LSTM N = 15": lambda method: lstm_case(15, 320, 500, method),
    "LSTM N = 41": lambda method: lstm_case(41, 101, 20, method),
    "LSTM N = 15, bfloat16": lambda method: lstm_case(15, 20, 8, method, jnp.bfloat16),
}


def clockwork_case(clock, steps, runs, method, dtype=jnp.float32):
    weights = jax.eval_shape(lambda: cw.init(jax.random.key(0), clock, dtype=dtype))
    return weights, runs, lambda w: cw.unroll(w, clock, steps=steps, method=method)[0].astype(jnp.float32).sum()


def lstm_case(cells, steps, runs, method, dtype=jnp.float32):
    weights = jax.eval_shape(lambda: lstm_init(jax.random.key(0), cells, dtype=dtype))
    return weights, runs, lambda w: lstm_unroll(w, steps=steps, method=method)[0].astype(jnp.float32).sum()


def lowered(case, method, platform):
    weights, runs, loss = LOWERED[case](method)
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct((runs, *x.shape), x.dtype), weights)
    gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    return gradient.trace(weights).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if "512" in c else c for c in LOWERED])
def test_it_lowers_for_cuda(case):
    kernels = lowered(case, "fused", "cuda").count("@mosaic_gpu")
    assert kernels >= 2
    assert kernels % 2 == 0


@pytest.mark.parametrize("case", ["CW-RNN N = 40", "SRN N = 31", "LSTM N = 15"])
@pytest.mark.parametrize("method", ["auto", "fused"])
def test_it_lowers_for_tpu_without_kernels(case, method):
    assert "mosaic" not in lowered(case, method, "tpu")


def test_over_two_devices_it_lowers_and_computes():
    """Inside ``jax.shard_map``, as it is by default: it checks which arrays vary over the devices."""
    clock = cw.Clock((1, 2), (3, 2))
    weights = cw.init(jax.random.key(0), clock, 2)
    x = jax.random.normal(jax.random.key(1), (4, 7, 2))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices("cpu"))
    whole, spread = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")

    def total(method, weights, x):
        def local(weights, x):
            outputs = jax.vmap(lambda x: cw.unroll(weights, clock, x, method=method)[0])(x)
            return jax.lax.psum(jnp.square(outputs).sum(), "data")

        shard = jax.shard_map(local, mesh=mesh, in_specs=(whole, spread), out_specs=whole)
        return shard(weights, x)

    gradient = jax.value_and_grad(total, argnums=(1, 2))
    found, wanted = (jax.jit(gradient, static_argnums=0)(method, weights, x) for method in ("fused", "cascade"))
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)
    traced = jax.jit(gradient, static_argnums=0).trace("fused", weights, x)
    assert "@mosaic_gpu" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_over_explicit_axes_each_device_runs_kernels_on_its_share():
    clock = cw.Clock((1, 2), (3, 2))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices("cpu"))
    weights = cw.init(jax.random.key(0), clock, 2)
    x = jax.random.normal(jax.random.key(1), (4, 7, 2))

    def total(method, weights, x):
        return jnp.square(jax.vmap(lambda x: cw.unroll(weights, clock, x, method=method)[0])(x)).sum()

    gradient = jax.jit(jax.grad(total, argnums=(1, 2)), static_argnums=0)
    wanted = gradient("cascade", weights, x)
    with jax.set_mesh(mesh):
        spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
        found = gradient("fused", weights, spread)
        lowered = gradient.trace("fused", weights, spread).lower(lowering_platforms=("cuda",)).as_text()
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)
    assert found[1].sharding.spec[0] == "data"
    assert "@mosaic_gpu" in lowered


def test_a_long_sequence_goes_in_chunks(interpreted, monkeypatch):
    monkeypatch.setattr(chunked, "UNCACHED_CHUNK_MIN_STEPS", 8)
    held_to_the_oracle(CLOCKS["one unit each"], 37, 4, 2)


def test_a_batch_of_none(interpreted):
    clock = cw.Clock((1, 2), (3, 2))
    weights = cw.init(jax.random.key(0), clock, 2)
    outputs = jax.vmap(lambda x: cw.unroll(weights, clock, x, method="fused")[0])(jnp.zeros((0, 7, 2)))
    assert outputs.shape == (0, 7, 5)


def chosen(method):
    """The back ends of a clockwork layer and of an LSTM layer."""
    layers = (
        recurrence.explain(CLOCKS["the paper's"], 320, method=method),
        lstm.explain(15, 320, method=method),
    )
    return [explained[0][0] for explained in layers]


def device(platform, capability=None):
    return types.SimpleNamespace(platform=platform, compute_capability=capability)


@pytest.mark.parametrize(
    ("found", "has"),
    [
        (device("gpu", "9.0"), True),
        (device("gpu", "12.1"), True),
        (device("gpu", "8.0"), False),
        (device("gpu", "gfx90a"), False),
        (device("tpu"), False),
    ],
)
def test_kernels_are_for_hopper_and_later(monkeypatch, found, has):
    for module in (mosaic, compiled):
        monkeypatch.setattr(module, "default_device", lambda: found)
    assert (mosaic.device_refusal() is None) is has
    assert chosen("auto") == (["fused", "fused"] if has else ["cascade", "scan"])
    elsewhere = found.platform == "tpu"  # where lowering takes XLA's loops, and lowering for CUDA the kernels
    assert chosen("fused") == (["fused", "fused"] if has or elsewhere else ["cascade", "scan"])


def test_a_short_sequence_takes_a_kernel_too(on_gpu):
    clock = cw.Clock((1, 2), (3, 2))
    weights = cw.init(jax.random.key(0), clock)
    traced = jax.jit(lambda w: cw.unroll(w, clock, steps=4)[0]).trace(weights)
    assert "@mosaic_gpu" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_the_default_device_decides(monkeypatch):
    with jax.default_device("cpu"):
        assert backend.default_device().platform == "cpu"
    monkeypatch.setattr(jax, "devices", lambda platform=None: [device(platform or "gpu", "9.0")])
    assert mosaic.device_refusal() is None
    with jax.default_device("cpu"):
        assert "computes on a cpu" in (mosaic.device_refusal() or "")


def test_auto_takes_the_kernels_where_there_is_a_gpu(on_gpu, caplog):
    caplog.set_level(logging.DEBUG, "clockwork")
    for case in ("CW-RNN N = 40", "LSTM N = 15"):
        assert "mosaic_gpu" in lowered(case, "auto", "cuda")
    said = [record.getMessage() for record in caplog.records if " is chosen: " in record.getMessage()]
    assert said == ["fused is chosen: every time loop is one GPU kernel"] * 2
    weights = cw.init(jax.random.key(0), cw.Clock((1,), (300,)))
    assert cw.unroll(weights, cw.Clock((1,), (300,)), steps=3)[0].shape == (3, 300)
    assert "modules of up to 128 units, got one of 300" in caplog.text


def test_what_has_no_kernel_is_refused_in_a_sentence():
    clock = cw.Clock((1, 2), (129, 3))
    weights = cw.init(jax.random.key(0), clock)
    with pytest.raises(ValueError, match=r'^method "fused" takes modules of up to 128 units, got one of 129$'):
        cw.unroll(weights, clock, steps=3, method="fused")
    clock = cw.Clock((1, 2), (4, 3))
    weights = cw.init(jax.random.key(0), clock)
    with pytest.raises(ValueError, match=r'^method "fused" takes the activation jnp.tanh, got '):
        cw.unroll(weights, clock, steps=3, method="fused", activation=jax.nn.relu)
    with pytest.raises(ValueError, match='known before compilation for method "fused"'):
        jax.jit(lambda start: cw.unroll(weights, clock, steps=3, start=start, method="fused"))(1)
    with pytest.raises(ValueError, match=r'^method "fused" takes up to 44 cells, got 45$'):
        lstm_unroll(lstm_init(jax.random.key(0), 45), steps=3, method="fused")
    with pytest.raises(ValueError, match=r"^method must be one of .*, got 'quick'$"):
        lstm_unroll(lstm_init(jax.random.key(0), 4), steps=3, method="quick")  # pyright: ignore[reportArgumentType]


def test_double_precision_has_no_kernel(float64):
    clock = cw.Clock((1, 2), (4, 3))
    with pytest.raises(ValueError, match="takes float32 and bfloat16, got float64"):
        cw.unroll(cw.init(jax.random.key(0), clock, dtype=jnp.float64), clock, steps=3, method="fused")
    with pytest.raises(ValueError, match="takes float32 and bfloat16, got float64"):
        lstm_unroll(lstm_init(jax.random.key(0), 4, dtype=jnp.float64), steps=3, method="fused")


def test_layers_take_lengths_and_a_carry_as_ever(interpreted):
    x = jnp.asarray(np.random.default_rng(4).normal(size=(BATCH, 9, 2)), jnp.float32)
    hidden = jnp.asarray(np.random.default_rng(5).normal(size=(BATCH, 8)), jnp.float32)
    lengths = jnp.asarray([9, 1, 4, 7, 9])

    def loss(layer, x):
        carry = layer.cell.initialize_carry(x[:, 0].shape)._replace(hidden=hidden)
        last, y = layer(x, initial_carry=carry, seq_lengths=lengths, return_carry=True)
        there = jnp.arange(9)[None, :, None] < lengths[:, None, None]
        return jnp.square(jnp.where(there, y, 0)).sum() + jnp.square(last.hidden).sum(), last.hidden

    fused_, masked = (
        nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            Clockwork(cw.Clock((1, 2, 4), (3, 2, 3)), 2, method=method, rngs=nnx.Rngs(0)), x
        )
        for method in ("fused", "masked")
    )
    for got, want in zip(jax.tree.leaves(fused_), jax.tree.leaves(masked), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)

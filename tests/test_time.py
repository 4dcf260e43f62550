# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The clock's value in integers of every width, and clocks whose cycle none of them can count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import linen as flax_linen
from flax import nnx

import clockwork as cw
from clockwork.nn import Bidirectional, Clockwork, linen
from clockwork.recurrence import advance

CLOCK = cw.Clock(periods=(1, 3, 7), sizes=(2, 2, 2))
LONG = cw.Clock((1, 46_337, 46_349), (2, 1, 1))  # a cycle of 2,147,673,613 steps
STEPS, INPUTS = 9, 2
X = np.random.default_rng(0).normal(size=(STEPS, INPUTS)).astype(np.float32)
TYPES = ["int8", "uint32", "int64", "uint64"]


def weights(clock=CLOCK):
    return cw.init(jax.random.key(0), clock, INPUTS, stddev=0.7)


def expected(start, hidden=None):
    w_in, w_rec, bias = (np.asarray(w, float) for w in weights().dense(CLOCK))
    hidden = np.zeros(CLOCK.width) if hidden is None else np.asarray(hidden, float)
    return oracle.forward(CLOCK, w_in, w_rec, bias, X.astype(float), start % CLOCK.cycle, hidden)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_traced_start_is_any_integer(dtype):
    run = jax.jit(lambda start: cw.unroll(weights(), CLOCK, X, start=start)[0])
    with jax.enable_x64(True):
        for start in (5, int(np.iinfo(dtype).max) - 6):
            np.testing.assert_allclose(run(np.asarray(start, dtype)), expected(start), atol=1e-5)


def test_a_static_start_is_of_any_size():
    for method in ("masked", "cascade"):
        outputs, _ = cw.unroll(weights(), CLOCK, X, start=2**64 + 3, method=method)
        np.testing.assert_allclose(outputs, expected(2**64 + 3), atol=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_time_of_any_integers_is_reduced_by_whole_cycles_and_kept_in_its_dtype(dtype):
    clock, most = cw.Clock((1, 2), (1, 1)), int(np.iinfo(dtype).max)
    with jax.enable_x64(True):
        for make in (np.asarray, jnp.asarray):
            for time in (0, 1, most - 2, most - 1, most):
                for steps in (1, 300, jnp.asarray(300), jnp.asarray(1, dtype)):
                    later = advance(clock, make(time, dtype), steps)
                    assert later.dtype == dtype
                    assert int(later) % 2 == (time + int(steps)) % 2
                    assert int(later) >= 0


@pytest.mark.parametrize("dtype", ["int8", "uint64"])
@pytest.mark.parametrize("cell", [None, nnx.SimpleCell])
def test_a_carry_of_other_integers(dtype, cell):
    layer = Clockwork(CLOCK, INPUTS, cell=cell, rngs=nnx.Rngs(0))
    time = int(np.iinfo(dtype).max) // CLOCK.cycle * CLOCK.cycle - 4  # 4 steps before it starts anew

    @nnx.jit
    def run(layer, carry, x):
        stepped, _ = layer.cell(carry, x[0])
        last, outputs = layer(x, initial_carry=carry, return_carry=True)
        return stepped, last, outputs

    with jax.enable_x64(True):
        first = layer.cell.initialize_carry((INPUTS,))
        found, want = (
            run(layer, first._replace(time=t), X) for t in (np.full(1, time, dtype), np.full(1, 17, np.int32))
        )
    assert CLOCK.cycle - 4 == 17
    assert [carry.time.dtype for carry in found[:2]] == [dtype, dtype]
    assert [int(carry.time[0]) for carry in found[:2]] == [time + 1, STEPS - 4]
    np.testing.assert_allclose(found[0].hidden, want[0].hidden, atol=1e-6)
    np.testing.assert_allclose(found[2], want[2], atol=1e-6)


def test_a_time_that_only_numpy_can_hold():
    layer = Clockwork(CLOCK, INPUTS, rngs=nnx.Rngs(0))
    hidden = np.ones((2, CLOCK.width), np.float32)
    x = jnp.stack([X, X])
    for times in ([[10**12], [10**12]], [[10**12], [10**12 + 1]]):
        time = np.asarray(times, np.int64)
        reduced = (time % CLOCK.cycle).astype(np.int32)
        found, want = (layer(x, initial_carry=cw.State(hidden, t), return_carry=True) for t in (time, reduced))
        np.testing.assert_array_equal(found[1], want[1])
        np.testing.assert_array_equal(found[0].time % CLOCK.cycle, want[0].time % CLOCK.cycle)
        lengths = jnp.asarray([3, 4])
        last, _ = layer(x, initial_carry=cw.State(hidden, time), seq_lengths=lengths, return_carry=True)
        np.testing.assert_array_equal(last.time[:, 0] % CLOCK.cycle, (time[:, 0] + np.array([3, 4])) % CLOCK.cycle)
        stepped, _ = layer.cell(cw.State(hidden, time), x[:, 0])
        np.testing.assert_array_equal(stepped.hidden, layer.cell(cw.State(hidden, reduced), x[:, 0])[0].hidden)


REFUSED = "repeats after 2147673613 steps, more than the time of a state or carry, int32, can count; use unroll"


@pytest.mark.filterwarnings("ignore:the slowest period")
@pytest.mark.parametrize("cell", [None, nnx.GRUCell])
def test_a_clock_whose_cycle_no_carry_counts_is_not_streamed(cell):
    layer = Clockwork(LONG, INPUTS, cell=cell, rngs=nnx.Rngs(0))
    carry, outputs = layer(X, return_carry=True)
    np.testing.assert_array_equal(layer(X), outputs)
    assert carry.time.tolist() == [STEPS]
    ends = np.int32(4)
    assert layer(X, seq_lengths=ends, return_carry=True)[0].time.tolist() == [4]
    for call in (
        lambda: layer(X, initial_carry=carry),
        lambda: layer.cell.initialize_carry((INPUTS,)),
        lambda: layer.cell(carry, jnp.asarray(X[0])),
        lambda: nnx.RNN(layer.cell)(X),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            call()


@pytest.mark.filterwarnings("ignore:the slowest period")
def test_a_long_cycle_in_the_core_and_in_linen():
    refused = functools.partial(pytest.raises, ValueError, match=REFUSED)
    with refused():
        cw.State.initial(LONG)
    with refused():
        cw.step(weights(LONG), LONG, cw.State(jnp.zeros(LONG.width), jnp.zeros((), jnp.int32)), X[0])
    with refused():
        flax_linen.RNN(linen.ClockworkCell(LONG)).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="int8, can count"):
        cw.step(weights(), cw.Clock((1, 3, 128), (2, 2, 2)), cw.State(jnp.zeros(6), jnp.zeros((), jnp.int8)), X[0])
    start = LONG.cycle * 5 + 46_337 * 3 - 4
    masked, cascade = (cw.unroll(weights(LONG), LONG, X, start=start, method=m)[0] for m in ("masked", "cascade"))
    np.testing.assert_allclose(masked, cascade, atol=1e-6)
    both = Bidirectional(*(Clockwork(LONG, INPUTS, rngs=nnx.Rngs(0)) for _ in range(2)))
    assert both(X).shape == (STEPS, 2 * LONG.width)
    assert linen.Clockwork(LONG).init_with_output(jax.random.key(0), X)[0].shape == (STEPS, LONG.width)

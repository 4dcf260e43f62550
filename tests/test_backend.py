"""Which back end is chosen, and what is said about it."""

import logging
import math
import re

import jax
import jax.numpy as jnp
import pytest

import clockwork as cw
from clockwork import lstm, recurrence
from clockwork.ops import compiled, mosaic
from clockwork.ops.backend import Backend, Cost, choose, explain
from clockwork.recurrence.masked import MASKED_MAX_WORK


def backend(name, cost, refusal=None, stand_in=None):
    return Backend(name, lambda *_: name, lambda _: refusal, lambda _: Cost(cost, f"costs {cost}"), lambda: stand_in)


CHEAP, DEAR = backend("cheap", 1), backend("dear", 2)
REFUSING, ABSENT = backend("refusing", 0, "it cannot"), backend("absent", math.inf)
OLD = backend("old", math.inf, stand_in="cheap")
BACKENDS = (DEAR, CHEAP, REFUSING, ABSENT, OLD)


def test_the_cheapest_that_does_not_refuse_is_chosen_and_the_last_of_equals():
    assert choose(BACKENDS, None).backend is CHEAP
    same = backend("same", 1)
    assert choose((*BACKENDS, same), None).backend is same


def test_the_one_asked_for_is_chosen_or_its_own_sentence_is_raised():
    assert choose(BACKENDS, None, "dear").backend is DEAR
    with pytest.raises(ValueError, match=r"^it cannot$"):
        choose(BACKENDS, None, "refusing")
    with pytest.raises(ValueError, match=re.escape("method must be one of ('auto', 'dear', 'cheap', 'refusing', ")):
        choose(BACKENDS, None, "quick")


def test_a_stand_in_evaluates_where_the_device_cannot():
    choice = choose(BACKENDS, None, "old")
    assert choice.backend is CHEAP
    assert choice.reason == 'method="old" is asked for, and cheap stands in for it: costs inf'
    assert choose(BACKENDS, None, "absent").reason == 'method="absent" is asked for, but costs inf'


def test_every_back_end_is_explained_and_logged(caplog):
    caplog.set_level(logging.DEBUG, "clockwork")
    explained = explain(BACKENDS, None)
    others = [("dear", "costs 2"), ("refusing", "it cannot"), ("absent", "costs inf"), ("old", "costs inf")]
    assert explained == [("cheap", "chosen: costs 1"), *others]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["cheap is chosen: costs 1", *(f"{name} is not chosen: {why}" for name, why in others)]


def test_unroll_logs_its_choice(caplog):
    caplog.set_level(logging.DEBUG, "clockwork")
    clock = cw.Clock((1, 2), (2, 2))
    cw.unroll(cw.init(jax.random.key(0), clock), clock, steps=3)
    assert "masked is chosen: 4 units times 3 steps is less than 800" in caplog.text
    assert "fused is not chosen: the kernels need an NVIDIA GPU from Hopper on" in caplog.text


@pytest.mark.parametrize(("steps", "name"), [(19, "masked"), (20, "cascade"), (21, "cascade")])
def test_a_small_layer_takes_the_masked_scan_for_a_short_sequence(monkeypatch, steps, name):
    monkeypatch.setenv("CLOCKWORK_NATIVE", "0")
    assert MASKED_MAX_WORK == 20 * 40
    assert recurrence.explain(cw.Clock.exponential(40, 9), steps)[0][0] == name


def test_the_native_kernels_are_chosen_where_they_are_and_take_the_layer(monkeypatch):
    clock = cw.Clock.exponential(40, 9)
    assert recurrence.explain(clock, 320)[0] == ("native", "chosen: one compiled loop evaluates all modules")
    assert recurrence.explain(clock, 2)[0][0] == "masked"
    refusals = {
        "takes the activation jnp.tanh, got": recurrence.explain(clock, 320, activation=jax.nn.relu),
        "takes float32 and float64, got bfloat16": recurrence.explain(clock, 320, jnp.bfloat16),
    }
    for sentence, explained in refusals.items():
        assert explained[0][0] == "cascade"
        assert f'method "native" {sentence}' in dict(explained)["native"]
    monkeypatch.setenv("CLOCKWORK_NATIVE", "0")
    absent = "the native kernels are turned off by CLOCKWORK_NATIVE=0"
    assert dict(recurrence.explain(clock, 320))["native"] == absent
    chosen = ("cascade", f'chosen: method="native" is asked for, and cascade stands in for it: {absent}')
    assert recurrence.explain(clock, 320, method="native")[0] == chosen


def test_without_a_compiler_or_where_it_fails_xla_stands_in(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wrong = tmp_path / "wrong.cc"
    wrong.write_text("this is not C++\n")
    refusal = compiled.refusal(wrong, ("wrong",))
    assert refusal is not None
    assert refusal.startswith("the native kernels could not be compiled: ")
    assert "XLA evaluates everything" in caplog.text
    monkeypatch.setenv("CXX", "no-such-compiler")
    another = tmp_path / "another.cc"
    another.write_text("")
    assert compiled.refusal(another, ()) == "the native kernels need a C++ compiler, and there is none on this machine"


def test_a_library_that_was_compiled_before_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "empty.cc"
    source.write_text("int nothing;\n")
    first = compiled._built(source, ["c++"])
    stamp = first.stat().st_mtime_ns
    assert compiled._built(source, ["c++"]) == first
    assert first.stat().st_mtime_ns == stamp
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    assert compiled._built(source, ["c++", "-g0"]).read_bytes()  # a wrapper or flags make another library
    assert compiled._built(source, ["c++"]).read_bytes() == whole
    source.write_text("int something;\n")
    assert compiled._built(source, ["c++"]) != first


def test_on_a_gpu_the_kernels_are_chosen_unless_they_refuse(monkeypatch):
    monkeypatch.setattr(mosaic, "device_refusal", lambda: None)
    monkeypatch.setenv("CLOCKWORK_NATIVE", "0")
    clock, wide = cw.Clock.exponential(40, 9), cw.Clock((1,), (129,))
    assert recurrence.explain(clock, 3)[0] == ("fused", "chosen: every time loop is one GPU kernel")
    refusals = {
        "takes modules of up to 128 units, got one of 129": recurrence.explain(wide, 320),
        "takes the activation jnp.tanh, got": recurrence.explain(clock, 320, activation=jax.nn.relu),
        "takes float32 and bfloat16, got float16": recurrence.explain(clock, 320, jnp.float16),
        "takes up to 44 cells, got 45": lstm.explain(45, 320),
    }
    for sentence, explained in refusals.items():
        assert explained[0][0] in ("cascade", "scan")
        assert f'method "fused" {sentence}' in dict(explained)["fused"]
    with pytest.raises(ValueError, match=r'^method "fused" takes up to 44 cells, got 45$'):
        lstm.explain(45, 320, method="fused")

"""Checks of arguments: what is refused, and in which words."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from clockwork.checks import ArgumentError, finite, float32, typed
from clockwork.tasks import Generation, Words


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        ([1, 2], tuple[int, ...], (1, 2)),
        (np.array([1, 2]), tuple[int, ...], (1, 2)),
        (np.int64(3), int, 3),
        (jnp.int32(3), int, 3),
        (3, float, 3.0),
        (Path("a/b.wav"), str | None, "a/b.wav"),
        (None, str | None, None),
        ("one.wav", tuple[str, ...] | str, "one.wav"),
        (["one.wav"], tuple[str, ...] | str, ("one.wav",)),
        ({"any": "thing"}, dict[str, str], {"any": "thing"}),
    ],
)
def test_values_become_what_a_field_holds(value, hint, found):
    result = typed("x", value, hint)
    assert result == found
    assert type(result) is type(found)


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        ("3", int, "an integer"),
        (True, int, "an integer"),
        (3.0, int, "an integer"),
        ("0.1", float, "a number"),
        (10**400, float, "a number"),
        (None, float, "a number"),
        ("srn", tuple[str, ...], "a list, each item a string"),
        ([["srn"]], tuple[str, ...], "a list, each item a string"),
        (3, str | None, "a string or None"),
        ({}, tuple[int, ...] | None, "a list, each item an integer or None"),
    ],
)
def test_other_types_are_refused(value, hint, wanted):
    with pytest.raises(ArgumentError, match=f"x must be {wanted}, got "):
        typed("x", value, hint)


@pytest.mark.parametrize("value", ["0.1", b"1", True, np.True_, None, [], math.nan, math.inf, 10**400])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ArgumentError, match="x must be "):
        finite("x", value)


@pytest.mark.parametrize("value", [1e300, 1e-300, 1e-40, 3.5e38, 0.0, -1.0, math.inf, math.nan])
def test_what_float32_cannot_hold_is_refused(value):
    with pytest.raises(ArgumentError, match=r"x must be .*got "):
        float32("x", value)


@pytest.mark.parametrize("kind", [Generation, Words])
@pytest.mark.parametrize("name", ["runs", "networks", "sizes", "epochs", "learning_rates", "seed"])
def test_no_setting_of_a_wrong_type_gets_through(kind, name):
    for value in ("3", {}, {"a": 1}, [{}], [[1]], [None], b"x", 1.5, True, [True], object()):
        with pytest.raises(ValueError, match=r"\w"):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        (Generation, {"seed": 2**32}, "seed must be an integer from 0 to 4294967295, got 4294967296"),
        (Generation, {"runs": 10**23}, "runs must be an integer from 1 to 4294967296, got 1000"),
        (Generation, {"learning_rates": (1e300,)}, r"learning_rates must be from 1.2e-38 to 3.4e\+38, .*got 1e\+300"),
        (Generation, {"learning_rates": (1e-300,)}, "learning_rates must be from .*got 1e-300"),
        (Generation, {"clip_norm": 1e300}, r"clip_norm must be from .*got 1e\+300"),
        (Generation, {"clip_norm": math.nan}, "clip_norm must be finite and above 0, got nan"),
        (Words, {"noise": 1e300}, r"noise must be from .*got 1e\+300"),
        (Words, {"noise": 1e-300}, "noise must be from .*got 1e-300"),
        (Words, {"noise": -1.0}, "noise must be finite and at least 0, got -1.0"),
    ],
)
def test_what_the_arithmetic_cannot_hold_is_refused(kind, arguments, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        kind(**arguments)
    assert kind(seed=2**32 - 1).seed == 2**32 - 1
    assert Generation(clip_norm=math.inf).training.clip_norm is None
    assert Words(noise=0).noise == 0

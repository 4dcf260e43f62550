"""Checks of arguments: what is refused, and in which words."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clockwork.checks import ArgumentError, finite, float32, shaped, typed
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


@pytest.mark.parametrize(
    ("shape", "dimensions", "options"),
    [
        ((5, 13), "T I", {"I": 13}),
        ((5, 13), "T I", {}),
        ((4, 4), "N N", {"N": 4}),
        ((3,), "N", {"N": 3}),
        ((), "", {}),
        ((13, 16), "I 4N", {"N": 4}),
        ((13, 16), "I 4N", {}),
        ((3, 4), "3 N", {"N": 4}),
        ((13,), "*batch I", {"I": 13}),
        ((2, 3, 5, 13), "*batch T I", {"I": 13}),
        ((5, 2, 3, 13), "T *batch I", {"I": 13}),
        ((2, 3), "*batch", {"batch": (2, 3)}),
        ((2, 3, 1), "*batch 1", {"batch": (2, 3), "kind": float}),
        ((0, 4), "I N", {"I": 0, "N": 4}),
    ],
)
def test_an_array_of_these_dimensions_comes_back(shape, dimensions, options):
    for array in (np.zeros(shape), jnp.zeros(shape), jnp.zeros(shape, jnp.bfloat16)):
        assert shaped("x", array, dimensions, **options) is array
    jax.eval_shape(lambda x: shaped("x", x, dimensions, **options), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("array", "dimensions", "options", "sentence"),
    [
        (np.zeros((5, 12)), "T I", {"I": 13}, r"x must have shape \(T, 13\), got \(5, 12\)$"),
        (np.zeros((5, 12)), "T I", {"I": 13, "hint": "; use vmap"}, r"\(T, 13\), got \(5, 12\); use vmap$"),
        (np.zeros(5), "T I", {}, r"x must have shape \(T, I\), got \(5,\)"),
        (np.zeros(5), "N", {"N": 4}, r"x must have shape \(4,\), got \(5,\)"),
        (np.zeros(5), "", {}, r"x must have shape \(\), got \(5,\)"),
        (np.zeros((5, 4)), "N N", {"N": 4}, r"x must have shape \(4, 4\), got \(5, 4\)"),
        (np.zeros((3, 5)), "I 4N", {"N": 1}, r"x must have shape \(I, 4\), got \(3, 5\)"),
        (np.zeros(2), "*batch T I", {"I": 2}, r"x must have shape \(\*batch, T, 2\), got \(2,\)"),
        (np.zeros(3), "*batch", {"batch": (2, 3)}, r"x must have shape \(2, 3\), got \(3,\)"),
        (np.zeros(3), "N", {"kind": int}, "x must be integers, got float64"),
        (np.zeros(3, int), "N", {"kind": float}, "x must be floating point numbers, got int64"),
    ],
)
def test_an_array_of_other_dimensions_is_refused_in_one_sentence(array, dimensions, options, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        shaped("x", array, dimensions, **options)


@pytest.mark.parametrize(
    ("dimensions", "sizes", "sentence"),
    [
        ("T X", {}, "a dimension must be one of R, B, T, I, N, G, O, a multiple or .*got 'X'"),
        ("TI", {}, "got 'TI'"),
        ("t", {}, "got 't'"),
        ("*B", {}, r"got '\*B'"),
        ("T I", {"N": 3}, "sizes must be of dimensions of 'T I', got N"),
    ],
)
def test_dimensions_outside_the_vocabulary_are_a_mistake_of_the_code(dimensions, sizes, sentence):
    with pytest.raises(TypeError, match=sentence):
        shaped("x", np.zeros((2, 3)), dimensions, **sizes)


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

"""Positive numbers far beyond the range of floating point numbers: pairs of a mantissa and an exponent.

A pair ``(m, e)`` is ``m 2^e`` with ``1 <= m < 2``. Sums and products need no exponential and no logarithm, only
additions, shifts and masks of bits, and are as exact as those of the mantissas. A pair whose exponent is about `ZERO`
or less stands for zero.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

# Far below the exponent of the probability of any whole path; three times this value still fits an int32.
ZERO = -(2**27)


class Pair(NamedTuple):
    """Numbers ``m 2^e``.

    Attributes:
        m: the mantissas, float32 or float64, in [1, 2).
        e: the exponents, int32, of the same shape.
    """

    m: Array
    e: Array


class _Format(NamedTuple):
    """How the bits of a floating point number are laid out."""

    bits: Any  # an integer dtype of the same width
    fraction: int  # bits of the mantissa
    bias: int


_FORMATS = {"float32": _Format(jnp.int32, 23, 127), "float64": _Format(jnp.int64, 52, 1023)}


def _format(dtype: Any) -> _Format:
    return _FORMATS[jnp.dtype(dtype).name]


def of_log2(x: Array) -> Pair:
    """``2^x``; zero where x is -inf or NaN."""
    least = jnp.asarray(ZERO, x.dtype)
    x = jnp.where(x > least, x, least)
    e = jnp.floor(x)
    m = jnp.minimum(jnp.exp2(x - e), jnp.asarray(2, x.dtype) - jnp.finfo(x.dtype).eps)  # exp2 may round up to 2
    return Pair(m, e.astype(jnp.int32))


def log2(pair: Pair) -> Array:
    """The logarithm to base 2; -inf of zero."""
    return jnp.where(pair.e > ZERO // 2, jnp.log2(pair.m) + pair.e.astype(pair.m.dtype), -jnp.inf)


def _power(e: Array, dtype: Any) -> Array:
    """``2^e`` for ``e <= 1``, as a floating point number; 0 if it is too small for one."""
    form = _format(dtype)
    return lax.bitcast_convert_type((jnp.maximum(e, -form.bias) + form.bias).astype(form.bits) << form.fraction, dtype)


def _normal(m: Array, e: Array) -> Pair:
    """The pair of ``m 2^e`` for ``m >= 1``."""
    form = _format(m.dtype)
    bits = lax.bitcast_convert_type(m, form.bits)
    fraction = bits & ((1 << form.fraction) - 1)
    return Pair(
        lax.bitcast_convert_type(fraction | (form.bias << form.fraction), m.dtype),
        e + ((bits >> form.fraction) - form.bias).astype(jnp.int32),
    )


def add(*terms: Pair) -> Pair:
    """The sum, not yet normalised: a mantissa of 1 or more."""
    e = terms[0].e
    for term in terms[1:]:
        e = jnp.maximum(e, term.e)
    m = terms[0].m * _power(terms[0].e - e, terms[0].m.dtype)
    for term in terms[1:]:
        m = m + term.m * _power(term.e - e, m.dtype)
    return Pair(m, e)


def times(a: Pair, b: Pair) -> Pair:
    """The product, normalised; either may be a sum."""
    return _normal(a.m * b.m, a.e + b.e)


def number(pair: Pair) -> Array:
    """A pair of at most about 1 as a floating point number."""
    return pair.m * _power(jnp.minimum(pair.e, 1), pair.m.dtype)

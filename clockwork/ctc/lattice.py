"""The sums over all paths that read a text (Graves et al. 2006, sec. 4.1), forwards and backwards in time.

A path is at one of ``2 L + 1`` places at each frame: in one of the ``L`` characters, or in one of the ``L + 1`` blanks
around them. Two arrays of ``L + 1`` rows hold them: row s of ``blanks`` is the blank before character s, row s of
``letters`` is the character before that blank, and row 0 of ``letters`` is no character. So a step needs only one
neighbouring row. Lines are the last axis, ``K``, for the SIMD units of a CPU.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork.ctc.pairs import ZERO, Pair, add, log2, number, times
from clockwork.ops.jax_internals import custom_vmap
from clockwork.ops.sharded import equally_varying


class Emissions(NamedTuple):
    """The probabilities along the paths of ``K`` lines.

    Attributes:
        blanks: ``(T, K)``, the probability of the blank at each frame; 1 beyond the end of a line.
        letters: ``(T, L + 1, K)``, the probability of each row's character; 0 for row 0, beyond the end of a text and
            beyond the end of a line.
        skips: ``(L + 1, K)``, int32: 0 where a path may go from the character of a row to that of the next row without
            a blank, as it may if the two differ; else `ZERO`.
        last: ``(L + 1, K)``, int32: 0 in the row where a text ends, else `ZERO`.
    """

    blanks: Pair
    letters: Pair
    skips: Array
    last: Array


def _merging(function: Callable[[Emissions], Any]) -> Callable[[Emissions], Any]:
    """Let ``vmap`` of a function of lines on the last axis put more lines on that axis."""
    mapped = custom_vmap(lambda emissions: function(emissions))

    @mapped.def_vmap
    def rule(size: int, batched: Any, emissions: Emissions) -> tuple[Any, Any]:
        def joined(leaf: Array, is_batched: bool) -> Array:
            leaf = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return jnp.moveaxis(leaf, 0, -2).reshape(*leaf.shape[1:-1], size * leaf.shape[-1])

        leaves, tree = jax.tree.flatten(emissions)
        found = mapped(jax.tree.unflatten(tree, map(joined, leaves, jax.tree.leaves(batched))))
        apart = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(*leaf.shape[:-1], size, -1), -2, 0), found)
        return apart, jax.tree.map(lambda _: True, apart)

    return functools.wraps(function)(mapped)


def _begun(emissions: Emissions) -> tuple[Emissions, tuple[Pair, Pair]]:
    """The lattice, and blanks and letters before its first frame, where every path is in the first blank."""
    first = jnp.arange(emissions.skips.shape[0])[:, None] == 0
    e = jnp.broadcast_to(jnp.where(first, 0, ZERO).astype(jnp.int32), emissions.skips.shape)
    m = jnp.ones(e.shape, emissions.letters.m.dtype)
    leaves, tree = jax.tree.flatten((emissions, (Pair(m, e), Pair(m, jnp.full_like(e, ZERO)))))
    return jax.tree.unflatten(tree, equally_varying(leaves))


def _forward(emissions: Emissions, keep: bool) -> tuple[Pair, Any]:
    """The probability of the whole text ``(K,)``, and, if ``keep``, that of the letters after each frame."""

    def step(carry: tuple[Pair, Pair], xs: tuple[Pair, Pair]) -> tuple[tuple[Pair, Pair], Any]:
        (blanks, letters), (blank, letter) = carry, xs
        blank = Pair(blank.m[None], blank.e[None])
        onwards = add(blanks, letters._replace(e=letters.e + emissions.skips))
        onwards = Pair(jnp.roll(onwards.m, 1, 0), jnp.roll(onwards.e, 1, 0))
        new = times(add(blanks, letters), blank), times(add(letters, onwards), letter)
        return new, new[1] if keep else None

    emissions, start = _begun(emissions)
    (blanks, letters), kept = lax.scan(step, start, (emissions.blanks, emissions.letters))
    total = add(blanks, letters)
    e = (total.e + emissions.last).max(0)
    m = jnp.where(emissions.last == 0, total.m, 0).sum(0)
    return Pair(m, e), kept


@_merging
def log_probability(emissions: Emissions) -> Array:
    """The logarithm to base 2 of the probability of all paths that read the text, ``(K,)``; -inf if there is none."""
    return log2(_forward(emissions, keep=False)[0])


@_merging
def occupancy(emissions: Emissions) -> tuple[Array, Array]:
    """`log_probability`, and the probability of each letter at each frame given the text, ``(T, L + 1, K)``."""
    total, letters = _forward(emissions, keep=True)
    ones = jnp.ones_like(total.m)
    inverse = Pair(ones / total.m, -total.e)

    def step(carry: tuple[Pair, Pair], xs: tuple[Pair, Pair, Pair]) -> tuple[tuple[Pair, Pair], Array]:
        (blanks, after), (blank, letter, before) = carry, xs
        blank = Pair(blank.m[None], blank.e[None])
        onwards = Pair(jnp.roll(after.m, -1, 0), jnp.roll(after.e, -1, 0))
        left = add(after, blanks, onwards._replace(e=onwards.e + emissions.skips))
        share = Pair(before.m * left.m * inverse.m[None], before.e + left.e + inverse.e[None])
        return (times(add(blanks, onwards), blank), times(left, letter)), number(share)

    emissions, (blanks, none) = _begun(emissions)
    start = blanks._replace(e=emissions.last), none
    _, shares = lax.scan(step, start, (emissions.blanks, emissions.letters, letters), reverse=True)
    return log2(total), shares

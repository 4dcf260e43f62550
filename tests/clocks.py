"""Clocks and layers drawn by hypothesis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import clockwork as cw


class Layer(NamedTuple):
    """A layer with its weights, and a sequence for it."""

    clock: cw.Clock
    weights: cw.Weights
    inputs: np.ndarray | None
    steps: int
    start: int
    hidden: np.ndarray

    @property
    def sequence(self) -> np.ndarray:
        """The inputs, zero columns where there are none."""
        return np.zeros((self.steps, 0)) if self.inputs is None else self.inputs

    def call(self) -> dict:
        """Arguments of ``unroll`` that are not arrays."""
        return {"start": self.start, "steps": self.steps if self.inputs is None else None}


PERIODS = st.one_of(
    st.integers(1, 4).map(lambda g: tuple(2**i for i in range(g))),  # the paper's
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(lambda p: tuple(sorted(p))),  # any, equal ones too
)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Nested and other periods, unequal sizes, any start, T shorter than a period or longer, with inputs or not."""
    periods = draw(PERIODS)
    sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=len(periods), max_size=len(periods))))
    clock = cw.Clock(periods, sizes)
    steps, start, inputs = draw(st.integers(1, 14)), draw(st.integers(0, 30)), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return layer(clock, steps, start, inputs, rng)


def layer(clock: cw.Clock, steps: int, start: int, inputs: int, rng: np.random.Generator) -> Layer:
    """A layer with random weights and a random sequence, in the default float dtype."""
    shapes = jax.eval_shape(lambda: cw.init(jax.random.key(0), clock, inputs))
    weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / np.sqrt(clock.width), float), shapes)
    sequence = rng.normal(size=(steps, inputs)) if inputs else None
    return Layer(clock, weights, sequence, steps, start, rng.normal(size=clock.width))

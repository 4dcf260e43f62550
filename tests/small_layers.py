"""Small clocks, and weights for them, of the tests of cells and layers."""

import jax
import jax.numpy as jnp
import numpy as np
from clocks import layer as drawn_layer

import clockwork as cw

CLOCKS = [cw.Clock(periods=(1, 2, 4), sizes=(2, 2, 1)), cw.Clock(periods=(2, 3, 7), sizes=(1, 2, 2))]
STEPS, INPUTS = 9, 2
LENGTHS = np.array([9, 1, 4])


def weights_for(clock, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(w, float), drawn_layer(clock, STEPS, 0, INPUTS, rng).weights)

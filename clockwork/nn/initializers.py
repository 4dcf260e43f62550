"""How the weights of a clockwork layer are drawn: the paper's way and Flax's.

Both are keyword arguments of the cells and layers: ``Clockwork(clock, 13, **FLAX, rngs=rngs)``.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import Initializer, lecun_normal, normal, orthogonal, zeros
from jax.typing import DTypeLike

from clockwork.checks import integer
from clockwork.clock import Clock, check_clock
from clockwork.weights import Weights


class Initializers(TypedDict):
    """What draws input weights, recurrent weights and biases."""

    kernel_init: Initializer
    recurrent_kernel_init: Initializer
    bias_init: Initializer


PAPER = Initializers(kernel_init=normal(0.1), recurrent_kernel_init=normal(0.1), bias_init=normal(0.1))
"""The paper's: all weights and biases from N(0, 0.1²) (Koutník et al. 2014, sec. 4). What layers and cells take if
they are given none."""

FLAX = Initializers(kernel_init=lecun_normal(), recurrent_kernel_init=orthogonal(), bias_init=zeros)
"""Those of flax's ``SimpleCell``: ``Clockwork(clock, 13, **FLAX, rngs=rngs)``."""


def initialize(
    key: Array,
    clock: Clock,
    inputs: int,
    *,
    kernel_init: Initializer | None = None,
    recurrent_kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Weights:
    """Draw the weights of a layer with any initialisers; those that are None are the paper's.

    Args:
        key: a JAX random key.
        clock: the layer's clock.
        inputs: ``I``, the number of inputs; 0 for none.
        kernel_init: draws the input weights ``(I, N)``.
        recurrent_kernel_init: draws, for each module i, all that it receives, ``(N - a_i, k_i)`` of the
            units from a_i on, so that an initialiser that counts its inputs counts them right.
        bias_init: draws the biases ``(N,)``.
        dtype: of the weights. They are drawn in at least float32 and rounded.

    Raises:
        ValueError: if ``inputs`` is negative.

    Example:
        >>> import clockwork as cw, jax
        >>> weights = initialize(jax.random.key(0), cw.Clock.exponential(width=40, modules=9), 13, **FLAX)
        >>> float(abs(weights.bias).sum())
        0.0
    """
    check_clock(clock)
    inputs = integer("in_features", inputs, least=0)
    kernel = kernel_init or PAPER["kernel_init"]
    bias = bias_init or PAPER["bias_init"]
    drawn_in = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
    n, starts = clock.width, clock.starts
    input_key, recurrent_key, bias_key = jax.random.split(key, 3)
    if recurrent_kernel_init is None:  # all alike: drawn at once, since every shape is compiled anew
        dense = PAPER["recurrent_kernel_init"](recurrent_key, (n, n), drawn_in)
        received = [dense[a:, a : a + k] for a, k in zip(starts, clock.sizes, strict=True)]
    else:
        keys = jax.random.split(recurrent_key, clock.modules)
        received = [
            recurrent_kernel_init(module_key, (n - a, k), drawn_in)
            for module_key, a, k in zip(keys, starts, clock.sizes, strict=True)
        ]
    blocks = [
        jnp.concatenate([received[i][b - starts[i] : b - starts[i] + k] for i in range(j + 1)], axis=1)
        for j, (b, k) in enumerate(zip(starts, clock.sizes, strict=True))
    ]
    weights = Weights(
        kernel(input_key, (inputs, n), drawn_in) if inputs else jnp.zeros((0, n), drawn_in),
        tuple(blocks),
        bias(bias_key, (n,), drawn_in),
    )
    return jax.tree.map(lambda w: w.astype(dtype), weights)

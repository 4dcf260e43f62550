"""How the weights of a clockwork layer are drawn: the paper's way and Flax's.

Both are keyword arguments of the cells and layers: ``Clockwork(clock, 13, **FLAX, rngs=rngs)``.
"""

from typing import TypedDict

from jax.nn.initializers import Initializer, lecun_normal, orthogonal, zeros

from clockwork.weights import Normal


class Initializers(TypedDict):
    """What draws input weights, recurrent weights and biases."""

    kernel_init: Initializer
    recurrent_kernel_init: Initializer
    bias_init: Initializer


PAPER = Initializers(kernel_init=Normal(0.1), recurrent_kernel_init=Normal(0.1), bias_init=Normal(0.1))
"""The paper's: all weights and biases from N(0, 0.1²) (Koutník et al. 2014, sec. 4). What layers and cells take if
they are given none."""

FLAX = Initializers(kernel_init=lecun_normal(), recurrent_kernel_init=orthogonal(), bias_init=zeros)
"""Those of flax's ``SimpleCell``: ``Clockwork(clock, 13, **FLAX, rngs=rngs)``."""

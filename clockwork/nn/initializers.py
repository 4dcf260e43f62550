"""Initialisers of a clockwork layer's weights: the paper's and Flax's.

Pass either to a cell or layer as keyword arguments: ``Clockwork(clock, 13, **FLAX, rngs=rngs)``.
"""

from typing import TypedDict

from jax.nn.initializers import Initializer, lecun_normal, orthogonal, zeros

from clockwork.weights import Normal


class Initializers(TypedDict):
    """The initialisers of input weights, recurrent weights and biases."""

    kernel_init: Initializer
    recurrent_kernel_init: Initializer
    bias_init: Initializer


PAPER = Initializers(kernel_init=Normal(0.1), recurrent_kernel_init=Normal(0.1), bias_init=Normal(0.1))
"""The paper's initialisers: all weights and biases from N(0, 0.1²) (Koutník et al. 2014, sec. 4). They are the defaults
of layers and cells."""

FLAX = Initializers(kernel_init=lecun_normal(), recurrent_kernel_init=orthogonal(), bias_init=zeros)
"""The initialisers of flax's ``SimpleCell``: ``Clockwork(clock, 13, **FLAX, rngs=rngs)``."""

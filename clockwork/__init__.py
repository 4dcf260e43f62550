"""The Clockwork RNN (Koutník, Greff, Gomez, Schmidhuber 2014) for JAX and Flax."""

from clockwork.clock import Clock
from clockwork.recurrence import State, step, unroll
from clockwork.weights import Weights, init

__version__ = "0.1.0"
__all__ = ["Clock", "State", "Weights", "init", "step", "unroll"]

"""Deep transitions between hidden states (Pascanu et al. 2013), as plain functions."""

from clockwork.deep.layer import deep_step, deep_unroll, explain
from clockwork.deep.units import lp_units
from clockwork.deep.weights import DeepWeights, Sparse, deep_init

__all__ = ["DeepWeights", "Sparse", "deep_init", "deep_step", "deep_unroll", "explain", "lp_units"]

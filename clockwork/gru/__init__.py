"""The gated recurrent unit (GRU), as plain functions."""

from clockwork.gru.layer import gru_unroll
from clockwork.gru.weights import GRUWeights, gru_init

__all__ = ["GRUWeights", "gru_init", "gru_unroll"]

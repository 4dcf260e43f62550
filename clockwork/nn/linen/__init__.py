"""The cells and layers of `clockwork.nn` for Flax's linen API, with the same names of parameters.

A cell takes the number of its inputs from its first call. `weights` and `params` convert the parameters of a cell to
the functional `clockwork.Weights` and back, and so to and from the nnx modules.

A cell draws all its parameters with one key, the first that flax's ``make_rng("params")`` gives it. Flax computes this
key from the key given to ``init`` and from the cell's path in the model. `params` shows how to get this key, and
with it the same weights from `clockwork.init`.
"""

from clockwork.nn.linen.cells import ClockworkCell, PeepholeLSTMCell
from clockwork.nn.linen.deep import DeepTransition, Operators
from clockwork.nn.linen.deep_cells import DeepTransitionCell, OperatorCell
from clockwork.nn.linen.layers import Bidirectional, Clockwork, Stack
from clockwork.nn.linen.of_cells import ClockworkOfCells
from clockwork.nn.linen.parameters import params, weights
from clockwork.nn.linen.recurrent import GRU, LSTM, Recurrent
from clockwork.nn.linen.stored import flat, from_flat
from clockwork.nn.linen.units import MLP, LpUnits, Maxout, Transition

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "Bidirectional",
    "Clockwork",
    "ClockworkCell",
    "ClockworkOfCells",
    "DeepTransition",
    "DeepTransitionCell",
    "LpUnits",
    "Maxout",
    "OperatorCell",
    "Operators",
    "PeepholeLSTMCell",
    "Recurrent",
    "Stack",
    "Transition",
    "flat",
    "from_flat",
    "params",
    "weights",
]

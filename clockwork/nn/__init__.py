"""Flax (nnx) cells, layers and networks; `clockwork.nn.linen` has them for linen. LSTM and GRU as plain functions."""

from clockwork.gru import GRUWeights, gru_init, gru_unroll
from clockwork.lstm import LSTMWeights, lstm_init, lstm_unroll
from clockwork.nn.cells import ClockworkCell, PeepholeLSTMCell
from clockwork.nn.deep import DeepTransition, Operators
from clockwork.nn.deep_cells import DeepTransitionCell, OperatorCell
from clockwork.nn.deep_networks import DeepRNN, SequenceNetwork
from clockwork.nn.initializers import FLAX, PAPER
from clockwork.nn.layers import Bidirectional, Clockwork, Stack
from clockwork.nn.modules import CellsState
from clockwork.nn.networks import ClockworkLSTM, ClockworkRNN, Network, PeepholeLSTM, SimpleRNN
from clockwork.nn.of_cells import ClockworkOfCells
from clockwork.nn.recurrent import GRU, LSTM, Recurrent
from clockwork.nn.stored import flat, set_flat
from clockwork.nn.units import MLP, LpUnits, Maxout, Transition

__all__ = [
    "FLAX",
    "GRU",
    "LSTM",
    "MLP",
    "PAPER",
    "Bidirectional",
    "CellsState",
    "Clockwork",
    "ClockworkCell",
    "ClockworkLSTM",
    "ClockworkOfCells",
    "ClockworkRNN",
    "DeepRNN",
    "DeepTransition",
    "DeepTransitionCell",
    "GRUWeights",
    "LSTMWeights",
    "LpUnits",
    "Maxout",
    "Network",
    "OperatorCell",
    "Operators",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "Recurrent",
    "SequenceNetwork",
    "SimpleRNN",
    "Stack",
    "Transition",
    "flat",
    "gru_init",
    "gru_unroll",
    "lstm_init",
    "lstm_unroll",
    "set_flat",
]

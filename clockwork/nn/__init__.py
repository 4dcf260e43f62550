"""Networks as Flax (nnx) modules, and the peephole LSTM as plain functions."""

from clockwork.nn.lstm import LSTMWeights, lstm_init, lstm_unroll
from clockwork.nn.networks import ClockworkRNN, Network, PeepholeLSTM, SimpleRNN

__all__ = ["ClockworkRNN", "LSTMWeights", "Network", "PeepholeLSTM", "SimpleRNN", "lstm_init", "lstm_unroll"]

"""The LSTM with peepholes and a forget gate, the paper's stronger baseline, as plain functions."""

from clockwork.lstm.layer import explain, lstm_unroll
from clockwork.lstm.weights import LSTMWeights, lstm_init

__all__ = ["LSTMWeights", "explain", "lstm_init", "lstm_unroll"]

"""The LSTM with peepholes and a forget gate, the paper's stronger baseline, as plain functions."""

from clockwork.lstm.layer import LSTMWeights, lstm_init, lstm_unroll

__all__ = ["LSTMWeights", "lstm_init", "lstm_unroll"]

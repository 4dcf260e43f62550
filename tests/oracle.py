"""The clockwork layer in NumPy float64, step by step as the paper has it. Every kernel is held to it."""

import numpy as np


def forward(clock, w_in, w_rec, bias, inputs, start, hidden):
    """Koutník et al. 2014, eqs. 1 and 4, with ``h @ W``: the hidden state after every step, (T, N)."""
    outputs = []
    for t, x_t in enumerate(inputs, start):
        updated = np.tanh(hidden @ w_rec + x_t @ w_in + bias)
        hidden = np.where(t % clock.unit_periods == 0, updated, hidden)
        outputs.append(hidden)
    return np.stack(outputs)


def backward(clock, w_in, w_rec, bias, inputs, start, hidden, outputs_bar, last_bar):
    """The same, backwards: errors come from active modules only, those of the others are copied back in time."""
    outputs = forward(clock, w_in, w_rec, bias, inputs, start, hidden)
    before = np.concatenate([hidden[None], outputs[:-1]])
    w_in_bar, w_rec_bar, bias_bar = np.zeros_like(w_in), np.zeros_like(w_rec), np.zeros_like(bias)
    inputs_bar, error = np.zeros_like(inputs), last_bar
    for i in reversed(range(len(inputs))):
        error = error + outputs_bar[i]
        active = (start + i) % clock.unit_periods == 0
        delta = np.where(active, error * (1 - outputs[i] ** 2), 0)
        w_in_bar += np.outer(inputs[i], delta)
        w_rec_bar += np.outer(before[i], delta)
        bias_bar += delta
        inputs_bar[i] = w_in @ delta
        error = np.where(active, 0, error) + w_rec @ delta
    return w_in_bar, w_rec_bar, bias_bar, inputs_bar, error

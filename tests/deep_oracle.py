"""The recurrent networks of Pascanu et al. (2013) in NumPy float64, step by step. Every kernel is held to it."""

import numpy as np

ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
}


def unpack(weights):
    """For each layer: from the input, from the hidden state (None without a shortcut), from below, biases."""
    w_in, w_rec, between, bias = weights
    sizes = [w_rec.shape[1]] if not between else [*(w.shape[0] for w in between), between[-1].shape[1]]
    ends = np.cumsum(sizes)
    layers = []
    for k, (n, end) in enumerate(zip(sizes, ends, strict=True)):
        columns = slice(end - n, end)
        fed = end <= w_rec.shape[1]
        layers.append(
            (w_in[:, columns] if fed else None, w_rec[:, columns] if fed else None, between[k - 1] if k else None,
             bias[columns])
        )  # fmt: skip
    return layers


def forward(weights, inputs, hidden, names):
    """``z_k = f_k(W_k z_{k-1} + S_k h_{t-1} + U_k x_t + b_k)``, ``h_t = z_L``: pre-activations and states."""
    states, trace = [], []
    for x in inputs:
        z, row = None, []
        for (u, s, w, b), name in zip(unpack(weights), names, strict=True):
            a = b + (0 if u is None else x @ u + hidden @ s) + (0 if w is None else z @ w)
            z = ACTIVATIONS[name][0](a)
            row.append(a)
        hidden = z
        states.append(hidden)
        trace.append(row)
    return np.stack(states), trace


def backward(weights, inputs, hidden, names, outputs_bar, last_bar):
    """The gradients of weights, inputs and first state, by back-propagation through time."""
    states, trace = forward(weights, inputs, hidden, names)
    before = [hidden, *states[:-1]]
    layers = unpack(weights)
    bars = [[None if p is None else np.zeros_like(p) for p in layer] for layer in layers]
    inputs_bar, error = np.zeros_like(inputs), last_bar
    for t in reversed(range(len(inputs))):
        error, passed = error + outputs_bar[t], np.zeros_like(hidden)
        values = [ACTIVATIONS[name][0](a) for name, a in zip(names, trace[t], strict=True)]
        for k in reversed(range(len(layers))):
            (u, s, w, _), bar = layers[k], bars[k]
            delta = error * ACTIVATIONS[names[k]][1](trace[t][k])
            bar[3] += delta
            if u is not None:
                bar[0] += np.outer(inputs[t], delta)
                bar[1] += np.outer(before[t], delta)
                inputs_bar[t] += u @ delta
                passed += s @ delta
            if w is not None:
                bar[2] += np.outer(values[k - 1], delta)
                error = w @ delta
        error = passed
    joined = [np.concatenate([b for bar in bars if (b := bar[i]) is not None], -1) for i in (0, 1, 3)]
    return (joined[0], joined[1], tuple(bar[2] for bar in bars[1:]), joined[2]), inputs_bar, error

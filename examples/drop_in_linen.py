"""The same as drop_in.py in Flax's linen: ``Clockwork(clock)`` where ``nn.RNN(nn.LSTMCell(32))`` stood."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import clockwork as cw
from clockwork.nn.linen import Clockwork

WIDTH, STEPS, UPDATES = 32, 100, 300


class Regressor(nn.Module):
    """Any layer with the call of ``nn.RNN``, and a linear readout."""

    layer: nn.Module

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(1)(self.layer(inputs))  # (B, T, 1) to (B, T, N) to (B, T, 1)


def train(model):
    """The trained variables, and the error on each batch; every batch is new."""

    def loss(variables, inputs):
        before = jnp.pad(inputs, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return jnp.square(model.apply(variables, inputs) - (before + inputs[:, :1])).mean()

    @jax.jit
    def update(variables, state, key):
        inputs = jax.random.uniform(key, (32, STEPS, 1), minval=-1, maxval=1)
        error, gradient = jax.value_and_grad(loss)(variables, inputs)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, error

    variables = model.init(jax.random.key(0), jnp.zeros((1, 1, 1)))  # the parameters do not depend on B and T
    optimizer, errors = optax.adam(5e-3), []
    state = optimizer.init(variables)
    for i in range(UPDATES):
        variables, state, error = update(variables, state, jax.random.key(i))
        errors.append(float(error))
    return variables, errors


clock = cw.Clock.even(WIDTH, periods=(1, 2, 16, STEPS))
for name, layer in {"LSTM": nn.RNN(nn.LSTMCell(WIDTH)), "Clockwork": Clockwork(clock)}.items():
    variables, errors = train(Regressor(layer))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"{name}, {count} parameters: mean squared error {errors[0]:.4f}, after {UPDATES} updates {errors[-1]:.4f}")

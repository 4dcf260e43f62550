"""A Flax (nnx) model whose LSTM is replaced by a clockwork layer: one line changes, all else stays.

The task has a short and a long end: at each step, say the input before plus the very first one. To know one of
the two leaves a mean squared error of 1/3.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import clockwork as cw
from clockwork.nn import Clockwork

WIDTH, STEPS, UPDATES = 32, 100, 300


class Regressor(nnx.Module):
    """Any layer with the call of ``nnx.RNN``, and a linear readout."""

    def __init__(self, layer, *, rngs):
        self.layer = layer
        self.readout = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, inputs):
        return self.readout(self.layer(inputs))  # (B, T, 1) to (B, T, N) to (B, T, 1)


def loss(model, inputs):
    before = jnp.pad(inputs, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return jnp.square(model(inputs) - (before + inputs[:, :1])).mean()


@nnx.jit
def update(model, optimizer, key):
    inputs = jax.random.uniform(key, (32, STEPS, 1), minval=-1, maxval=1)
    error, gradient = nnx.value_and_grad(loss)(model, inputs)
    optimizer.update(model, gradient)
    return error


rngs = nnx.Rngs(0)
# The slowest module ticks at the first step only, and keeps what it saw.
clock = cw.Clock.even(WIDTH, periods=(1, 2, 16, STEPS))
lstm = Regressor(nnx.RNN(nnx.LSTMCell(1, WIDTH, rngs=rngs)), rngs=rngs)
clockwork = Regressor(Clockwork(clock, 1, rngs=rngs), rngs=rngs)

for name, model in {"LSTM": lstm, "Clockwork": clockwork}.items():
    optimizer = nnx.Optimizer(model, optax.adam(5e-3), wrt=nnx.Param)
    # Every batch is new, so that these are errors on sequences never seen before.
    errors = [float(update(model, optimizer, jax.random.key(i))) for i in range(UPDATES)]
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    print(f"{name}, {count} parameters: mean squared error {errors[0]:.4f}, after {UPDATES} updates {errors[-1]:.4f}")

"""Train an ensemble of 32 networks at once: ``vmap`` makes them, and runs them side by side in one program.

All learn to predict the next value of one noisy signal, each from other initial weights. Printed are the mean and the
standard deviation of their errors, and the error of their mean prediction, in which their mistakes cancel.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import clockwork as cw
from clockwork.nn import ClockworkRNN

MODELS, LEARNT, STEPS, UPDATES = 32, 300, 600, 150
clock = cw.Clock.exponential(width=24, modules=6)
time = jnp.arange(STEPS + 1) / 4
signal = (jnp.sin(time) * jnp.cos(time / 7))[:, None]  # (T + 1, 1)
noisy = signal + 0.2 * jax.random.normal(jax.random.key(1), signal.shape)


def create(rngs):
    return ClockworkRNN(clock, inputs=1, rngs=rngs)


def loss(model):
    return jnp.square(model(noisy[:LEARNT]) - noisy[1 : LEARNT + 1]).mean()


@nnx.jit
def update(models, optimizer):
    errors, gradient = nnx.vmap(nnx.value_and_grad(loss))(models)
    optimizer.update(models, gradient)  # Adam is elementwise: one for all is one for each
    return errors


models = nnx.vmap(create)(nnx.Rngs(0).split(MODELS))  # one module, with an axis more in each parameter
optimizer = nnx.Optimizer(models, optax.adam(1e-2), wrt=nnx.Param)
for i in range(UPDATES):
    errors = update(models, optimizer)
    if i % 50 == 0:
        print(f"update {i}: mean squared error {errors.mean():.4f} ± {errors.std():.4f}")

predictions = nnx.jit(nnx.vmap(lambda model: model(noisy[:-1])))(models)[:, LEARNT:]  # (R, T, 1)
truth = signal[LEARNT + 1 :]
errors = jnp.square(predictions - truth[None]).mean((1, 2))
print(f"on the rest, against the signal without noise: each model {errors.mean():.4f} ± {errors.std():.4f}, ", end="")
print(f"their mean prediction {jnp.square(predictions.mean(0) - truth).mean():.4f}")

"""A clockwork layer in plain JAX: no Flax, no classes, 20 lines."""

import jax
import jax.numpy as jnp
import optax

import clockwork as cw

clock = cw.Clock.exponential(width=32, modules=5)  # periods 1, 2, 4, 8, 16
key = jax.random.key(0)
weights, readout = cw.init(key, clock, inputs=1), 0.1 * jax.random.normal(key, (clock.width, 1))

# Predict a wave one step ahead; a batch is a vmap.
time = jnp.arange(101) / 6 + jnp.linspace(0, 6, 8)[:, None]
waves = jnp.sin(time)[..., None] * jnp.cos(time / 3)[..., None]  # (B, T + 1, 1)


def loss(parameters, waves):
    weights, readout = parameters
    predict = lambda wave: cw.unroll(weights, clock, wave, readout=readout)[0]  # (T, I) to (T, O)  # noqa: E731
    return jnp.square(jax.vmap(predict)(waves[:, :-1]) - waves[:, 1:]).mean()


optimizer = optax.adam(1e-2)
parameters = (weights, readout)
state = optimizer.init(parameters)


@jax.jit
def update(parameters, state):
    error, gradient = jax.value_and_grad(loss)(parameters, waves)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(parameters, updates), state, error


for epoch in range(300):
    parameters, state, error = update(parameters, state)
    if epoch % 50 == 0:
        print(f"epoch {epoch}: mean squared error {error:.4f}")
print(f"trained: mean squared error {loss(parameters, waves):.4f}")

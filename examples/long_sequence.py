"""Train one network on a sequence of 100,000 steps.

Nothing special is needed: a long sequence goes piece by piece, and the backward pass computes each
piece again instead of keeping it.
"""

import time

import jax
import jax.numpy as jnp
import optax

import clockwork as cw

STEPS, UPDATES = 100_000, 20
clock = cw.Clock.exponential(width=64, modules=8)
time_axis = jnp.arange(STEPS + 1)
signal = jnp.sin(0.01 * time_axis) * jnp.sin(0.0007 * time_axis)
inputs, targets = signal[:-1, None], signal[1:, None]  # predict the next sample

key = jax.random.key(0)
params = (cw.init(key, clock, inputs=1), 0.1 * jax.random.normal(key, (clock.width, 1)))
optimizer = optax.adam(1e-3)
state = optimizer.init(params)


def loss(params):
    weights, readout = params
    return jnp.square(cw.unroll(weights, clock, inputs, readout=readout)[0] - targets).mean()


def update(params, state):
    error, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, error


step = jax.jit(update).lower(params, state).compile()
errors, began = [], time.perf_counter()
for _ in range(UPDATES):
    params, state, error = step(params, state)
    errors.append(float(error))
took = 1e3 * (time.perf_counter() - began) / UPDATES
memory = step.memory_analysis()
assert memory is not None
print(f"{STEPS} steps: {took:.0f} ms an update, {memory.temp_size_in_bytes / 1e6:.1f} MB of temporary memory")
print(f"mean squared error {errors[0]:.4f}, after {UPDATES} updates {errors[-1]:.4f}")

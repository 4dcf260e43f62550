"""Predict the next sample of a signal while it comes in, a sample at a time.

The network learns from the first part as a whole, with the fast kernels; the rest goes through ``step``.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clockwork as cw

LEARNT, STREAMED, UPDATES = 1500, 1000, 300
clock = cw.Clock.exponential(width=32, modules=5)  # periods 1, 2, ..., 16
moments = np.arange(LEARNT + STREAMED + 1) / 5
signal = np.sin(moments) * np.sin(0.11 * moments) + 0.5 * np.sin(0.31 * moments)
inputs, targets = (jnp.asarray(x[:, None], jnp.float32) for x in (signal[:-1], signal[1:]))  # (T, 1)

key = jax.random.key(0)
params = (cw.init(key, clock, inputs=1), 0.1 * jax.random.normal(key, (clock.width, 1)))
optimizer = optax.adam(5e-3)
state = optimizer.init(params)


def loss(params):
    weights, readout = params
    return jnp.square(cw.unroll(weights, clock, inputs[:LEARNT], readout=readout)[0] - targets[:LEARNT]).mean()


@jax.jit
def update(params, state):
    error, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, error


for i in range(UPDATES):
    params, state, error = update(params, state)
    if i % 100 == 0:
        print(f"update {i}: mean squared error {error:.4f}")


@jax.jit
def tick(dense, readout, state, x_t):
    state, h_t = cw.step(dense, clock, state, x_t)
    return state, h_t @ readout


weights, readout = params
dense = weights.dense(clock)  # the matrices are put together once, not at every step
_, hidden = cw.unroll(weights, clock, inputs[:LEARNT])
state = cw.State(hidden, jnp.int32(LEARNT))  # the stream goes on where the first part ended
tick(dense, readout, state, inputs[LEARNT])  # compiles

predicted, took = [], []
for x_t in np.asarray(inputs[LEARNT:]):
    began = time.perf_counter()
    state, prediction = tick(dense, readout, state, x_t)
    predicted.append(np.asarray(prediction))  # waits for the result
    took.append(time.perf_counter() - began)

whole = np.asarray(cw.unroll(weights, clock, inputs, readout=readout)[0][LEARNT:])
streamed = np.stack(predicted)
for name, predictions in {"streamed": streamed, "as a whole": whole}.items():
    error = np.square(predictions - targets[LEARNT:]).mean()
    print(f"{STREAMED} samples never seen, {name}: mean squared error {error:.6f}")
print(f"largest difference between the two: {np.abs(streamed - whole).max():.1e}")
print(f"median time of a step: {1e6 * np.median(took):.0f} µs")

"""Train one network on a sequence of 100,000 steps, whole and in pieces that are computed again.

What the backward pass needs is kept for the whole sequence, unless it is cut into pieces of a
multiple of the clock's cycle and each is wrapped in ``jax.checkpoint``: then for one piece at a time.
"""

import time

import jax
import jax.numpy as jnp
import optax

import clockwork as cw

STEPS, PIECE = 100_000, 40 * 128  # 128: the clock's cycle
clock = cw.Clock.exponential(width=64, modules=8)
signal = jnp.sin(0.01 * jnp.arange(STEPS + 1)) * jnp.sin(0.0007 * jnp.arange(STEPS + 1))
inputs, targets = signal[:-1, None], signal[1:, None]  # predict the next sample


def whole(params, hidden, inputs, targets):
    weights, readout = params
    outputs, hidden = cw.unroll(weights, clock, inputs, hidden=hidden, readout=readout)
    return hidden, jnp.square(outputs - targets).sum()


def in_pieces(params, hidden, inputs, targets):
    cut = len(inputs) // PIECE * PIECE
    pieces = [x[:cut].reshape(-1, PIECE, 1) for x in (inputs, targets)]
    piece = jax.checkpoint(lambda hidden, xs: whole(params, hidden, *xs))
    hidden, errors = jax.lax.scan(piece, hidden, pieces)
    hidden, error = whole(params, hidden, inputs[cut:], targets[cut:])
    return hidden, errors.sum() + error


def train(evaluate, updates=20):
    optimizer = optax.adam(1e-3)
    key = jax.random.key(0)
    params = (cw.init(key, clock, inputs=1), 0.1 * jax.random.normal(key, (clock.width, 1)))

    def update(params, state):
        def loss(params):
            return evaluate(params, jnp.zeros(clock.width), inputs, targets)[1] / STEPS

        error, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, error

    state = optimizer.init(params)
    step = jax.jit(update).lower(params, state).compile()
    began, errors = time.perf_counter(), []
    for _ in range(updates):
        params, state, error = step(params, state)
        errors.append(float(error))
    took = (time.perf_counter() - began) / updates
    return errors, 1e3 * took, step.memory_analysis().temp_size_in_bytes / 1e6


if __name__ == "__main__":
    for name, evaluate in (("whole", whole), ("in pieces", in_pieces)):
        errors, ms, megabytes = train(evaluate)
        print(f"{name}: {ms:.0f} ms an update, {megabytes:.1f} MB, error {errors[0]:.4f} to {errors[-1]:.4f}")

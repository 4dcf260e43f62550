"""One epoch of a sweep (loss, gradient, Nesterov update of all runs) against plain scans under ``vmap``.

Run ``python benchmarks/epoch.py``. Every row is timed in this one process, ours and theirs in turn;
figures are medians, with the quartiles of the ratio. Theirs is what one would write oneself: a
``lax.scan`` of the dense product (masked where the network is a clockwork), JAX's own gradient,
``vmap`` over runs.
"""

import argparse
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import optax
from jax import lax

import clockwork as cw
from clockwork.nn import lstm_init, lstm_unroll

STEPS, EPOCHS = 320, 10


def masked(weights, clock, readout):
    """A clockwork as a masked scan over dense matrices."""
    recurrent, bias = weights
    periods = jnp.asarray(clock.unit_periods)

    def tick(h, t):
        h = jnp.where(t % periods == 0, jnp.tanh(h @ recurrent + bias), h)
        return h, h

    return lax.scan(tick, jnp.zeros(clock.width), jnp.arange(STEPS))[1] @ readout


def plain_lstm(weights, readout):
    """The peephole LSTM as a scan."""
    n = weights.recurrent.shape[0]

    def tick(carry, _):
        h, c = carry
        z = h @ weights.recurrent + weights.bias
        i = jax.nn.sigmoid(z[:n] + weights.peepholes[0] * c)
        f = jax.nn.sigmoid(z[n : 2 * n] + weights.peepholes[1] * c)
        c = f * c + i * jnp.tanh(z[2 * n : 3 * n])
        h = jax.nn.sigmoid(z[3 * n :] + weights.peepholes[2] * c) * jnp.tanh(c)
        return (h, c), h

    return lax.scan(tick, (jnp.zeros(n), jnp.zeros(n)), length=STEPS)[1] @ readout


def sweep_epochs(forward, initial, runs):
    """Compile ``EPOCHS`` epochs of ``runs`` runs; returns a timed call and the seconds of compiling."""
    target = jnp.sin(0.1 * jnp.arange(STEPS))[:, None]
    optimizer = optax.sgd(1e-5, momentum=0.95, nesterov=True)

    def update(state):
        params, momentum = state
        gradient = jax.grad(lambda p: 0.5 * jnp.square(forward(*p) - target).sum())(params)
        updates, momentum = optimizer.update(gradient, momentum, params)
        return optax.apply_updates(params, updates), momentum

    def start(key):
        params = initial(key)
        return params, optimizer.init(params)

    state = jax.vmap(start)(jax.random.split(jax.random.key(0), runs))
    began = time.perf_counter()
    epochs = jax.jit(lambda s: lax.scan(lambda s, _: (jax.vmap(update)(s), None), s, length=EPOCHS)[0])
    compiled = epochs.lower(state).compile()
    compiling = time.perf_counter() - began

    def timed():
        began = time.perf_counter()
        jax.block_until_ready(compiled(state))
        return (time.perf_counter() - began) / EPOCHS

    timed()
    return timed, compiling


def readout_of(key, width):
    return 0.1 * jax.random.normal(jax.random.fold_in(key, 1), (width, 1))


def clockwork_pair(clock):
    def ours(weights, readout):
        return cw.unroll(weights, clock, steps=STEPS, readout=readout)[0]

    def dense(key):
        return cw.init(key, clock).dense(clock)[1:], readout_of(key, clock.width)

    def blocks(key):
        return cw.init(key, clock), readout_of(key, clock.width)

    def theirs(weights, readout):
        return masked(weights, clock, readout)

    return (ours, blocks), (theirs, dense)


def lstm_pair(cells):
    def initial(key):
        return lstm_init(key, cells, forget_bias=5.0), readout_of(key, cells)

    def ours(weights, readout):
        return lstm_unroll(weights, steps=STEPS, readout=readout)[0]

    return (ours, initial), (plain_lstm, initial)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    rows = {
        "CW-RNN N = 40, g = 9": clockwork_pair(cw.Clock.exponential(width=40, modules=9)),
        "SRN N = 31": clockwork_pair(cw.Clock(periods=(1,), sizes=(31,))),
        "LSTM N = 15": lstm_pair(15),
    }
    device = jax.devices()[0].device_kind
    print(f"{options.runs} runs, T = {STEPS}, jax {jax.__version__}, {platform.machine()}, {device}")
    print("| network | ours, ms | plain scan, ms | times as fast (quartiles) | compiling, s: ours, theirs |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (ours, theirs) in rows.items():
        (our_time, our_compile), (their_time, their_compile) = (
            sweep_epochs(forward, initial, options.runs) for forward, initial in (ours, theirs)
        )
        pairs = [(our_time(), their_time()) for _ in range(options.repeats)]
        our_ms, their_ms = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
        low, middle, high = statistics.quantiles([theirs / ours for ours, theirs in pairs], n=4)
        print(
            f"| {name} | {our_ms:.1f} | {their_ms:.1f} | {middle:.1f} ({low:.1f} to {high:.1f}) "
            f"| {our_compile:.1f}, {their_compile:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""An epoch of spoken word training, by the sweep and as one would write it: ``python benchmarks/words.py``.

Both do the same: of each run, one update a sequence in random order with noise on the inputs, and the error on
all sequences without noise. The other way is one program: ``vmap`` over runs of a masked scan over sequences padded
to the longest. It prints sequences per second over all runs, medians and quartiles of turns taken alternately.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from alternatives import masked
from jax import lax
from jax.sharding import Mesh
from timing import Timed, compiled, measure

import clockwork as cw
from clockwork.tasks import Words
from clockwork.training.devices import use_all_cores
from clockwork.training.placement import Placement
from clockwork.training.program import program
from clockwork.training.train_state import Trainer


def ours(task: Words) -> Timed:
    """The sweep's own program, on all devices; what fills up the last one is computed too, and not counted."""
    mesh = Mesh(np.asarray(jax.devices()), ("runs",))
    placement = Placement(task, task.conditions(), mesh)
    functions = program(Trainer(task, task.conditions()[0]), placement.layout, mesh)
    return compiled(functions.segment, functions.begin(placement.runs), placement.runs, jnp.int32(0))


def plain(task: Words, clock: cw.Clock) -> Timed:
    """In plain JAX: nothing of the library but the initial weights."""
    init, forward = masked(clock, inputs=13, outputs=25)
    optimizer = optax.sgd(3e-4, momentum=0.9, nesterov=True)
    data, corpus = task.data(task.conditions()[0]), task.corpus
    lengths, labels = jnp.asarray(corpus.lengths), jnp.asarray(corpus.labels)
    longest = int(corpus.lengths.max())
    there = jnp.arange(longest)[:, None] < lengths[:, None, None]
    features = jnp.where(there, (corpus.features - data.mean) / data.scale, 0)

    def loss(params, x, sequence):
        outputs = forward(params, x, longest)[lengths[sequence] - 1]
        return -jax.nn.log_softmax(outputs)[labels[sequence]]

    def epoch(params, momentum, key):
        error = jax.vmap(loss, in_axes=(None, 0, 0))(params, features, jnp.arange(len(labels))).mean()

        def update(state, sequence):
            params, momentum, key = state
            key, own = jax.random.split(key)
            x = features[sequence] + 0.6 * jax.random.normal(own, (longest, 13))
            gradient = jax.grad(loss)(params, x, sequence)
            updates, momentum = optimizer.update(gradient, momentum, params)
            return (optax.apply_updates(params, updates), momentum, key), None

        order = jax.random.permutation(jax.random.fold_in(key, 1), jnp.asarray(data.train))
        return lax.scan(update, (params, momentum, key), order)[0], error

    keys = jax.random.split(jax.random.key(0), task.runs)
    params = jax.vmap(init)(keys)
    return compiled(jax.vmap(epoch), params, jax.vmap(optimizer.init)(params), keys)


def main() -> None:
    """Print both ways' throughput."""
    parser = argparse.ArgumentParser(description="Time an epoch of spoken word training.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--size", type=int, default=10000, help="nominal parameters, of Table 1")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    use_all_cores()
    task = Words(runs=options.runs, networks=("cwrnn",), sizes=(options.size,))
    clock = cw.Clock.exponential(task.units[options.size]["cwrnn"], task.paper_modules)
    ways = {
        "clockwork: its sweep": ours(task),
        "masked scan, padded, vmap": plain(task, clock),
    }
    found = measure(ways, options.repeats, float("inf"))
    trained = options.runs * len(task.data(task.conditions()[0]).train)
    print(f"CW-RNN N = {clock.width}, {task.runs} runs, one update a sequence; {len(jax.devices())} devices")
    for name, times in found.items():
        line = f"{name}: {1000 * trained / times['ms']:.0f} sequences/s, compiled in {ways[name].compiling:.0f} s"
        if "ratio" in times:
            low, high = times["ratio_quartiles"]
            line += f"; takes {times['ratio']:.2f} times as long as the first ({low:.2f} to {high:.2f})"
        print(line)


if __name__ == "__main__":
    main()

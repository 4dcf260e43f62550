"""Deep transitions against what one would write with JAX or PyTorch: time and memory of a training step.

``python benchmarks/deep.py`` prints milliseconds, medians and quartiles of turns taken alternately in one process on
two cores: of the loss and gradient of a DT(S)-RNN of the music task's size (400, 400; 32 sequences of 100 steps), ours
against a ``lax.scan`` of the same equations that JAX differentiates, and PyTorch's loop of them, compiled or not (it
needs ``pip install torch``); and of an update of 20 runs of the RNN of the JSB Chorales (200 units) in one program,
against a loop over them. The memory is that of XLA's temporary arrays.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from timing import Timed, compiled, measure

from clockwork.deep import DeepWeights, deep_init, deep_unroll

KEYS, HIDDEN, MIDDLE, BATCH, STEPS = 88, 400, 400, 32, 100
RUNS, SMALL, SMALL_BATCH, SMALL_STEPS = 20, 200, 4, 64


def rolls(batch: int, steps: int) -> np.ndarray:
    """Piano rolls ``(T, B, 88)`` of about four keys a step."""
    return (np.random.default_rng(0).random((steps, batch, KEYS)) < 4 / KEYS).astype(np.float32)


def mean_loss(scores: jax.Array, x: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the next step."""
    return optax.sigmoid_binary_cross_entropy(scores[:-1], x[1:]).sum(-1).mean()


def ours(weights: DeepWeights, readout: jax.Array, x: jax.Array) -> jax.Array:
    """The loss by this library."""
    scores, _ = jax.vmap(lambda x: deep_unroll(weights, x, readout=readout), in_axes=1, out_axes=(1, 0))(x)
    return mean_loss(scores, x)


def plain(weights: DeepWeights, readout: jax.Array, x: jax.Array) -> jax.Array:
    """The loss by a scan of the equations."""
    input, recurrent, between, bias = weights
    first = bias.shape[0] - recurrent.shape[0]

    def step(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        sent = h @ recurrent + x_t @ input + bias[None]
        if between:
            z = jnp.tanh(sent[:, :first])
            h = jnp.tanh(z @ between[0] + sent[:, first:])
        else:
            h = jnp.tanh(sent)
        return h, h

    hidden = lax.scan(step, jnp.zeros((x.shape[1], recurrent.shape[0]), x.dtype), x)[1]
    return mean_loss(hidden @ readout, x)


def by_torch(torch: Any, weights: DeepWeights, readout: jax.Array, x: np.ndarray, *, compile: bool) -> Timed:
    """The same loop in PyTorch."""
    torch.set_num_threads(2)
    leaves = [torch.tensor(np.asarray(leaf)).requires_grad_() for leaf in (*jax.tree.leaves(weights), readout)]
    data = torch.tensor(x)

    def loss(input: Any, recurrent: Any, between: Any, bias: Any, readout: Any) -> Any:
        h, hidden = torch.zeros(x.shape[1], HIDDEN), []
        for x_t in data:
            sent = h @ recurrent + x_t @ input + bias
            z = torch.tanh(sent[:, :MIDDLE])
            h = torch.tanh(z @ between + sent[:, MIDDLE:])
            hidden.append(h)
        scores = torch.stack(hidden) @ readout
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores[:-1], data[1:], reduction="none")
        return each.sum(-1).mean()

    run = torch.compile(loss) if compile else loss

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        run(*leaves).backward()

    call()
    return Timed(call)


def deep_ways(torch: Any, dtype: Any) -> dict[str, Callable[[], Timed]]:
    """A training step of the DT(S)-RNN."""
    weights = deep_init(jax.random.key(0), HIDDEN, KEYS, (MIDDLE,), stddev=0.05, dtype=dtype)
    readout = 0.1 * jax.random.normal(jax.random.key(1), (HIDDEN, KEYS), dtype)
    x = rolls(BATCH, STEPS)
    given = jnp.asarray(x, dtype)
    ways = {
        "ours": lambda: compiled(jax.value_and_grad(ours, (0, 1)), weights, readout, given),
        "lax.scan, differentiated by JAX": lambda: compiled(jax.value_and_grad(plain, (0, 1)), weights, readout, given),
    }
    if torch is not None and dtype == jnp.float32:
        ways["PyTorch loop"] = lambda: by_torch(torch, weights, readout, x, compile=False)
        ways["PyTorch loop, torch.compile"] = lambda: by_torch(torch, weights, readout, x, compile=True)
    return ways


def run_ways() -> dict[str, Callable[[], Timed]]:
    """An update of many runs of an RNN."""
    keys = jax.random.split(jax.random.key(0), RUNS)
    weights = jax.vmap(lambda key: deep_init(key, SMALL, KEYS))(keys)
    readouts = 0.1 * jax.random.normal(jax.random.key(1), (RUNS, SMALL, KEYS))
    x = jnp.asarray(rolls(SMALL_BATCH, SMALL_STEPS))
    together = jax.vmap(jax.value_and_grad(ours, (0, 1)), in_axes=(0, 0, None))

    def loop(loss: Any) -> Timed:
        one = jax.jit(jax.value_and_grad(loss, (0, 1)))
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], (weights, readouts)) for i in range(RUNS)]
        return Timed(lambda: jax.block_until_ready([one(*run, x) for run in each]))

    return {
        "ours, in one program": lambda: compiled(together, weights, readouts, x),
        "a loop over ours": lambda: loop(ours),
        "a loop over lax.scan": lambda: loop(plain),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for each way of a row")
    options = parser.parse_args()
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    works = {
        f"DT(S)-RNN {HIDDEN}, {MIDDLE}, {BATCH} sequences of {STEPS} steps": deep_ways(torch, jnp.float32),
        "the same in bfloat16": deep_ways(torch, jnp.bfloat16),
        f"{RUNS} runs of an RNN {SMALL}, {SMALL_BATCH} sequences of {SMALL_STEPS} steps": run_ways(),
    }
    print(f"jax {jax.__version__}, {jax.devices()[0]}")
    print("| loss and gradient of | by | ms | times ours (quartiles) | memory, MB |")
    print("| --- | --- | ---: | ---: | ---: |")
    for work, ways in works.items():
        rows = measure({name: make() for name, make in ways.items()}, options.repeats, options.seconds)
        for name, row in rows.items():
            low, high = row.get("ratio_quartiles", (0, 0))
            ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})" if "ratio" in row else ""
            memory = "" if row["temporary"] is None else f"{row['temporary'] / 1e6:.1f}"
            print(f"| {work} | {name} | {row['ms']:.1f} | {ratio} | {memory} |", flush=True)


if __name__ == "__main__":
    main()

"""A model of your own in a sweep, and in a Python loop over seeds: ``python benchmarks/models.py``.

The models are a stock nnx module with a GRU, batch normalisation and dropout, a linen module, and a pair of pure
functions, each with a few hundred parameters. Both ways compute the same updates of the same runs, 32 seeds at three
learning rates. The loop is what one writes by hand: one jitted update, called for each batch of each run. It prints
medians and quartiles of alternate turns; compilation is not in them.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax.sharding import Mesh
from timing import Timed, compiled, measure

from clockwork.training import ModelTask, grid, linen_model, use_all_cores
from clockwork.training.model import count, split
from clockwork.training.placement import Placement
from clockwork.training.program import program
from clockwork.training.train_state import Trainer

EXAMPLES, BATCH = 256, 32
RATES = (1e-3, 1e-2, 1e-1)


def recurrent(rngs: nnx.Rngs) -> nnx.Module:
    gru, norm, drop = nnx.GRUCell(2, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)
    last: Any = lambda h: h[:, -1]  # noqa: E731
    return nnx.Sequential(nnx.RNN(gru), last, norm, drop, nnx.Linear(8, 1, rngs=rngs))


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        h = linen.BatchNorm(use_running_average=not train)(linen.tanh(linen.Dense(8)(x.reshape(len(x), -1))))
        return linen.Dense(1)(linen.Dropout(0.1, deterministic=not train)(h))


def init(key: jax.Array) -> dict[str, jax.Array]:
    first, second = jax.random.split(key)
    return {"hidden": jax.random.normal(first, (40, 8)), "out": jax.random.normal(second, (8, 1))}


def module_loss(model: Any, batch: Any) -> jax.Array:
    return jnp.square(model(batch[0]) - batch[1]).mean()


def pure_loss(params: Any, batch: Any) -> jax.Array:
    x = batch[0].reshape(len(batch[0]), -1)
    return jnp.square(jnp.tanh(x @ params["hidden"]) @ params["out"] - batch[1]).mean()


def tasks(runs: int) -> dict[str, ModelTask]:
    """What is trained, by name."""
    x = np.random.default_rng(0).normal(size=(EXAMPLES, 20, 2)).astype(np.float32)
    options: dict[str, Any] = {
        "data": (x, x[..., 0].mean(1, keepdims=True)),
        "search": grid(learning_rate=RATES),
        "batch_size": BATCH,
        "runs": runs,
        "epochs": 5,
    }
    return {
        "nnx: GRU, BatchNorm, Dropout": ModelTask(model=recurrent, loss=module_loss, **options),
        "linen: Dense, BatchNorm, Dropout": ModelTask(model=linen_model(Dense(), x[:1]), loss=module_loss, **options),
        "pure functions": ModelTask(init=init, loss=pure_loss, **options),
    }


def by_sweep(task: ModelTask) -> Timed:
    """Epochs as the sweep trains them, on all devices."""
    mesh = Mesh(np.asarray(jax.devices()), ("runs",))
    placement = Placement(task, task.conditions(), mesh)
    functions = program(Trainer(task, task.conditions()[0]), placement.layout, mesh)
    state = functions.begin(placement.runs)
    return compiled(functions.segment, state, placement.runs, jnp.int32(0), times=task.epochs)


def by_loop(task: ModelTask, loss: Callable) -> Timed:
    """An epoch of every run, one after another."""
    (x, y), _, _ = task.data(task.conditions()[0])
    structure = split(task.model("model", 0, nnx.Rngs(0), {}))[0]
    states = []
    for rate in RATES:
        for run in range(task.runs):
            key = jax.random.fold_in(jax.random.key(0), run)
            _, params, rest = split(task.model("model", 0, nnx.Rngs(key), {}))
            states.append([rate, params, optax.adam(rate).init(params), rest])

    @jax.jit
    def update(params: Any, moments: Any, rest: Any, batch: Any, rate: Any) -> tuple[Any, Any, Any]:
        def own(params: Any) -> tuple[jax.Array, Any]:
            model = structure.merge(params, rest)
            if isinstance(model, nnx.Module):
                model.train()
            value = loss(model, batch)
            return value, split(model)[2]

        gradient, rest = jax.grad(own, has_aux=True)(params)
        updates, moments = optax.adam(rate).update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, rest

    order = np.random.default_rng(0)

    def call() -> None:
        for state in states:
            rate, params, moments, rest = state
            for batch in order.permutation(EXAMPLES).reshape(-1, BATCH):
                params, moments, rest = update(params, moments, rest, (x[batch], y[batch]), rate)
            state[1:] = params, moments, rest
        jax.block_until_ready(states[-1][1])

    return Timed(call)


def main() -> None:
    """Print how long both ways take."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=32, help="seeds at each of the three learning rates")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    use_all_cores()
    print(f"{options.runs} seeds x {len(RATES)} rates, batches of {BATCH}; {len(jax.devices())} devices")
    for name, task in tasks(options.runs).items():
        ways = {"sweep": by_sweep(task), "loop": by_loop(task, pure_loss if name.startswith("pure") else module_loss)}
        ways["loop"].call()  # compiles
        found = measure(ways, options.repeats, float("inf"))
        parameters = count(Trainer(task, task.conditions()[0]).abstract.params)
        low, high = found["loop"]["ratio_quartiles"]
        print(
            f"{name}, {parameters} parameters: an epoch of all runs takes {found['sweep']['ms']:.3g} ms in the sweep "
            f"(compiled in {ways['sweep'].compiling:.1f} s), {found['loop']['ms']:.3g} ms in a loop: "
            f"{found['loop']['ratio']:.1f} times as long ({low:.1f} to {high:.1f})"
        )


if __name__ == "__main__":
    main()

"""Models of every kind that a sweep trains: an nnx module, a linen module, a pair of pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from clockwork.training import (
    ModelTask,
    grid,
    linen_model,
)

RATES = (1e-3, 1e-2, 1e-1)
RUNS, EPOCHS, BATCH = 3, 4, 8


def examples(count=24, steps=6):
    """Sequences ``(count, T, 2)`` and the mean of their first input."""
    x = np.random.default_rng(0).normal(size=(count, steps, 2)).astype(np.float32)
    return x, x[..., 0].mean(1)


class Recurrent(nnx.Module):
    """A stock model with every kind of state: parameters, batch statistics, random streams."""

    def __init__(self, rngs):
        self.layer = nnx.RNN(nnx.GRUCell(2, 5, rngs=rngs), rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.readout = nnx.Linear(5, 1, rngs=rngs)

    def __call__(self, x):
        return self.readout(self.dropout(self.norm(jnp.asarray(self.layer(x))[:, -1])))[:, 0]


class LinenNet(linen.Module):
    """The same in linen, without the recurrence."""

    @linen.compact
    def __call__(self, x, train):
        h = linen.BatchNorm(use_running_average=not train)(linen.Dense(5, use_bias=False)(x.reshape(len(x), -1)))
        h = linen.Dropout(0.3, deterministic=not train)(linen.tanh(h))
        return linen.Dense(1)(h)[:, 0]


def square(model, batch):
    return jnp.square(model(batch[0]) - batch[1]).mean()


def init(key):
    first, second = jax.random.split(key)
    return {"hidden": jax.random.normal(first, (12, 5)), "out": jax.random.normal(second, (5,))}


def apply(params, x):
    return jnp.tanh(x.reshape(len(x), -1) @ params["hidden"]) @ params["out"]


def pure_square(params, batch, noise, key):
    x = batch[0] + noise * jax.random.normal(key, batch[0].shape)
    return jnp.square(apply(params, x) - batch[1]).mean()


def pure_error(params, data):
    return jnp.square(apply(params, data[0]) - data[1]).mean()


def task_of(kind, **options):
    own = {
        "nnx": {"model": lambda rngs: Recurrent(rngs), "loss": square},
        "linen": {
            "model": linen_model(LinenNet(), examples()[0][:1]),
            "loss": square,
        },
        "pure": {"init": init, "loss": pure_square, "error": pure_error},
    }[kind]
    axes = {"learning_rate": RATES, **({"noise": (0.1,)} if kind == "pure" else {})}
    settings = {"data": examples(), "search": grid(**axes), "batch_size": BATCH, "runs": RUNS, "epochs": EPOCHS}
    return ModelTask(**(own | settings | options))

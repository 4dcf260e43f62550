"""Plain JAX, no module at all: 32 seeds at three learning rates, with early stopping, a table and figures."""

import jax
import jax.numpy as jnp

from clockwork.report import table, write_report
from clockwork.training import ModelTask, for_output, grid, sweep

x = jnp.linspace(-1, 1, 256)[:, None]


def init(key):
    first, second = jax.random.split(key)
    return {"hidden": jax.random.normal(first, (1, 16)), "bias": jnp.zeros(16), "out": jax.random.normal(second, (16,))}


def loss(params, batch):
    outputs = jnp.tanh(batch[0] @ params["hidden"] + params["bias"]) @ params["out"]
    return jnp.square(outputs - batch[1]).mean()


rates, data = grid(learning_rate=(1e-3, 1e-2, 1e-1)), (x, jnp.sin(6 * x[:, 0]))
task = ModelTask(init=init, loss=loss, data=data, search=rates, batch_size=32, runs=32, epochs=50, patience=5)
results = sweep(task, "results/own_functions", progress=for_output())
print(table(results), *write_report(results, "results/own_functions"))

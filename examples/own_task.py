"""A Flax model of your own, 32 seeds at three learning rates, with early stopping, a table and figures.

Run it again after Ctrl-C, or a crash: it goes on where it was. It takes about a minute on two cores.
"""

import jax
from flax import nnx

from clockwork.report import table, write_report
from clockwork.training import ModelTask, for_output, grid, sweep

x = jax.random.normal(jax.random.key(0), (256, 20, 2))
data = x, x[..., 0].mean(1, keepdims=True)


def model(rngs):
    gru, norm, drop = nnx.GRUCell(2, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)
    return nnx.Sequential(nnx.RNN(gru), lambda h: h[:, -1], norm, drop, nnx.Linear(8, 1, rngs=rngs))


def loss(model, batch):
    return ((model(batch[0]) - batch[1]) ** 2).mean()


rates = grid(learning_rate=(1e-3, 1e-2, 1e-1))
task = ModelTask(model=model, loss=loss, data=data, search=rates, batch_size=32, runs=32, epochs=50, patience=5)
results = sweep(task, "results/own", progress=for_output())
print(table(results), *write_report(results, "results/own"))

"""A linen model of your own, 32 seeds at three learning rates, with early stopping, a table and figures."""

import jax
from flax import linen as nn

from clockwork.report import table, write_report
from clockwork.training import ModelTask, grid, linen_model, sweep

x = jax.random.normal(jax.random.key(0), (256, 20, 2))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        h = nn.BatchNorm(use_running_average=not train)(nn.tanh(nn.Dense(16)(x.reshape(len(x), -1))))
        return nn.Dense(1)(nn.Dropout(0.1, deterministic=not train)(h))


def loss(model, batch):
    return ((model(batch[0]) - batch[1]) ** 2).mean()


options = {"search": grid(learning_rate=(1e-3, 1e-2, 1e-1)), "batch_size": 32, "runs": 32, "epochs": 50, "patience": 5}
task = ModelTask(model=linen_model(Net(), x[:1]), loss=loss, data=(x, x[..., 0].mean(1, keepdims=True)), **options)
print(table(results := sweep(task, "results/own_linen")), *write_report(results, "results/own_linen"))

"""A linen model of your own, 32 seeds at three learning rates, with early stopping, a table and figures."""

import jax
from flax import linen as nn

from clockwork.report import table, write_report
from clockwork.training import ModelTask, for_output, grid, linen_model, sweep

x = jax.random.normal(jax.random.key(0), (256, 20, 2))
data = x, x[..., 0].mean(1, keepdims=True)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        h = nn.BatchNorm(use_running_average=not train)(nn.RNN(nn.GRUCell(8))(x)[:, -1])
        return nn.Dense(1)(nn.Dropout(0.1, deterministic=not train)(h))


def loss(model, batch, train=True):
    return ((model(batch[0], train=train) - batch[1]) ** 2).mean()


net, rates = linen_model(Net(), x[:1], train=False), grid(learning_rate=(1e-3, 1e-2, 1e-1))
options = {"search": rates, "batch_size": 32, "runs": 32, "epochs": 50, "patience": 5}
task = ModelTask(model=net, loss=loss, error=lambda model, data: loss(model, data, False), data=data, **options)
results = sweep(task, "results/own_linen", progress=for_output())
print(table(results), *write_report(results, "results/own_linen"))

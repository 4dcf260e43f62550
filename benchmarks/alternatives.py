"""What one would write without this library: the same work in plain JAX, Flax and PyTorch.

Every network is a function ``forward(params, inputs, steps) -> (T, O)``, of one sequence, with its
``init(key)``. Inputs are None for a network without any; those that cannot do without get zeros.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

import clockwork as cw
from clockwork.nn import lstm_init, lstm_unroll
from clockwork.recurrence import Method


def readout_of(key, width, outputs=1):
    return 0.1 * jax.random.normal(jax.random.fold_in(key, 1), (width, outputs))


def cascade(clock, inputs=0, outputs=1, stddev=0.1, method: Method = "auto", natural=False):
    """Ours; `natural` as one writes it who does not know of ``readout=``."""

    def init(key):
        return cw.init(key, clock, inputs, stddev), readout_of(key, clock.width, outputs)

    def forward(params, x, steps):
        weights, readout = params
        call = functools.partial(cw.unroll, weights, clock, x, steps=None if inputs else steps, method=method)
        return call()[0] @ readout if natural else call(readout=readout)[0]

    return init, forward


def masked(clock, inputs=0, outputs=1, stddev=0.1):
    """A clockwork as a scan of the dense product and a mask; a simple RNN if there is nothing to mask."""
    periods = jnp.asarray(clock.unit_periods)
    always = bool((clock.unit_periods == 1).all())

    def init(key):
        return cw.init(key, clock, inputs, stddev).dense(clock), readout_of(key, clock.width, outputs)

    def forward(params, x, steps):
        (into, recurrent, bias), readout = params

        def tick(h, t_and_x):
            t, x_t = t_and_x
            z = h @ recurrent + bias
            z = z if x_t is None else z + x_t @ into
            h = jnp.tanh(z) if always else jnp.where(t % periods == 0, jnp.tanh(z), h)
            return h, h

        return lax.scan(tick, jnp.zeros(clock.width), (jnp.arange(steps), x))[1] @ readout

    return init, forward


def simple(width, **options):
    """A simple RNN as a plain scan."""
    return masked(cw.Clock(periods=(1,), sizes=(width,)), **options)


def lstm(cells):
    """Ours."""

    def init(key):
        return lstm_init(key, cells, forget_bias=5.0), readout_of(key, cells)

    def forward(params, x, steps):
        return lstm_unroll(params[0], x, steps=steps, readout=params[1])[0]

    return init, forward


def plain_lstm(cells):
    """The peephole LSTM as a plain scan."""

    def forward(params, x, steps):
        weights, readout = params

        def tick(carry, _):
            h, c = carry
            z_i, z_f, z_g, z_o = jnp.split(h @ weights.recurrent + weights.bias, 4)
            i = jax.nn.sigmoid(z_i + weights.peepholes[0] * c)
            f = jax.nn.sigmoid(z_f + weights.peepholes[1] * c)
            c = f * c + i * jnp.tanh(z_g)
            h = jax.nn.sigmoid(z_o + weights.peepholes[2] * c) * jnp.tanh(c)
            return (h, c), h

        return lax.scan(tick, (jnp.zeros(cells), jnp.zeros(cells)), length=steps)[1] @ readout

    return lstm(cells)[0], forward


def flax_rnn(cell, width, inputs=0, outputs=1):
    """``nnx.RNN`` of a stock cell; its LSTM has no peepholes."""

    def make(rngs):
        return nnx.RNN(cell(max(inputs, 1), width, rngs=rngs))

    graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]

    def init(key):
        return nnx.state(make(nnx.Rngs(key)), nnx.Param), readout_of(key, width, outputs)

    def forward(params, x, steps):
        rest = nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Not(nnx.Param))
        rest = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), rest)
        rnn = nnx.merge(graph, params[0], rest)
        return rnn(jnp.zeros((steps, 1)) if x is None else x) @ params[1]

    return init, TakesBatches(forward)


flax_simple = functools.partial(flax_rnn, nnx.SimpleCell)
flax_lstm = functools.partial(flax_rnn, nnx.OptimizedLSTMCell)


class TakesBatches(NamedTuple):
    """A forward function that takes a batch as it is; under ``vmap`` it can't use weights from outside."""

    forward: Any

    def __call__(self, *arguments: Any) -> Any:
        return self.forward(*arguments)


class TorchRuns:
    """Networks trained in PyTorch, each by itself: ``nn.RNN`` or ``nn.LSTM``, in a loop over runs."""

    def __init__(self, torch: Any, kind: str, width: int, runs: int, target: Any) -> None:
        cell = getattr(torch.nn, kind)
        self.target = torch.tensor(target)
        self.inputs = torch.zeros(len(target), 1, 1)
        self.networks = [(cell(1, width), torch.nn.Linear(width, 1)) for _ in range(runs)]
        self.optimizers = [
            torch.optim.SGD([*rnn.parameters(), *out.parameters()], lr=1e-5, momentum=0.95, nesterov=True)
            for rnn, out in self.networks
        ]

    def __call__(self) -> None:
        for (rnn, out), optimizer in zip(self.networks, self.optimizers, strict=True):
            optimizer.zero_grad()
            (0.5 * (out(rnn(self.inputs)[0])[:, 0] - self.target).square().sum()).backward()
            optimizer.step()


class TorchClockwork:
    """A clockwork in PyTorch: a loop over time, a mask, and a batched product over runs or over sequences."""

    def __init__(self, torch: Any, clock: cw.Clock, target: Any, inputs: Any = None, runs: int = 1) -> None:
        self.torch, self.target = torch, torch.tensor(target)  # (T, O) or (T, B, O)
        self.inputs = None if inputs is None else torch.tensor(inputs)  # (T, B, I)
        width, outputs = clock.width, self.target.shape[-1]
        into = 0 if self.inputs is None else self.inputs.shape[-1]
        shapes = ((into, width), (width, width), (1, width), (width, outputs))
        self.params = [(0.05 * torch.randn(runs, *shape)).requires_grad_() for shape in shapes]
        steps = torch.arange(len(self.target))[:, None]
        self.active = steps % torch.tensor(clock.unit_periods) == 0
        self.target = self.target.reshape(len(target), 1, -1, outputs)  # (T, R, B, O)
        self.optimizer = torch.optim.SGD(self.params, lr=1e-5, momentum=0.95, nesterov=True)

    def forward(self) -> Any:
        torch, (into, recurrent, bias, readout) = self.torch, self.params
        batch = 1 if self.inputs is None else self.inputs.shape[1]
        h = torch.zeros(recurrent.shape[0], batch, recurrent.shape[1])
        hidden = []
        for t in range(len(self.target)):
            z = torch.baddbmm(bias, h, recurrent)
            if self.inputs is not None:
                z = z + self.inputs[t] @ into
            h = torch.where(self.active[t], torch.tanh(z), h)
            hidden.append(h)
        return torch.stack(hidden) @ readout

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        (0.5 * (self.forward() - self.target).square().sum()).backward()
        self.optimizer.step()

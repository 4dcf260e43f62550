"""The pieces of work that are timed, each done in several ways; the first is this library's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from alternatives import (
    TakesBatches,
    TorchClockwork,
    TorchRuns,
    cascade,
    flax_lstm,
    flax_simple,
    lstm,
    masked,
    plain_lstm,
    simple,
)
from flax import linen as nn
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from timing import Timed, compiled

import clockwork as cw
from clockwork.nn import GRU, LSTM, Clockwork, ClockworkCell
from clockwork.tasks import Generation
from clockwork.training.placement import Placement, padded
from clockwork.training.program import program
from clockwork.training.train_state import Trainer

MODULES, EPOCHS, SEGMENT = 9, 10, 50


class Size(NamedTuple):
    """How large all of it is."""

    steps: int = 320
    runs: int = 100
    clockwork: int = 40
    simple: int = 31
    lstm: int = 15
    nominal: int = 1000  # the row of the paper's Table 1 that these three are of
    wide: int = 512
    wide_modules: int = 8
    wide_steps: int = 512
    batch: int = 32
    features: int = 32
    # N, g, T, B of a Flax layer
    layers: tuple[tuple[int, int, int, int], ...] = ((128, 7, 256, 16), (64, 6, 64, 32), (32, 4, 50, 32))
    gated: tuple[tuple[int, int, int], ...] = ((64, 64, 32), (256, 128, 32))  # N, T, B of a layer of gated cells
    long: int = 131_072  # steps of one long sequence
    streamed: int = 1000


class Work(NamedTuple):
    """One piece of work.

    Attributes:
        name: of it.
        ways: builders of each way to do it; None where it cannot be done here.
        multiply_adds: of the first way, in recurrence, inputs and readout.
    """

    name: str
    ways: dict[str, Callable[[], Timed] | None]
    multiply_adds: float | None = None


class MaskedGeneration(Generation):
    """The sweep's task with the reference method."""

    method = "masked"

    def network(self, name: str, size: int, rngs: nnx.Rngs) -> Any:
        network: Any = super().network(name, size, rngs)
        network.method = self.method
        return network


class CascadeGeneration(MaskedGeneration):
    """The sweep's task with XLA's loops."""

    method = "cascade"


def target(steps: int) -> np.ndarray:
    return np.sin(0.1 * np.arange(steps, dtype=np.float32))


def library_sweep(task: Callable[..., Generation], name: str, size: Size) -> Timed:
    """Epochs as the library's own sweep trains them, on all devices."""
    mesh = Mesh(np.asarray(jax.devices()), ("runs",))
    runs = padded(size.runs, mesh.size)
    options = {"networks": (name,), "sizes": (size.nominal,), "clips": ("guitar",), "learning_rates": (1e-5,)}
    one = task(runs=runs, epochs=SEGMENT, **options)
    placement = Placement(one, one.conditions(), mesh)
    functions = program(Trainer(one, one.conditions()[0]), placement.layout, mesh)
    arguments = (functions.begin(placement.runs), placement.runs, jnp.int32(0))
    return compiled(functions.segment, *arguments, times=SEGMENT)


def user_epochs(network: tuple, size: Size, over_runs: Callable = jax.vmap) -> Timed:
    """Epochs as one writes them oneself: the gradient and a Nesterov update of one run, and ``vmap``."""
    init, forward = network
    optimizer = optax.sgd(1e-5, momentum=0.95, nesterov=True)
    wanted = jnp.asarray(target(size.steps))[:, None]

    def update(state):
        params, momentum = state
        loss = lambda p: 0.5 * jnp.square(forward(p, None, size.steps) - wanted).sum()  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        updates, momentum = optimizer.update(gradient, momentum, params)
        return (optax.apply_updates(params, updates), momentum), value

    def epochs(state):
        every = over_runs(update) if over_runs is jax.vmap else functools.partial(lax.map, update)
        return lax.scan(lambda state, _: every(state), state, length=EPOCHS)

    params = jax.vmap(init)(jax.random.split(jax.random.key(0), size.runs))
    return compiled(epochs, (params, jax.vmap(optimizer.init)(params)), times=EPOCHS)


def many_forward(network: tuple, size: Size) -> Timed:
    init, forward = network
    params = jax.vmap(init)(jax.random.split(jax.random.key(0), size.runs))
    return compiled(jax.vmap(lambda p: forward(p, None, size.steps)), params)


def many_gradient(network: tuple, steps: int, runs: int) -> Timed:
    """Loss and gradient of many runs of a network without inputs."""
    init, forward = network
    wanted = jnp.asarray(target(steps))[:, None]
    loss = lambda p: jnp.square(forward(p, None, steps) - wanted).mean()  # noqa: E731
    return compiled(jax.vmap(jax.value_and_grad(loss)), jax.vmap(init)(jax.random.split(jax.random.key(0), runs)))


def one_network(network: tuple, size: Size, train: bool) -> Timed:
    """One network and a batch: a training step, or its outputs alone."""
    init, forward = network
    shape = (size.batch, size.wide_steps, size.features)
    inputs = jax.random.normal(jax.random.key(1), shape)

    def outputs(params, inputs):
        if isinstance(forward, TakesBatches):
            return forward(params, inputs, size.wide_steps)
        return jax.vmap(lambda x: forward(params, x, size.wide_steps))(inputs)

    def step(params, inputs, wanted):
        loss = lambda p: jnp.square(outputs(p, inputs) - wanted).mean()  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), value

    params = init(jax.random.key(0))
    if train:
        return compiled(step, params, inputs, jax.random.normal(jax.random.key(2), shape))
    return compiled(outputs, params, inputs)


def layer_steps(make: Callable[[nnx.Rngs], Any], shape: tuple[int, ...], width: int) -> Timed:
    """Training steps of a recurrent layer of a Flax model, in a loop: loss over all outputs, gradient, update."""
    graph, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)
    inputs = jax.random.normal(jax.random.key(1), shape)
    wanted = jax.random.normal(jax.random.key(2), (*shape[:-1], width))

    def step(params, _):
        def loss(params):
            state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), rest)  # made at this trace's level
            return jnp.square(nnx.merge(graph, params, state)(inputs) - wanted).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), value

    return compiled(lambda params: lax.scan(step, params, length=EPOCHS), params, times=EPOCHS)


def macs(clock: cw.Clock, steps: int, outputs: int, inputs: int = 0) -> float:
    """Multiply-adds of a layer and its readout."""
    read = outputs * sum(k / period for k, period in zip(clock.sizes, clock.periods, strict=True))
    return steps * (clock.multiply_adds(inputs) + read)


def layer_work(width: int, modules: int, steps: int, batch: int, features: int) -> Work:
    """A Flax layer of this shape, ours and Flax's."""
    clock = cw.Clock.exponential(width, modules)
    makers = {
        "clockwork.nn.Clockwork": lambda rngs: Clockwork(clock, features, rngs=rngs),
        "nnx.RNN(ClockworkCell)": lambda rngs: nnx.RNN(ClockworkCell(clock, features, rngs=rngs), rngs=False),
        "nnx.RNN(SimpleCell)": lambda rngs: nnx.RNN(nnx.SimpleCell(features, width, rngs=rngs)),
        "nnx.RNN(OptimizedLSTMCell)": lambda rngs: nnx.RNN(nnx.OptimizedLSTMCell(features, width, rngs=rngs)),
    }
    return Work(
        f"training step of a Flax layer, N = {width}, g = {modules}, batch {batch}, T = {steps}, all outputs",
        {way: functools.partial(layer_steps, make, (batch, steps, features), width) for way, make in makers.items()},
        3 * batch * macs(clock, steps, 0, features),
    )


def gated_work(kind: str, width: int, steps: int, batch: int, features: int) -> Work:
    """A layer of Flax's own gated cells, run by the library's kernels and by Flax."""
    layer, cell = (GRU, nnx.GRUCell) if kind == "GRU" else (LSTM, nnx.OptimizedLSTMCell)
    makers = {
        f"clockwork.nn.{kind}": lambda rngs: layer(features, width, rngs=rngs),
        f"nnx.RNN({cell.__name__})": lambda rngs: nnx.RNN(cell(features, width, rngs=rngs)),
    }
    return Work(
        f"training step of a layer of {kind} cells, N = {width}, batch {batch}, T = {steps}, all outputs",
        {way: functools.partial(layer_steps, make, (batch, steps, features), width) for way, make in makers.items()},
    )


def long_work(size: Size) -> Work:
    """One sequence of many steps, with a readout, by each method that can take it."""
    clock = cw.Clock.exponential(64, 8)
    params, inputs = cascade(clock, 8, 4)[0](jax.random.key(0)), jax.random.normal(jax.random.key(1), (size.long, 8))

    def timed(method: str) -> Timed:
        def loss(params: Any, inputs: jax.Array) -> jax.Array:
            return jnp.square(cw.unroll(params[0], clock, inputs, readout=params[1], method=method)[0]).mean()  # pyright: ignore[reportArgumentType]

        return compiled(jax.value_and_grad(loss), params, inputs)

    ways = {'method="parallel"': "parallel", 'method="native"': "native", 'XLA: method="cascade"': "cascade"}
    return Work(
        f"loss and gradient, N = {clock.width}, g = {clock.modules}, one sequence, T = {size.long}",
        {name: functools.partial(timed, method) for name, method in ways.items()},
    )


def streaming(step: Callable[..., Any], state: Any, size: Size, *arguments: Any) -> Timed:
    """Steps one by one, each waited for: ``step(*arguments, state, x_t)`` to state and output."""
    jitted = jax.jit(step)
    samples = np.random.default_rng(0).normal(size=(size.streamed, size.features)).astype(np.float32)

    def call() -> None:
        carry = state
        for x_t in samples:
            carry, y_t = jitted(*arguments, carry, x_t)
            jax.block_until_ready(y_t)

    return Timed(call, times=size.streamed)


def streams(clock: cw.Clock, size: Size, torch: Any) -> dict[str, Callable[[], Timed] | None]:
    """Ways to stream through a layer, a sample at a time."""
    weights = cw.init(jax.random.key(0), clock, size.features)
    hidden, state = jnp.zeros(clock.width), cw.State.initial(clock)

    def step(weights, state, x_t):
        return cw.step(weights, clock, state, x_t)

    def by_hand(dense, state, x_t):
        into, recurrent, bias = dense
        hidden, t = state
        new = jnp.tanh(hidden @ recurrent + x_t @ into + bias)
        hidden = jnp.where(t % jnp.asarray(clock.unit_periods) == 0, new, hidden)
        return (hidden, t + 1), hidden

    def flax() -> Timed:
        cell = nn.SimpleCell(clock.width)
        variables = cell.init(jax.random.key(0), hidden, jnp.zeros(size.features))
        return streaming(cell.apply, hidden, size, variables)

    def pytorch() -> Timed:
        cell, samples = torch.nn.RNNCell(size.features, clock.width), torch.randn(size.streamed, 1, size.features)

        def call() -> None:
            h = torch.zeros(1, clock.width)
            with torch.no_grad():
                for x_t in samples:
                    h = cell(x_t, h)

        return Timed(call, times=size.streamed)

    return {
        "clockwork: step of dense weights": lambda: streaming(step, state, size, weights.dense(clock)),
        "clockwork: step of Weights": lambda: streaming(step, state, size, weights),
        "masked step by hand": lambda: streaming(by_hand, (hidden, jnp.int32(0)), size, weights.dense(clock)),
        "SRN: nn.SimpleCell": flax,
        "SRN: PyTorch nn.RNNCell": None if torch is None else pytorch,
    }


def works(size: Size, torch: Any) -> list[Work]:
    """All of it; PyTorch's ways are None without PyTorch."""
    clock = cw.Clock.exponential(size.clockwork, MODULES)
    srn = cw.Clock((1,), (size.simple,))
    sweep = functools.partial(library_sweep, size=size)
    user = functools.partial(user_epochs, size=size)
    wide_clock = cw.Clock.exponential(size.wide, size.wide_modules)
    io = {"inputs": size.features, "outputs": size.features, "stddev": 0.05}
    rng = np.random.default_rng(0)
    sequence = rng.normal(size=(size.wide_steps, size.batch, size.features)).astype(np.float32)

    def with_torch(make: Callable[[], Callable[[], Any]]) -> Callable[[], Timed] | None:
        return None if torch is None else lambda: Timed(make())

    def torch_forward() -> Callable[[], Any]:
        network = TorchClockwork(torch, wide_clock, sequence, sequence)
        return torch.no_grad()(network.forward)

    few, few_clock = min(size.runs, 10), cw.Clock.exponential(size.clockwork, 3)
    one_run = macs(clock, size.steps, 1)
    sequences = size.batch * macs(wide_clock, size.wide_steps, size.features, size.features)
    of_wide = f"N = {size.wide}, g = {size.wide_modules}, batch {size.batch}, T = {size.wide_steps}"
    epoch = f"{size.runs} runs, T = {size.steps}"
    ours_wide, masked_wide = cascade(wide_clock, **io), masked(wide_clock, **io)
    simple_wide, flax_wide = simple(size.wide, **io), flax_simple(size.wide, size.features, size.features)
    return [
        Work(
            f"sweep epoch, CW-RNN N = {size.clockwork}, g = {MODULES}, {epoch}",
            {
                "clockwork: its sweep": lambda: sweep(Generation, "cwrnn"),
                "masked scan, vmap": lambda: user(masked(clock)),
                "XLA's cascade, in our sweep": lambda: sweep(CascadeGeneration, "cwrnn"),
                "masked scan, in our sweep": lambda: sweep(MaskedGeneration, "cwrnn"),
                "masked scan, lax.map over runs": lambda: user(masked(clock), over_runs=lax.map),
                "nnx.RNN(SimpleCell), vmap": lambda: user(flax_simple(size.clockwork)),
                "PyTorch: masked loop, products over runs": with_torch(
                    lambda: TorchClockwork(torch, clock, target(size.steps)[:, None], runs=size.runs)
                ),
            },
            3 * size.runs * one_run,
        ),
        Work(
            f"the same in user code: vmap(value_and_grad), CW-RNN N = {size.clockwork}",
            {
                "clockwork: unroll": lambda: user(cascade(clock)),
                "masked scan, vmap": lambda: user(masked(clock)),
            },
            3 * size.runs * one_run,
        ),
        Work(
            f"the same without readout=: unroll(...)[0] @ kernel, CW-RNN N = {size.clockwork}",
            {
                "clockwork: unroll": lambda: user(cascade(clock, natural=True)),
                "masked scan, vmap": lambda: user(masked(clock)),
            },
        ),
        Work(
            f"loss and gradient, CW-RNN N = {size.clockwork}, g = 3, {few} runs, T = {size.steps}",
            {
                "clockwork: unroll": lambda: many_gradient(cascade(few_clock), size.steps, few),
                "XLA's cascade": lambda: many_gradient(cascade(few_clock, method="cascade"), size.steps, few),
                "masked scan, vmap": lambda: many_gradient(masked(few_clock), size.steps, few),
            },
        ),
        Work(
            f"forward, CW-RNN N = {size.clockwork}, g = {MODULES}, {epoch}",
            {
                "clockwork: unroll": lambda: many_forward(cascade(clock), size),
                "masked scan, vmap": lambda: many_forward(masked(clock), size),
            },
            size.runs * one_run,
        ),
        Work(
            f"sweep epoch, SRN N = {size.simple}, {epoch}",
            {
                "clockwork: its sweep": lambda: sweep(Generation, "srn"),
                "plain scan, vmap": lambda: user(simple(size.simple)),
                "plain scan, lax.map over runs": lambda: user(simple(size.simple), over_runs=lax.map),
                "nnx.RNN(SimpleCell), vmap": lambda: user(flax_simple(size.simple)),
                "PyTorch: nn.RNN, run by run": with_torch(
                    lambda: TorchRuns(torch, "RNN", size.simple, size.runs, target(size.steps))
                ),
            },
            3 * size.runs * macs(srn, size.steps, 1),
        ),
        Work(
            f"sweep epoch, LSTM N = {size.lstm}, {epoch}",
            {
                "clockwork: its sweep": lambda: sweep(Generation, "lstm"),
                "plain scan, vmap": lambda: user(plain_lstm(size.lstm)),
                "plain scan, lax.map over runs": lambda: user(plain_lstm(size.lstm), over_runs=lax.map),
                "nnx.RNN(OptimizedLSTMCell), vmap": lambda: user(flax_lstm(size.lstm)),
                "PyTorch: nn.LSTM, run by run": with_torch(
                    lambda: TorchRuns(torch, "LSTM", size.lstm, size.runs, target(size.steps))
                ),
            },
            3 * size.runs * size.steps * size.lstm * (4 * size.lstm + 1),
        ),
        Work(
            f"user code: SRN N = {size.simple}, {epoch}",
            {
                "clockwork: unroll": lambda: user(cascade(srn)),
                "plain scan, vmap": lambda: user(simple(size.simple)),
            },
            3 * size.runs * macs(srn, size.steps, 1),
        ),
        Work(
            f"user code: LSTM N = {size.lstm}, {epoch}",
            {
                "clockwork: lstm_unroll": lambda: user(lstm(size.lstm)),
                "plain scan, vmap": lambda: user(plain_lstm(size.lstm)),
            },
            3 * size.runs * size.steps * size.lstm * (4 * size.lstm + 1),
        ),
        Work(
            f"training step, {of_wide}",
            {
                "clockwork: unroll": lambda: one_network(ours_wide, size, train=True),
                "masked scan": lambda: one_network(masked_wide, size, train=True),
                "SRN, plain scan": lambda: one_network(simple_wide, size, train=True),
                "nnx.RNN(SimpleCell)": lambda: one_network(flax_wide, size, train=True),
                "PyTorch: masked loop": with_torch(lambda: TorchClockwork(torch, wide_clock, sequence, sequence)),
            },
            3 * sequences,
        ),
        Work(
            f"forward, {of_wide}",
            {
                "clockwork: unroll": lambda: one_network(ours_wide, size, train=False),
                "masked scan": lambda: one_network(masked_wide, size, train=False),
                "SRN, plain scan": lambda: one_network(simple_wide, size, train=False),
                "nnx.RNN(SimpleCell)": lambda: one_network(flax_wide, size, train=False),
                "PyTorch: masked loop": with_torch(torch_forward),
            },
            sequences,
        ),
        Work(
            f"the same training step without readout=: unroll(...)[0] @ kernel, N = {size.wide}",
            {
                "clockwork: unroll": lambda: one_network(cascade(wide_clock, **io, natural=True), size, train=True),
                "masked scan": lambda: one_network(masked_wide, size, train=True),
            },
        ),
        *(layer_work(*shape, size.features) for shape in size.layers),
        *(gated_work(kind, *shape, size.features) for kind in ("GRU", "LSTM") for shape in size.gated),
        long_work(size),
        *(
            Work(f"one step, streaming, N = {c.width}, g = {c.modules}", streams(c, size, torch))
            for c in (clock, wide_clock)
        ),
    ]


class Scaling(NamedTuple):
    """How the cost of loss and gradient grows with one size, all others fixed."""

    name: str
    what: str
    values: tuple[int, ...]
    build: Callable[[int], Timed]


def scalings(size: Size, quick: bool) -> list[Scaling]:
    def many(
        width: int = size.clockwork, modules: int = MODULES, steps: int = size.steps, runs: int = size.runs
    ) -> Timed:
        return many_gradient(cascade(cw.Clock.exponential(width, modules)), steps, runs)

    def batched(batch: int) -> Timed:
        network = cascade(cw.Clock.exponential(size.wide, size.wide_modules), size.features, size.features, 0.05)
        return one_network(network, size._replace(batch=batch), train=True)

    def pick(*values: int) -> tuple[int, ...]:
        return values[:2] if quick else values

    many_runs = f"CW-RNN N = {size.clockwork}, g = {MODULES}, {size.runs} runs"
    return [
        Scaling("T", many_runs, pick(320, 1000, 3200, 10_000, 32_000), lambda value: many(steps=value)),
        Scaling("N", f"CW-RNN g = {MODULES}, {size.runs} runs", pick(20, 40, 80, 160), lambda value: many(width=value)),
        Scaling(
            "g",
            f"CW-RNN N = {size.clockwork}, {size.runs} runs",
            pick(1, 3, 5, 7, 9),
            lambda value: many(modules=value),
        ),
        Scaling(
            "runs", f"CW-RNN N = {size.clockwork}, g = {MODULES}", pick(8, 32, 128, 512), lambda value: many(runs=value)
        ),
        Scaling("batch", f"CW-RNN N = {size.wide}, g = {size.wide_modules}", pick(4, 16, 64), batched),
    ]


def by_modules(size: Size, quick: bool) -> list[tuple[str, int, cw.Clock, Callable[[bool], Timed]]]:
    """Loss and gradient at 1 to 9 modules: what, how many, the clock, and a builder of ours or the masked scan."""
    counts = (1, 4) if quick else tuple(range(1, 10))
    rows: list[tuple[str, int, cw.Clock, Callable[[bool], Timed]]] = []
    for g in counts:
        small, wide = cw.Clock.exponential(size.clockwork, g), cw.Clock.exponential(size.wide, g)
        rows.append(
            (
                f"N = {size.clockwork}, {size.runs} runs",
                g,
                small,
                lambda ours, c=small: many_gradient((cascade if ours else masked)(c), size.steps, size.runs),
            )
        )
        rows.append(
            (
                f"N = {size.wide}, batch {size.batch}",
                g,
                wide,
                lambda ours, c=wide: one_network(
                    (cascade if ours else masked)(c, size.features, size.features, 0.05), size, train=True
                ),
            )
        )
    return rows

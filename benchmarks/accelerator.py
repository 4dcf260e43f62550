"""Recurrent kernels on an accelerator, in one command: ``python benchmarks/accelerator.py``, under twelve minutes.

1. Every kernel, values and gradients, against float64 on the host, on inputs drawn anew each time (their seed is
   stored). What was in the accelerator's memory is overwritten with NaN; a result that is not finite never passes.
2. Loss and gradient of many runs by the ways there are to compute them, all in turn in one process, medians; float32 is
   true float32 in all of them. A call is waited for, so that a row of few runs is no less than what a call costs.
3. The whole of the paper's Figure 3, as the library trains it.

Each part is a process of its own, so that one that the device does not survive leaves the others. Beside each time
stands the floor: the longest of moving the bytes that must be moved, the multiply-adds, and the chain of steps that
wait for each other, at the speeds that this machine showed in a copy, in a matrix product, and in this library's
recurrence of one unit. It needs JAX, Flax, Optax and NumPy; PyTorch's rows need PyTorch. Results go to
``benchmarks/results/accelerator.json`` (or ``--results``) as they come; ``--report`` prints the tables of stored ones.
Without an accelerator, ``--quick`` runs some of it, tiny, by Pallas' interpreter and without limits of time: only to
see that it runs.
"""

# ruff: noqa: E402 - the library need not be installed: it is found beside this folder

import argparse
import datetime
import functools
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import alternatives
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from timing import Timed, compiled, measure

import clockwork as cw
from clockwork.nn import lstm_init, lstm_unroll
from clockwork.ops import mosaic
from clockwork.ops.operation import apply
from clockwork.recurrence import batched
from clockwork.recurrence.cascade import Cascade
from clockwork.tasks import Generation
from clockwork.training import Progress, sweep
from clockwork.training.config import environment

PyTree = Any

RESULTS = ROOT / "benchmarks" / "results" / "accelerator.json"
SECONDS = {"checks": 180, "works": 330}  # of a part, after which it begins nothing more
ALL = 700  # seconds, after which the last part is cut off; it has at least
LEAST = 120
STEPS = 320
# What may be in a graph of kernels that is launched as one; the library leaves XLA its default.
GRAPHS = {"loops in command buffers": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONDITIONAL,WHILE"}
# The largest error of a result by its largest value.
TOLERANCES = {"float32": 2e-5, "bfloat16": 2e-2}


def has_kernels() -> bool:
    """Whether JAX computes on a GPU that the library's kernels are for."""
    return mosaic.device_refusal() is None


class Layer(NamedTuple):
    """A layer and a sequence length: a clockwork layer, or an LSTM if there is no clock."""

    clock: cw.Clock | None
    cells: int
    steps: int
    inputs: int = 0

    @classmethod
    def clockwork(cls, width: int, modules: int, steps: int, inputs: int = 0) -> "Layer":
        """A clockwork layer; a simple RNN if it has one module."""
        return cls(cw.Clock.exponential(width, modules), width, steps, inputs)

    @property
    def name(self) -> str:
        """As in the tables."""
        if self.clock is None:
            return f"LSTM N = {self.cells}"
        many = self.clock.modules > 1
        return f"CW-RNN N = {self.cells}, g = {self.clock.modules}" if many else f"SRN N = {self.cells}"

    def init(self, key: Array, dtype: Any = jnp.float32) -> PyTree:
        """Weights and readout."""
        weights = (
            lstm_init(key, self.cells, self.inputs, dtype=dtype)
            if self.clock is None
            else cw.init(key, self.clock, self.inputs, dtype=dtype)
        )
        return weights, alternatives.readout_of(key, self.cells).astype(dtype)

    def forward(self, method: str, params: PyTree, x: Array | None, hidden: PyTree = None) -> Array:
        """Outputs ``(T, 1)`` by one of the library's methods."""
        weights, readout = params
        options: dict[str, Any] = {"steps": None if self.inputs else self.steps, "hidden": hidden, "readout": readout}
        if self.clock is None:
            return lstm_unroll(weights, x, **options, method=method)[0]  # pyright: ignore[reportArgumentType]
        return cw.unroll(weights, self.clock, x, **options, method=method)[0]  # pyright: ignore[reportArgumentType]

    @property
    def multiply_adds(self) -> float:
        """Of one sequence forwards."""
        readout = self.cells
        if self.clock is None:
            return self.steps * (4 * self.cells * (self.cells + self.inputs) + 3 * self.cells + readout)
        return self.steps * (self.clock.multiply_adds(self.inputs) + readout)


def plain(layer: Layer, params: PyTree, x: Array | None, hidden: Any) -> Array:
    """A layer in plain JAX, step by step: what the kernels are held to, in float64."""
    weights, readout = params
    if layer.clock is None:
        into, recurrent, peepholes, bias = weights

        def tick(carry: tuple[Array, Array], x_t: Array | None) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            z = h @ recurrent + bias if x_t is None else h @ recurrent + bias + x_t @ into
            z_i, z_f, z_g, z_o = jnp.split(z, 4)
            i, f = jax.nn.sigmoid(z_i + peepholes[0] * c), jax.nn.sigmoid(z_f + peepholes[1] * c)
            c = f * c + i * jnp.tanh(z_g)
            h = jax.nn.sigmoid(z_o + peepholes[2] * c) * jnp.tanh(c)
            return (h, c), h

        return lax.scan(tick, hidden, x, length=layer.steps)[1] @ readout
    into, recurrent, bias = weights.dense(layer.clock)
    periods = jnp.asarray(layer.clock.unit_periods)

    def step(h: Array, xs: tuple[Array, Array | None]) -> tuple[Array, Array]:
        t, x_t = xs
        z = h @ recurrent + bias if x_t is None else h @ recurrent + bias + x_t @ into
        h = jnp.where(t % periods == 0, jnp.tanh(z), h)
        return h, h

    return lax.scan(step, hidden, (jnp.arange(layer.steps), x))[1] @ readout


class Check(NamedTuple):
    """Kernels that are held to float64: of so many runs, each with a batch of so many sequences (0 for none)."""

    layer: Layer
    runs: int = 0
    batch: int = 0
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """As in the table."""
        many = "".join(f", {n} {what}" for n, what in ((self.runs, "runs"), (self.batch, "sequences")) if n)
        given = f", {self.layer.inputs} inputs" if self.layer.inputs else ""
        return f"{self.layer.name}, T = {self.layer.steps}{given}{many}, {self.dtype}"


def checks(quick: bool) -> list[Check]:
    """All shapes: one unit to a whole block, nested periods or not, given inputs or none."""
    clocks = (
        cw.Clock.exponential(40, 9),
        cw.Clock((1, 2, 3, 5, 8), (2, 1, 3, 1, 2)),
        cw.Clock((3, 3, 7), (2, 2, 1)),
        cw.Clock((1,), (31,)),
        cw.Clock((1, 4), (32, 33)),
        cw.Clock((1, 2), (100, 100)),
        cw.Clock((1,), (128,)),
        cw.Clock.exponential(102, 7),
        cw.Clock.exponential(512, 8),
    )
    if quick:
        clocks = clocks[1:2]
    found = [Check(Layer(clock, clock.width, 12 if quick else 100, inputs)) for clock in clocks for inputs in (0, 3)]
    lstms = [
        Layer(None, cells, 12 if quick else 100, inputs)
        for cells in ((4,) if quick else (1, 15, 33, 44))
        for inputs in (0, 3)
    ]
    found += [Check(layer) for layer in lstms]
    for layer in (found[1].layer, lstms[-1]) if quick else (found[1].layer, found[13].layer, lstms[3]):
        found += [Check(layer, runs, batch) for runs, batch in ((37, 0), (0, 7), (5, 7)) if not quick or runs == 5]
        found += [Check(layer._replace(steps=12), 3, 0, "bfloat16")]
    if not quick:
        found += [Check(Layer.clockwork(40, 9, STEPS), 1000), Check(Layer(None, 15, STEPS), 1000)]
    return found


def poison() -> None:
    """Overwrite free memory with NaN: what a kernel does not write is then not what it was, by luck."""
    total = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 2**26)
    sizes = [2**power for power in range(8, 28) if 2**power < total / 64]
    jax.block_until_ready([jnp.full(size, jnp.nan) for size in sizes for _ in range(4)])


def held_to_float64(check: Check, seed: int) -> dict[str, Any]:
    """The largest error of outputs and gradients, each by its own largest value."""
    layer, rng = check.layer, np.random.default_rng(seed)
    shape = jax.eval_shape(lambda: layer.init(jax.random.key(0)))
    runs, batch = ([n] if n else [] for n in (check.runs, check.batch))
    draw = lambda *s: jnp.asarray(rng.normal(size=s), check.dtype)  # noqa: E731
    params = jax.tree.map(lambda x: draw(*runs, *x.shape) / math.sqrt(layer.cells), shape)
    x = draw(*runs, *batch, layer.steps, layer.inputs) if layer.inputs else None
    hidden = draw(*runs, *batch, layer.cells)
    hidden = (hidden, hidden / 2) if layer.clock is None else hidden
    bar = draw(*runs, *batch, layer.steps, 1)

    def loss(forward: Callable, params: PyTree, x: Array | None, hidden: PyTree, bar: Array) -> tuple[Array, Array]:
        own = lambda x, hidden: forward(params, x, hidden)  # noqa: E731
        outputs = (jax.vmap(own) if batch else own)(x, hidden)
        return (outputs.astype(bar.dtype) * bar).sum(), outputs

    def evaluate(forward: Callable, *arguments: Any) -> PyTree:
        gradient = jax.grad(
            functools.partial(loss, forward), argnums=(0, 1, 2) if layer.inputs else (0, 2), has_aux=True
        )
        return (jax.vmap(gradient) if runs else gradient)(*arguments)

    def ours(params: PyTree, x: Array | None, hidden: PyTree) -> Array:
        return layer.forward("fused", params, x, hidden)

    arguments = (params, x, hidden, bar)
    program = jax.jit(functools.partial(evaluate, ours)).lower(*arguments).compile()
    poison()
    got = jax.device_get(program(*arguments))
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        double = jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(np.float64)), arguments)
        want = jax.device_get(jax.jit(functools.partial(evaluate, functools.partial(plain, layer)))(*double))
    errors = [_error(g, w) for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True) if np.size(w)]
    largest = max(errors)
    return {"name": check.name, "error": largest, "right": bool(largest <= TOLERANCES[check.dtype])}


def _error(got: np.ndarray, want: np.ndarray) -> float:
    got = np.asarray(got).astype(np.float64)
    if not np.isfinite(got).all():
        return math.inf
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30))


class Work(NamedTuple):
    """Loss and gradient of runs, or of one run with a batch of sequences."""

    layer: Layer
    runs: int
    batch: int = 0

    @property
    def name(self) -> str:
        """As in the tables."""
        many = f"batch {self.batch}" if self.batch else f"{self.runs} run{'s' * (self.runs > 1)}"
        return f"{self.layer.name}, T = {self.layer.steps}, {many}"

    @property
    def sequences(self) -> int:
        """How many there are."""
        return self.batch or self.runs

    def arguments(self) -> tuple[PyTree, Array | None, Array]:
        """Parameters, inputs, targets."""
        key = jax.random.key(0)
        batch = [self.batch] if self.batch else []
        params = self.layer.init(key) if self.batch else jax.vmap(self.layer.init)(jax.random.split(key, self.runs))
        x = jax.random.normal(key, (*batch, self.layer.steps, self.layer.inputs)) if self.layer.inputs else None
        return params, x, jnp.sin(jnp.arange(self.layer.steps) / 9)

    def timed(self, forward: Callable, options: dict[str, str | bool] | None = None) -> Timed:
        """A way to compute it."""

        def loss(params: PyTree, x: Array | None, target: Array) -> Array:
            own = lambda x: jnp.square(forward(params, x)[:, 0] - target).sum()  # noqa: E731
            return jax.vmap(own)(x).sum() if self.batch else own(x)

        gradient = jax.value_and_grad(loss)
        return compiled(
            gradient if self.batch else jax.vmap(gradient, (0, None, None)), *self.arguments(), options=options
        )

    def ways(self, torch: Any) -> dict[str, Callable[[], Timed]]:
        """All that there are, by name; the first is the one that others are compared with."""
        layer = self.layer
        zero = jnp.zeros(layer.cells)
        hidden = (zero, zero) if layer.clock is None else zero
        scan = functools.partial(plain, layer, hidden=hidden)
        found: dict[str, Callable[[], Timed]] = {}
        if has_kernels() or mosaic.INTERPRET:
            found["fused"] = lambda: self.timed(functools.partial(layer.forward, "fused"))
        what = "scan" if layer.clock is None or layer.clock.modules == 1 else "masked scan"
        found[f"XLA: {what}, vmap"] = lambda: self.timed(lambda p, x: scan(p, x))
        for name, kinds in GRAPHS.items() if jax.default_backend() == "gpu" else ():
            option: dict[str, str | bool] = {"xla_gpu_enable_command_buffer": kinds}
            found[f"XLA: {what}, {name}"] = lambda option=option: self.timed(lambda p, x: scan(p, x), option)
        if layer.clock is None:
            found["XLA: the library's scan"] = lambda: self.timed(functools.partial(layer.forward, "scan"))
        else:
            found["XLA: cascade"] = lambda: self.timed(functools.partial(layer.forward, "cascade"))
            found["XLA: cascade, unroll = 8"] = lambda: self.timed(functools.partial(_unrolled, layer))
        if layer.clock is None and not self.batch and self.runs <= 1000:
            if jax.default_backend() == "gpu":
                found["cuDNN's LSTM by JAX, no peepholes, run by run"] = lambda: _cudnn(self)
            if torch is not None:
                found["PyTorch's LSTM (cuDNN on a GPU), no peepholes, run by run"] = lambda: _torch(self, torch)
        return found


def _unrolled(layer: Layer, params: PyTree, x: Array | None) -> Array:
    """The cascade, its modules each by itself, eight steps in an iteration of its loops."""
    assert layer.clock is not None
    scan = batched.XLA_SCAN._replace(
        forward=functools.partial(batched.XLA_SCAN.forward, unroll=8),
        backward=functools.partial(batched.XLA_SCAN.backward, unroll=8),
    )
    return apply(Cascade(layer.clock, 0, layer.steps, jnp.tanh, scan), params, x, jnp.zeros(layer.cells))[0]


def _cudnn(work: Work) -> Timed:
    """``jax.experimental.rnn``: it can't be vmapped, so that runs follow each other."""
    from jax.experimental import rnn

    layer = work.layer
    weights = rnn.get_num_params_in_lstm(max(layer.inputs, 1), layer.cells, 1, bidirectional=False)
    flat = 0.1 * jax.random.normal(jax.random.key(0), (work.runs, weights))
    target, zeros = jnp.sin(jnp.arange(layer.steps) / 9), jnp.zeros((1, 1, layer.cells))
    x, lengths = jnp.zeros((1, layer.steps, max(layer.inputs, 1))), jnp.full(1, layer.steps, jnp.int32)

    def loss(weights: Array) -> Array:
        found: Any = rnn.lstm(
            x, zeros, zeros, weights, lengths, x.shape[2], layer.cells, 1, 0.0, False, precision=lax.Precision.HIGHEST
        )
        return jnp.square(found[0][0].sum(-1) - target).sum()

    return compiled(lambda flat: lax.map(jax.value_and_grad(loss), flat), flat)


def _torch(work: Work, torch: Any) -> Timed:
    layer = work.layer
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = [torch.nn.LSTM(max(layer.inputs, 1), layer.cells).to(device) for _ in range(work.runs)]
    x = torch.zeros(layer.steps, 1, max(layer.inputs, 1), device=device)

    def call() -> None:
        for network in networks:
            network.zero_grad()
            network(x)[0].square().sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return Timed(call)


def works(quick: bool) -> Iterator[Work]:
    """What is timed, the most important first."""
    if quick:
        yield from (Work(Layer.clockwork(8, 3, 16), 3), Work(Layer(None, 3, 16), 2))
        return
    paper = Layer.clockwork(40, 9, STEPS), Layer(None, 15, STEPS), Layer.clockwork(31, 1, STEPS)
    yield from (Work(layer, 500) for layer in paper)
    yield from (Work(layer, runs) for runs in (4096, 1) for layer in paper)
    yield Work(Layer.clockwork(102, 7, 100, inputs=13), 20)
    yield Work(Layer(None, 41, 100, inputs=13), 20)
    yield from (Work(Layer.clockwork(n, g, 512, inputs=64), 1, batch=32) for n, g in ((512, 8), (256, 8), (128, 1)))
    yield from (Work(paper[0], runs) for runs in (100, 16))


def ceilings(method: str) -> dict[str, float]:
    """What this machine can do: bytes and float32 multiply-adds a second, seconds of a step forwards and backwards.

    Args:
        method: of the recurrence of one unit.
    """
    large = jnp.zeros(2**28 if jax.default_backend() != "cpu" else 2**22)
    n = 8192 if jax.default_backend() != "cpu" else 512
    square = jnp.ones((n, n))
    one = Layer.clockwork(1, 1, 1000)
    params = one.init(jax.random.key(0))

    def smallest(steps: int) -> Timed:
        forward = functools.partial(one._replace(steps=steps).forward, method)
        return compiled(jax.value_and_grad(lambda params: forward(params, None).sum()), params)

    found = measure(
        {
            "copy": compiled(lambda x: x + 1, large),
            "product": compiled(lambda a: jnp.matmul(a, a, precision=lax.Precision.HIGHEST), square),
            "long": smallest(4000),
            "short": smallest(400),
        },
        15,
        2.0,
    )
    seconds = {name: 1e-3 * row["ms"] for name, row in found.items()}
    return {
        "bytes_per_second": 8 * large.size / seconds["copy"],
        "multiply_adds_per_second": n**3 / seconds["product"],
        "step_seconds": max(seconds["long"] - seconds["short"], 1e-9) / 3600,
    }


def floor(work: Work, best: dict[str, float]) -> dict[str, float]:
    """Milliseconds by each of the three alone, at the `ceilings`."""
    layer = work.layer
    parameters = sum(x.size for x in jax.tree.leaves(jax.eval_shape(lambda: layer.init(jax.random.key(0)))))
    moved = 4 * (2 * parameters * work.runs + layer.steps * (1 + layer.inputs) * max(work.batch, 1))
    return {
        "bytes": 1e3 * moved / best["bytes_per_second"],
        "multiply-adds": 1e3 * 3 * work.sequences * layer.multiply_adds / best["multiply_adds_per_second"],
        "steps": 1e3 * layer.steps * best["step_seconds"],
    }


class Phases(Progress):
    """How long a sweep was in each of its phases.

    Args:
        keep: is told after each of its groups.
    """

    def __init__(self, keep: Callable[[dict[str, Any]], None]) -> None:
        self.keep, self.done = keep, -1
        self.seconds: dict[str, float] = {}
        self.name, self.since = "", time.perf_counter()

    def group(self, label: str, runs: int) -> None:
        del label, runs
        self.phase("")
        self.done += 1
        self.keep({"groups": self.done, "seconds": self.seconds})

    def phase(self, name: str) -> None:
        now = time.perf_counter()
        if self.name:
            self.seconds[self.name] = self.seconds.get(self.name, 0.0) + now - self.since
        self.name, self.since = name, now

    def end(self) -> None:
        self.phase("")


def figure3(quick: bool, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The paper's Figure 3: three networks, four sizes, five clips, 100 runs of 2,000 epochs, as a sweep."""
    task = Generation(runs=1, sizes=(100,), clips=("choir",), epochs=3) if quick else Generation(runs=100)
    phases, began = Phases(keep), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = sweep(task, folder, progress=phases)
    diverged = sum(int(result.diverged.sum()) for result in results.conditions.values())
    return {
        "networks": len(results.conditions) * task.runs,
        "epochs": task.epochs,
        "seconds": phases.seconds,
        "total": time.perf_counter() - began,
        "diverged": diverged,
        "nmse": {
            f"{name} {size}": float(
                np.nanmean(
                    [
                        r.error
                        for condition, r in results.conditions.items()
                        if (condition.network, condition.size) == (name, size)
                    ]
                )
            )
            for name, size in dict.fromkeys((condition.network, condition.size) for condition in results.conditions)
        },
    }


def checked(quick: bool, seed: int, keep: Callable[[str, Any], None]) -> None:
    """Part 1."""
    began, found, left_out = time.perf_counter(), [], []
    for check in checks(quick):
        if not quick and time.perf_counter() - began > SECONDS["checks"]:
            left_out.append(check.name)
            continue
        result = attempt(lambda check=check: held_to_float64(check, seed), {"name": check.name, "right": False})
        found.append(result)
        say(f"{verdict(result)}: {check.name}: {result.get('error')}")
        keep("checks", found)
    keep("checks_left_out", left_out)


def trained(quick: bool, seed: int, keep: Callable[[str, Any], None]) -> None:
    """Part 3."""
    del seed
    say("Figure 3")
    keep("figure3", attempt(lambda: figure3(quick, functools.partial(keep, "figure3")), {}))


def timed(quick: bool, seed: int, keep: Callable[[str, Any], None]) -> None:
    """Part 2."""
    del seed
    began, found, left_out = time.perf_counter(), [], []
    try:
        torch: Any = importlib.import_module("torch")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        keep("torch", torch.__version__)
    except Exception as error:  # it may clash with JAX's own libraries
        torch = None
        say(f"PyTorch's rows are left out: {error}")
    best = attempt(lambda: ceilings("fused" if has_kernels() else "masked"), {})
    if "error" in best:
        say(f"by XLA's loops, since the kernel failed: {best['error']}")
        best = ceilings("masked")
    keep("ceilings", best)
    for work in works(quick):
        if not quick and time.perf_counter() - began > SECONDS["works"]:
            left_out.append(work.name)
            continue
        say(work.name)
        ways, rows = {}, {}
        for name, build in work.ways(torch).items():
            way = attempt(lambda build=build: _run_once(build()), {})
            (rows if isinstance(way, dict) else ways)[name] = way
        if ways:
            rows = measure(ways, 3 if quick else 15, 1.0) | rows
        found.append({"name": work.name, "floor": floor(work, best), "rows": rows})
        jax.clear_caches()
        keep("works", found)
    keep("left_out", left_out)


PARTS = {"checks": checked, "works": timed, "figure3": trained}


def _run_once(timed: Timed) -> Timed:
    timed.call()
    return timed


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def verdict(check: dict[str, Any]) -> str:
    """Of a check's result."""
    return "right" if check["right"] else "FAILED" if isinstance(check.get("error"), str) else "WRONG"


def attempt(build: Callable[[], Any], otherwise: dict[str, Any]) -> Any:
    """What is built, or why it could not be: one way that fails is no reason to lose the others."""
    try:
        return build()
    except Exception as error:
        return {
            **otherwise,
            "error": f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:300]}",
        }


def report(results: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    on, best = results["machine"], results.get("ceilings")
    done = results.get("checks", [])
    right = sum(check["right"] for check in done)
    lines = [
        f"{', '.join(on['devices'])}; jax {on['jax']}, Python {on['python']}, {on['date']}. "
        f"{right} of {len(done)} kernels within {TOLERANCES['float32']:g} of float64 "
        f"({TOLERANCES['bfloat16']:g} in bfloat16), inputs of seed {results['seed']}.",
    ]
    lines += [f"- {verdict(check)}: {check['name']}: {check.get('error')}" for check in done if not check["right"]]
    lines += [f"- {part}" for part in results.get("broken", [])]
    if best:
        lines += [
            "",
            f"At best {best['bytes_per_second'] / 1e9:.3g} GB/s, {best['multiply_adds_per_second'] / 1e12:.3g} million "
            f"million multiply-adds a second, {1e9 * best['step_seconds']:.0f} ns a step of one unit and its gradient.",
        ]
    lines += [
        "",
        "| loss and gradient | way | ms (quartiles) | times the first (quartiles) |",
        "| --- | --- | ---: | ---: |",
    ]
    for work in results.get("works", []):
        name = work["name"]
        for way, row in work["rows"].items():
            if "error" in row:
                lines.append(f"| {name} | {way} | {row['error'].replace('|', '/')} | |")
            else:
                low, high = row["quartiles"]
                ratio = (
                    "{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["ratio_quartiles"]) if "ratio" in row else "1"
                )
                lines.append(f"| {name} | {way} | {row['ms']:.3g} ({low:.3g} to {high:.3g}) | {ratio} |")
            name = ""
        what, least = max(work["floor"].items(), key=lambda item: item[1])
        lines.append(f"|  | *floor, by {what}* | {least:.2g} | |")
    left_out = [*results.get("checks_left_out", []), *results.get("left_out", [])]
    lines += [f"\nLeft out, for want of time: {'; '.join(left_out)}."] if left_out else []
    figure = results.get("figure3")
    if figure:
        lines += ["", _figure3(figure)]
    return "\n".join(lines)


def _figure3(figure: dict[str, Any]) -> str:
    if "error" in figure:
        return f"Figure 3 failed: {figure['error']}"
    phases = ", ".join(f"{seconds:.1f} s {name}" for name, seconds in figure["seconds"].items())
    if "total" not in figure:
        return f"Figure 3 broke off after {figure['groups']} networks and sizes: {phases}."
    return (
        f"Figure 3, {figure['networks']} networks of {figure['epochs']} epochs each, {figure['diverged']} diverged: "
        f"{figure['total']:.0f} s, of them {phases}."
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", action="store_true", help="measure nothing, print the tables of stored results")
    parser.add_argument(
        "--quick", action="store_true", help="some of it, tiny, on any machine: only to see that it runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, help="of the inputs of the checks; drawn if not given")
    parser.add_argument("--part", choices=PARTS, help="one part alone, whose results are added to those stored")
    options = parser.parse_args()
    if options.report:
        if not options.results.exists():
            parser.error(f"there are no results in {options.results}; run without --report first")
        print(report(load(options.results)))
        return 0
    environ = dict(os.environ)
    if options.part is None:  # the parts need the memory
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if options.quick:
        mosaic.INTERPRET = not has_kernels()
        if options.results == RESULTS:
            parser.error("--quick measures nothing worth keeping: give --results another file")
    elif jax.default_backend() == "cpu":
        parser.error("JAX sees no accelerator; --quick --results FILE shows that it runs")
    if options.part is not None:
        run_part(options.part, options.quick, options.seed or 0, options.results)
        return 0
    if not has_kernels() and not options.quick:
        say("the fused kernels are for NVIDIA's GPUs from Hopper on: here only the loops of XLA are timed")
    seed = options.seed if options.seed is not None else time.time_ns() % 2**31
    began = time.perf_counter()
    store(options.results, {"machine": machine(), "quick": options.quick, "seed": seed, "broken": []})
    command = [sys.executable, __file__, "--results", str(options.results), "--seed", str(seed)]
    for part in PARTS if has_kernels() or options.quick else ("works", "figure3"):
        options_of_part = ["--part", part, *(["--quick"] if options.quick else [])]
        left = None if options.quick else max(ALL - (time.perf_counter() - began), LEAST)
        flags = environ.get("XLA_FLAGS", "")
        if part == "checks":  # the search for the fastest products would take longer than all else
            flags += " --xla_gpu_autotune_level=0"
        try:
            subprocess.run([*command, *options_of_part], env={**environ, "XLA_FLAGS": flags}, check=True, timeout=left)
        except subprocess.SubprocessError as error:
            results = load(options.results)
            why = (
                f"exit status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else "out of time"
            )
            results["broken"].append(f"the part `{part}` broke off: {why}")
            store(options.results, results)
    results = load(options.results)
    results["seconds"] = time.perf_counter() - began
    store(options.results, results)
    print(report(results))
    return 0 if all(check["right"] for check in results.get("checks", [])) and not results["broken"] else 1


def run_part(part: str, quick: bool, seed: int, path: Path) -> None:
    """Measure a part, and keep what is done as it comes."""

    def keep(name: str, value: Any) -> None:
        store(path, {**load(path), name: value})

    with jax.default_matmul_precision("highest"):
        PARTS[part](quick, seed, keep)


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {**environment(), "date": datetime.date.today().isoformat()}


def load(path: Path) -> dict[str, Any]:
    """Stored results."""
    return json.loads(path.read_text())


def store(path: Path, results: dict[str, Any]) -> None:
    """Write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

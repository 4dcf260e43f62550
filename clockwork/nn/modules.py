"""A clockwork of any cell: each module is a recurrent cell that runs at its own period.

At the ticks of module i, ``c_i, y_i = cell_i(c_i, [x_t, y_{i+1}, ..., y_G])``, where ``y_{i+1}, ..., y_G`` are the
slower modules' outputs at the previous step. At all other steps the module keeps its output and its whole carry. With
cells ``y = f(W x + R y + b)`` this is the clockwork layer (Koutník et al. 2014, eqs. 1 and 4).

This file uses no Flax API: the functions that call a cell, or scan it over time, are passed as arguments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array

from clockwork.checks import shaped
from clockwork.clock import Clock
from clockwork.nn.carry import last_of, start_of, time_after, time_zero
from clockwork.recurrence import Method, advance, as_time, check_time
from clockwork.recurrence.resample import before_ticks, upsample
from clockwork.recurrence.schedule import TickGrid

PyTree = Any
Call = Callable[[int, PyTree, Array], tuple[PyTree, Array]]
Scan = Callable[[int, PyTree, Array, Array | None], tuple[PyTree, Array]]


class CellsState(NamedTuple):
    """A clockwork of cells between two steps.

    Attributes:
        cells: the carries of the modules' cells, fastest first.
        hidden: ``(*batch, N)``, the latest output of each module.
        time: ``(*batch, 1)``, int32, the clock's value at the next step, as in `clockwork.State`.
    """

    cells: tuple[PyTree, ...]
    hidden: Array
    time: Array


jax.export.register_namedtuple_serialization(CellsState, serialized_name="clockwork.nn.CellsState")


def initial(clock: Clock, carries: tuple[PyTree, ...], batch: tuple[int, ...]) -> CellsState:
    """The carry before the first step: the initial carry of each cell, outputs of zero, time zero."""
    floats = [leaf.dtype for leaf in jax.tree.leaves(carries) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    dtype = jnp.result_type(*floats) if floats else jnp.float32
    return CellsState(carries, jnp.zeros((*batch, clock.width), dtype), time_zero(batch))


def widths(clock: Clock, inputs: int) -> list[int]:
    """The number of inputs of each module's cell: those of the layer, and the outputs of all slower modules."""
    return [inputs + clock.width - a - k for a, k in zip(clock.starts, clock.sizes, strict=True)]


def choose(on: Array, new: PyTree, old: PyTree) -> PyTree:
    """Select the new carry where ``on (*batch)`` is true, else the old one; cast to the old dtype."""

    def leaf(new: Array, old: Array) -> Array:
        chosen = on.reshape(*on.shape, *(1,) * (old.ndim - on.ndim))
        return jnp.where(chosen, new.astype(old.dtype), old)

    return jax.tree.map(leaf, new, old)


def step(clock: Clock, carry: CellsState, x_t: Array, call: Call) -> tuple[CellsState, Array]:
    """One step, ``(*batch, I)`` to ``(*batch, N)``: call every cell, and keep the results of the active modules."""
    time, held = as_time(clock, carry.time), carry.hidden
    check_time(clock, time.dtype)
    x_t = x_t.astype(held.dtype)
    cells, outputs = [], []
    for j, (period, a, k) in enumerate(zip(clock.periods, clock.starts, clock.sizes, strict=True)):
        new, y = call(j, carry.cells[j], jnp.concatenate([x_t, held[..., a + k :]], -1))
        shaped(f"outputs of a cell of {k} features", jnp.asarray(y), "*batch N", batch=x_t.shape[:-1], N=k)
        on = time[..., 0] % period == 0
        old = (carry.cells[j], held[..., a : a + k])
        kept, output = choose(on, (new, y), old)
        cells.append(kept)
        outputs.append(output)
    hidden = jnp.concatenate(outputs, -1)
    return CellsState(tuple(cells), hidden, advance(clock, time, 1)), hidden


def unroll(
    clock: Clock,
    inputs: Array,
    carry: CellsState,
    lengths: Array | None,
    *,
    start: int | None,
    method: Method,
    scan: Scan,
    stepwise: Callable[[CellsState, Array, Array | None], tuple[CellsState, Array]],
) -> tuple[CellsState, Array]:
    """The `clockwork.nn.rnn_call.Unroll` of a clockwork of cells.

    It runs the cascade: each cell, slowest module first, is scanned over its own ticks only. If the time is traced, it
    calls every cell at every step.

    Args:
        clock: the layer's clock.
        inputs: ``(T, B, I)``.
        carry: the carry, with one batch dimension B.
        lengths: ``(B,)``, the number of steps after which each sequence's carry is returned; None for all steps.
        start: the carry's time modulo ``clock.cycle``; None if the caller does not know it.
        method: ``"masked"`` calls every cell at every step; ``"auto"`` runs the cascade unless the time is traced.
        scan: scans the cell of one module, called as ``scan(j, carry, inputs, ticks)`` with inputs ``(S, B, I_j)`` at S
            ticks and the number of ticks ``(B,)`` after which each sequence's carry no longer changes, or None; returns
            the last carry and the outputs ``(S, B, k_j)``.
        stepwise: scans the whole clockwork of cells over all steps.

    Raises:
        ValueError: for ``"cascade"`` if the time is traced.
    """
    steps, count, _ = inputs.shape
    begin = start_of(clock, carry.time, start, method)
    time = time_after(clock, carry.time, steps, lengths)
    inputs = inputs.astype(carry.hidden.dtype)
    if not isinstance(begin, int) or method == "masked":
        if method not in ("auto", "masked"):
            raise ValueError(f'method "{method}" needs one start time known before compilation, got an array')
        carry, outputs = stepwise(carry, inputs, lengths)
        return carry._replace(time=time), outputs
    every = TickGrid.of(1, begin, steps)
    cells: list[PyTree] = list(carry.cells)
    held: dict[int, Array] = {}  # (T + 1, B, k_j): the outputs before the first step, then after each step
    for j in reversed(range(clock.modules)):
        own = TickGrid.of(clock.periods[j], begin, steps)
        slower = [before_ticks(held[m], every, own) for m in range(j + 1, clock.modules)]
        x = jnp.concatenate([inputs[own.first - begin :: own.period], *slower], -1)  # (S, B, I_j)
        ticks = None if lengths is None else (lengths - 1 + begin - own.first) // own.period + 1
        before = carry.hidden[:, clock.starts[j] :][:, : clock.sizes[j]]
        rows = before[None]
        if own.ticks:
            cells[j], y = scan(j, carry.cells[j], x, ticks)
            k = clock.sizes[j]
            shaped(f"outputs of a cell of {k} features", y, "*batch N", batch=(own.ticks, count), N=k)
            rows = jnp.concatenate([rows, y.astype(before.dtype)])
        held[j] = upsample(rows, own, every)
    outputs = jnp.concatenate([held[j][1:] for j in range(clock.modules)], -1)
    hidden = outputs[-1] if lengths is None else last_of(outputs, lengths, carry.hidden)
    return CellsState(tuple(cells), hidden, time), outputs


def scan_ticks(call: Callable[[PyTree, Array], tuple[PyTree, Array]], ticks: Array | None) -> Callable:
    """The body of a scan over a cell's ticks; only the first ``ticks (B,)`` change the carry, or all if None."""

    def tick(carry: PyTree, xs: tuple[Array, Array]) -> tuple[PyTree, Array]:
        s, x = xs
        new, y = call(carry, x)
        if ticks is None:
            return jax.tree.map(lambda new, old: new.astype(old.dtype), new, carry), y
        return choose(s < ticks, new, carry), y

    return tick

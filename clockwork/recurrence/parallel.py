"""The cascade in parallel along time: the back end ``"parallel"``, for few, long sequences.

Given the slower modules, a module of ``k`` units is a recurrence of ``k`` values, ``h_s = f(h_{s-1} W + d_s)``. Its
ticks are cut into chunks, all of which are evaluated at once, each from a guess of the value before it. Where the end
of a chunk is not the start of the next, the guesses are corrected and all chunks evaluated again (multiple shooting):
first by the ends themselves, which is enough if a module forgets its past within a chunk, then by Newton's method,
whose Jacobians are products of ``k`` by ``k`` matrices along each chunk. Newton's method over whole sequences is the
idea of Lim et al. 2024 ("Parallelizing non-linear sequential models over the sequence length"); a clockwork needs it
for one small module at a time, and chunks need it for their boundaries alone.

A module whose chunks do not meet after `MAX_ROUNDS`, as one whose largest Lyapunov exponent is not negative, is
evaluated step by step. The transposed recurrence is linear, so that one step of Newton's method solves it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.clock import Clock
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.linalg import Activation, activate, matmul, precision
from clockwork.ops.operation import apply
from clockwork.recurrence import batched
from clockwork.recurrence.call import Call, start_refusal
from clockwork.recurrence.cascade import Cascade, cast
from clockwork.recurrence.resample import by_copies, pad_rows
from clockwork.recurrence.schedule import Group, Schedule
from clockwork.weights import Weights

CHUNKS = 128  # of a module, at most
MIN_TICKS = 16  # of a chunk; a module of fewer than two chunks is evaluated step by step
MAX_ROUNDS = 8  # of evaluating all chunks
PLAIN_ROUNDS = 2  # before Newton's method
# Chunks meet if the start of each is the end of the one before, to so many roundings of the largest value of all ends.
ROUNDINGS = 8


class Apart(NamedTuple):
    """A `clockwork.recurrence.partition.CostModel` by which every module is evaluated by itself."""

    per_loop: float = 0.0

    def per_tick(self, group: Group, outputs: int, batch: int) -> float:
        """Infinite for more than one module."""
        del outputs, batch
        return 1.0 if len(group.members) == 1 else math.inf


class Solution(NamedTuple):
    """The evaluation of all chunks.

    Attributes:
        values: ``(S, *batch, k)``.
        rounds: how often all chunks were evaluated, int32.
        met: whether the chunks met.
    """

    values: Array
    rounds: Array
    met: Array


Local = Callable[[Array, Any], tuple[Array, Array]]


def _solve(local: Local, matrix: Array, first: Array, rows: Any, ticks: int) -> Solution:
    """Evaluate ``h_s = local(h_{s-1} @ matrix, row_s)``, in parallel.

    Args:
        local: maps a product and a row of each array to the value and its derivative by the product, elementwise.
        matrix: ``(k, k)``.
        first: the value before the first tick, ``(*batch, k)``.
        rows: arrays ``(S, *batch, k)``.
        ticks: ``S``.
    """
    chunks = max(1, min(CHUNKS, ticks // MIN_TICKS))
    length = -(-ticks // chunks)
    chunks = -(-ticks // length)

    def cut(x: Array) -> Array:  # (S, ...) to (length, chunks, ...)
        x = pad_rows(x, 0, chunks * length - ticks)
        return jnp.swapaxes(x.reshape(chunks, length, *x.shape[1:]), 0, 1)

    rows = jax.tree.map(cut, rows)

    def evaluate(starts: Array) -> tuple[Array, Array]:
        def tick(h: Array, row: Any) -> tuple[Array, Array]:
            h = local(matmul(h, matrix), row)[0].astype(h.dtype)
            return h, h

        return lax.scan(tick, starts, rows)

    def jacobians(starts: Array) -> Array:
        """The derivative of the end of each chunk by its start, ``(chunks, *batch, k, k)``."""

        def tick(carry: tuple[Array, Array], row: Any) -> tuple[tuple[Array, Array], None]:
            h, product = carry
            h, slope = local(matmul(h, matrix), row)
            return (h.astype(product.dtype), matmul(product, matrix).astype(h.dtype) * slope[..., None, :]), None

        identity = jnp.broadcast_to(jnp.eye(matrix.shape[0], dtype=starts.dtype), (*starts.shape, matrix.shape[0]))
        return lax.scan(tick, (starts, identity), rows)[0][1]

    def after(ends: Array) -> Array:
        """The starts that the ends ask for."""
        return jnp.concatenate([first[None], ends[:-1]])

    def gap(starts: Array, ends: Array) -> Array:
        """The largest distance of a start from the end before it, by the largest end; NaN does not count as met."""
        limit = ROUNDINGS * jnp.finfo(ends.dtype).eps * jnp.abs(ends).max(initial=0)
        return jnp.abs(after(ends) - starts).max(initial=0) <= limit

    def by_newton(starts: Array, ends: Array) -> Array:
        """Starts whose chunks meet to first order: each moves by how far it was off, and by what moved it before."""

        def tick(move: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
            off, jacobian = xs
            moved = jnp.matmul(move[..., None, :], jacobian, precision=precision())[..., 0, :]
            return (off + moved, off + moved)

        off = after(ends) - starts
        moves = lax.scan(tick, off[0], (off[1:], jacobians(starts)[:-1]))[1]
        return starts + jnp.concatenate([off[:1], moves])

    def go_on(state: tuple[Array, Array, Array, Array]) -> Array:
        starts, ends, _, rounds = state
        return (rounds < MAX_ROUNDS) & ~gap(starts, ends)

    def again(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        starts, ends, _, rounds = state
        starts = lax.cond(rounds < PLAIN_ROUNDS, lambda s, e: after(e), by_newton, starts, ends)
        return (starts, *evaluate(starts), rounds + 1)

    guess = jnp.concatenate([first[None], jnp.zeros((chunks - 1, *first.shape), first.dtype)])
    starts, ends, values, rounds = lax.while_loop(go_on, again, (guess, *evaluate(guess), jnp.int32(1)))
    values = jnp.swapaxes(values, 0, 1).reshape(chunks * length, *first.shape)[:ticks]
    return Solution(values, rounds, gap(starts, ends))


def _short(ticks: int) -> bool:
    return ticks < 2 * MIN_TICKS


def _forward_solution(activation: Activation, rows: Array, feedback: Array) -> Solution:
    def local(product: Array, drive: Array) -> tuple[Array, Array]:
        value, slope = activate(activation, product + drive)
        return value, 1 - jnp.square(value) if slope is None else slope

    first = rows[0].astype(feedback.dtype)
    return _solve(local, feedback, first, rows[1:], rows.shape[0] - 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _values(activation: Activation, rows: Array, feedback: Array) -> Array:
    """The state before the first tick and the values of all ticks."""
    found = _forward_solution(activation, rows, feedback)

    def in_parallel() -> Array:
        return jnp.concatenate([rows[:1], found.values.astype(rows.dtype)])

    return lax.cond(found.met, in_parallel, lambda: _values_one_by_one(activation, rows, feedback))


@_values.defjvp
def _values_tangent(
    activation: Activation, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Tick by tick: chunks whose values meet may have tangents that do not yet."""
    return jax.jvp(functools.partial(_values_one_by_one, activation), primals, tangents)


def _values_one_by_one(activation: Activation, rows: Array, feedback: Array) -> Array:
    return batched.XLA_SCAN.forward(activation, rows, feedback, None)[0]


def _scan(
    activation: Activation, rows: Array, feedback: Array, active: np.ndarray | None
) -> tuple[Array, Array | None]:
    """`clockwork.recurrence.batched.GroupScan.forward`, in parallel."""
    assert active is None
    if _short(rows.shape[0] - 1):
        return batched.XLA_SCAN.forward(activation, rows, feedback, active)
    values = _values(activation, rows, feedback)
    if activation is jnp.tanh:
        return values, None
    return values, activate(activation, matmul(values[:-1].astype(feedback.dtype), feedback) + rows[1:])[1]


def _scan_transpose(
    values: Array, slopes: Array | None, feedback: Array, active: np.ndarray | None, values_bar: Array
) -> Array:
    """`clockwork.recurrence.batched.GroupScan.backward`, in parallel."""
    assert active is None
    ticks = values.shape[0] - 1
    if _short(ticks):
        return batched.XLA_SCAN.backward(values, slopes, feedback, active, values_bar)
    dtype = values_bar.dtype
    back = feedback.T.astype(dtype)
    factors = 1 - jnp.square(values.astype(dtype)) if slopes is None else slopes

    def local(product: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        error, factor = row
        return (error + product) * factor, factor

    rows = jax.tree.map(lambda x: x[:0:-1], (values_bar, factors))  # the last tick first
    found = _solve(local, back, jnp.zeros_like(values_bar[0]), rows, ticks)

    def in_parallel() -> Array:
        deltas = found.values[::-1]
        return jnp.concatenate([(values_bar[0] + matmul(deltas[0], back))[None], deltas])

    def one_by_one() -> Array:
        return batched.XLA_SCAN.backward(values, slopes, feedback, active, values_bar)

    return lax.cond(found.met, in_parallel, one_by_one)


SCAN = batched.GroupScan(_scan, _scan_transpose, Apart(), by_copies)


def rounds(
    weights: Weights,
    clock: Clock,
    inputs: Array | None = None,
    *,
    steps: int | None = None,
    start: int = 0,
    hidden: Array | None = None,
    activation: Activation = jnp.tanh,
) -> Array:
    """How often ``method="parallel"`` evaluates all chunks of each module, forwards: its iterations.

    Args:
        weights: the layer's weights.
        clock: the layer's clock.
        inputs: ``(T, I)``; None for a layer without inputs.
        steps: ``T``, for layers without inputs.
        start: the clock's value at the first step.
        hidden: ``(N,)``, the state before the first step; zeros if None.
        activation: ``f``, elementwise.

    Returns:
        ``(G,)``, int32, fastest module first: 0 for a module with too few ticks to be cut, -1 for one whose chunks did
        not meet, so that it is evaluated step by step.

    Example:
        >>> import clockwork as cw, jax
        >>> from clockwork.recurrence.parallel import rounds
        >>> clock = cw.Clock(periods=(1, 2), sizes=(4, 4))
        >>> rounds(cw.init(jax.random.key(0), clock), clock, steps=1024).tolist()
        [2, 2]
    """
    found = []

    def forward(activation: Activation, rows: Array, feedback: Array, active: None) -> tuple[Array, Array | None]:
        if _short(rows.shape[0] - 1):
            found.append(jnp.int32(0))
        else:
            solution = _forward_solution(activation, rows, feedback)
            found.append(jnp.where(solution.met, solution.rounds, -1))
        return _scan(activation, rows, feedback, active)

    hidden = jnp.zeros(clock.width, weights.bias.dtype) if hidden is None else hidden
    steps = inputs.shape[0] if inputs is not None else steps
    assert steps is not None
    schedule = Schedule(clock, start, steps)
    batched.forward(schedule, activation, weights, None, inputs, hidden, SCAN._replace(forward=forward))
    return jnp.stack(found[::-1])


def evaluate(
    call: Call, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate the layer; arguments and results as in `clockwork.recurrence.cascade.evaluate`."""
    assert isinstance(call.start, int)
    operation = Cascade(call.clock, call.start, call.steps, call.activation, SCAN)
    return apply(operation, (cast(weights, call.dtype), readout), inputs, hidden)


def _refusal(call: Call) -> str | None:
    if jnp.dtype(call.dtype) not in (jnp.float32, jnp.float64):
        return f'method "parallel" takes float32 and float64, got {jnp.dtype(call.dtype).name}'
    return start_refusal(call, method="parallel")


def _cost(call: Call) -> Cost:
    del call
    return Cost(math.inf, "whether chunks of a sequence meet depends on the weights, so it must be asked for")


BACKEND = Backend("parallel", evaluate, _refusal, _cost)

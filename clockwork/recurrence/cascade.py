"""The cascade evaluates module by module, slowest first, each at its own ticks only.

A module never reads a faster one, so no step has to visit all modules: each is evaluated at its own ticks only, and its
contributions to other modules are computed once, when its values change. No step computes an inactive row, and for any
periods the cascade computes the same function as the masked scan.
"""

import functools
from typing import NamedTuple

import jax
from jax import Array
from jax.typing import DTypeLike

from clockwork.clock import Clock
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.chunked import in_chunks
from clockwork.ops.layout import Layout
from clockwork.ops.linalg import Activation, accumulator
from clockwork.ops.operation import apply
from clockwork.recurrence import batched, runs_last
from clockwork.recurrence.call import Call, start_refusal
from clockwork.recurrence.group import Residuals
from clockwork.recurrence.masked import MASKED_MAX_WORK
from clockwork.recurrence.schedule import Schedule
from clockwork.weights import Weights

# Many runs are laid in the last axis (`runs_last`) up to this many units in the largest module; larger modules are
# evaluated run by run, with matrix products (`batched`). Measured with 16 runs and up to 101 steps: an SRN of 34 units
# takes 1.9 times as long with the runs last, one of 54 units 2.2 times; with 100 runs and 320 steps one of 31 units is
# faster with the runs last.
RUNS_LAST_MAX_UNITS = 32


class Cascade(NamedTuple):
    """The `clockwork.ops.operation.Operation` of a clockwork layer.

    Parameters are ``(weights, readout)``, ``readout (N, O)`` or None; inputs ``(T, I)`` or None;
    hidden ``(N,)``; outputs ``(T, N)``, or ``(T, O)`` with a readout.

    Attributes:
        clock: the layer's clock.
        start: the clock's value at the first step.
        steps: ``T``.
        activation: ``f``, elementwise.
        scan: evaluates a group's recurrence, run by run; None for XLA's scans, with many runs of small modules in the
            last axis.
    """

    clock: Clock
    start: int
    steps: int
    activation: Activation
    scan: batched.GroupScan | None = None

    @property
    def schedule(self) -> Schedule:
        """The ticks of each module."""
        return Schedule(self.clock, self.start, self.steps)

    @property
    def runs_last(self) -> bool:
        """Whether many runs are laid in the last axis."""
        return self.scan is None and max(self.clock.sizes) <= RUNS_LAST_MAX_UNITS

    def forward(
        self, layout: Layout, parameters: tuple[Weights, Array | None], inputs: Array | None, hidden: Array
    ) -> tuple[tuple[Array, Array], Residuals]:
        """Outputs and last state."""
        arguments = (self.schedule, self.activation, *parameters, inputs, hidden)
        if layout.runs_last:
            return runs_last.forward(*arguments)
        return batched.forward(*arguments, self.scan or batched.XLA_SCAN)

    def backward(
        self,
        layout: Layout,
        parameters: tuple[Weights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, Array],
    ) -> tuple[tuple[Weights, Array | None], Array | None, Array]:
        """The gradients of parameters, inputs and hidden state."""
        dtype = cotangents[0].dtype
        outputs_bar, last_bar = (bar.astype(accumulator(dtype)) for bar in cotangents)
        arguments = (self.schedule, *parameters, inputs, residuals, outputs_bar, last_bar)
        if layout.runs_last:
            bars = runs_last.backward(*arguments)
        else:
            bars = batched.backward(*arguments, self.scan or batched.XLA_SCAN)
        weights_bar, readout_bar, inputs_bar, hidden_bar = jax.tree.map(lambda bar: bar.astype(dtype), bars)
        return (weights_bar, readout_bar), inputs_bar, hidden_bar


def evaluate(
    call: Call,
    weights: Weights,
    inputs: Array | None,
    hidden: Array,
    readout: Array | None,
    scan: batched.GroupScan | None = None,
) -> tuple[Array, Array]:
    """Evaluate the cascade.

    Args:
        call: the call of ``unroll``; its start must be known before compilation.
        weights: the layer's weights.
        inputs: ``(T, I)`` or None.
        hidden: ``(N,)``, the state before the first step.
        readout: ``(N, O)`` or None.
        scan: GPU kernels that evaluate a group's recurrence; None for XLA's scans.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last state ``(N,)``.
    """
    assert isinstance(call.start, int)
    operation = Cascade(call.clock, call.start, call.steps, call.activation, scan)
    operation = in_chunks(operation, call.steps, call.clock.cycle, cached=scan is None)
    return apply(operation, (cast(weights, call.dtype), readout), inputs, hidden)


def cast(weights: Weights, dtype: DTypeLike) -> Weights:
    """The weights as arrays of this dtype."""
    recurrent = tuple(block.astype(dtype) for block in weights.recurrent)
    return Weights(weights.input.astype(dtype), recurrent, weights.bias.astype(dtype))


def _cost(call: Call) -> Cost:
    del call
    return Cost(MASKED_MAX_WORK, "no step computes an inactive module, but each module adds a fixed overhead")


BACKEND = Backend("cascade", evaluate, functools.partial(start_refusal, method="cascade"), _cost)

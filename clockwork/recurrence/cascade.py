"""The cascade: module by module, slowest first, each on its own decimated time.

A module never reads a faster one, so a layer needs no step that visits all of its modules: each is
evaluated at its own ticks alone, and all that its values cause elsewhere is computed once, when
they change. No step computes an inactive row, and the result is the same function as the
masked scan for any periods.
"""

from typing import NamedTuple

import jax
from jax import Array

from clockwork.clock import Clock
from clockwork.ops.linalg import Activation, accumulator
from clockwork.recurrence import batched, runs_last
from clockwork.recurrence.schedule import Plan, Residuals
from clockwork.weights import Weights

# Modules of up to this many units of many runs are evaluated side by side (`lanes`); larger ones
# each by itself, with matrix products (`wide`). Measured with 16 runs and up to 101 steps: an SRN of 34 units takes 1.9
# times as long side by side, one of 54 2.2; with 100 runs and 320 steps one of 31 is faster so.
SMALL = 32


class Cascade(NamedTuple):
    """The `clockwork.ops.operation.Kernel` of a clockwork layer.

    Parameters are ``(weights, readout)``, ``readout (N, O)`` or None; inputs ``(T, I)`` or None;
    hidden ``(N,)``; outputs ``(T, N)``, or ``(T, O)`` with a readout.

    Attributes:
        clock: of the layer.
        start: its value at the first step.
        steps: ``T``.
        activation: elementwise.
        loops: what the modules are evaluated with; None for the loops of XLA, many runs of small modules side by side.
    """

    clock: Clock
    start: int
    steps: int
    activation: Activation
    loops: batched.Loops | None = None

    @property
    def plan(self) -> Plan:
        """When what happens."""
        return Plan(self.clock, self.start, self.steps, self.activation)

    @property
    def small(self) -> bool:
        """Whether runs are laid side by side."""
        return self.loops is None and max(self.clock.sizes) <= SMALL

    def forward(
        self, parameters: tuple[Weights, Array | None], inputs: Array | None, hidden: Array
    ) -> tuple[tuple[Array, Array], Residuals]:
        """Outputs and last state."""
        weights, readout = parameters
        if weights.bias.ndim > 1:
            return runs_last.forward(self.plan, weights, readout, inputs, hidden)
        return batched.forward(self.plan, weights, readout, inputs, hidden, self.loops)

    def backward(
        self,
        parameters: tuple[Weights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, Array],
    ) -> tuple[tuple[Weights, Array | None], Array | None, Array]:
        """The gradients of parameters, inputs and hidden state."""
        weights, readout = parameters
        dtype = cotangents[0].dtype
        outputs_bar, last_bar = (bar.astype(accumulator(dtype)) for bar in cotangents)
        arguments = (self.plan, weights, readout, inputs, residuals, outputs_bar, last_bar)
        bars = runs_last.backward(*arguments) if weights.bias.ndim > 1 else batched.backward(*arguments, self.loops)
        weights_bar, readout_bar, inputs_bar, hidden_bar = jax.tree.map(lambda bar: bar.astype(dtype), bars)
        return (weights_bar, readout_bar), inputs_bar, hidden_bar

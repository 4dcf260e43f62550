"""The cascade as one loop in C++: the back end ``"native"``, for CPUs.

XLA runs every module as a loop of its own of small kernels, and compiles each anew. One hand-written loop over time
(``native.cc``) has neither cost: at each step it evaluates the modules that tick, for the runs in the lanes of a vector
or for the rows of a batch, and nothing is compiled for a shape. Its residuals are those of the cascade, which takes its
place where the kernels cannot go: for other devices, in `jax.export`, and for forward-mode derivatives.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from clockwork.clock import Clock
from clockwork.ops import compiled
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.chunked import in_chunks
from clockwork.ops.layout import Layout
from clockwork.ops.operation import apply
from clockwork.recurrence.call import Call, start_refusal
from clockwork.recurrence.cascade import Cascade, cast
from clockwork.recurrence.group import Residuals
from clockwork.recurrence.schedule import Schedule
from clockwork.weights import Weights

SOURCE = Path(__file__).with_name("native.cc")
FORWARD, BACKWARD = TARGETS = ("clockwork_cascade_forward", "clockwork_cascade_backward")
# With fewer units times steps than this, the masked scan may be faster.
MIN_WORK = 100


class Native(NamedTuple):
    """The `clockwork.ops.operation.Operation` of a clockwork layer; arguments and attributes as in `Cascade`.

    Attributes:
        clock: the layer's clock.
        start: the clock's value at the first step.
        steps: ``T``.
        inputs_bar: whether `backward` computes the gradient of the inputs; zeros if not.
    """

    clock: Clock
    start: int
    steps: int
    inputs_bar: bool = True
    runs_last = True

    @property
    def schedule(self) -> Schedule:
        """The ticks of each module."""
        return Schedule(self.clock, self.start, self.steps)

    @property
    def portable(self) -> Cascade:
        """The same operation in JAX's own operations."""
        return Cascade(self.clock, self.start, self.steps, jnp.tanh)

    @property
    def for_parameters(self) -> "Native":
        """See `clockwork.ops.operation.for_parameters`."""
        return self._replace(inputs_bar=False)

    def forward(
        self, layout: Layout, parameters: tuple[Weights, Array | None], inputs: Array | None, hidden: Array
    ) -> tuple[tuple[Array, Array], Residuals]:
        """Outputs and last state."""
        weights, readout = parameters
        batch, runs = _around(layout, hidden)
        width = hidden.shape[len(batch)] if readout is None else readout.shape[1]
        like = functools.partial(jax.ShapeDtypeStruct, dtype=hidden.dtype)
        ticks = [self.schedule.grid(period).ticks for period in self.clock.periods]
        shapes = [like((self.steps, *batch, width, *runs)), like(hidden.shape)]
        shapes += [like((s + 1, *batch, k, *runs)) for s, k in zip(ticks, self.clock.sizes, strict=True)]
        optional = [x for x in (readout, inputs) if x is not None]
        arrays = (weights.input, weights.bias, hidden, *weights.recurrent, *optional)
        outputs, last, *values = self._call(FORWARD, layout, shapes, arrays, parameters, inputs)
        return (outputs, last), Residuals(tuple(values), (None,) * self.clock.modules)

    def backward(
        self,
        layout: Layout,
        parameters: tuple[Weights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, Array],
    ) -> tuple[tuple[Weights, Array | None], Array | None, Array]:
        """The gradients of parameters, inputs and hidden state."""
        weights, readout = parameters
        outputs_bar, last_bar = cotangents
        optional = [x for x in (readout, inputs) if x is not None]
        arrays = (weights.input, weights.bias, last_bar, *weights.recurrent, *optional)
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]
        given = inputs is not None
        shapes = shapes[:-1] if given and not self.inputs_bar else shapes
        arrays = (*arrays, outputs_bar, *residuals.values)
        input_bar, bias_bar, hidden_bar, *rest = self._call(BACKWARD, layout, shapes, arrays, parameters, inputs)
        weights_bar = Weights(input_bar, tuple(rest[: self.clock.modules]), bias_bar)
        rest = rest[self.clock.modules :]
        readout_bar = None if readout is None else rest.pop(0)
        inputs_bar = (rest.pop(0) if self.inputs_bar else jnp.zeros_like(inputs)) if given else None
        return (weights_bar, readout_bar), inputs_bar, hidden_bar

    def _call(
        self, target: str, layout: Layout, shapes: list[Any], arrays: tuple, parameters: tuple, inputs: Array | None
    ) -> Sequence[Array]:
        first = [-self.start % period for period in self.clock.periods]
        return jax.ffi.ffi_call(target, shapes, vmap_method="broadcast_all")(
            *arrays,
            sizes=np.array(self.clock.sizes, np.int64),
            first=np.array(first, np.int64),
            periods=np.array(self.clock.periods, np.int64),
            steps=np.int64(self.steps),
            runs_last=layout.runs_last,
            has_readout=parameters[1] is not None,
            has_inputs=inputs is not None,
        )


def _around(layout: Layout, hidden: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of the batch and that of the runs, empty if there is none, of a state ``(*batch, N, *runs)``."""
    return (hidden.shape[:-2], hidden.shape[-1:]) if layout.runs_last else (hidden.shape[:-1], ())


def evaluate(
    call: Call, weights: Weights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate the layer; arguments and results as in `clockwork.recurrence.cascade.evaluate`."""
    assert isinstance(call.start, int)
    operation = Native(call.clock, call.start % call.clock.cycle, call.steps)
    operation = in_chunks(operation, call.steps, call.clock.cycle, cached=False)
    return apply(operation, (cast(weights, call.dtype), readout), inputs, hidden)


def _refusal(call: Call) -> str | None:
    if call.activation is not jnp.tanh:
        return f'method "native" takes the activation jnp.tanh, got {call.activation!r}'
    if jnp.dtype(call.dtype) not in (jnp.float32, jnp.float64):
        return f'method "native" takes float32 and float64, got {jnp.dtype(call.dtype).name}'
    return start_refusal(call, method="native")


def _stand_in() -> str | None:
    return None if compiled.refusal(SOURCE, TARGETS) is None else "cascade"


def _cost(call: Call) -> Cost:
    del call
    absent = compiled.refusal(SOURCE, TARGETS)
    return Cost(float("inf"), absent) if absent else Cost(MIN_WORK, "one compiled loop evaluates all modules")


BACKEND = Backend("native", evaluate, _refusal, _cost, _stand_in)

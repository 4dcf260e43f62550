"""The paper's three networks and a clockwork of LSTMs: one hidden layer and a linear readout, as Flax (nnx) modules.

Each network maps one sequence ``(T, I)``, or a number of steps if it has no inputs, to ``(T, O)``. For batches and
runs, use ``jax.vmap``.
"""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from clockwork.checks import finite, integer
from clockwork.clock import Clock, check_clock
from clockwork.lstm import lstm_init, lstm_unroll
from clockwork.nn.carry import known_values
from clockwork.nn.cells import PeepholeLSTMCell
from clockwork.nn.described import Described, unless_default
from clockwork.nn.layers import Clockwork
from clockwork.nn.parameters import ClockworkParameters, LSTMParameters
from clockwork.ops.linalg import matmul
from clockwork.recurrence import Method, check_steps, unroll
from clockwork.weights import init


class Network(Protocol):
    """The interface of a network that a `clockwork.tasks.Task` needs."""

    @property
    def num_parameters(self) -> int:
        """The number of parameters, as the paper counts them."""
        ...

    def __call__(
        self, inputs: ArrayLike | None = None, *, steps: int | None = None, at: ArrayLike | None = None
    ) -> Array:
        """Map ``(T, I)``, or a number of ``steps``, to ``(T, O)``; with ``at``, to that step's output ``(O,)``."""
        ...


class Readout(Described, nnx.Module):
    """``y = h W_O + b_O`` (Koutník et al. 2014, eq. 2, with a linear ``f_O`` and a bias).

    Args:
        width: ``N``, the number of hidden units.
        outputs: ``O``, the number of outputs.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        rngs: the source of the random key (stream ``params``).
    """

    def __init__(self, width: int, outputs: int, *, stddev: float, rngs: nnx.Rngs) -> None:
        outputs, stddev = integer("outputs", outputs, least=1), finite("stddev", stddev, least=0)
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), (width, outputs)))
        self.bias = nnx.Param(stddev * jax.random.normal(rngs.params(), (outputs,)))

    def _arguments(self) -> dict[str, Any]:
        return dict(zip(("width", "outputs"), self.kernel.shape, strict=True))

    def __call__(self, hidden: Array, at: ArrayLike) -> Array:
        """The output ``(O,)`` of one step of ``(T, N)``. The index ``at`` is checked unless it is traced."""
        if known_values(at) is not None:
            at = integer("at", at, least=-hidden.shape[0], most=hidden.shape[0] - 1)
        return matmul(hidden[jnp.asarray(at)][None], self.kernel[...])[0] + self.bias[...]


class ClockworkRNN(ClockworkParameters):
    """A clockwork layer and a linear readout, CW-RNN in the paper.

    Args:
        clock: the layer's clock.
        inputs: ``I``, the number of inputs; 0 for none.
        outputs: ``O``, the number of outputs.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        method: how the layer is evaluated; see `clockwork.unroll`.
        rngs: the source of the random keys (stream ``params``). The layer's weights are
            ``clockwork.init(rngs.params(), clock, inputs, stddev)``.

    Raises:
        ValueError: if ``inputs``, ``outputs`` or ``stddev`` is out of range.

    Example:
        >>> import clockwork as cw
        >>> from flax import nnx
        >>> network = ClockworkRNN(cw.Clock.exponential(width=40, modules=9), rngs=nnx.Rngs(0))
        >>> network(steps=320).shape, network.num_parameters
        ((320, 1), 980)
    """

    def __init__(
        self,
        clock: Clock,
        inputs: int = 0,
        outputs: int = 1,
        *,
        stddev: float = 0.1,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        check_clock(clock, "ClockworkRNN(clock, inputs, outputs, rngs=rngs)")
        super().__init__(clock, init(rngs.params(), clock, inputs, stddev))
        self.method: Method = method
        self.readout = Readout(clock.width, outputs, stddev=stddev, rngs=rngs)

    def _arguments(self) -> dict[str, Any]:
        given = {"clock": self.clock, **_sizes(self.input, self.readout), "method": self.method}
        return unless_default(given, method="auto")

    @property
    def num_parameters(self) -> int:
        """The number of parameters as Table 1 counts them, the ``G`` periods included."""
        inputs = 0 if self.input is None else self.input.shape[0]
        return self.clock.parameters(inputs, self.readout.bias.shape[0])

    def __call__(
        self, inputs: ArrayLike | None = None, *, steps: int | None = None, at: ArrayLike | None = None
    ) -> Array:
        """Map ``(T, I)``, or ``steps`` without inputs, to ``(T, O)``; with ``at``, to that step's output ``(O,)``.

        Errors are those of `clockwork.unroll`, and ``ValueError`` if ``at`` is outside the sequence and not traced.
        """
        if at is not None:
            return self.readout(unroll(self.weights, self.clock, inputs, steps=steps, method=self.method)[0], at)
        kernel, bias = self.readout.kernel[...], self.readout.bias[...]
        outputs, _ = unroll(self.weights, self.clock, inputs, steps=steps, readout=kernel, method=self.method)
        return outputs + bias[None]


class SimpleRNN(ClockworkRNN):
    """The simple (Elman) recurrent network, SRN in the paper: a clock with one module of period 1.

    Args:
        width: ``N``, the number of hidden units.
        inputs: ``I``, the number of inputs; 0 for none.
        outputs: ``O``, the number of outputs.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        rngs: the source of the random keys (stream ``params``).

    Raises:
        ValueError: if ``width``, ``inputs``, ``outputs`` or ``stddev`` is out of range.

    Example:
        >>> from flax import nnx
        >>> SimpleRNN(31, rngs=nnx.Rngs(0)).num_parameters
        1024
    """

    def __init__(self, width: int, inputs: int = 0, outputs: int = 1, *, stddev: float = 0.1, rngs: nnx.Rngs) -> None:
        super().__init__(Clock(periods=(1,), sizes=(width,)), inputs, outputs, stddev=stddev, rngs=rngs)

    def _arguments(self) -> dict[str, Any]:
        return {"width": self.clock.width, **_sizes(self.input, self.readout)}

    @property
    def num_parameters(self) -> int:
        """The number of weights and biases; its one period is not counted."""
        return super().num_parameters - 1


class PeepholeLSTM(LSTMParameters):
    """A layer of LSTM cells with peepholes and a linear readout, LSTM in the paper.

    Args:
        cells: ``N``, the number of LSTM cells.
        inputs: ``I``, the number of inputs; 0 for none.
        outputs: ``O``, the number of outputs.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        forget_bias: the initial bias of every forget gate; None to draw it like all others.
        rngs: the source of the random keys (stream ``params``). The layer's weights are
            ``lstm_init(rngs.params(), cells, inputs, stddev, forget_bias)``.

    Raises:
        ValueError: if ``cells``, ``inputs``, ``outputs`` or ``stddev`` is out of range.

    Example:
        >>> from flax import nnx
        >>> PeepholeLSTM(15, forget_bias=5.0, rngs=nnx.Rngs(0)).num_parameters
        1021
    """

    def __init__(
        self,
        cells: int,
        inputs: int = 0,
        outputs: int = 1,
        *,
        stddev: float = 0.1,
        forget_bias: float | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(lstm_init(rngs.params(), cells, inputs, stddev, forget_bias))
        self.readout = Readout(cells, outputs, stddev=stddev, rngs=rngs)

    def _arguments(self) -> dict[str, Any]:
        return {"cells": self.recurrent.shape[0], **_sizes(self.input, self.readout)}

    @property
    def num_parameters(self) -> int:
        """The number of weights, peepholes and biases."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self, nnx.Param)))

    def __call__(
        self, inputs: ArrayLike | None = None, *, steps: int | None = None, at: ArrayLike | None = None
    ) -> Array:
        """Map ``(T, I)``, or ``steps`` without inputs, to ``(T, O)``; with ``at``, to that step's output ``(O,)``.

        Errors are those of `lstm_unroll`, and ``ValueError`` if ``at`` is outside the sequence and not traced.
        """
        if at is not None:
            return self.readout(lstm_unroll(self.weights, inputs, steps=steps)[0], at)
        outputs, _ = lstm_unroll(self.weights, inputs, steps=steps, readout=self.readout.kernel[...])
        return outputs + jnp.asarray(self.readout.bias[...])[None]


class ClockworkLSTM(Described, nnx.Module):
    """A clockwork whose modules are layers of peephole LSTM cells, and a linear readout; not in the paper.

    Args:
        clock: the layer's clock; its ``sizes`` are the numbers of LSTM cells of the modules.
        inputs: ``I``, the number of inputs; 0 for none.
        outputs: ``O``, the number of outputs.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        forget_bias: the initial bias of every forget gate; None to draw it like all others.
        rngs: the source of the random keys (stream ``params``).

    Raises:
        ValueError: if ``inputs``, ``outputs`` or ``stddev`` is out of range.

    Example:
        >>> import clockwork as cw
        >>> from flax import nnx
        >>> network = ClockworkLSTM(cw.Clock.even(19, (1, 4, 16, 64, 256)), rngs=nnx.Rngs(0))
        >>> network(steps=320).shape, network.num_parameters
        ((320, 1), 1026)
    """

    def __init__(
        self,
        clock: Clock,
        inputs: int = 0,
        outputs: int = 1,
        *,
        stddev: float = 0.1,
        forget_bias: float | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_clock(clock, "ClockworkLSTM(clock, inputs, outputs, rngs=rngs)")
        cell = functools.partial(PeepholeLSTMCell, stddev=stddev, forget_bias=forget_bias)
        self.layer = Clockwork(clock, inputs, cell=cell, rngs=rngs)
        self.readout = Readout(clock.width, outputs, stddev=stddev, rngs=rngs)

    def _arguments(self) -> dict[str, Any]:
        return {
            "clock": self.layer.clock, "inputs": self.layer.cell.in_features, "outputs": self.readout.bias.shape[0],
        }  # fmt: skip

    @property
    def num_parameters(self) -> int:
        """The number of weights, peepholes, biases and the ``G`` periods, as Table 1 counts a CW-RNN's."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self, nnx.Param))) + self.layer.clock.modules

    def __call__(
        self, inputs: ArrayLike | None = None, *, steps: int | None = None, at: ArrayLike | None = None
    ) -> Array:
        """Map ``(T, I)``, or ``steps`` without inputs, to ``(T, O)``; with ``at``, to that step's output ``(O,)``.

        Errors are those of `Clockwork`, and ``ValueError`` if ``at`` is outside the sequence and not traced.
        """
        if (inputs is None) == (steps is None):
            raise ValueError(f"give either inputs or steps, got {'neither' if inputs is None else 'both'}")
        outputs = self.layer(jnp.zeros((check_steps(steps), 0)) if inputs is None else inputs)
        if at is not None:
            return self.readout(outputs, at)
        return matmul(outputs, self.readout.kernel[...]) + self.readout.bias[...][None]


def _sizes(weights: nnx.Param[Array] | None, readout: Readout) -> dict[str, int]:
    """The arguments ``inputs`` and ``outputs`` of a network."""
    return {"inputs": 0 if weights is None else weights.shape[0], "outputs": readout.bias.shape[0]}

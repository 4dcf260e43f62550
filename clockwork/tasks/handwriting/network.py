"""The networks of the handwriting experiment: a layer in each direction of time, and a linear readout."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from clockwork.checks import chosen, counted
from clockwork.clock import Clock
from clockwork.nn import Bidirectional, Clockwork, PeepholeLSTMCell
from clockwork.nn.networks import Readout
from clockwork.ops.linalg import matmul
from clockwork.tasks.paper import LABELS
from clockwork.training.model import count

MODULES = 9  # the paper's, with periods 1 to 256
# Table 1: hidden units (cells of the LSTM) of each direction by nominal number of parameters.
UNITS = {
    10000: {"srn": 40, "lstm": 25, "cwrnn": 45},
    50000: {"srn": 121, "lstm": 67, "cwrnn": 148},
    100000: {"srn": 185, "lstm": 100, "cwrnn": 231},
}
INPUTS, OUTPUTS = 4, 82  # x, y, t and pen-up; IAM-OnDB's 81 characters and the blank


class Transcriber(nnx.Module):
    """A bidirectional network that scores, at every frame, each character and the blank.

    ``y_t = [h_t, g_t] W_O + b_O``; the hidden values ``h`` are of a layer that runs forwards, ``g`` of one that runs
    backwards and whose clock starts at the last frame of each line.

    Args:
        kind: of the layers: ``"srn"``, ``"lstm"`` (peepholes, no forget bias), ``"cwrnn"`` or ``"cwlstm"``.
        units: ``N``, hidden units or cells of each direction.
        inputs: ``I``, the number of inputs.
        outputs: ``O``, the number of characters, and one for the blank.
        modules: ``G``, the modules of a clockwork, with periods 1, 2, 4, ...; other kinds have one.
        stddev: the standard deviation σ of the initial weights and biases, drawn from N(0, σ²).
        rngs: the source of the random keys, its stream ``params``.

    Raises:
        ValueError: if the kind is unknown or a number out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> network = Transcriber("cwrnn", 45, 4, 82, modules=9, rngs=nnx.Rngs(0))
        >>> network(jnp.ones((2, 20, 4)), jnp.array([20, 7])).shape, network.num_parameters
        ((2, 20, 82), 10180)
    """

    def __init__(
        self,
        kind: str,
        units: int,
        inputs: int,
        outputs: int,
        *,
        modules: int = 1,
        stddev: float = 0.1,
        rngs: nnx.Rngs,
    ) -> None:
        chosen("kind", (kind,), tuple(LABELS))
        clock = Clock.exponential(units, modules if kind.startswith("cw") else 1)
        layers = [_layer(kind, clock, inputs, stddev, rngs) for _ in range(2)]
        self.layer = Bidirectional(*layers, time_major=True)
        self.readout = Readout(2 * units, outputs, stddev=stddev, rngs=rngs)
        self.periods = 2 * modules if kind.startswith("cw") else 0

    @property
    def num_parameters(self) -> int:
        """The number of weights, peepholes and biases, and the periods of both directions' clocks."""
        return count(nnx.state(self, nnx.Param)) + self.periods

    def __call__(self, inputs: Array, lengths: Array) -> Array:
        """Map lines ``(B, T, I)`` of these lengths ``(B,)`` to scores ``(B, T, O)``.

        Scores beyond a line's end mean nothing.
        """
        hidden = jnp.asarray(self.layer(jnp.moveaxis(inputs, 1, 0), seq_lengths=lengths))  # (T, B, 2 N)
        scores = matmul(hidden, self.readout.kernel[...]) + self.readout.bias[...][None, None]
        return jnp.moveaxis(scores, 0, 1)


def _layer(kind: str, clock: Clock, inputs: int, stddev: float, rngs: nnx.Rngs) -> Clockwork[Any]:
    """One direction."""
    if kind.endswith("lstm"):
        cell = functools.partial(PeepholeLSTMCell, stddev=stddev, forget_bias=None)
        return Clockwork(clock, inputs, cell=cell, time_major=True, rngs=rngs)
    draw = nnx.initializers.normal(stddev)
    return Clockwork(
        clock,
        inputs,
        kernel_init=draw,
        recurrent_kernel_init=draw,
        bias_init=draw,
        time_major=True,
        rngs=rngs,
    )


def name_of(kind: str, modules: int) -> str:
    """What conditions call a network: a clockwork ends with its number of modules if that is not the paper's.

    Example:
        >>> name_of("lstm", 3), name_of("cwrnn", 9), name_of("cwrnn", 3)
        ('lstm', 'cwrnn', 'cwrnn3')
    """
    return f"{kind}{modules}" if kind.startswith("cw") and modules != MODULES else kind


def kind_of(name: str) -> tuple[str, int]:
    """The kind and the number of modules of a network.

    Example:
        >>> kind_of("lstm"), kind_of("cwrnn"), kind_of("cwrnn3")
        (('lstm', 1), ('cwrnn', 9), ('cwrnn', 3))
    """
    kind = name.rstrip("0123456789")
    return kind, int(name[len(kind) :] or (MODULES if kind.startswith("cw") else 1))


def label_of(name: str) -> str:
    """What readers are told of a network.

    Example:
        >>> label_of("lstm"), label_of("cwrnn3")
        ('LSTM', 'CW-RNN, 3 modules')
    """
    kind, modules = kind_of(name)
    return f"{LABELS[kind]}, {counted(modules, 'module')}" if kind.startswith("cw") else LABELS[kind]


@functools.cache
def units_of(name: str, size: int) -> int:
    """The units of each direction: those of Table 1, or the number whose parameters come nearest to the paper's model.

    The model of a clockwork of LSTMs is the LSTM, that of a clockwork of another number of modules the CW-RNN.

    Example:
        >>> units_of("cwrnn", 10000), units_of("cwrnn3", 10000), units_of("cwlstm", 10000)
        (45, 43, 30)
    """
    if name in UNITS[size]:
        return UNITS[size][name]
    model = "lstm" if kind_of(name)[0] == "cwlstm" else "cwrnn"
    units = UNITS[size][model]
    target, low, high = _parameters(model, units), units // 2, 2 * units
    while high - low > 1:  # the number of parameters rises with the units
        middle = (low + high) // 2
        low, high = (middle, high) if _parameters(name, middle) <= target else (low, middle)
    return min(low, high, key=lambda units: abs(_parameters(name, units) - target))


def _parameters(name: str, units: int) -> int:
    """`Transcriber.num_parameters`, without a network."""
    kind, modules = kind_of(name)
    clock, one_direction = Clock.exponential(units, modules if kind.startswith("cw") else 1), 0
    for a, k in zip(clock.starts, clock.sizes, strict=True):
        to_a_unit = INPUTS + units - a + 1  # inputs, the module itself, the slower ones, a bias
        one_direction += k * (4 * to_a_unit + 3 if kind.endswith("lstm") else to_a_unit)
    return 2 * one_direction + (2 * units + 1) * OUTPUTS + (2 * modules if kind.startswith("cw") else 0)

"""Sequence generation (Koutník et al. 2014, sec. 4.1): a network without input learns a piece of sound by heart.

Figures 3 and 5 and row 1 of Table 2.
"""

import dataclasses
import functools
import hashlib
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from clockwork.clock import Clock
from clockwork.data.audio import CLIP_NAMES, Clip, clip_name, embedded_clips, read_clip, scale
from clockwork.nn import ClockworkLSTM, ClockworkRNN, Network, PeepholeLSTM, SimpleRNN
from clockwork.tasks.task import Cell

NETWORKS = ("srn", "lstm", "cwrnn")  # the paper's
LABELS = {"srn": "SRN", "lstm": "LSTM", "cwrnn": "CW-RNN", "cwlstm": "CW-LSTM"}

# Table 1: hidden units (cells of the LSTM) by nominal number of parameters. The clockwork of LSTMs is not in it: as
# many cells as come nearest.
UNITS = {
    100: {"srn": 9, "lstm": 4, "cwrnn": 11, "cwlstm": 5},
    250: {"srn": 15, "lstm": 7, "cwrnn": 19, "cwlstm": 8},
    500: {"srn": 22, "lstm": 10, "cwrnn": 27, "cwlstm": 13},
    1000: {"srn": 31, "lstm": 15, "cwrnn": 40, "cwlstm": 19},
}
MODULES = 9  # periods 1 to 256
# Nine modules of LSTM cells alone have more than 100 parameters; these have the same range.
LSTM_PERIODS = (1, 4, 16, 64, 256)
FORGET_BIAS = 5.0
STDDEV = 0.1
MOMENTUM = 0.95

# Table 2, row 1: mean and standard deviation over 100 runs of the largest networks.
PUBLISHED = {"srn": (0.46, 0.08), "lstm": (0.04, 0.01), "cwrnn": (0.007, 0.004)}


class Protocol(NamedTuple):
    """How the networks are trained.

    Attributes:
        learning_rates: by network.
        clip_norm: the gradient of a run is scaled down to this norm where it is longer; None: never.
    """

    learning_rates: dict[str, float]
    clip_norm: float | None


PROTOCOLS = {
    # The published rates. They fit half the sum of squares, not its mean: see the README.
    # The clockwork of LSTMs has the LSTM's.
    "paper": Protocol({"srn": 3e-4, "lstm": 3e-5, "cwrnn": 3e-4, "cwlstm": 3e-5}, clip_norm=None),
    # Found by measurement (README, "The two protocols"): with clipping at 30 every run stays finite at the
    # published rates. The LSTM and the clockwork of LSTMs have the best rate of a grid instead.
    "stable": Protocol({"srn": 3e-4, "lstm": 3e-4, "cwrnn": 3e-4, "cwlstm": 1e-3}, clip_norm=30.0),
}


@dataclasses.dataclass(frozen=True)
class Generation:
    """The sequence generation experiment.

    Every network is trained ``runs`` times on every clip at every size, each run from its own
    random weights: ``len(networks) * len(sizes) * len(clips) * runs`` trained networks, times the
    number of learning rates where several are given.

    Args:
        runs: training runs of each network, size and clip; the paper has 100.
        networks: of ``"srn"``, ``"lstm"``, ``"cwrnn"``, which are the paper's and the default, and ``"cwlstm"``, a
            clockwork whose modules are LSTM cells.
        sizes: nominal numbers of parameters, of 100, 250, 500, 1000 (Table 1).
        clips: names or numbers (from 1) of the embedded clips.
        epochs: updates of each run; one epoch is one sequence.
        protocol: ``"stable"``: no run of any network diverges; ``"paper"``: as published.
        learning_rates: in place of the protocol's, for every network; several make a search.
        clip_norm: in place of the protocol's, ``inf`` for no clipping.
        audio: a sound file to learn in place of the embedded clips.
        audio_start: where in it to begin, in seconds.
        samples: how many samples of it to take.
        seed: run i draws its weights from ``fold_in(key(seed), i)``.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",))
        >>> [cell.name for cell in task.cells()]
        ['cwrnn-100-choir-0.0003']
    """

    runs: int = 10
    networks: tuple[str, ...] = NETWORKS
    sizes: tuple[int, ...] = tuple(UNITS)
    clips: tuple[str | int, ...] = CLIP_NAMES
    epochs: int = 2000
    protocol: str = "stable"
    learning_rates: tuple[float, ...] | None = None
    clip_norm: float | None = None
    audio: str | None = None
    audio_start: float = 0.0
    samples: int = 320
    seed: int = 0

    name = "generation"

    def __post_init__(self) -> None:
        for field in ("networks", "sizes", "clips", "learning_rates"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, tuple(_plain(value) for value in getattr(self, field)))
        for field in ("runs", "epochs", "clip_norm", "audio_start", "samples", "seed"):
            object.__setattr__(self, field, _plain(getattr(self, field)))
        _at_least("runs", self.runs, 1)
        _at_least("epochs", self.epochs, 1)
        _at_least("seed", self.seed, 0)
        _chosen("network", self.networks, tuple(LABELS))
        _chosen("size", self.sizes, tuple(UNITS))
        _chosen("protocol", (self.protocol,), tuple(PROTOCOLS))
        numbered = {str(number): name for number, name in enumerate(CLIP_NAMES, 1)}
        clips = tuple(numbered.get(str(clip), str(clip)) for clip in self.clips)
        _chosen("clip", clips, CLIP_NAMES, hint=" or a number from 1 to 5")
        for rate in self.learning_rates or ():
            if not 0 < rate < math.inf:
                raise ValueError(f"a learning rate must be positive and finite, got {rate}")
        if self.learning_rates is not None:
            _distinct("learning rate", self.learning_rates)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, got {self.clip_norm}")
        object.__setattr__(self, "clips", clips)
        if self.audio is not None:
            object.__setattr__(self, "audio", str(self.audio))
        elif self.audio_start != 0 or self.samples != 320:
            raise ValueError("audio_start and samples cut a clip out of an audio file, and none is given")

    @functools.cached_property
    def sounds(self) -> dict[str, Clip]:
        """The clips to learn, by name.

        Raises:
            ValueError: if the audio file cannot be read as asked, or is constant there.
        """
        if self.audio is None:
            embedded = embedded_clips()
            return {name: embedded[name] for name in map(str, self.clips)}
        clip = read_clip(self.audio, self.audio_start, self.samples)
        scale(clip)
        return {clip.name: clip}

    def cells(self) -> list[Cell]:
        """All cells, in the order of the table."""
        rates = PROTOCOLS[self.protocol].learning_rates
        names = self.clips if self.audio is None else (clip_name(self.audio),)
        return [
            Cell(network, size, str(clip), rate)
            for network in self.networks
            for size in self.sizes
            for rate in self.learning_rates or (rates[network],)
            for clip in names
        ]

    def settings(self) -> dict[str, Any]:
        """All that decides the results: the arguments, the protocol in full, the targets' digest."""
        targets = b"".join(scale(clip).tobytes() for clip in self.sounds.values())
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **arguments,
            "protocol_learning_rates": PROTOCOLS[self.protocol].learning_rates,
            "protocol_clip_norm": PROTOCOLS[self.protocol].clip_norm,
            "loss": "half the sum of squares",
            "optimizer": "SGD with Nesterov momentum (optax.sgd: parameters are at the look-ahead point)",
            "momentum": MOMENTUM,
            "weights": f"all weights and biases from N(0, {STDDEV}^2)",
            "forget_bias": FORGET_BIAS,
            "clock": f"{MODULES} modules, periods 1 to {2 ** (MODULES - 1)}; CW-LSTM: periods {LSTM_PERIODS}",
            "units": {str(size): UNITS[size] for size in self.sizes},
            "targets_sha256": hashlib.sha256(targets).hexdigest(),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Generation":
        """The task whose `settings` these are."""
        known = {field.name for field in dataclasses.fields(cls)}
        arguments: dict[str, Any] = {name: value for name, value in settings.items() if name in known}
        for name, value in arguments.items():
            arguments[name] = tuple(value) if isinstance(value, list) else value
        return cls(**arguments)

    def network(self, name: str, size: int, rngs: nnx.Rngs) -> Network:
        """A network of Table 1, or the clockwork of LSTMs of a like number of parameters, with fresh weights."""
        units = UNITS[size][name]
        if name == "srn":
            return SimpleRNN(units, stddev=STDDEV, rngs=rngs)
        if name == "lstm":
            return PeepholeLSTM(units, stddev=STDDEV, forget_bias=FORGET_BIAS, rngs=rngs)
        if name == "cwlstm":
            clock = Clock.even(units, LSTM_PERIODS)
            return ClockworkLSTM(clock, stddev=STDDEV, forget_bias=FORGET_BIAS, rngs=rngs)
        return ClockworkRNN(Clock.exponential(units, MODULES), stddev=STDDEV, rngs=rngs)

    def data(self, cell: Cell) -> Array:
        """The target of a cell, ``(T,)`` in [-1, 1]."""
        return jnp.asarray(scale(self.sounds[cell.data]))

    def rate(self, cell: Cell) -> int:
        """Samples per second of a cell's target."""
        return self.sounds[cell.data].rate

    @property
    def clips_at(self) -> float | None:
        """The norm that a run's gradient is clipped at: the one given, or the protocol's; None for no clipping."""
        norm = self.clip_norm or PROTOCOLS[self.protocol].clip_norm
        return None if norm is None or math.isinf(norm) else norm

    def optimizer(self, learning_rate: Array) -> optax.GradientTransformation:
        """SGD with Nesterov momentum, with the protocol's gradient clipping before it."""
        descent = optax.sgd(learning_rate, momentum=MOMENTUM, nesterov=True)
        if self.clips_at is None:
            return descent
        return optax.chain(optax.clip_by_global_norm(self.clips_at), descent)

    def outputs(self, network: Network, target: Array) -> Array:
        """The sequence that a network generates, ``(T,)``."""
        return network(steps=target.shape[0])[:, 0]

    def loss(self, network: Network, target: Array) -> tuple[Array, Array]:
        """Half the sum of squared errors, and the NMSE: the mean squared error by the target's variance."""
        squares = jnp.square(self.outputs(network, target) - target)
        return 0.5 * squares.sum(), squares.mean() / target.var()


def _plain(value: Any) -> Any:
    """A NumPy number as Python's, so that it reads the same in files and names."""
    return value.item() if isinstance(value, np.generic) else value


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}")


def _chosen(name: str, chosen: tuple, known: tuple, hint: str = "") -> None:
    if not chosen:
        raise ValueError(f"at least one {name} must be chosen, of {', '.join(map(str, known))}{hint}")
    for one in chosen:
        if one not in known:
            raise ValueError(f"unknown {name} {one!r}; choose of {', '.join(map(str, known))}{hint}")
    _distinct(name, chosen)


def _distinct(name: str, chosen: tuple) -> None:
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"each {name} can be chosen once, got {', '.join(map(str, chosen))}")

"""Sequence generation (Koutník et al. 2014, sec. 4.1): a network without input learns a piece of sound by heart.

Figures 3 and 5 and row 1 of Table 2.
"""

import dataclasses
import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from clockwork.checks import ArgumentError, chosen, float32, listed
from clockwork.data.audio import CLIP_NAMES, Clip, check_span, clip_names, embedded_clips, read_clip, scale
from clockwork.nn import Network
from clockwork.report import Description
from clockwork.tasks.paper import LABELS, Experiment, Protocol
from clockwork.training import Results
from clockwork.training.task import Condition, Loss, Step

# Table 1: hidden units (cells of the LSTM) by nominal number of parameters. The clockwork of LSTMs is not in it: as
# many cells as come nearest.
UNITS = {
    100: {"srn": 9, "lstm": 4, "cwrnn": 11, "cwlstm": 5},
    250: {"srn": 15, "lstm": 7, "cwrnn": 19, "cwlstm": 8},
    500: {"srn": 22, "lstm": 10, "cwrnn": 27, "cwlstm": 13},
    1000: {"srn": 31, "lstm": 15, "cwrnn": 40, "cwlstm": 19},
}


MOMENTUM = 0.95
PROTOCOLS = {
    # The published rates. They fit half the sum of squares, not its mean: see docs/replications/generation.md.
    # The clockwork of LSTMs has the LSTM's.
    "paper": Protocol({"srn": 3e-4, "lstm": 3e-5, "cwrnn": 3e-4, "cwlstm": 3e-5}, MOMENTUM),
    # Found by measurement (docs/replications/generation.md): with clipping at 30 every run stays finite at the
    # published rates. The LSTM and the clockwork of LSTMs have the best rate of a grid instead.
    "stable": Protocol({"srn": 3e-4, "lstm": 3e-4, "cwrnn": 3e-4, "cwlstm": 1e-3}, MOMENTUM, clip_norm=30.0),
}


@dataclasses.dataclass(frozen=True)
class Generation(Experiment):
    """Sequence generation: networks without input learn to reproduce a piece of sound (Koutník et al. 2014, sec. 4.1).

    Every chosen network is trained at every size on every clip, ``runs`` times each and each run from its own random
    weights, at every learning rate where several are given. The figures are the paper's 3 and 5 and learning curves;
    the best outputs are written as sound.

    Args:
        runs: training runs of each network, size and clip; the paper has 100.
        networks: names of the networks: ``"srn"``, ``"lstm"`` and ``"cwrnn"`` are the paper's, ``"cwlstm"`` is a
            clockwork whose modules are LSTM cells.
        sizes: nominal numbers of parameters: any of 100, 250, 500 and 1000 (Table 1).
        epochs: updates of each run.
        learning_rates: learning rates for all networks in place of the protocol's; several make a search.
        seed: seed of all runs, from 0 to 2**32 - 1; run i draws its initial weights from this seed and i alone.
        clips: embedded clips to learn: any of guitar, choir, mika, safari and tabla, or their numbers 1 to 5.
        protocol: how the networks are trained: ``"stable"`` (gradient norm clipped at 30, the LSTM's learning rate
            from a grid search; no run diverges) or ``"paper"`` (as published; some runs diverge).
        clip_norm: gradient norm to clip at in place of the protocol's; ``inf`` turns clipping off.
        audio: sound files to learn in place of the embedded clips, one target each.
        audio_start: where in each sound file the target begins, in seconds.
        samples: number of samples to learn of each sound file.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",))
        >>> [condition.name for condition in task.conditions()]
        ['cwrnn-100-choir-0.0003']
        >>> task = Generation(networks=("cwrnn",), sizes=(100,), audio=("a/kick.wav", "b/kick.wav", "snare.flac"))
        >>> [condition.data for condition in task.conditions()]
        ['kick', 'kick-2', 'snare']
    """

    sizes: tuple[int, ...] = tuple(UNITS)
    clips: tuple[str | int, ...] = CLIP_NAMES
    protocol: str = "stable"
    clip_norm: float | None = None
    audio: tuple[str | Path, ...] | str | Path | None = dataclasses.field(
        default=None, metadata={"files": True, "metavar": "FILE"}
    )
    audio_start: float = dataclasses.field(default=0.0, metadata={"option": "start"})
    samples: int = 320

    name = "generation"
    title = "Sequence generation"
    columns = ("clip", "nmse")
    units = UNITS
    published = {"srn": (0.46, 0.08), "lstm": (0.04, 0.01), "cwrnn": (0.007, 0.004)}  # noqa: RUF012
    inputs = 0
    outputs_width = 1
    paper_outputs = 1
    paper_modules = 9  # periods 1 to 256
    # Nine modules of LSTM cells alone have more than 100 parameters; these have the same range.
    lstm_periods = (1, 4, 16, 64, 256)
    recorded = {  # noqa: RUF012
        "outputs": ("f", "K T"),
        "curve": ("f", "P R"),
        "data/target": ("f", "T"),
        "data/rate": ("iu", ""),
        "data/file": ("U", ""),
        "data/start": ("f", ""),
        "data/embedded": ("b", ""),
        "data/paper_data": ("b", ""),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen("protocol", (self.protocol,), tuple(PROTOCOLS))
        numbered = {str(number): name for number, name in enumerate(CLIP_NAMES, 1)}
        clips = tuple(numbered.get(str(clip), str(clip)) for clip in self.clips)
        chosen("clip", clips, CLIP_NAMES, hint=" or a number from 1 to 5")
        if self.clip_norm is not None and self.clip_norm != math.inf:
            float32("clip_norm", self.clip_norm)
        object.__setattr__(self, "clips", clips)
        if self.audio is None:
            for name, value, default in (("audio_start", self.audio_start, 0), ("samples", self.samples, 320)):
                if value != default:
                    raise ArgumentError(name, f"cuts a clip out of an audio file, and none is given; got {value}")
            return
        if clips != CLIP_NAMES:
            raise ArgumentError(
                "clips", f"chooses embedded clips, and audio files take their place; got {listed(clips)}"
            )
        start, samples = check_span(self.audio_start, self.samples, "audio_start")
        files = (self.audio,) if isinstance(self.audio, (str, Path)) else self.audio
        if not files:
            raise ArgumentError("audio", "must name at least one file, got none")
        for name, value in (("audio", tuple(map(str, files))), ("audio_start", start), ("samples", samples)):
            object.__setattr__(self, name, value)
        clip_names(self.files)

    @property
    def files(self) -> tuple[str, ...]:
        """The sound files to learn; none where the clips are embedded."""
        return self.audio or ()  # pyright: ignore[reportReturnType]

    @functools.cached_property
    def sounds(self) -> dict[str, Clip]:
        """The clips to learn, by name.

        Raises:
            ValueError: if an audio file cannot be read as asked, or is constant there.
        """
        if not self.files:
            embedded = embedded_clips()
            return {name: embedded[name] for name in map(str, self.clips)}
        sounds = {}
        for name, file in zip(self.pieces(), self.files, strict=True):
            sounds[name] = read_clip(file, self.audio_start, self.samples)._replace(name=name)
            try:
                scale(sounds[name])
            except ValueError as error:
                raise ValueError(f"audio file {file} cannot be learnt: {error}") from None
        return sounds

    @property
    def training(self) -> Protocol:
        """The protocol, with the clipping that was asked for in place of its own."""
        protocol = PROTOCOLS[self.protocol]
        norm = self.clip_norm or protocol.clip_norm
        return protocol._replace(clip_norm=None if norm is None or math.isinf(norm) else norm)

    def pieces(self) -> tuple[str, ...]:
        """The clips' names."""
        return clip_names(self.files) or tuple(map(str, self.clips))

    def group(self, condition: Condition) -> tuple[str, ...]:
        """All clips and rates of a network and size side by side."""
        return condition.network, str(condition.size)

    def settings(self) -> dict[str, Any]:
        """All that decides the results: what is learnt, the arguments, the protocol in full, the targets' digest."""
        targets = b"".join(scale(clip).tobytes() for clip in self.sounds.values())
        settings = {
            "data": self.subject(),
            **super().settings(),
            "protocol_learning_rates": PROTOCOLS[self.protocol].learning_rates,
            "protocol_clip_norm": PROTOCOLS[self.protocol].clip_norm,
            "loss": "half the sum of squares",
            "targets_sha256": hashlib.sha256(targets).hexdigest(),
        }
        if self.files:
            del settings["clips"]
            settings["sounds"] = [
                {"name": c.name, "file": c.file, "start": c.start, "rate": c.rate, "samples": len(c.samples)}
                for c in self.sounds.values()
            ]
        return settings

    def subject(self) -> str:
        """What is learnt, in a few words.

        Example:
            >>> Generation(clips=("choir", 1)).subject()
            'the embedded clips choir, guitar'
        """
        if not self.files:
            return f"the embedded clips {', '.join(map(str, self.clips))}"
        rates = sorted({clip.rate for clip in self.sounds.values()})
        files = listed(clip.file for clip in self.sounds.values())
        return f"{files} ({self.samples} samples from {self.audio_start:g} s at {listed(rates)} Hz)"

    def report(self, results: Results) -> Description:
        """What a report says and draws of the results."""
        from clockwork.tasks.generation.report import description  # which itself imports this class

        return description(self, results)

    def data(self, condition: Condition) -> Array:
        """The target of a condition, ``(T,)`` in [-1, 1]."""
        return jnp.asarray(scale(self.sounds[condition.data]))

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """The target, ``(T,)``, its samples per second, and whence it is.

        ``file`` is empty for an embedded clip, ``start`` in seconds; ``embedded`` tells whether it is one, and
        ``paper_data`` whether the paper's figures may stand beside it.
        """
        clip = self.sounds[condition.data]
        return {
            "target": scale(clip),
            "rate": np.asarray(clip.rate),
            "file": np.asarray(clip.file),
            "start": np.asarray(clip.start),
            "embedded": np.asarray(not clip.file),
            "paper_data": np.asarray(not clip.file),
        }

    def loss(self, model: Network, data: Array, step: Step) -> Loss:
        """Half the sum of squared errors, and the NMSE: the mean squared error by the target's variance."""
        del step
        squares = jnp.square(self.generated(model, data) - data)
        return Loss(0.5 * squares.sum(), squares.mean() / data.var())

    def result(self, model: Network, data: Array) -> tuple[Array, Array]:
        """The NMSE, and the sequence that the network generates, ``(T,)``."""
        output = self.generated(model, data)
        return jnp.square(output - data).mean() / data.var(), output

    def generated(self, network: Network, target: Array) -> Array:
        """The sequence that a network generates, ``(T,)``."""
        return network(steps=target.shape[0])[:, 0]

    @classmethod
    def info(cls) -> str:
        """Table 1, and the protocols."""
        lines = [super().info(), "", "Protocols: learning rates; gradient clipping"]
        for name, protocol in PROTOCOLS.items():
            rates = ", ".join(f"{LABELS[network]} {rate:g}" for network, rate in protocol.learning_rates.items())
            norm = "none" if protocol.clip_norm is None else f"norm {protocol.clip_norm:g}"
            lines.append(f"{name:<7} {rates}; {norm}")
        return "\n".join(lines)

"""Polyphonic music prediction (Pascanu et al. 2013, sec. 5.1)."""

import dataclasses
import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from clockwork.checks import integer
from clockwork.data.piano_rolls import KEYS, PianoRolls, embedded_pieces, read_piano_rolls
from clockwork.nn import SequenceNetwork
from clockwork.report import Description
from clockwork.tasks.pascanu import Data, Prediction, Preset, Sizes, continued, one_zero
from clockwork.tasks.windows import Windows, windows_of
from clockwork.training import Results
from clockwork.training.task import Condition

# What the authors' code does not tell is ours: batch, momentum and rates; see docs/replications/music.md.
PRESETS = {
    "stable": Preset(adam=True, rate=0.001, lstm_rate=0.01, momentum=0.0, clip_norm=1.0, batch=4, window=64),
    "paper": Preset(
        adam=False, rate=0.1, lstm_rate=0.1, momentum=0.9, clip_norm=1.0, batch=4, window=64, decay_start=10, decay=10
    ),
}
# The sets of Boulanger-Lewandowski et al. (2012), by the pieces and steps of their training sets.
KNOWN = {
    (229, 13_807): "JSB Chorales",
    (694, 176_561): "Nottingham",
    (524, 245_202): "MuseData",
    (87, 75_911): "Piano-midi.de",
}
DEEP = {"dts": Sizes(400, 400), "dots": Sizes(400, 400, 400)}
TABLE_1 = {
    "JSB Chorales": {"rnn": Sizes(200), **DEEP, "srnn": Sizes(400)},
    "Nottingham": {"rnn": Sizes(600), **DEEP, "srnn": Sizes(400)},
    "MuseData": {"rnn": Sizes(600), **DEEP, "srnn": Sizes(600)},
}
PROMPT, CONTINUED = 32, 64  # steps of the test piece that the networks continue, and of the continuation


@dataclasses.dataclass(frozen=True)
class Music(Prediction):
    """Polyphonic music: deep recurrent networks predict which of 88 keys sound next (Pascanu et al. 2013, sec. 5.1).

    Every chosen network is trained at every size, ``runs`` times each. The error is the negative log-likelihood of a
    step, summed over the keys and averaged over all predicted steps of the test set. The best network of each kind
    continues a test piece; the continuations are written as MIDI and as sound. Without ``data_folder`` the pieces are
    embedded: a program has composed them. The defaults make a quick experiment.

    Args:
        data_folder: pieces to learn in place of the embedded ones: a set of Boulanger-Lewandowski et al. (2012) as
            .mat or .pickle, JSON of lists of MIDI numbers, or a folder of MIDI files.
        steps_per_beat: steps of a quarter note into which MIDI files are cut.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        >>> task = Music(networks=("rnn", "dts"), sizes=(20_000,))
        >>> [condition.name for condition in task.conditions()], task.units_of("dts", 20_000)
        (['rnn-20000-0.001', 'dts-20000-0.001'], 49)
    """

    data_folder: str | None = dataclasses.field(default=None, metadata={"option": "data", "metavar": "PATH"})
    steps_per_beat: int = 4

    name = "music"
    title = "Polyphonic music"
    columns = ("data", "nll")
    presets = PRESETS
    recorded = {  # noqa: RUF012
        "outputs/probabilities": ("f", "K S 88"),
        "outputs/continuation": ("iu", "K C 88"),
        "outputs/per_piece": ("f", "K"),
        "curve": ("f", "P R"),
        "data/example": ("iu", "T 88"),
        "data/counts": ("iu", "3 2"),
        "data/set": ("U", ""),
        "data/silence": ("f", ""),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("steps_per_beat", self.steps_per_beat, least=1)
        if self.paper_sizes and not self.table_1:
            known = ", ".join(TABLE_1)
            raise ValueError(f"paper_sizes are there for {known}, got {self.set_name}; give sizes instead")

    @functools.cached_property
    def rolls(self) -> PianoRolls:
        """All pieces.

        Raises:
            ValueError: if they cannot be read, or no piece of a part has two steps.
        """
        if self.data_folder is None:
            return embedded_pieces()
        rolls = read_piano_rolls(self.data_folder, steps_per_beat=self.steps_per_beat)
        for part in ("train", "valid", "test"):
            if all(len(piece) < 2 for piece in getattr(rolls, part)):
                raise ValueError(f"{rolls.name} must have a piece of at least 2 steps for {part}")
        return rolls

    @property
    def set_name(self) -> str:
        """The name of the set, by its counts if it is one of Boulanger-Lewandowski's."""
        train = self.rolls.train
        return KNOWN.get((len(train), sum(map(len, train))), self.rolls.name)

    @property
    def features(self) -> int:
        """The keys of a piano."""
        return KEYS

    @property
    def table_1(self) -> dict[str, Sizes]:
        """The sizes of the paper's Table 1 for this set, by network; empty for other sets."""
        return TABLE_1.get(self.set_name, {})

    @functools.cached_property
    def windows(self) -> tuple[Windows, Windows, Windows]:
        """The windows of the three sets."""
        batch, length = self.preset.batch, self.preset.window
        train, valid, test = (windows_of(part, batch, length) for part in self.rolls[1:])
        return train, valid, test

    @classmethod
    def info(cls) -> str:
        """What ``clockwork info`` prints of the experiment."""
        return cls.sizes_text(TABLE_1, dict.fromkeys(TABLE_1, KEYS))

    @functools.cached_property
    def example(self) -> np.ndarray:
        """The test piece that is shown and continued: the first that is long enough, cut to 128 steps."""
        pieces = [piece for piece in self.rolls.test if len(piece) >= PROMPT] or [max(self.rolls.test, key=len)]
        return pieces[0][:128]

    def settings(self) -> dict[str, Any]:
        """All that decides the results: the arguments, and a digest of all pieces."""
        digest = hashlib.sha256()
        for part in self.rolls[1:]:
            for piece in part:
                digest.update(len(piece).to_bytes(8, "big") + piece.tobytes())
        return {"data": self.subject(), **super().settings(), "pieces_sha256": digest.hexdigest()}

    def subject(self) -> str:
        """What is learnt, in a few words."""
        sizes = [f"{len(part)} pieces of {sum(map(len, part)):,} steps" for part in self.rolls[1:]]
        return f"{self.set_name} ({sizes[0]} for training, {sizes[1]} for validation, {sizes[2]} for test)"

    def report(self, results: Results) -> Description:
        """What a report says and draws of the results."""
        from clockwork.tasks.music.report import description  # which itself imports this class

        return description(self, results)

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """What the report needs to know of the pieces."""
        del condition
        counts = np.array([[len(part), sum(map(len, part))] for part in self.rolls[1:]], np.int64)
        # The error of one who always gives each key the share of steps in which it sounds.
        share = np.clip(np.concatenate(self.rolls.train).mean(0), 1e-6, 1 - 1e-6)
        test = np.concatenate([piece[1:] for piece in self.rolls.test])
        constant = -(test * np.log(share) + (1 - test) * np.log(1 - share)).sum(1).mean()
        return {
            "example": self.example,
            "counts": counts,
            "set": np.asarray(self.set_name),
            "silence": np.asarray(constant, np.float32),
        }

    def encode(self, rows: Array) -> Array:
        """The inputs ``(B, L, 88)``, 0 and 1."""
        return rows.astype(jnp.float32)

    def losses(self, scores: Array, targets: Array) -> Array:
        """``-log p`` of the keys of each step, ``(B, L)``, in nats, summed over the keys."""
        return optax.sigmoid_binary_cross_entropy(scores, targets.astype(scores.dtype)).sum(-1)

    def result(self, model: SequenceNetwork, data: Data) -> tuple[Array, dict[str, Array]]:
        """The negative log-likelihood of a step of the test set, and what the network predicts and composes.

        Returns:
            The error; ``probabilities``, ``(T, 88)``, float16, of the example's keys in each step but the first;
            ``continuation``, ``(C, 88)``, uint8, drawn after the first steps of the example; and ``per_piece``, ``()``,
            the mean over pieces of their mean negative log-likelihood.
        """
        sums, counts = self.likelihood(model, data.test, data.zero[2])
        known = counts > 0
        per_piece = jnp.where(known, sums / jnp.maximum(counts, 1), 0).sum() / known.sum().astype(sums.dtype)
        example = jnp.asarray(data.example)[None]
        _, scores = self.run(model, one_zero(data), example)
        carry, after = self.run(model, one_zero(data), example[:, :PROMPT])
        outputs = {
            "probabilities": jax.nn.sigmoid(scores[0, :-1]).astype(jnp.float16),
            "continuation": continued(model, carry, after[:, -1], CONTINUED, jax.random.key(0), _drawn)[0],
            "per_piece": per_piece,
        }
        return sums.sum() / counts.sum(), outputs


def _drawn(key: Array, scores: Array) -> tuple[Array, Array]:
    """The keys of a step ``(B, 88)``, each drawn by its probability: as they are stored, and as inputs."""
    keys = jax.random.bernoulli(key, jax.nn.sigmoid(scores))
    return keys.astype(jnp.uint8), keys.astype(jnp.float32)

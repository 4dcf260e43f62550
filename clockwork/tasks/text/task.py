"""Language modelling of characters and words (Pascanu et al. 2013, sec. 5.2)."""

import dataclasses
import functools
import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from clockwork.checks import chosen, float32
from clockwork.data.texts import EMBEDDED_NAME, UNITS, Text, embedded_text, read_text
from clockwork.nn import SequenceNetwork
from clockwork.report import Description
from clockwork.tasks.pascanu import Data, Prediction, Preset, Sizes, continued, one_zero
from clockwork.tasks.windows import Windows, cut, fresh_or, windows_of_text
from clockwork.training import Results
from clockwork.training.task import Condition

# What the authors' code does not tell is ours: the number of columns, momentum and rates.
PRESETS = {
    "stable": Preset(
        adam=True, rate=0.004, lstm_rate=0.01, momentum=0.0, clip_norm=1.0, batch=16, window=64, output_bias=-0.5,
    ),
    "paper": Preset(
        adam=False, rate=0.5, lstm_rate=0.5, momentum=0.9, clip_norm=1.0, batch=16, window=64, weight_noise=0.075,
        decay_start=5, decay=5, output_bias=-0.5,
    ),
}  # fmt: skip
COUNTS = (5_017_482, 929_589)  # characters and words of the Penn Treebank's training part
TABLE_1 = {
    "characters": {
        "rnn": Sizes(600), "dts": Sizes(400, 400), "dots": Sizes(400, 400, 600), "srnn": Sizes(400),
    },
    "words": {"rnn": Sizes(200), "dts": Sizes(200, 200), "dots": Sizes(200, 200, 200), "srnn": Sizes(400)},
}  # fmt: skip
PROMPT, WRITTEN = 200, 300  # symbols of the test part that the networks continue, and of what they write
TEMPERATURE = 0.8


@dataclasses.dataclass(frozen=True)
class TextPrediction(Prediction):
    """Language modelling: deep recurrent networks predict the next character or word (Pascanu et al. 2013, sec. 5.2).

    Every chosen network is trained at every size, ``runs`` times each. The error is in bits per character, or the
    perplexity per word, over the whole test part. The best network of each kind continues the test part. Without
    ``data_folder`` the text is embedded: the first chapters of Moby-Dick. The defaults make a quick experiment.

    Args:
        data_folder: text to learn in place of the embedded one: a text file, which is divided by position, or a folder
            with ptb.train.txt, ptb.valid.txt and ptb.test.txt.
        unit: what is predicted: ``"characters"`` or ``"words"``.
        vocabulary: number of different words that are kept (at most 2000 of the embedded text); others are one symbol.
        dynamic_rate: learning rate of dynamic evaluation, in which the network goes on learning from each window of the
            test part once it is tested on it; 0 for none.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        >>> task = TextPrediction(networks=("rnn", "dts"), sizes=(20_000,))
        >>> [condition.name for condition in task.conditions()], task.units_of("dts", 20_000)
        (['rnn-20000-0.004', 'dts-20000-0.004'], 53)
    """

    runs: int = 2
    epochs: int = 15
    data_folder: str | None = dataclasses.field(default=None, metadata={"option": "data", "metavar": "PATH"})
    unit: str = "characters"
    vocabulary: int = 10_000
    dynamic_rate: float = 0.0
    stop_after: int = 3

    name = "text"
    title = "Language modelling"
    columns = ("data", "error")
    actions = ("generate",)
    presets = PRESETS
    recorded = {  # noqa: RUF012
        "outputs/written": ("iu", "K C"),
        "outputs/dynamic": ("f", "K"),
        "curve": ("f", "P R"),
        "data/prompt": ("U", ""),
        "data/symbols": ("U", "V"),
        "data/counts": ("iu", "3"),
        "data/set": ("U", ""),
        "data/unigram": ("f", ""),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen("unit", (self.unit,), UNITS)
        if self.dynamic_rate:
            float32("dynamic_rate", self.dynamic_rate)
        if self.paper_sizes and not self.table_1:
            raise ValueError(f"paper_sizes are there for the Penn Treebank, got {self.set_name}; give sizes instead")

    @functools.cached_property
    def text(self) -> Text:
        """The text.

        Raises:
            ValueError: if it cannot be read.
        """
        if self.data_folder is None:
            return embedded_text(self.unit, vocabulary=min(self.vocabulary, 2_000))
        return read_text(self.data_folder, self.unit, vocabulary=self.vocabulary)

    @property
    def set_name(self) -> str:
        """The name of the text; Mikolov's Penn Treebank is known by its counts."""
        return "Penn Treebank" if len(self.text.train) in COUNTS else self.text.name

    @property
    def features(self) -> int:
        """The number of symbols."""
        return len(self.text.symbols)

    @property
    def table_1(self) -> dict[str, Sizes]:
        """The sizes of the paper's Table 1 for the Penn Treebank, by network; empty for other texts."""
        return TABLE_1[self.unit] if self.set_name == "Penn Treebank" else {}

    @functools.cached_property
    def windows(self) -> tuple[Windows, Windows, Windows]:
        """The windows of the three parts."""
        batch, length = self.preset.batch, self.preset.window
        text = self.text
        train, valid, test = (windows_of_text(part, batch, length) for part in (text.train, text.valid, text.test))
        return train, valid, test

    @classmethod
    def info(cls) -> str:
        """What ``clockwork info`` prints of the experiment."""
        return cls.sizes_text(TABLE_1, {"characters": 50, "words": 10_000})

    @functools.cached_property
    def example(self) -> np.ndarray:
        """The beginning of the test part, which the networks continue."""
        return self.text.test[: PROMPT if self.unit == "characters" else PROMPT // 5]

    def settings(self) -> dict[str, Any]:
        """All that decides the results: the arguments, and a digest of the text."""
        digest = hashlib.sha256("\0".join(self.text.symbols).encode())
        for part in (self.text.train, self.text.valid, self.text.test):
            digest.update(part.tobytes())
        return {"data": self.subject(), **super().settings(), "text_sha256": digest.hexdigest()}

    def subject(self) -> str:
        """What is learnt, in a few words.

        Example:
            >>> TextPrediction().subject().split(" for training")[0]
            'Moby-Dick, chapters 1 to 22 (194,844 characters'
        """
        text = self.text
        return (
            f"{self.set_name} ({len(text.train):,} {self.unit} for training, {len(text.valid):,} for validation, "
            f"{len(text.test):,} for test; {len(text.symbols):,} different)"
        )

    def report(self, results: Results) -> Description:
        """What a report says and draws of the results."""
        from clockwork.tasks.text.report import description  # which itself imports this class

        return description(self, results)

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """What the report needs to know of the text."""
        del condition
        text = self.text
        counts = np.bincount(text.train, minlength=len(text.symbols)) + 1.0
        unigram = -np.log(counts / counts.sum())[text.test].mean()
        return {
            "prompt": np.asarray(text.decode(self.example)),
            "symbols": np.asarray(text.symbols),
            "counts": np.array([len(part) for part in (text.train, text.valid, text.test)], np.int64),
            "set": np.asarray("Moby-Dick" if text.name == EMBEDDED_NAME else self.set_name),
            "unigram": np.asarray(self.figure(jnp.float32(unigram))),
        }

    def encode(self, rows: Array) -> Array:
        """The inputs ``(B, L, d)``: 1 for the symbol, 0 for all others."""
        return jax.nn.one_hot(rows, self.features)

    def losses(self, scores: Array, targets: Array) -> Array:
        """``-log p`` of each symbol, ``(B, L)``, in nats."""
        return optax.softmax_cross_entropy_with_integer_labels(scores, targets)

    def draw(self, temperature: float, key: Array, scores: Array) -> tuple[Array, Array]:
        """A symbol for each sequence ``(B,)``, int32, and the inputs ``(B, d)`` that say so; the likeliest at 0."""
        drawn = jax.random.categorical(key, scores / temperature) if temperature else jnp.argmax(scores, -1)
        return drawn.astype(jnp.int32), self.encode(drawn)

    def figure(self, nats: Array) -> Array:
        """Bits per character, or perplexity per word."""
        return nats / math.log(2) if self.unit == "characters" else jnp.exp(nats)

    def result(self, model: SequenceNetwork, data: Data) -> tuple[Array, dict[str, Array]]:
        """The error on the test part, and what the network writes.

        Returns:
            The error; ``written``, ``(C,)``, int32, the symbols drawn after the prompt; and ``dynamic``, ``()``, the
            error of dynamic evaluation, NaN if it is not asked for.
        """
        sums, counts = self.likelihood(model, data.test, data.zero[2])
        carry, scores = self.run(model, one_zero(data), jnp.asarray(data.example)[None])
        draw = functools.partial(self.draw, TEMPERATURE)
        written = continued(model, carry, scores[:, -1], WRITTEN, jax.random.key(0), draw)
        dynamic = self.dynamic(model, data) if self.dynamic_rate else jnp.full((), jnp.nan)
        return self.figure(sums.sum() / counts.sum()), {"written": written[0], "dynamic": dynamic}

    def dynamic(self, model: SequenceNetwork, data: Data) -> Array:
        """The error of dynamic evaluation: each window is tested, then learnt by a step of SGD."""
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        windows, zero = data.test, jax.tree.map(jnp.asarray, data.zero[2])

        def update(state: tuple[Any, Any, Array, Array], number: Array) -> tuple[tuple[Any, Any, Array, Array], None]:
            params, carry, total, count = state
            x, y, there = cut(windows, number, self.preset.window)
            carry = fresh_or(jnp.asarray(windows.fresh)[number], zero, carry)

            def loss(params: Any) -> tuple[Array, tuple[Any, Array]]:
                after, scores = self.run(nnx.merge(graph, params, rest), carry, x)
                nats = jnp.where(there, self.losses(scores, y), 0).sum()
                return nats / jnp.maximum(there.sum(), 1).astype(nats.dtype), (after, nats)

            gradient, (carry, nats) = jax.grad(loss, has_aux=True)(params)
            scale = self.dynamic_rate * jnp.minimum(1, self.preset.clip_norm / optax.tree.norm(gradient))
            params = jax.tree.map(lambda p, g: p - scale * g, params, gradient)
            return (params, carry, total + nats, count + there.sum().astype(total.dtype)), None

        start = (params, zero, jnp.zeros(()), jnp.zeros(()))
        numbers = jnp.arange(windows.fresh.shape[0], dtype=jnp.int32)
        (_, _, total, count), _ = lax.scan(update, start, numbers)
        return self.figure(total / count)

    @staticmethod
    def generate(results: Results, prompts: tuple[str, ...]) -> str:
        """The network in the results folder with the lowest validation error continues each of these texts.

        Args:
            results: of a sweep of this task.
            prompts: beginnings of texts.

        Raises:
            ValueError: if there is no trained network, or a prompt has a symbol that the network does not know.
        """
        from clockwork.tasks.text.generate import generate

        return "\n\n".join(f"{prompt}{generate(results, prompt)}" for prompt in prompts)

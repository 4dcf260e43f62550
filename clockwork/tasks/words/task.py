"""Spoken word classification (Koutník et al. 2014, sec. 4.2): which of 25 words was said.

Figure 4 and row 2 of Table 2.
"""

import dataclasses
import functools
import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.checks import ArgumentError, chosen, distinct, finite, float32, integer, listed
from clockwork.data.words import Corpus, Split, embedded_words, read_words, split
from clockwork.nn import Network
from clockwork.report import Description
from clockwork.tasks.paper import LABELS, Experiment, Protocol
from clockwork.tasks.words.data import Data, data_of, limits_of, record_of
from clockwork.training import Results
from clockwork.training.task import Condition, Loss, Step

# Table 1: hidden units (cells of the LSTM) by nominal number of parameters. The clockwork of LSTMs is not in it: as
# many cells as come nearest.
UNITS = {
    500: {"srn": 10, "lstm": 5, "cwrnn": 10, "cwlstm": 5},
    1000: {"srn": 18, "lstm": 8, "cwrnn": 19, "cwlstm": 9},
    2500: {"srn": 34, "lstm": 17, "cwrnn": 40, "cwlstm": 19},
    5000: {"srn": 54, "lstm": 26, "cwrnn": 65, "cwlstm": 31},
    10000: {"srn": 84, "lstm": 41, "cwrnn": 102, "cwlstm": 49},
}
PROTOCOL = Protocol(dict.fromkeys(LABELS, 3e-4), momentum=0.9)
ORDER = 0x72646572  # folded into the key that the orders of the sequences are drawn from


@dataclasses.dataclass(frozen=True)
class Words(Experiment):
    """Spoken words: networks learn to tell words apart (Koutník et al. 2014, sec. 4.2).

    Every chosen network is trained at every size on every split, ``runs`` times each. The figures are the paper's 4,
    learning curves and confusion matrices. Without ``data_folder`` the words are embedded, and synthetic. The defaults
    make a quick experiment; the paper has 100 runs of the sizes 500, 1000, 2500, 5000 and 10000.

    All runs see the sequences in one order, drawn anew for each epoch: runs side by side then have sequences of one
    length at a time, and no time is spent on padding.

    Args:
        runs: training runs of each network, size and split; the paper has 100.
        networks: names of the networks: ``"srn"``, ``"lstm"`` and ``"cwrnn"`` are the paper's, ``"cwlstm"`` is a
            clockwork whose modules are LSTM cells.
        sizes: nominal numbers of parameters: any of 500, 1000, 2500, 5000 and 10000 (Table 1).
        epochs: passes over the training set, at most.
        learning_rates: learning rates for all networks in place of the paper's 3e-4; several make a search.
        seed: seed of all runs, from 0 to 2**32 - 1; run i draws its initial weights and its input noise from this seed
            and i alone.
        data_folder: recordings to learn in place of the embedded words: the folder of TIMIT, a folder with a folder for
            each speaker (SPEAKER/WORD.wav; takes are SPEAKER/WORD_2.wav or SPEAKER/WORD/2.wav), or a table words.csv
            with the columns file, word, speaker.
        word_list: words to tell apart; by default the paper's 25 of TIMIT, and all words of other recordings.
        per_word: speakers of each word to use; by default 7 of TIMIT, as in the paper, and all of other recordings.
        test_per_word: speakers of each word to keep for the test.
        splits: numbers of the splits into training and test speakers; each split is drawn from its number.
        batch: sequences in an update.
        noise: standard deviation of the noise on the normalised inputs in training.
        loss_at: frames whose outputs are trained and give the answer: ``"last"``, or ``"every"`` for the mean over all.
        stop_on: training-set quantity watched for early stopping: ``"loss"`` or ``"error"``.
        stop_after: stop a run after this many epochs without improvement of ``stop_on``.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        >>> task = Words(runs=2, networks=("cwrnn",), sizes=(500,))
        >>> [condition.name for condition in task.conditions()], task.updates
        (['cwrnn-500-split0-0.0003'], 125)
    """

    runs: int = 5
    sizes: tuple[int, ...] = (1000, 10000)
    epochs: int = 300
    data_folder: str | None = dataclasses.field(default=None, metadata={"option": "data", "metavar": "PATH"})
    word_list: tuple[str, ...] | None = None
    per_word: int | None = None
    test_per_word: int = 2
    splits: tuple[int, ...] = (0,)
    batch: int = 1
    noise: float = 0.6
    loss_at: str = "last"
    stop_on: str = "loss"
    stop_after: int = 5

    name = "words"
    title = "Spoken words"
    actions = ("classify",)
    columns = ("split", "test_error")
    units = UNITS
    published = {"srn": (0.668, 0.047), "lstm": (0.342, 0.056), "cwrnn": (0.168, 0.035)}  # noqa: RUF012
    inputs = 13
    paper_outputs = 25
    paper_modules = 7  # periods 1 to 64
    lstm_periods = (1, 4, 16, 64)
    recorded = {  # noqa: RUF012
        "outputs": ("f", "K M O"),
        "curve": ("f", "P R 4"),
        "data/labels": ("iu", "M", "O"),
        "data/speakers": ("U", "M"),
        "data/sources": ("U", "M"),
        "data/train_labels": ("iu", "L", "O"),
        "data/train_speakers": ("U", "L"),
        "data/longest": ("iu", ""),
        "data/corpus": ("U", ""),
        "data/origin": ("U", ""),
        "data/embedded": ("b", ""),
        "data/paper_data": ("b", ""),
        "data/words": ("U", "O"),
        "data/notes": ("Uf", "..."),  # none are an empty array of floats
        "data/mean": ("f", "13"),
        "data/scale": ("f", "13"),
        "data/rate": ("iu", ""),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.splits:
            raise ValueError("at least one split must be chosen, got none")
        for number in self.splits:
            integer("a split's number", number, least=0)
        distinct("split", self.splits)
        integer("batch", self.batch, least=1)
        integer("test_per_word", self.test_per_word, least=1)
        integer("stop_after", self.stop_after, least=1)
        if finite("noise", self.noise, least=0):
            float32("noise", self.noise)
        chosen("loss_at", (self.loss_at,), ("last", "every"))
        chosen("stop_on", (self.stop_on,), ("loss", "error"))
        for name, value, what in (("word_list", self.word_list, "words"), ("per_word", self.per_word, "speakers")):
            if value is not None and self.data_folder is None:
                raise ArgumentError(name, f"chooses {what} of recordings, and none are given by data_folder (--data)")
        if self.word_list is not None:
            distinct("word", self.word_list)
        if self.per_word is not None:
            integer("per_word", self.per_word, least=2)

    @functools.cached_property
    def corpus(self) -> Corpus:
        """All sequences.

        Raises:
            ValueError: if the folder cannot be read as recordings of words.
        """
        if self.data_folder is None:
            return embedded_words()
        corpus = read_words(self.data_folder, self.word_list, self.per_word)
        if len(corpus.words) < 2:
            alone = f"{corpus.name} has one word, {', '.join(corpus.words)}: there is nothing to tell apart"
            raise ValueError("; ".join([alone, *corpus.notes]))
        return corpus

    @functools.cached_property
    def sides(self) -> dict[str, Split]:
        """The splits by the names of their pieces of data.

        Raises:
            ValueError: if a word has too few speakers, or the splits differ in size.
        """
        numbers = zip(self.pieces(), self.splits, strict=True)
        try:
            sides = {name: split(self.corpus, number, self.test_per_word) for name, number in numbers}
        except ValueError as error:
            raise ValueError("; ".join([str(error), *self.corpus.notes])) from None
        sizes = {(len(side.train), len(side.test)) for side in sides.values()}
        if len(sizes) > 1:
            raise ValueError(
                f"splits must have one size to be trained together, got {listed(sorted(sizes))}: take one at a time"
            )
        return sides

    @property
    def outputs_width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of words."""
        return len(self.corpus.words)

    @property
    def updates(self) -> int:
        """Of an epoch."""
        return math.ceil(len(next(iter(self.sides.values())).train) / self.batch)

    @property
    def patience(self) -> int:
        """Epochs without a lower watched error after which a run stops."""
        return self.stop_after

    @property
    def training(self) -> Protocol:
        """The paper's."""
        return PROTOCOL

    def pieces(self) -> tuple[str, ...]:
        """The splits' names."""
        return tuple(f"split{number}" for number in self.splits)

    def group(self, condition: Condition) -> tuple[str, ...]:
        """Network, size and split: runs side by side must have sequences of one length."""
        return condition.network, str(condition.size), condition.data

    def settings(self) -> dict[str, Any]:
        """All that decides the results: the arguments, the splits in full, the features' digest."""
        corpus = self.corpus
        digest = hashlib.sha256(corpus.features.tobytes() + corpus.lengths.tobytes() + corpus.labels.tobytes())
        return {
            "data": self.subject(),
            **super().settings(),
            "loss": f"cross-entropy of the output at the {self.loss_at} frame" + "s' mean" * (self.loss_at == "every"),
            "words": list(corpus.words),
            "corpus": corpus.name,
            "test_speakers": {
                name: sorted({corpus.speakers[i] for i in side.test}) for name, side in self.sides.items()
            },
            "features_sha256": digest.hexdigest(),
        }

    def subject(self) -> str:
        """What is learnt, in a few words.

        Example:
            >>> Words().subject()
            'the embedded words (25 words, 5 speakers, 175 tokens)'
        """
        corpus = self.corpus
        counts = (len(corpus.words), "words"), (len(set(corpus.speakers)), "speakers"), (len(corpus.labels), "tokens")
        name = "the embedded words" if corpus.origin == "embedded" else corpus.name
        return f"{name} ({', '.join(f'{count} {what}' for count, what in counts)})"

    def remarks(self) -> list[str]:
        """What is learnt and tested on, what is missing and what is left out; to be read before the training.

        Example:
            >>> Words().remarks()[:2]
            ['Data: the embedded words (25 words, 5 speakers, 175 tokens).',
             'Split 0: 125 tokens for training, 50 for test by ked, rms.']
        """
        corpus, lines = self.corpus, [f"Data: {self.subject()}."]
        if corpus.origin != "embedded":  # a folder may have been meant otherwise than it is read
            lines.append(f"Words: {listed(corpus.words)}; speakers: {listed(sorted(set(corpus.speakers)))}.")
        for number, side in zip(self.splits, self.sides.values(), strict=True):
            tested = listed(sorted({corpus.speakers[i] for i in side.test}))
            lines.append(
                f"Split {number}: {len(side.train)} tokens for training, {len(side.test)} for test by {tested}."
            )
        return [*lines, *(f"Note: {note}." for note in corpus.notes)]

    def report(self, results: Results) -> Description:
        """What a report says and draws of the results."""
        from clockwork.tasks.words.report import description  # which itself imports this class

        return description(self, results)

    @functools.cached_property
    def limits(self) -> np.ndarray:
        """The longest sequence of each bucket, as of `limits_of`."""
        return limits_of(self.corpus.lengths)

    def data(self, condition: Condition) -> Data:
        """The split of a condition, and what normalises its features.

        Raises:
            ValueError: if a normalised sequence is not finite.
        """
        return data_of(self.corpus, self.sides[condition.data])

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """What `record_of` says of the data of a condition."""
        return record_of(self.corpus, self.data(condition))

    def batches(self, data: Data, epoch: Array, key: Array) -> Array:
        """The sequences of each update, ``(U, batch)``, in an order that all runs share; -1 fills up the last."""
        del key
        shared = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), ORDER), epoch)
        order = jax.random.permutation(shared, jnp.asarray(data.train))
        padding = jnp.full(self.updates * self.batch - order.shape[0], -1, order.dtype)
        return jnp.concatenate([order, padding]).reshape(self.updates, self.batch)

    def loss(self, model: Network, data: Data, step: Step) -> Loss:
        """The mean cross-entropy of a batch, with noise on the inputs."""
        batch = step.batch
        there = batch >= 0
        batch = jnp.where(there, batch, batch[0])
        longest = jnp.asarray(data.lengths)[batch].max()

        def within(limit: int) -> Array:
            frames = self._inputs(data, batch, limit)
            noisy = frames + self.noise * jax.random.normal(step.key, frames.shape)
            scores = self._scores(model, noisy, jnp.asarray(data.lengths)[batch])
            losses = -jnp.take_along_axis(scores, jnp.asarray(data.labels)[batch][:, None], 1)[:, 0]
            return jnp.where(there, losses, 0).sum() / there.sum().astype(losses.dtype)

        branches = [functools.partial(within, int(limit)) for limit in self.limits]
        return Loss(lax.switch((longest > jnp.asarray(self.limits)[:-1]).sum(), branches))

    def watch(self, model: Network, data: Data) -> Array:
        """Error rates on the training and the test set and the mean cross-entropy on both, without noise, ``(4,)``."""
        scores = self.log_probabilities(model, data)
        labels = jnp.asarray(data.labels)
        wrong = (jnp.argmax(scores, 1) != labels).astype(scores.dtype)
        losses = -jnp.take_along_axis(scores, labels[:, None], 1)[:, 0]
        train, test = jnp.asarray(data.train), jnp.asarray(data.test)
        return jnp.stack([wrong[train].mean(), wrong[test].mean(), losses[train].mean(), losses[test].mean()])

    def watched(self, errors: Array) -> Array:
        """The training set's error rate or cross-entropy."""
        return errors[0 if self.stop_on == "error" else 2]

    def result(self, model: Network, data: Data) -> tuple[Array, Array]:
        """The error rate on the test set, and the log probabilities of its sequences, ``(M, O)``."""
        test = jnp.asarray(data.test)
        scores = self.log_probabilities(model, data)[test]
        # What is not finite is not a wrong answer: the run counts as diverged.
        error = (jnp.argmax(scores, 1) != jnp.asarray(data.labels)[test]).mean() + 0 * scores.sum()
        return error, scores

    def log_probabilities(self, model: Network, data: Data) -> Array:
        """Of all words for all sequences of the corpus, without noise, ``(S, O)``."""
        scores = jnp.zeros((len(data.lengths), self.outputs_width))
        for chunks, limit in zip(data.chunks, self.limits.tolist(), strict=True):
            chunks = jnp.asarray(chunks)

            def evaluate(chunk: Array, limit: int = limit) -> Array:
                return self._scores(model, self._inputs(data, chunk, limit), jnp.asarray(data.lengths)[chunk])

            found = lax.map(evaluate, chunks)
            scores = scores.at[chunks.reshape(-1)].set(found.reshape(-1, found.shape[-1]))
        return scores

    def _inputs(self, data: Data, sequences: Array, limit: int) -> Array:
        """Normalised frames, zeros beyond each sequence's length, whatever is there; ``(B, T, 13)``."""
        frames = jnp.asarray(data.features)[:, :limit][sequences]
        there = jnp.arange(limit)[None] < jnp.asarray(data.lengths)[sequences][:, None]
        return jnp.where(there[..., None], (frames - data.mean[None, None]) / data.scale[None, None], 0)

    def _scores(self, model: Network, inputs: Array, lengths: Array) -> Array:
        """The log probabilities ``(B, O)`` that answer for sequences ``(B, T, 13)`` of these lengths ``(B,)``."""

        def score(inputs: Array, length: Array) -> Array:
            if self.loss_at == "last":
                return jax.nn.log_softmax(model(inputs, at=length - 1))
            scores = jax.nn.log_softmax(model(inputs))
            there = jnp.arange(inputs.shape[0]) < length
            return jnp.where(there[:, None], scores, 0).sum(0) / length.astype(scores.dtype)

        return jax.vmap(score)(inputs, lengths)

    @staticmethod
    def classify(results: Results, files: tuple[str, ...]) -> str:
        """The network in the results folder with the lowest training error names the word in each of these sound files.

        Args:
            results: of a sweep of this task.
            files: sound files.

        Raises:
            ValueError: if there is no trained network, or a file cannot be used.
        """
        from clockwork.tasks.words.classify import classify_all, describe_all  # which itself imports this class

        return describe_all(classify_all(results, files))

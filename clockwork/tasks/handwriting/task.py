"""Online handwriting recognition (Koutník et al. 2014, sec. 4.3): pen strokes in, text out.

Table 3.
"""

import dataclasses
import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from clockwork import ctc
from clockwork.checks import chosen, distinct, float32, integer
from clockwork.data.iam_ondb import read_iam_ondb, write_iam_ondb
from clockwork.data.strokes import Lines
from clockwork.data.writer import embedded_lines
from clockwork.report import Description
from clockwork.tasks.handwriting.data import Bucket, Data, Prepared, prepare, record_of
from clockwork.tasks.handwriting.network import (
    INPUTS,
    MODULES,
    OUTPUTS,
    UNITS,
    Transcriber,
    kind_of,
    label_of,
    name_of,
    units_of,
)
from clockwork.tasks.handwriting.reading import error_of, read
from clockwork.tasks.paper import LABELS, STDDEV, Experiment, Hyperparameters, Protocol
from clockwork.training import Results
from clockwork.training.branches import switch
from clockwork.training.task import Condition, Loss, Step

MOMENTUM = 0.9
ORDER = 0x6F726465  # folded into the key that the orders of the lines are drawn from


# The published rates are of updates on the loss of a single line. Those of the stable protocol are from a search on
# IAM-OnDB (docs/replications/handwriting.md), of updates on the mean of 16.
RATES = {
    "stable": {"srn": 0.01 / 16, "lstm": 0.03 / 16, "cwrnn": 0.02 / 16, "cwlstm": 0.03 / 16},
    "paper": {"srn": 3e-4, "lstm": 3e-3, "cwrnn": 3e-4, "cwlstm": 3e-3},
}
CLIPS = {"stable": 5.0, "paper": math.inf}
BATCHES = {"stable": 16, "paper": 1}


@dataclasses.dataclass(frozen=True)
class Handwriting(Experiment):
    """Online handwriting: bidirectional networks transcribe pen strokes (Koutník et al. 2014, sec. 4.3).

    Every chosen network is trained at every size, ``runs`` times each, with connectionist temporal classification
    (CTC). The table has the form of the paper's Table 3; the figures are the errors, learning curves, and a line with
    what each network read where. Without ``data_folder`` the lines are embedded: a program has written them. The
    defaults make a quick experiment; the paper has 3 runs of the sizes 10000, 50000 and 100000 on IAM-OnDB.

    All runs see the lines in one order, drawn anew for each epoch, and an update has lines of similar length: little
    time is spent on padding.

    Args:
        runs: training runs of each network and size; the paper has 3.
        networks: names of the networks: ``"srn"``, ``"lstm"`` and ``"cwrnn"`` are the paper's, ``"cwlstm"`` is a
            clockwork whose modules are LSTM cells.
        sizes: nominal numbers of parameters: any of 10000, 50000 and 100000 (Table 1).
        epochs: passes over the training set, at most.
        learning_rates: learning rates for all networks in place of the protocol's; several make a search. They are for
            the mean loss of a batch.
        seed: seed of all runs, from 0 to 2**32 - 1; run i draws its initial weights from this seed and i alone.
        data_folder: folder of IAM-OnDB, with lineStrokes, ascii, trainset.txt and testset_v.txt, testset_t.txt and
            testset_f.txt, to learn in place of the embedded lines.
        skip_bad: leave out lines whose files cannot be used, and report them, instead of stopping.
        modules: numbers of modules of the clockworks, with periods 1, 2, 4, ...; the paper has 9. Networks of another
            number have as many units as give a like number of parameters.
        protocol: how the networks are trained: ``"stable"`` (16 lines an update, gradient norm clipped at 5, rates from
            a search) or ``"paper"`` (one line an update, no clipping, published rates).
        clip_norms: gradient norms to clip at in place of the protocol's; ``inf`` turns clipping off, several make a
            search.
        batch: lines in an update in place of the protocol's; its learning rates are for one line, and are multiplied
            by this.
        stop_after: stop a run after this many epochs without a lower validation error; the paper has 50.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        >>> task = Handwriting(networks=("lstm", "cwrnn"), modules=(9, 3))
        >>> [condition.network for condition in task.conditions()]
        ['lstm', 'cwrnn', 'cwrnn3']
    """

    runs: int = 3
    sizes: tuple[int, ...] = (10000,)
    epochs: int = 100
    data_folder: str | None = dataclasses.field(default=None, metadata={"option": "data", "metavar": "PATH"})
    skip_bad: bool = False
    modules: tuple[int, ...] = (9, 3)
    protocol: str = "stable"
    clip_norms: tuple[float, ...] | None = dataclasses.field(default=None, metadata={"option": "clip-norm"})
    batch: int | None = None
    stop_after: int = 50

    name = "handwriting"
    title = "Online handwriting"
    actions = ("transcribe", "write_set")
    columns = ("data", "cer")
    units = UNITS
    inputs = INPUTS
    paper_outputs = OUTPUTS
    paper_modules = MODULES
    kept_outputs = 10
    restore_best = True
    patience_below = 0.99  # reading nothing at all is an error of 1
    runs_axis = 0
    recorded = {  # noqa: RUF012
        "outputs/labels": ("i", "K M L"),
        "outputs/probabilities": ("f", "K E T O"),
        "curve": ("f", "P R"),
        "data/texts": ("U", "M"),
        "data/sources": ("U", "M"),
        "data/training_texts": ("U", ""),
        "data/characters": ("U", ""),
        "data/mean": ("f", "3"),
        "data/sd": ("f", "3"),
        "data/lines": ("iu", "4"),
        "data/set": ("U", ""),
        "data/notes": ("U", "..."),
        "data/examples": ("iu", "E", "M"),
        "data/example_inputs": ("f", "E T 4"),
        "data/example_lengths": ("iu", "E"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.modules:
            raise ValueError("at least one number of modules must be given, got none")
        for modules in self.modules:
            integer("modules", modules, 1, 16)
        distinct("number of modules", self.modules)
        chosen("protocol", (self.protocol,), tuple(RATES))
        for norm in self.clip_norms or ():
            if norm != math.inf:
                float32("clip_norms", norm)
        if self.clip_norms is not None:
            distinct("clip_norm", self.clip_norms)
        if self.batch is not None:
            integer("batch", self.batch, least=1)
        integer("stop_after", self.stop_after, least=1)

    @functools.cached_property
    def lines(self) -> Lines:
        """All lines.

        Raises:
            ValueError: if the folder cannot be read as IAM-OnDB.
        """
        return embedded_lines() if self.data_folder is None else read_iam_ondb(self.data_folder, skip_bad=self.skip_bad)

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The lines as the networks get them.

        Raises:
            ValueError: if the lines cannot be read, or a set has none.
        """
        return prepare(self.lines)

    @property
    def outputs_width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of characters, and one for the blank."""
        return len(self.lines.characters) + 1

    @property
    def batch_size(self) -> int:
        """Lines in an update."""
        return self.batch or BATCHES[self.protocol]

    @property
    def updates(self) -> int:
        """Of an epoch."""
        return sum(math.ceil(len(bucket.lengths) / self.batch_size) for bucket in self.prepared.data.training)

    @property
    def patience(self) -> int:
        """Epochs without a lower watched error after which a run stops."""
        return self.stop_after

    @property
    def curve_every(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Learning curves have a point for each epoch."""
        return 1

    @property
    def training(self) -> Protocol:
        """Its learning rates are for one line."""
        return Protocol(RATES[self.protocol], MOMENTUM)

    @property
    def names(self) -> tuple[str, ...]:
        """What conditions call the networks, each clockwork with every number of modules."""
        return tuple(dict.fromkeys(name_of(kind, modules) for kind in self.networks for modules in self.modules))

    @property
    def labels(self) -> dict[str, str]:
        """What readers are told of the networks, by name, in the order of the figures."""
        names = dict.fromkeys(name_of(kind, modules) for kind in LABELS for modules in (MODULES, *self.modules))
        return {name: label_of(name) for name in names}

    def pieces(self) -> tuple[str, ...]:
        """There is one set of lines."""
        return ("",)

    def units_of(self, name: str, size: int) -> int:
        """Of each direction; clockworks that Table 1 does not have get as many as make a like number of parameters."""
        return units_of(name, size)

    def hyperparameters(self, network: str) -> list[Hyperparameters]:
        """The learning rates and clipping norms that a network is trained with."""
        standard = RATES[self.protocol][kind_of(network)[0]] * self.batch_size
        rates = self.learning_rates or (float(f"{standard:.6g}"),)  # 0.01, not 0.010000000000000002
        clips = self.clip_norms or (CLIPS[self.protocol],)
        return [(("learning_rate", rate), ("clip_norm", clip)) for rate in rates for clip in clips]

    def network_of(self, name: str, units: int, outputs: int, rngs: nnx.Rngs) -> Transcriber:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A network of so many units (cells of an LSTM) in each direction."""
        kind, modules = kind_of(name)
        return Transcriber(kind, units, self.inputs, outputs, modules=modules, stddev=STDDEV, rngs=rngs)

    def optimizer(self, hyperparameters: dict[str, Array]) -> optax.GradientTransformation:
        """SGD with Nesterov momentum; the gradient that it is given is clipped first."""
        clip = optax.clip_by_global_norm(hyperparameters["clip_norm"])  # pyright: ignore[reportArgumentType]
        return optax.chain(clip, self.training.optimizer(hyperparameters["learning_rate"]))

    def settings(self) -> dict[str, Any]:
        """All that decides the results: the arguments, and a digest of all lines."""
        digest, lines = hashlib.sha256(), self.lines
        for line in (*lines.training, *lines.validation, *lines.test):
            digest.update(line.text.encode())
            digest.update(np.concatenate(line.strokes).tobytes())
        return {
            "data": self.subject(),
            **super().settings(),
            "loss": "CTC, mean over the lines of an update",
            "units": {str(size): {name: self.units_of(name, size) for name in self.names} for size in self.sizes},
            "batch_size": self.batch_size,
            "hyperparameters": {name: [dict(one) for one in self.hyperparameters(name)] for name in self.names},
            "characters": self.lines.characters,
            "lines_sha256": digest.hexdigest(),
        }

    def architecture(self) -> dict[str, Any]:
        """What `settings` say of the networks besides their units."""
        return {"forget_bias": None, "clock": "periods 1, 2, 4, ..., one for each module"}

    def subject(self) -> str:
        """What is learnt, in a few words."""
        lines = self.lines
        sizes = [len(one) for one in (lines.training, lines.validation, lines.test)]
        return f"{lines.name} ({sizes[0]} lines for training, {sizes[1]} for validation, {sizes[2]} for test)"

    def remarks(self) -> list[str]:
        """What is learnt, and what is left out; to be read before the training."""
        return [f"Data: {self.subject()}.", *(f"Note: {note}." for note in self.prepared.notes)]

    def report(self, results: Results) -> Description:
        """What a report says and draws of the results."""
        from clockwork.tasks.handwriting.report import description  # which itself imports this class

        return description(self, results)

    def data(self, condition: Condition) -> Data:
        """The lines, the same of all conditions."""
        del condition
        return self.prepared.data

    def record(self, condition: Condition) -> dict[str, np.ndarray]:
        """What `record_of` says of the lines."""
        del condition
        return record_of(self.lines, self.prepared)

    def batches(self, data: Data, epoch: Array, key: Array) -> tuple[Array, Array]:
        """The bucket ``(U,)`` and the lines ``(U, B)`` of each update, in an order that all runs share.

        -1 fills up the last update of a bucket.
        """
        del key
        shared = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), ORDER), epoch)
        buckets, lines = [], []
        for number, bucket in enumerate(data.training):
            order = jax.random.permutation(jax.random.fold_in(shared, number), bucket.lengths.shape[0])
            updates = math.ceil(bucket.lengths.shape[0] / self.batch_size)
            filled = jnp.full(updates * self.batch_size - order.shape[0], -1, order.dtype)
            lines.append(jnp.concatenate([order, filled]).reshape(updates, self.batch_size))
            buckets.append(jnp.full(updates, number, jnp.int32))
        order = jax.random.permutation(jax.random.fold_in(shared, len(data.training)), self.updates)
        return jnp.concatenate(buckets)[order], jnp.concatenate(lines)[order]

    def loss(self, model: Transcriber, data: Data, step: Step) -> Loss:
        """The mean CTC loss of the lines of an update."""
        number, lines = step.batch
        there = lines >= 0
        lines = jnp.where(there, lines, lines[0])

        def within(model: Transcriber, bucket: Bucket) -> Array:
            one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[lines], bucket._replace(chunks=bucket.lengths))
            logits = model(one.inputs, one.lengths)
            losses = jax.vmap(ctc.loss)(logits, one.labels, one.lengths, one.label_lengths)
            return jnp.where(there, losses, 0).sum() / there.sum().astype(losses.dtype)

        branches = [functools.partial(within, bucket=bucket) for bucket in data.training]
        return Loss(switch(number, branches, model))

    def watch(self, model: Transcriber, data: Data) -> Array:
        """The character error rate on the validation set, ``()``, at most 1: so much has one who reads nothing."""
        error = error_of([read(model, bucket)[1] for bucket in data.validation], data.validation)
        return jnp.minimum(error, 1.0)  # an untrained network's may be 4, which would flatten the learning curves

    def result(self, model: Transcriber, data: Data) -> tuple[Array, dict[str, Array]]:
        """The character error rate on the test set, and what was read.

        Returns:
            The error; ``labels``, ``(M, L)``, int16, those read in each test line, in the order of the buckets, -1
            beyond their end; and ``probabilities``, ``(E, T, O)``, float16, at each frame of the examples.
        """
        found = [read(model, bucket) for bucket in data.test]
        longest = max(labels.shape[1] for labels, _ in found)
        labels = [jnp.pad(labels, ((0, 0), (0, longest - labels.shape[1])), constant_values=-1) for labels, _ in found]
        examples = jax.nn.softmax(model(jnp.asarray(data.examples.inputs), jnp.asarray(data.examples.lengths)))
        outputs = {"labels": jnp.concatenate(labels).astype(jnp.int16), "probabilities": examples.astype(jnp.float16)}
        return error_of([edits for _, edits in found], data.test), outputs

    @staticmethod
    def transcribe(results: Results, files: tuple[str, ...]) -> str:
        """The network in the results folder with the lowest validation error reads the lines in these stroke files.

        Args:
            results: of a sweep of this task.
            files: UNIPEN-like text, InkML, JSON of strokes, or lines of IAM-OnDB.

        Raises:
            ValueError: if there is no trained network, or a file cannot be used.
        """
        from clockwork.tasks.handwriting.transcribe import describe_all, transcribe_all  # which import this class

        return describe_all(transcribe_all(results, files))

    def write_set(self, folder: str) -> str:
        """Write the lines that would be learnt to a folder, in the form of IAM-OnDB.

        Args:
            folder: that does not exist yet.

        Raises:
            ValueError: if the folder exists.
            OSError: if it cannot be written.
        """
        write_iam_ondb(self.lines, Path(folder))
        return f"{self.subject()} written to {folder}."

"""What the experiments of Pascanu et al. (2013) have in common: their networks, sizes and protocols."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from clockwork.checks import chosen, finite, float32, integer
from clockwork.clock import Clock
from clockwork.deep import Sparse
from clockwork.nn import (
    MLP,
    Clockwork,
    DeepRNN,
    DeepTransitionCell,
    PeepholeLSTMCell,
    Recurrent,
    SequenceNetwork,
)
from clockwork.tasks.paper import Experiment, Hyperparameters
from clockwork.tasks.windows import Windows, cut, fresh_or, shuffled, total_loss
from clockwork.training.model import count
from clockwork.training.task import Condition, Loss, PyTree, Step
from clockwork.weights import Normal

LABELS = {
    "rnn": "RNN",
    "dt": "DT-RNN",
    "dts": "DT(S)-RNN",
    "dots": "DOT(S)-RNN",
    "srnn": "sRNN",
    "lstm": "LSTM",
    "cwrnn": "CW-RNN",
    "cwdts": "CW-DT(S)",
}
CLOCKED = ("cwrnn", "cwdts")
SHARED_ORDER = 0x77696E64  # folded into the key that the orders of the windows are drawn from


class Preset(NamedTuple):
    """A protocol: everything about the training that is not an option's value.

    Attributes:
        adam: whether the optimiser is Adam; else it is SGD with momentum.
        rate: the learning rate of all networks but the LSTM.
        lstm_rate: that of the LSTM.
        momentum: of SGD.
        clip_norm: the norm that gradients are clipped at: before Adam, and after the momentum of SGD.
        batch: sequences, or columns of a text, of an update.
        window: steps of a window.
        weight_noise: the standard deviation of the noise on the weights in training.
        decay_start: the epoch after which the rate falls, ``rate / (1 + (k - decay_start) / decay)``.
        decay: how many epochs halve the rate, from ``decay_start`` on; infinite for a constant rate.
        halve_after: the rate is halved after this many epochs without a lower validation error, and after as many
            again; 0 never halves it.
        sparse: whether matrices from hidden units begin as `clockwork.deep.Sparse`, else from N(0, 0.1²).
        output_bias: the first bias of every output.
    """

    adam: bool
    rate: float
    lstm_rate: float
    momentum: float
    clip_norm: float
    batch: int
    window: int
    weight_noise: float = 0.0
    decay_start: float = 0.0
    decay: float = math.inf
    halve_after: int = 0
    sparse: bool = True
    output_bias: float = 0.0


class Sizes(NamedTuple):
    """The units of a network.

    Attributes:
        hidden: ``N``, of each hidden layer.
        middle: of the layer between two hidden states.
        output: of the layer between hidden state and output.
    """

    hidden: int
    middle: int = 0
    output: int = 0


class Data(NamedTuple):
    """What a network is trained and tested on.

    Attributes:
        train: windows of the training set.
        valid: windows of the validation set.
        test: windows of the test set.
        zero: the carry before a sequence, for the sequences side by side in each set.
        example: what the report shows.
    """

    train: Windows
    valid: Windows
    test: Windows
    zero: tuple[PyTree, PyTree, PyTree]
    example: np.ndarray


def weights_of(kind: str, units: int, features: int, modules: int) -> int:
    """The number of weights, without biases, of a network whose layers all have this many units.

    Example:
        >>> weights_of("dts", 400, 88, modules=3), weights_of("rnn", 600, 88, modules=3)
        (585600, 465600)
    """
    n, d = units, features
    if kind in CLOCKED:
        clock, total = Clock.exponential(n, modules), n * d
        for a, k in zip(clock.starts, clock.sizes, strict=True):
            received = d + n - a  # inputs, the module itself and the slower ones
            total += received * k if kind == "cwrnn" else 2 * received * k + k * k
        return total
    return {
        "rnn": n * n + 2 * d * n,
        "dt": 2 * n * n + 2 * d * n,
        "dts": 3 * n * n + 3 * d * n,
        "dots": 4 * n * n + 3 * d * n,
        "srnn": 3 * n * n + 2 * d * n,
        "lstm": 4 * n * n + 5 * d * n + 3 * n,
    }[kind]


@functools.cache
def units_for(kind: str, weights: int, features: int, modules: int) -> int:
    """The number of units with which a network comes nearest to a number of weights.

    Example:
        >>> units_for("dts", 585_600, 88, modules=3)
        400
    """
    least = modules if kind in CLOCKED else 1
    units = least
    while weights_of(kind, units, features, modules) < weights:
        units += 1
    below = max(units - 1, least)
    return min((below, units), key=lambda n: abs(weights_of(kind, n, features, modules) - weights))


def network(kind: str, sizes: Sizes, features: int, modules: int, preset: Preset, rngs: nnx.Rngs) -> SequenceNetwork:
    """A network of the paper, or one to compare it with, that predicts the next of its own inputs.

    Args:
        kind: one of `LABELS`.
        sizes: its units.
        features: ``d``, the number of inputs and of outputs.
        modules: of a clockwork, with periods 1, 2, 4, ...
        preset: how the weights begin.
        rngs: the source of the random keys, its stream ``params``.
    """
    n = sizes.hidden
    kernel, matrix, zeros = Normal(), Sparse() if preset.sparse else Normal(), jax.nn.initializers.zeros
    options: dict[str, Any] = {"kernel_init": kernel, "recurrent_kernel_init": matrix, "bias_init": zeros}
    if kind in CLOCKED:
        clock = Clock.exponential(n, modules)
        if kind == "cwdts":
            cell = _module_cell(options)
            layer = Clockwork(clock, features, cell=cell, rngs=rngs)
        else:
            layer = Clockwork(clock, features, kernel_init=kernel, bias_init=zeros, rngs=rngs)
    elif kind == "lstm":
        layer = Recurrent(PeepholeLSTMCell(features, n, forget_bias=1.0, rngs=rngs))
    else:
        middle, output = (sizes.middle,) * (sizes.middle > 0), (sizes.output,) * (sizes.output > 0)
        made = DeepRNN(
            features, n, features, middle=middle, output=output, stacked=2 if kind == "srnn" else 1,
            shortcuts=kind != "dt", rngs=rngs, **options,
        )  # fmt: skip
        made.predict.last.bias[...] = jnp.full(features, preset.output_bias)
        return made
    predict = MLP(n, (features,), kernel_init=kernel, bias_init=zeros, rngs=rngs)
    predict.last.bias[...] = jnp.full(features, preset.output_bias)  # pyright: ignore[reportOptionalSubscript]
    return SequenceNetwork([layer], predict)


def _module_cell(options: dict[str, Any]) -> Callable[..., DeepTransitionCell]:
    def make(in_features: int, hidden_features: int, *, rngs: nnx.Rngs) -> DeepTransitionCell:
        return DeepTransitionCell(in_features, hidden_features, (hidden_features,), rngs=rngs, **options)

    return make


def equal_sizes(kind: str, units: int) -> Sizes:
    """The sizes of a network whose layers all have this many units."""
    return Sizes(units, units if kind in ("dt", "dts", "dots", "cwdts") else 0, units if kind == "dots" else 0)


@dataclasses.dataclass(frozen=True)
class Prediction(Experiment):
    """Networks that predict the next step of sequences, trained by truncated back-propagation.

    Args:
        runs: training runs of each network and size; the paper has 1.
        networks: names of the networks: ``"rnn"``, ``"dts"``, ``"dots"`` and ``"srnn"`` are the paper's in its tables,
            ``"dt"`` is a deep transition without shortcuts; ``"lstm"``, ``"cwrnn"`` and ``"cwdts"`` (a clockwork of
            deep transitions) are for comparison.
        sizes: nominal numbers of weights; each network gets the units that come nearest.
        epochs: passes over the training set, at most.
        learning_rates: learning rates for all networks in place of the protocol's; several make a search.
        seed: seed of all runs, from 0 to 2**32 - 1; run i draws its initial weights from this seed and i alone.
        paper_sizes: give the networks of the paper the sizes of its Table 1 for this set, and the others as many
            weights as DT(S)-RNN, in place of ``sizes``.
        modules: modules of the clockworks, with periods 1, 2, 4, ...
        protocol: how the networks are trained: ``"stable"`` (Adam, gradient norm clipped, constant rate) or ``"paper"``
            (SGD, as far as the authors' public code tells).
        clip_norm: gradient norm to clip at in place of the protocol's; ``inf`` turns clipping off.
        batch: sequences of an update in place of the protocol's.
        window: steps that gradients go back, in place of the protocol's; the state is carried on from window to window.
        weight_noise: standard deviation of the noise on the weights in training, in place of the protocol's.
        decay_start: epoch after which the learning rate falls, in place of the protocol's.
        decay: number of epochs after ``decay_start`` at which the rate is half, in place of the protocol's; ``inf``
            keeps it constant.
        halve_after: halve the learning rate after this many epochs without a lower validation error, and again after as
            many more; 0 never halves it. The protocols do not.
        stop_after: stop a run after this many epochs without a lower validation error.
    """

    runs: int = 3
    networks: tuple[str, ...] = ("rnn", "dts", "dots", "srnn", "lstm", "cwrnn", "cwdts")
    sizes: tuple[int, ...] = (20_000,)
    epochs: int = 120
    paper_sizes: bool = False
    modules: int = 3
    protocol: str = "stable"
    clip_norm: float | None = None
    batch: int | None = None
    window: int | None = None
    weight_noise: float | None = None
    decay_start: float | None = None
    decay: float | None = None
    halve_after: int | None = None
    stop_after: int = 10

    kinds: ClassVar[Mapping[str, str]] = LABELS
    presets: ClassVar[dict[str, Preset]]
    units: ClassVar[dict[int, dict[str, int]]] = {}
    published: ClassVar[dict[str, tuple[float, float]]] = {}
    kept_outputs = 10
    restore_best = True
    runs_axis = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.sizes:
            integer("sizes", size, least=100)
        integer("modules", self.modules, 1, 12)
        chosen("protocol", (self.protocol,), tuple(self.presets))
        for name in ("clip_norm", "decay"):
            value = getattr(self, name)
            if value is not None and value != math.inf:
                float32(name, value)
        for name in ("weight_noise", "decay_start"):
            if getattr(self, name) is not None:
                finite(name, getattr(self, name), least=0)
        if self.halve_after is not None:
            integer("halve_after", self.halve_after, least=0)
        for name in ("batch", "window", "stop_after"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), least=1)
        longest = 2 ** (self.modules - 1)
        if any(kind in CLOCKED for kind in self.networks) and self.preset.window % longest:
            raise ValueError(
                f"window must be a multiple of the slowest period of the clockworks, {longest}, "
                f"got {self.preset.window}"
            )

    @property
    def preset(self) -> Preset:
        """The protocol with the options in place of its values."""
        names = ("clip_norm", "batch", "window", "weight_noise", "decay_start", "decay", "halve_after")
        given = {name: getattr(self, name) for name in names}
        return self.presets[self.protocol]._replace(**{k: v for k, v in given.items() if v is not None})

    @property
    def features(self) -> int:
        """``d``, the number of inputs and of outputs."""
        raise NotImplementedError

    @functools.cached_property
    def windows(self) -> tuple[Windows, Windows, Windows]:
        """The windows of the three sets."""
        raise NotImplementedError

    @functools.cached_property
    def example(self) -> np.ndarray:
        """The part of the test set that the networks continue."""
        raise NotImplementedError

    @property
    def table_1(self) -> dict[str, Sizes]:
        """The sizes of the paper's Table 1 for this set, by network; empty for other sets."""
        return {}

    @property
    def patience(self) -> int:
        """Epochs without a lower watched error after which a run stops."""
        return self.stop_after

    @property
    def curve_every(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Learning curves have a point for each epoch."""
        return 1

    def hyperparameters(self, network: str) -> list[Hyperparameters]:
        """The learning rates that a network is trained with."""
        standard = self.preset.lstm_rate if network == "lstm" else self.preset.rate
        return [(("learning_rate", rate),) for rate in self.learning_rates or (standard,)]

    def pieces(self) -> tuple[str, ...]:
        """There is one set."""
        return ("",)

    def nominal_sizes(self) -> tuple[int, ...]:
        """The sizes of the conditions; 0 stands for those of the paper's Table 1."""
        return (0,) if self.paper_sizes else self.sizes

    def sizes_of(self, kind: str, size: int) -> Sizes:
        """The units of a network of this nominal size; 0 for the paper's."""
        if size == 0:
            if kind in self.table_1:
                return self.table_1[kind]
            size = weights_of("dts", self.table_1["dts"].hidden, self.features, self.modules)
        return equal_sizes(kind, units_for(kind, size, self.features, self.modules))

    def units_of(self, name: str, size: int) -> int:
        """The hidden units of a network."""
        return self.sizes_of(name, size).hidden

    def model(self, name: str, size: int, rngs: nnx.Rngs, hyperparameters: dict[str, Array]) -> SequenceNetwork:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The network of a condition, with fresh weights."""
        del hyperparameters
        return network(name, self.sizes_of(name, size), self.features, self.modules, self.preset, rngs)

    def num_parameters(self, condition: Condition, params: PyTree) -> int:
        """The number of weights and biases."""
        del condition
        return count(params)

    def optimizer(self, hyperparameters: dict[str, Array]) -> optax.GradientTransformation:
        """Adam with clipped gradients, or SGD whose step is clipped after the momentum."""
        preset, rate = self.preset, hyperparameters["learning_rate"]

        def fallen(count: Any) -> Array:
            epochs = count.astype(jnp.float32) / self.updates
            return -rate / (1 + jnp.maximum(0, epochs - preset.decay_start) / preset.decay)

        clip = optax.clip_by_global_norm(preset.clip_norm)
        steps = [clip, optax.scale_by_adam()] if preset.adam else [optax.trace(preset.momentum), clip]
        halving = [halved_on_plateau(preset.halve_after)] if preset.halve_after else []
        return optax.chain(*steps, optax.scale_by_schedule(fallen), *halving)

    def settings(self) -> dict[str, Any]:
        """All that decides the results but the data: the arguments, the protocol and the units of each network."""
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        units = {f"{c.network}-{c.size}": list(self.sizes_of(c.network, c.size)) for c in self.conditions()}
        preset = {name: str(v) if v == math.inf else v for name, v in self.preset._asdict().items()}
        return {**arguments, "protocol_values": preset, "units": units}

    def zeros(self, condition: Condition, batch: int) -> PyTree:
        """The carry of a condition's network before a sequence."""

        def carry() -> PyTree:
            model = self.model(condition.network, condition.size, nnx.Rngs(0), {})
            return model(jnp.zeros((batch, 1, self.features)), return_carry=True)[0]

        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(carry))

    @property
    def updates(self) -> int:
        """Of an epoch."""
        return len(self.windows[0].fresh)

    def subject(self) -> str:
        """What is learnt, in a few words."""
        raise NotImplementedError

    def remarks(self) -> list[str]:
        """What is learnt; to be read before the training."""
        return [f"Data: {self.subject()}."]

    def data(self, condition: Condition) -> Data:
        """The windows of the three sets, and the first carry of the condition's network."""
        return self.with_zeros(condition, self.windows, self.example)

    def with_zeros(self, condition: Condition, sets: tuple[Windows, Windows, Windows], example: np.ndarray) -> Data:
        """The data of a condition."""
        train, valid, test = (self.zeros(condition, one.begin.shape[1]) for one in sets)
        return Data(*sets, (train, valid, test), example)

    def begin_carry(self, data: Data) -> PyTree:
        """The carry before the first sequence."""
        return jax.tree.map(jnp.asarray, data.zero[0])

    def batches(self, data: Data, epoch: Array, key: Array) -> Array:
        """The windows of each update, ``(U,)``, in an order of sequences that all runs share."""
        del key
        shared = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), SHARED_ORDER), epoch)
        return shuffled(data.train, shared)

    def encode(self, rows: Array) -> Array:
        """The inputs ``(B, L, d)`` of a network for rows of a set."""
        raise NotImplementedError

    def losses(self, scores: Array, targets: Array) -> Array:
        """The negative log-likelihood of each step, ``(B, L)``, in nats."""
        raise NotImplementedError

    def run(self, model: SequenceNetwork, carry: PyTree, rows: Array) -> tuple[PyTree, Array]:
        """The next carry, and the scores of each step."""
        return model(self.encode(rows), initial_carry=carry, return_carry=True, start=0)

    def loss(self, model: SequenceNetwork, data: Data, step: Step) -> Loss:
        """The mean negative log-likelihood of the steps of an update, in nats."""
        x, y, there = cut(data.train, step.batch, self.preset.window)
        carry = fresh_or(jnp.asarray(data.train.fresh)[step.batch], data.zero[0], step.carry)
        if self.preset.weight_noise:
            model = _noisy(model, self.preset.weight_noise, step.key)
        carry, scores = self.run(model, carry, x)
        value = jnp.where(there, self.losses(scores, y), 0).sum() / jnp.maximum(there.sum(), 1).astype(scores.dtype)
        return Loss(value, carry=carry)

    def likelihood(self, model: SequenceNetwork, windows: Windows, zero: PyTree) -> tuple[Array, Array]:
        """The negative log-likelihood of each sequence of a set in nats, and the number of its predicted steps."""
        return total_loss(functools.partial(self.run, model), self.losses, windows, zero, self.preset.window)

    def figure(self, nats: Array) -> Array:
        """The error that is published, of a mean negative log-likelihood in nats."""
        return nats

    def watch(self, model: SequenceNetwork, data: Data) -> Array:
        """The error on the validation set, ``()``."""
        sums, counts = self.likelihood(model, data.valid, data.zero[1])
        return self.figure(sums.sum() / counts.sum())

    @classmethod
    def sizes_text(cls, table: Mapping[str, Mapping[str, Sizes]], features: Mapping[str, int]) -> str:
        """What ``clockwork info`` prints of the paper's Table 1: units and weights, biases not counted."""
        names = ("rnn", "dts", "dots", "srnn")
        lines = [
            f"{cls.title}, sizes of Pascanu et al. (2013), Table 1: units of each layer, and weights without biases",
            " " * 15 + "".join(f"{LABELS[name]:>26}" for name in names),
        ]
        for name, sizes in table.items():
            cells = []
            for kind in names:
                hidden, middle, output = sizes[kind]
                made = nnx.eval_shape(
                    lambda kind=kind, one=sizes[kind], d=features[name]: network(
                        kind, one, d, 1, next(iter(cls.presets.values())), nnx.Rngs(0)
                    )
                )
                layers = ", ".join(str(units) for units in (hidden, middle, output) if units)
                cells.append(f"{layers}: {made.num_weights:,}")
            lines.append(f"{name:<15}" + "".join(f"{cell:>26}" for cell in cells))
        return "\n".join(lines)


class Halved(NamedTuple):
    """The state of `halved_on_plateau`.

    Attributes:
        scale: ``()``, what the updates are multiplied by.
        since: ``()``, int32, epochs without a lower watched error before the last update.
    """

    scale: Array
    since: Array


def halved_on_plateau(patience: int) -> optax.GradientTransformationExtraArgs:
    """Halves the updates after this many epochs without a lower watched error, and again after as many more.

    ``since``, the epochs since the lowest watched error, is what a sweep gives to every optimiser.
    """

    def init(params: PyTree) -> Halved:
        del params
        return Halved(jnp.ones(()), jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree = None, **given: Any) -> tuple[PyTree, Halved]:
        del params
        since = given["since"]
        due = (since != state.since) & (since > 0) & (since % patience == 0)  # at the first update of an epoch
        scale = jnp.where(due, state.scale / 2, state.scale)
        return jax.tree.map(lambda u: scale * u, updates), Halved(scale, since)

    return optax.GradientTransformationExtraArgs(init, update)


def one_zero(data: Data) -> PyTree:
    """The carry before a single sequence."""
    return jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), data.zero[2])


def continued(
    model: SequenceNetwork,
    carry: PyTree,
    scores: Array,
    steps: int,
    key: Array,
    draw: Callable[[Array, Array], tuple[Array, Array]],
) -> Array:
    """What a network draws, step by step, after a sequence: the network reads what it has drawn.

    Args:
        model: the network.
        carry: after the sequence.
        scores: ``(B, d)``, of the first step after it.
        steps: how many are drawn.
        key: of the draws.
        draw: maps a key and the scores of a step ``(B, d)`` to what is drawn ``(B, ...)`` and to the inputs
            ``(B, d)`` that the network reads.

    Returns:
        ``(B, steps, ...)``.
    """

    def step(state: tuple[PyTree, Array], key: Array) -> tuple[tuple[PyTree, Array], Array]:
        carry, scores = state
        drawn, x = draw(key, scores)
        carry, after = model(x[:, None], initial_carry=carry, return_carry=True)
        return (carry, after[:, 0]), drawn

    start = (jax.tree.map(jnp.asarray, carry), scores)
    return jnp.moveaxis(lax.scan(step, start, jax.random.split(key, steps))[1], 0, 1)


def _noisy(model: SequenceNetwork, stddev: float, key: Array) -> SequenceNetwork:
    """The model with noise on its weights, not on its biases."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    leaves = [
        leaf + stddev * jax.random.normal(k, leaf.shape, leaf.dtype) if leaf.ndim > 1 else leaf
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves), rest)

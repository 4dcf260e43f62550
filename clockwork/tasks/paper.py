"""What the experiments of Koutník et al. (2014) share: their networks, sizes and training."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

import optax
from flax import nnx
from jax import Array

from clockwork.checks import chosen, distinct, float32, integer, typed
from clockwork.clock import Clock
from clockwork.nn import ClockworkLSTM, ClockworkRNN, Network, PeepholeLSTM, SimpleRNN
from clockwork.training.task import MAX_EPOCHS, MAX_RUNS, MAX_SEED, Condition, PyTree, Task

NETWORKS = ("srn", "lstm", "cwrnn")  # the paper's
LABELS = {"srn": "SRN", "lstm": "LSTM", "cwrnn": "CW-RNN", "cwlstm": "CW-LSTM"}
Hyperparameters = tuple[tuple[str, float], ...]
FORGET_BIAS = 5.0
STDDEV = 0.1


class Protocol(NamedTuple):
    """How networks are trained: SGD with Nesterov momentum, with or without gradient clipping.

    Attributes:
        learning_rates: by network.
        momentum: of the optimiser.
        clip_norm: a gradient with a larger norm is scaled down to this norm; None for no clipping.

    Example:
        >>> Protocol({"srn": 3e-4}, momentum=0.95, clip_norm=30.0).clipping
        'gradient norm clipped at 30'
    """

    learning_rates: Mapping[str, float]
    momentum: float
    clip_norm: float | None = None

    def optimizer(self, learning_rate: Array | float) -> optax.GradientTransformation:
        """The optimiser, with gradient clipping before it."""
        descent = optax.sgd(learning_rate, momentum=self.momentum, nesterov=True)
        return descent if self.clip_norm is None else optax.chain(optax.clip_by_global_norm(self.clip_norm), descent)

    @property
    def clipping(self) -> str:
        """For the line above a table."""
        return "no gradient clipping" if self.clip_norm is None else f"gradient norm clipped at {self.clip_norm:g}"

    def settings(self) -> dict[str, Any]:
        """What `clockwork.training.Task.settings` says of it."""
        return {
            "optimizer": "SGD with Nesterov momentum (optax.sgd: parameters are at the look-ahead point)",
            "momentum": self.momentum,
        }


@dataclasses.dataclass(frozen=True)
class Experiment(Task):
    """Networks of one hidden layer at several sizes, each trained many times by SGD with Nesterov momentum.

    Args:
        runs: training runs of each network, size and piece of data; the paper has 100.
        networks: names of the networks: ``"srn"``, ``"lstm"`` and ``"cwrnn"`` are the paper's, ``"cwlstm"`` is a
            clockwork whose modules are LSTM cells.
        sizes: nominal numbers of parameters, of those in Table 1.
        epochs: passes over the data in each run, at most.
        learning_rates: learning rates for all networks in place of the paper's; several make a search.
        seed: seed of all runs, from 0 to 2**32 - 1; run i draws its initial weights from this seed and i alone.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Example:
        What the experiments inherit:

        >>> from clockwork.tasks import Generation
        >>> task = Generation(networks=("srn", "cwrnn"), sizes=(1000,), clips=("choir",), learning_rates=(1e-4, 1e-3))
        >>> [condition.name for condition in task.conditions()]
        ['srn-1000-choir-0.0001', 'srn-1000-choir-0.001', 'cwrnn-1000-choir-0.0001', 'cwrnn-1000-choir-0.001']
    """

    runs: int = 10
    networks: tuple[str, ...] = NETWORKS
    sizes: tuple[int, ...] = ()
    epochs: int = 2000
    learning_rates: tuple[float, ...] | None = dataclasses.field(default=None, metadata={"option": "learning-rate"})
    seed: int = 0

    title: ClassVar[str]
    kinds: ClassVar[Mapping[str, str]] = LABELS  # labels of the networks in tables and figures, by name
    actions: ClassVar[tuple[str, ...]] = ()  # methods that are options of the command
    units: ClassVar[dict[int, dict[str, int]]]  # Table 1: hidden units (cells of the LSTM) by size
    published: ClassVar[dict[str, tuple[float, float]]]  # Table 2: mean and sd over 100 runs of the largest
    inputs: ClassVar[int]
    outputs_width: ClassVar[int]
    paper_outputs: ClassVar[int]
    paper_modules: ClassVar[int]  # of the CW-RNN, periods 1, 2, 4, ...
    lstm_periods: ClassVar[tuple[int, ...]]  # of the clockwork of LSTMs

    @property
    def curve_every(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Learning curves have a point for each ten updates, or for each epoch of more updates."""
        return max(1, 10 // self.updates)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = typed(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
        integer("runs", self.runs, 1, MAX_RUNS)
        integer("epochs", self.epochs, 1, MAX_EPOCHS)
        integer("seed", self.seed, 0, MAX_SEED)
        chosen("network", self.networks, tuple(self.kinds))
        if self.units:
            chosen("size", self.sizes, tuple(self.units))
        for rate in self.learning_rates or ():
            float32("learning_rates", rate)
        if self.learning_rates is not None:
            distinct("learning rate", self.learning_rates)
        if getattr(self, "data_folder", None) is not None:  # of the tasks that have one: perhaps a Path
            object.__setattr__(self, "data_folder", str(self.data_folder))  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the networks in the conditions."""
        return self.networks

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the networks in tables and figures, by name, in the order of the figures."""
        return self.kinds

    def hyperparameters(self, network: str) -> list[Hyperparameters]:
        """The hyper-parameters that a network is trained with."""
        rates = self.learning_rates or (self.training.learning_rates[network],)
        return [(("learning_rate", rate),) for rate in rates]

    def units_of(self, name: str, size: int) -> int:
        """The hidden units of a network, or the cells of an LSTM."""
        return self.units[size][name]

    @property
    def training(self) -> Protocol:
        """How the networks are trained."""
        raise NotImplementedError

    def pieces(self) -> tuple[str, ...]:
        """The names of the pieces of data."""
        raise NotImplementedError

    def nominal_sizes(self) -> tuple[int, ...]:
        """The sizes of the conditions."""
        return self.sizes

    def conditions(self) -> list[Condition]:
        """All conditions, in the order of the table."""
        return [
            Condition(network, size, piece, hyperparameters)
            for network in self.names
            for size in self.nominal_sizes()
            for hyperparameters in self.hyperparameters(network)
            for piece in self.pieces()
        ]

    def settings(self) -> dict[str, Any]:
        """The arguments, and what is the same in all experiments."""
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **arguments,
            **self.training.settings(),
            "weights": f"all weights and biases from N(0, {STDDEV}^2)",
            **self.architecture(),
            "units": {str(size): self.units[size] for size in self.sizes},
        }

    def architecture(self) -> dict[str, Any]:
        """What `settings` say of the networks besides their units."""
        modules = self.paper_modules
        return {
            "forget_bias": FORGET_BIAS,
            "clock": f"{modules} modules, periods 1 to {2 ** (modules - 1)}; CW-LSTM: periods {self.lstm_periods}",
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """The task whose `settings` these are.

        Raises:
            ValueError: if they are not of such a task.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        arguments = {name: value for name, value in settings.items() if name in known}
        return cls(**arguments)

    def network(self, name: str, size: int, rngs: nnx.Rngs) -> Network:
        """A network of Table 1, or the clockwork of LSTMs of a like number of parameters, with fresh weights."""
        return self.network_of(name, self.units_of(name, size), self.outputs_width, rngs)

    def network_of(self, name: str, units: int, outputs: int, rngs: nnx.Rngs) -> Network:
        """A network with this number of units (or LSTM cells) and outputs."""
        if name == "srn":
            return SimpleRNN(units, self.inputs, outputs, stddev=STDDEV, rngs=rngs)
        if name == "lstm":
            return PeepholeLSTM(units, self.inputs, outputs, stddev=STDDEV, forget_bias=FORGET_BIAS, rngs=rngs)
        if name == "cwlstm":
            clock = Clock.even(units, self.lstm_periods)
            return ClockworkLSTM(clock, self.inputs, outputs, stddev=STDDEV, forget_bias=FORGET_BIAS, rngs=rngs)
        clock = Clock.exponential(units, self.paper_modules)
        return ClockworkRNN(clock, self.inputs, outputs, stddev=STDDEV, rngs=rngs)

    def model(self, name: str, size: int, rngs: nnx.Rngs, hyperparameters: dict[str, Array]) -> Network:
        """The `network` of a condition."""
        del hyperparameters
        return self.network(name, size, rngs)

    def num_parameters(self, condition: Condition, params: PyTree) -> int:
        """The number of parameters as the paper counts it, including the periods of a clock."""
        del params
        return nnx.eval_shape(lambda: self.network(condition.network, condition.size, nnx.Rngs(0))).num_parameters

    def optimizer(self, hyperparameters: dict[str, Array]) -> optax.GradientTransformation:
        """The optimiser of `training`."""
        return self.training.optimizer(hyperparameters["learning_rate"])

    @classmethod
    def info(cls) -> str:
        """What ``clockwork info`` prints of the experiment: Table 1, the clockwork of LSTMs beside it."""
        task = cls()
        lines = [
            f"{task.title}, Table 1 and CW-LSTM: units and parameters (weights, biases, clocks' periods)",
            "nominal " + "".join(f"{LABELS[name]:>20}" for name in LABELS),
        ]
        for size in task.units:
            parts = []
            for name in LABELS:
                units = task.units_of(name, size)
                made = nnx.eval_shape(lambda n=name, u=units: task.network_of(n, u, task.paper_outputs, nnx.Rngs(0)))
                parts.append(f"{units:>3} units {made.num_parameters:>6}")
            lines.append(f"{size:>7} " + "".join(f"{part:>20}" for part in parts))
        return "\n".join(lines)

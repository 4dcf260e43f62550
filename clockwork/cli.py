"""The command ``clockwork``."""

import contextlib
import dataclasses
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from clockwork.checks import ArgumentError, chosen, counted
from clockwork.optional import require

try:
    tyro: Any = require("tyro")
    from clockwork.console import complain, guarded, sentence, stopped
    from clockwork.data.audio import matching_files
    from clockwork.tasks import TASKS, Generation, Words
    from clockwork.tasks.generation.task import PROTOCOLS, UNITS
    from clockwork.tasks.paper import LABELS, NETWORKS
except (ImportError, ValueError) as error:  # ValueError: a variable of the environment that JAX cannot read
    named = [name for name in os.environ if name.startswith("JAX_") and name.lower() in str(error).lower()]
    variable = f"{named[0]}={os.environ[named[0]]}" if named else "JAX_..."
    problem = error if isinstance(error, ImportError) else f"JAX cannot read its environment, {variable}: {error}"
    print(f"clockwork: {problem}", file=sys.stderr)
    sys.exit(2)


@dataclasses.dataclass(frozen=True)
class SweepCommand:
    """What the experiments' commands have in common."""

    kind: ClassVar[type[Generation] | type[Words]]
    fields: ClassVar[dict[str, str]]  # what the task calls an option that has another name there
    out: Path
    format: tuple[str, ...] = ("png",)
    """Formats of the figures: png, pdf, svg, or several of them."""

    def task(self) -> Generation | Words:
        """The task that the options describe; options without a value are the task's defaults."""
        known = {field.name for field in dataclasses.fields(self.kind)}
        given: dict[str, Any] = {}
        for option in dataclasses.fields(self):
            name, value = self.fields.get(option.name, option.name), getattr(self, option.name)
            if name in known and value not in (None, ()):
                given[name] = str(value) if isinstance(value, Path) else value
            elif name in known and option.default:
                given[name] = value  # an option that was emptied
        return self.kind(**given)

    def run(self) -> int:
        from clockwork.report import FORMATS, write_report
        from clockwork.training import FolderError, for_output, keep_compiled, sweep

        with _bad_input(options=self.options()):
            chosen("format", self.format, FORMATS)
            task = self.task()
            task.settings()  # whatever cannot be read is found out now
            for module in ("matplotlib", "soundfile", "rich", "filelock"):
                require(module)
            keep_compiled()
        progress = for_output()
        try:
            with _bad_input(ArgumentError, FolderError, options=self.options()):
                results = sweep(task, self.out, progress=progress)
            print(_report_text(write_report(results, self.out, self.format), self.out))
        except KeyboardInterrupt as stop:
            progress.end()
            return stopped(stop, f" What is done is safe in {self.out}; to go on: {self.again()}")
        except BrokenPipeError:
            raise
        except (OSError, MemoryError) as error:
            progress.end()
            safe = f"; what is done is safe in {self.out}" if (self.out / "conditions").is_dir() else ""
            return complain(f"{sentence(error, 'written')}{safe}")
        return 0

    def options(self) -> dict[str, str]:
        """The options by the task's names for them."""
        names = [field.name for field in dataclasses.fields(self)]
        return {self.fields.get(name, name): f"--{name.replace('_', '-')}" for name in names}

    def again(self) -> str:
        """The command line that stands for these options."""
        words = ["clockwork", self.kind.name]
        for field in sorted(dataclasses.fields(self), key=lambda field: field.name == "out"):
            value = getattr(self, field.name)
            if value != field.default:
                words += [
                    "--" + field.name.replace("_", "-"),
                    *map(str, value if isinstance(value, tuple) else (value,)),
                ]
        return shlex.join(words)


@dataclasses.dataclass(frozen=True)
class GenerationCommand(SweepCommand):
    """Train networks without input to generate a piece of sound (Koutník et al. 2014, sec. 4.1).

    Trains every chosen network at every size on every clip, `--runs` times each, and writes a
    table, the paper's figures 3 and 5, learning curves and the best outputs as sound. The same
    command started again skips what is done and goes on with what was cut.
    """

    kind = Generation
    fields = {"learning_rate": "learning_rates", "start": "audio_start"}  # noqa: RUF012

    runs: int = 10
    """Training runs of each network, size and clip; the paper has 100."""
    networks: tuple[str, ...] = NETWORKS
    """Of srn, lstm, cwrnn, the paper's, and cwlstm, a clockwork of LSTM cells."""
    sizes: tuple[int, ...] = tuple(UNITS)
    """Nominal numbers of parameters: of 100, 250, 500, 1000."""
    clips: tuple[str, ...] = Generation.clips  # pyright: ignore[reportAssignmentType]
    """Of guitar, choir, mika, safari, tabla, or their numbers 1 to 5."""
    epochs: int = 2000
    """Updates of each run."""
    protocol: str = "stable"
    """paper: as published; some runs diverge. stable: with the gradient's norm clipped at 30, and for the LSTM the best
    rate of a search; none does."""
    learning_rate: tuple[float, ...] = ()
    """In place of the protocol's, for all networks; several make a search."""
    clip_norm: float | None = None
    """In place of the protocol's; inf for no clipping."""
    audio: tuple[str, ...] | None = None
    """Sound files to learn in place of the embedded clips, one target each, or patterns such as "*.wav"."""
    start: float = 0.0
    """Where in each sound file to begin, in seconds."""
    samples: int = 320
    """How many samples of each sound file to learn."""
    seed: int = 0
    """Run i draws its weights from this seed and i alone."""
    out: Path = Path("results/generation")
    """The results folder."""

    def task(self) -> Generation | Words:
        """The task, with the files that patterns stand for."""
        audio = None if self.audio is None else _matching("audio", self.audio)
        return SweepCommand.task(dataclasses.replace(self, audio=audio))


@dataclasses.dataclass(frozen=True)
class WordsCommand(SweepCommand):
    """Train networks to tell spoken words apart (Koutník et al. 2014, sec. 4.2).

    Trains every chosen network at every size, `--runs` times each, and writes a table, the paper's
    figure 4, learning curves and confusion matrices. Without --data the words are embedded, and synthetic. The same
    command started again skips what is done and goes on with what was cut. The paper's experiment is
    --runs 100 --sizes 500 1000 2500 5000 10000.
    """

    kind = Words
    fields = {"learning_rate": "learning_rates", "data": "data_folder"}  # noqa: RUF012

    runs: int = Words.runs
    """Training runs of each network, size and split; the paper has 100."""
    networks: tuple[str, ...] = NETWORKS
    """Of srn, lstm, cwrnn, the paper's, and cwlstm, a clockwork of LSTM cells."""
    sizes: tuple[int, ...] = Words.sizes
    """Nominal numbers of parameters: of 500, 1000, 2500, 5000, 10000."""
    epochs: int = Words.epochs
    """Passes over the training set, at most."""
    data: Path | None = None
    """Recordings to learn in place of the embedded words: the folder of TIMIT, a folder with a folder for each speaker
    (SPEAKER/WORD.wav; takes are SPEAKER/WORD_2.wav or SPEAKER/WORD/2.wav), or a table words.csv with the columns file,
    word, speaker."""
    word_list: tuple[str, ...] = ()
    """The words to tell apart; by default the paper's 25 of TIMIT, and all there are of other recordings."""
    per_word: int | None = None
    """Speakers of each word to use; by default 7 of TIMIT, as in the paper, and all of other recordings."""
    test_per_word: int = Words.test_per_word
    """How many speakers of each word to keep for the test."""
    splits: tuple[int, ...] = Words.splits
    """Numbers of the splits into speakers for training and for testing, each drawn from its number."""
    batch: int = Words.batch
    """Sequences in an update."""
    noise: float = Words.noise
    """Standard deviation of the noise on the normalised inputs in training."""
    loss_at: str = Words.loss_at
    """last: the loss is that of the last frame's output; every: the mean over all frames."""
    stop_on: str = Words.stop_on
    """Training-set quantity watched for early stopping: loss or error."""
    stop_after: int = Words.stop_after
    """Stop a run after this many epochs without improvement of --stop-on."""
    learning_rate: tuple[float, ...] = ()
    """In place of the paper's 3e-4, for all networks; several make a search."""
    seed: int = 0
    """Run i draws its weights and its noise from this seed and i alone."""
    classify: tuple[str, ...] | None = None
    """Train nothing: let the network in the results folder with the lowest training error name the word in each of
    these sound files, or patterns such as "*.wav"."""
    out: Path = Path("results/words")
    """The results folder."""

    def task(self) -> Generation | Words:
        """The task; says what it learns, and what of the data is missing or left out."""
        task = super().task()
        assert isinstance(task, Words)
        print(*task.remarks(), sep="\n")
        return task

    def run(self) -> int:
        if self.classify is None:
            return super().run()
        from clockwork.tasks.words.classify import classify_all, describe_all
        from clockwork.training import open_results

        with _bad_input(options=self.options()):
            print(describe_all(classify_all(open_results(self.out), _matching("classify", self.classify))))
        return 0


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Redraw the table and the figures from the stored results in a folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A results folder."""
    format: tuple[str, ...] = ("png",)
    """Formats of the figures: png, pdf, svg, or several of them."""

    def run(self) -> int:
        from clockwork.report import write_report
        from clockwork.training import open_results

        with _bad_input():
            written = write_report(open_results(self.folder), self.folder, self.format)
            print(_report_text(written, self.folder))
        return 0


@dataclasses.dataclass(frozen=True)
class InfoCommand:
    """Print versions, devices, and the networks of the experiments with their parameter counts."""

    def run(self) -> int:
        from flax import nnx

        from clockwork.training.config import environment

        for name, value in environment().items():
            print(f"{name:<10} {', '.join(value) if isinstance(value, list) else value}")
        for kind in TASKS.values():
            task = kind()
            print(f"\n{task.title}, Table 1 and CW-LSTM: units and parameters (weights, biases, clocks' periods)")
            print("nominal " + "".join(f"{LABELS[name]:>20}" for name in LABELS))
            for size, units in task.units.items():
                abstract = [lambda n=n, s=size, t=task: t.network(n, s, nnx.Rngs(0)) for n in LABELS]
                counts = [nnx.eval_shape(network).num_parameters for network in abstract]
                cells = [f"{units[name]:>3} units {count:>6}" for name, count in zip(LABELS, counts, strict=True)]
                print(f"{size:>7} " + "".join(f"{cell:>20}" for cell in cells))
        print("\nSequence generation, protocols: learning rates; gradient clipping")
        for name, protocol in PROTOCOLS.items():
            rates = ", ".join(f"{LABELS[network]} {rate:g}" for network, rate in protocol.learning_rates.items())
            print(f"{name:<7} {rates}; {'none' if protocol.clip_norm is None else f'norm {protocol.clip_norm:g}'}")
        return 0


Command = (
    Annotated[GenerationCommand, tyro.conf.subcommand("generation")]
    | Annotated[WordsCommand, tyro.conf.subcommand("words")]
    | Annotated[ReportCommand, tyro.conf.subcommand("report")]
    | Annotated[InfoCommand, tyro.conf.subcommand("info")]
)


@contextlib.contextmanager
def _bad_input(*kinds: type[Exception], options: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """End the program with one sentence and exit status 2 on what the user can put right.

    Args:
        kinds: the errors that are the user's; by default those that this library raises of what it reads.
        options: the options by the names of the arguments in the library's messages.
    """
    kinds = kinds or (ValueError, OSError, ImportError)
    try:
        yield
    except BrokenPipeError:
        raise
    except kinds as error:
        text = sentence(error)
        if isinstance(error, ArgumentError) and error.name in options:
            text = f"{options[error.name]} {error.problem}"
        sys.exit(complain(text))


def _matching(option: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise ArgumentError(option, "must name at least one file, got none")
    return matching_files(patterns)


def _report_text(written: Sequence[Path], folder: Path) -> str:
    sounds = [path for path in written if path.suffix == ".wav"]
    files = [str(path) for path in written if path.suffix != ".wav"]
    listed = ", ".join([*files, *([f"{counted(len(sounds), 'sound')} in {folder / 'best'}"] if sounds else [])])
    return f"{(folder / 'table.md').read_text(encoding='utf-8')}\nWritten: {listed}"


def _start_jax() -> None:
    from clockwork.training import use_all_cores
    from clockwork.training.devices import all_devices

    use_all_cores()
    with _bad_input():
        all_devices()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for bad input."""

    def work() -> int:
        command = tyro.cli(Command, prog="clockwork", description="The Clockwork RNN's experiments.", args=arguments)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: print(f"clockwork: {message}", file=sys.stderr)
            _start_jax()
            return command.run()

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())

"""The command ``clockwork``."""

import contextlib
import dataclasses
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from clockwork.extras import require
from clockwork.tasks import Generation
from clockwork.tasks.generation import LABELS, NETWORKS, PROTOCOLS, UNITS

try:
    tyro: Any = require("tyro")
except ImportError as error:
    sys.exit(f"clockwork: {error}")


@dataclasses.dataclass(frozen=True)
class GenerationCommand:
    """Train networks without input to generate a piece of sound (Koutník et al. 2014, sec. 4.1).

    Trains every chosen network at every size on every clip, `--runs` times each, and writes a
    table, the paper's figures 3 and 5, learning curves and the best outputs as sound. The same
    command started again skips what is done and goes on with what was cut.
    """

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
    audio: Path | None = None
    """A sound file to learn in place of the embedded clips: WAV, FLAC, OGG, ..."""
    start: float = 0.0
    """Where in the sound file to begin, in seconds."""
    samples: int = 320
    """How many samples of the sound file to learn."""
    seed: int = 0
    """Run i draws its weights from this seed and i alone."""
    out: Path = Path("results/generation")
    """The results folder."""

    def run(self) -> int:
        from clockwork.report import write_report
        from clockwork.training import keep_compiled, sweep, use_all_cores
        from clockwork.training.progress import for_output

        use_all_cores()
        keep_compiled()
        with _bad_input():
            task = Generation(
                runs=self.runs,
                networks=self.networks,
                sizes=self.sizes,
                clips=self.clips,
                epochs=self.epochs,
                protocol=self.protocol,
                learning_rates=self.learning_rate or None,
                clip_norm=self.clip_norm,
                audio=None if self.audio is None else str(self.audio),
                audio_start=self.start,
                samples=self.samples,
                seed=self.seed,
            )
            _ = task.sounds
            _check_folder(task, self.out)
            for module in ("matplotlib", "soundfile", "rich"):
                require(module)
        progress = for_output()
        try:
            results = sweep(task, self.out, progress=progress)
            print(_report_text(write_report(results, self.out), self.out))
        except KeyboardInterrupt:
            progress.end()
            print(f"\nStopped. What is done is safe in {self.out}; to go on: {self.again()}", file=sys.stderr)
            return 130
        except OSError as error:
            progress.end()
            print(f"clockwork: {error}; what is done is safe in {self.out}", file=sys.stderr)
            return 2
        return 0

    def again(self) -> str:
        """The command line that stands for these options."""
        words = ["clockwork", "generation"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                words += [
                    "--" + field.name.replace("_", "-"),
                    *map(str, value if isinstance(value, tuple) else (value,)),
                ]
        return shlex.join(words)


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Redraw the table and the figures from the stored results in a folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A results folder."""

    def run(self) -> int:
        from clockwork.report import write_report
        from clockwork.training.store import open_results

        with _bad_input():
            print(_report_text(write_report(open_results(self.folder), self.folder), self.folder))
        return 0


@dataclasses.dataclass(frozen=True)
class InfoCommand:
    """Print versions, devices, and the networks of sequence generation with their parameter counts."""

    def run(self) -> int:
        from flax import nnx

        from clockwork.training import use_all_cores
        from clockwork.training.store import environment

        use_all_cores()
        for name, value in environment().items():
            print(f"{name:<10} {', '.join(value) if isinstance(value, list) else value}")
        print("\nSequence generation, Table 1 and CW-LSTM: units and parameters (weights, biases, clocks' periods)")
        print("nominal " + "".join(f"{LABELS[name]:>20}" for name in LABELS))
        task = Generation()
        for size, units in UNITS.items():
            counts = [nnx.eval_shape(lambda n=n, s=size: task.network(n, s, nnx.Rngs(0))).parameters for n in LABELS]
            cells = [f"{units[name]:>3} units {count:>6}" for name, count in zip(LABELS, counts, strict=True)]
            print(f"{size:>7} " + "".join(f"{cell:>20}" for cell in cells))
        print("\nProtocols: learning rates; gradient clipping")
        for name, protocol in PROTOCOLS.items():
            rates = ", ".join(f"{LABELS[network]} {rate:g}" for network, rate in protocol.learning_rates.items())
            print(f"{name:<7} {rates}; {'none' if protocol.clip_norm is None else f'norm {protocol.clip_norm:g}'}")
        return 0


Command = (
    Annotated[GenerationCommand, tyro.conf.subcommand("generation")]
    | Annotated[ReportCommand, tyro.conf.subcommand("report")]
    | Annotated[InfoCommand, tyro.conf.subcommand("info")]
)


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """End the program with one sentence and exit status 2 on what the user can put right."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        print(f"clockwork: {error}", file=sys.stderr)
        sys.exit(2)


def _check_folder(task: Generation, folder: Path) -> None:
    from clockwork.training import Store

    try:
        Store(folder, task)
    except OSError as error:
        raise ValueError(f"results folder {folder} cannot be written: {error.strerror}") from None


def _report_text(written: Sequence[Path], folder: Path) -> str:
    sounds = [path for path in written if path.suffix == ".wav"]
    files = [str(path) for path in written if path.suffix != ".wav"]
    listed = ", ".join([*files, f"{len(sounds)} sounds in {folder / 'best'}"])
    return f"{(folder / 'table.md').read_text()}\nWritten: {listed}"


def _terminate(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for bad input."""
    command = tyro.cli(Command, prog="clockwork", description="The Clockwork RNN's experiments.", args=arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: print(f"clockwork: {message}", file=sys.stderr)
            return command.run()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

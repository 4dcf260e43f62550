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
from typing import Annotated, Any, ClassVar, Union

from clockwork.optional import require

try:
    from clockwork.checks import ArgumentError, chosen, counted

    tyro: Any = require("tyro")
    from clockwork.console import complain, guarded, sentence, stopped
    from clockwork.data.audio import matching_files
    from clockwork.options import help_of, option_names, options_of, reads_results, takes_files
    from clockwork.tasks import TASKS
    from clockwork.training import Task
except (ImportError, ValueError) as error:  # ValueError: an environment variable that JAX cannot read
    named = [name for name in os.environ if name.startswith("JAX_") and name.lower() in str(error).lower()]
    variable = f"{named[0]}={os.environ[named[0]]}" if named else "JAX_..."
    problem = error if isinstance(error, ImportError) else f"JAX cannot read its environment, {variable}: {error}"
    print(f"clockwork: {problem}", file=sys.stderr)
    sys.exit(2)


FORMATS_HELP = "Formats of the figures: png, pdf, svg, or several of them."
RUNS_HELP = (
    "Runs that are trained side by side on a device; without it as many as fit into half of the memory. "
    "With --scheduler: runs that a worker trains at a time, by default about 1000."
)
SCHEDULER_HELP = (
    "Address of a Dask scheduler, such as tcp://127.0.0.1:8786, whose workers train in place of this machine."
)


class TaskCommand:
    """The command of a task. `task_command` adds its options: the task's fields and actions, and those below."""

    kind: ClassVar[type[Task]]
    out: Path
    format: tuple[str, ...]
    runs_per_device: int | None
    scheduler: str | None

    def task(self) -> Task:
        """The task that the options describe; options that are not given keep the task's defaults."""
        given: dict[str, Any] = {}
        for field in dataclasses.fields(self.kind):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if field.metadata.get("files") and value is not None:
                given[field.name] = _matching(field.name, value)
            elif value is not None and (value != () or field.default is not None):
                given[field.name] = value
        return self.kind(**given)

    def run(self) -> int:
        with _bad_input(options=option_names(self.kind)):
            for name in getattr(self.kind, "actions", ()):
                if getattr(self, name) is not None:
                    return self.act(name)
        return self.train()

    def act(self, action: str) -> int:
        """Run an action other than training, on the results folder or on the task itself."""
        from clockwork.training import open_results

        given = getattr(self, action)
        if reads_results(self.kind, action):
            texts = _matching(action, given) if takes_files(self.kind, action) else given
            print(getattr(self.kind, action)(open_results(self.out), texts))
        else:
            print(getattr(self.task(), action)(given))
        return 0

    def train(self) -> int:
        """Train the runs that the results folder does not have yet, and write the report."""
        from clockwork.report import FORMATS, write_report
        from clockwork.training import FolderError, PoolError, for_output, keep_compiled, sweep

        names = {**option_names(self.kind), "runs_per_device": "--runs-per-device"}
        with _bad_input(options=names):
            chosen("format", self.format, FORMATS)
            task = self.task()
            for remark in task.remarks():
                print(remark)
            task.settings()  # fails now if an input cannot be read
            for module in ("matplotlib", "soundfile", "rich", "filelock"):
                require(module)
            keep_compiled()
            client = None if self.scheduler is None else _client(self.scheduler)
        progress = for_output()
        try:
            with _bad_input(ArgumentError, FolderError, options=names):
                results = sweep(task, self.out, progress=progress, runs_per_device=self.runs_per_device, client=client)
            print(_report_text(write_report(results, self.out, self.format, self.again()), self.out))
        except KeyboardInterrupt as stop:
            progress.end()
            return stopped(stop, f" What is done is safe in {self.out}; to go on: {self.again()}")
        except BrokenPipeError:
            raise
        except (OSError, MemoryError, PoolError) as error:
            progress.end()
            safe = f"; what is done is safe in {self.out}" if (self.out / "conditions").is_dir() else ""
            return complain(f"{sentence(error, 'written')}{safe}")
        return 0

    def again(self) -> str:
        """The command line with these options."""
        words, names = ["clockwork", self.kind.name], option_names(self.kind)
        fields: Any = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        for field in sorted(fields, key=lambda field: field.name == "out"):
            value, option = getattr(self, field.name), names.get(field.name, f"--{field.name}".replace("_", "-"))
            if isinstance(value, bool) and value != field.default:
                words.append(option if value else option.replace("--", "--no-", 1))
            elif value != field.default:
                words += [option, *map(str, value if isinstance(value, tuple) else (value,))]
        return shlex.join(words)


def _client(address: str) -> Any:
    """A client of the Dask scheduler at an address."""
    distributed: Any = require("distributed", "cluster")
    try:
        return distributed.Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ArgumentError("--scheduler", f"must be the address of a Dask scheduler, got {address}: {error}") from None


def task_command(kind: type[Task]) -> Any:
    """The dataclass from which tyro builds the command line of a task."""
    arg: Any = tyro.conf.arg
    out, forms = arg(help="The results folder."), arg(help=FORMATS_HELP)
    runs = arg(help=RUNS_HELP, metavar="INT", help_behavior_hint="")
    scheduler = arg(help=SCHEDULER_HELP, metavar="ADDRESS", help_behavior_hint="")
    fields = [
        *options_of(kind),
        ("out", Annotated[Path, out], dataclasses.field(default=Path("results") / kind.name)),
        ("format", Annotated[tuple[str, ...], forms], dataclasses.field(default=("png",))),
        (
            "runs_per_device",
            Annotated[int | None, runs],
            dataclasses.field(default=None),
        ),
        (
            "scheduler",
            Annotated[str | None, scheduler],
            dataclasses.field(default=None),
        ),
    ]
    namespace = {"kind": kind, "__doc__": help_of(kind), "__module__": __name__}
    return dataclasses.make_dataclass(
        f"{kind.__name__}Command", fields, bases=(TaskCommand,), namespace=namespace, frozen=True, kw_only=True
    )


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Redraw the table, the figures and report.html from the stored results in a folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A results folder."""
    format: Annotated[tuple[str, ...], tyro.conf.arg(help=FORMATS_HELP)] = ("png",)
    html: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write only report.html, a single page that works offline."""

    def run(self) -> int:
        from clockwork.report import write_html, write_report
        from clockwork.training import open_results

        with _bad_input():
            results = open_results(self.folder)
            command = _command_of(results.task, self.folder)
            if self.html:
                print(f"Written: {write_html(results, self.folder, command)}")
            else:
                print(_report_text(write_report(results, self.folder, self.format, command), self.folder))
        return 0


@dataclasses.dataclass(frozen=True)
class WatchCommand:
    """Show the report of a sweep in a browser while it runs. The page is served to this machine only."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A results folder."""
    port: int = 0
    """The port of 127.0.0.1 to listen on; 0 takes a free one."""

    def run(self) -> int:
        from clockwork.report.watch import server
        from clockwork.training import open_results

        with _bad_input():
            if not 0 <= self.port <= 65535:
                raise ArgumentError("--port", f"must be from 0 to 65535, got {self.port}")
            task = open_results(self.folder).task
            try:
                serving = server(self.folder, self.port, _command_of(task, self.folder))
            except OSError as error:
                raise ArgumentError("--port", f"{self.port} cannot be listened on: {error.strerror}") from None
        with serving:
            print(f"{self.folder}: http://127.0.0.1:{serving.server_address[1]}/ (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                serving.serve_forever()
        return 0


def _command_of(task: Task, folder: Path) -> str:
    """The command line that trains a stored task; empty if it has no command."""
    if TASKS.get(task.name) is not type(task):
        return ""
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}  # pyright: ignore[reportArgumentType]
    kind = task_command(type(task))
    known = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    return kind(
        **{name: value for name, value in values.items() if name in known and value is not None}, out=folder
    ).again()


@dataclasses.dataclass(frozen=True)
class StatusCommand:
    """Print how far the sweep in a results folder has come: networks trained, runs in training, and who trains them."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A results folder."""

    def run(self) -> int:
        from clockwork.training import status

        with _bad_input():
            print(status(self.folder))
        return 0


@dataclasses.dataclass(frozen=True)
class InfoCommand:
    """Print versions, devices, which back end evaluates a layer here and why, and the networks of the experiments."""

    def run(self) -> int:
        told = [getattr(kind, "info", None) for kind in TASKS.values()]
        sections = [_versions(), _back_ends(), *(tell() for tell in told if tell)]
        print("\n\n".join(sections))
        return 0


def _versions() -> str:
    """Versions and devices, one per line."""
    from clockwork.training.config import environment

    known = {name: ", ".join(value) if isinstance(value, list) else value for name, value in environment().items()}
    return "\n".join(f"{name:<10} {value}" for name, value in known.items())


def _back_ends() -> str:
    """Which back end evaluates the paper's largest layers on this machine, and why the others do not."""
    import clockwork as cw
    from clockwork import lstm, recurrence

    layers = {
        "a clockwork layer of 40 units in 9 modules": recurrence.explain(cw.Clock.exponential(40, 9), 320),
        "an LSTM layer of 15 cells": lstm.explain(15, 320),
    }
    lines = ["Back ends, as the argument method chooses them (layers over 320 steps; logger clockwork.ops.backend)"]
    for layer, choices in layers.items():
        lines += [f"{layer}:", *(f"  {name:<8} {why}" for name, why in choices)]
    return "\n".join(lines)


def commands(asked: str) -> Any:
    """The type from which tyro builds the command line: one command per task, and the commands for all results.

    Args:
        asked: the command whose full description is shown; the others get one line each in the list of commands.
    """
    found: dict[str, Any] = {name: task_command(kind) for name, kind in TASKS.items()}
    found |= {"report": ReportCommand, "watch": WatchCommand, "status": StatusCommand, "info": InfoCommand}
    texts = {name: kind.__doc__ if name == asked else kind.__doc__.split("\n\n")[0] for name, kind in found.items()}
    named = [Annotated[kind, tyro.conf.subcommand(name, description=texts[name])] for name, kind in found.items()]
    return Union[tuple(named)]  # noqa: UP007


@contextlib.contextmanager
def _bad_input(*kinds: type[Exception], options: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """End the program with one sentence and exit status 2 on an error that the user can fix.

    Args:
        kinds: the types of such errors; by default those that this library raises for bad input.
        options: maps argument names in the library's messages to command-line options.
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
    """The table and the files written; files in subfolders are counted, not listed."""
    listed = [str(path) for path in written if path.parent == folder]
    for parent in dict.fromkeys(path.parent for path in written if path.parent != folder):
        files = [path for path in written if path.parent == parent]
        noun = "sound" if all(path.suffix == ".wav" for path in files) else "file"
        listed.append(f"{counted(len(files), noun)} in {parent}")
    return f"{(folder / 'table.md').read_text(encoding='utf-8')}\nWritten: {', '.join(listed)}"


def _start_jax() -> None:
    from clockwork.training import use_all_cores
    from clockwork.training.devices import all_devices

    use_all_cores()
    with _bad_input():
        all_devices()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status, 2 for bad input."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        told = "Experiments with the Clockwork RNN. `clockwork --version` prints the version."
        command = tyro.cli(commands(given[0] if given else ""), prog="clockwork", description=told, args=given)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: print(f"clockwork: {message}", file=sys.stderr)
            _start_jax()
            return command.run()

    return guarded(work)

"""Progress of a sweep while it runs."""

import sys
import time
from typing import Any

from clockwork.checks import counted
from clockwork.optional import require

NARROWEST, WIDEST = 10, 40  # columns of the bar


class Progress:
    """The interface through which a sweep reports its progress; this base class ignores all reports.

    Example:
        Collect the reports:

        >>> class Notes(Progress):
        ...     def __init__(self):
        ...         self.said = []
        ...     def group(self, label, runs):
        ...         self.said.append(f"{runs} runs of {label}")
    """

    def plan(self, networks: int, stored: int, epochs: int) -> None:
        """Called at the start, with the number of networks, of stored ones, and of epochs to train."""

    def group(self, label: str, runs: int) -> None:
        """Called when the training of a group of runs begins."""

    def phase(self, name: str) -> None:
        """Called with ``"compiling"``, ``"training"`` or ``"evaluating"`` when that begins."""

    def advance(self, epochs: int, diverged: int = 0) -> None:
        """Called when epochs are done, with the number of runs of the group that have diverged so far.

        Before the training of a group, these are the epochs stored earlier; after it, those that were not needed.
        """

    def spare(self, epochs: int) -> None:
        """Called with the number of the group's epochs that are not needed because runs have stopped."""

    def trained(self, networks: int, updates: int) -> None:
        """Called before a sweep ends that began with nothing stored, with all its networks and their updates."""

    def end(self) -> None:
        """Called when the sweep has ended or was interrupted."""


class _Counting(Progress):
    """Counts epochs, and estimates the time left from those of this session."""

    def plan(self, networks: int, stored: int, epochs: int) -> None:
        self.epochs = epochs
        self.label, self.runs, self.name, self.diverged = "", 0, "", 0
        self.groups = self.before = self.here = self.spared = 0
        self.gained, self.training_time, self.other_time = 0, 0.0, 0.0
        self.trained_here, self.time_here = 0, 0.0
        self.networks = self.updates = 0
        self.started = self.clock = self.since = time.monotonic()
        self.say(f"{counted(networks, 'network')} to train" + (f", {stored} of them stored already" if stored else ""))

    def group(self, label: str, runs: int) -> None:
        self.label, self.runs, self.diverged = label, runs, 0
        self.groups, self.before, self.here, self.spared = self.groups + 1, self.done, 0, 0
        self.trained_here, self.time_here = 0, 0.0

    def phase(self, name: str) -> None:
        self._pass_time()
        self.name, self.since = name, self.clock

    def advance(self, epochs: int, diverged: int = 0) -> None:
        passed = self._pass_time()
        before = self.done
        self.here += epochs
        if self.name == "training":
            self.diverged = diverged
            self.trained_here += epochs
            self.time_here += passed
            self.gained += self.done - before
        else:
            self.spared = 0

    def spare(self, epochs: int) -> None:
        self.gained += epochs - self.spared
        self.spared = epochs

    def trained(self, networks: int, updates: int) -> None:
        self.networks, self.updates = networks, updates

    @property
    def summary(self) -> str:
        """How long it took, and how much was trained in that time."""
        took = time.monotonic() - self.started
        text = f"{counted(self.epochs, 'epoch')} done in {_minutes(took)}"
        if not self.networks:
            return text
        return f"{text}: {_rate(self.networks / took)} networks/s, {_rate(self.updates / took)} updates of a network/s"

    def _pass_time(self) -> float:
        now = time.monotonic()
        passed, self.clock = now - self.clock, now
        if self.name == "training":
            self.training_time += passed
        else:
            self.other_time += passed
        return passed

    @property
    def done(self) -> int:
        """Epochs that are done or not needed."""
        return self.before + self.here + self.spared

    @property
    def rate(self) -> float:
        """Epochs per second of the group in training."""
        return self.trained_here / self.time_here if self.time_here else 0.0

    @property
    def left(self) -> float | None:
        """Seconds: the epochs at the speed of those trained by now, and as much compiling for each group as by now."""
        if self.gained <= 0:
            return None
        left = self.training_time / self.gained * (self.epochs - self.done)
        if self.groups > 1 and self.before:
            each = self.before / (self.groups - 1)
            left += self.other_time / self.groups * ((self.epochs - self.before) / each - 1)
        return left

    def parts(self) -> tuple[str, list[str]]:
        """What is going on, and what else there is to say, the most important first."""
        more = [counted(self.runs, "run")]
        if self.diverged:
            more.append(f"{self.diverged} diverged")
        more.append(f"{self.done} of {counted(self.epochs, 'epoch')}")
        if self.rate:
            more.append(f"{self.rate:.3g} epochs/s")
        return f"{self.label} {self.name}", more

    def say(self, text: str) -> None:
        raise NotImplementedError


class Lines(_Counting):
    """Prints a line from time to time, for logs.

    Args:
        every: seconds between two lines, at least.
    """

    def __init__(self, every: float = 30.0) -> None:
        self.every, self.said, self.ended = every, -float("inf"), True

    def plan(self, networks: int, stored: int, epochs: int) -> None:
        super().plan(networks, stored, epochs)
        self.ended = not epochs

    def phase(self, name: str) -> None:
        super().phase(name)
        self.tell()

    def advance(self, epochs: int, diverged: int = 0) -> None:
        super().advance(epochs, diverged)
        if self.name == "training":
            self.tell()

    def tell(self) -> None:
        if time.monotonic() - self.said >= self.every:
            doing, more = self.parts()
            left = [f"{_minutes(self.left)} left"] if self.left is not None else []
            self.say(f"{doing}: {', '.join([*more, *left])}")
            self.said = time.monotonic()

    def end(self) -> None:
        if not self.ended and self.done == self.epochs:
            self.ended = True
            self.say(self.summary)

    def say(self, text: str) -> None:
        print(text, flush=True)


class Bar(_Counting):
    """Draws a progress bar of one line on a terminal.

    Args:
        console: of rich; the terminal if None.
    """

    def __init__(self, console: Any = None) -> None:
        self.live: Any = None
        self.console = console

    def plan(self, networks: int, stored: int, epochs: int) -> None:
        self.console = self.console or require("rich.console").Console()
        self.spinner = require("rich.spinner").Spinner("line")
        super().plan(networks, stored, epochs)
        if epochs:
            self.live = require("rich.live").Live(get_renderable=self.line, console=self.console, refresh_per_second=8)
            self.live.start()

    def line(self) -> Any:
        """What is shown now: spinner, phase and its time, as much more as fits, bar, share, time left."""
        doing, more = self.parts()
        now = time.monotonic()
        left = f"{_minutes(self.left)} left" if self.left is not None else ""
        ends = f" {100 * self.done // self.epochs} % {left}".rstrip()
        text = f"{doing} {_minutes(now - self.since)}"
        room = self.console.width - len(ends) - 3  # the spinner, and spaces beside it and the bar
        for part in more:
            if len(f"{text}, {part}") + NARROWEST > room:
                break
            text += f", {part}"
        text = text[: max(0, room - NARROWEST)]
        bar = require("rich.progress_bar").ProgressBar(
            total=self.epochs, completed=self.done, width=max(NARROWEST, min(WIDEST, room - len(text)))
        )
        grid = require("rich.table").Table.grid()
        grid.add_row(self.spinner.render(now), f" {text} ", bar, ends)
        return grid

    def end(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
            if self.networks:
                self.say(self.summary)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)


def for_output() -> Progress:
    """A bar where the output is a terminal, lines where it is not.

    Example:
        >>> from clockwork.training import sweep
        >>> from clockwork.tasks import Generation
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5)
        >>> results = sweep(task, "results/generation", progress=for_output())
        2 networks to train, 2 of them stored already
    """
    return Bar() if sys.stdout is not None and sys.stdout.isatty() else Lines()


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _minutes(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"

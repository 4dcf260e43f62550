"""What a long sweep tells while it works."""

import sys
import time
from typing import Any

from clockwork.extras import require


class Progress:
    """Told by a sweep what it is doing; this one keeps it to itself.

    Example:
        What a sweep tells, kept for later:

        >>> class Notes(Progress):
        ...     def __init__(self):
        ...         self.said = []
        ...     def group(self, label, runs):
        ...         self.said.append(f"{runs} runs of {label}")
    """

    def plan(self, networks: int, stored: int, epochs: int) -> None:
        """At the start: how many networks there are, how many are stored, how many epochs are to come."""

    def group(self, label: str, runs: int) -> None:
        """Runs that are trained side by side."""

    def phase(self, name: str) -> None:
        """Compiling, training or evaluating."""

    def advance(self, epochs: int, diverged: int = 0) -> None:
        """So many epochs are done; so many runs of the group have diverged by now."""

    def end(self) -> None:
        """All is done, or cut short."""


class _Counting(Progress):
    def plan(self, networks: int, stored: int, epochs: int) -> None:
        self.epochs, self.done, self.trained = epochs, 0, 0
        self.label, self.runs, self.name, self.diverged = "", 0, "", 0
        self.started = self.clock = time.monotonic()
        self.say(f"{networks} networks to train" + (f", {stored} of them stored already" if stored else ""))

    def group(self, label: str, runs: int) -> None:
        self.label, self.runs, self.diverged = label, runs, 0
        self.trained_here, self.training_time = 0, 0.0

    def phase(self, name: str) -> None:
        self.name, self.clock = name, time.monotonic()

    def advance(self, epochs: int, diverged: int = 0) -> None:
        now = time.monotonic()
        self.done += epochs
        self.diverged = diverged
        if now - self.clock > 1e-2:  # epochs restored from disk take no time and say nothing of the speed
            self.trained += epochs
            self.trained_here += epochs
            self.training_time += now - self.clock
        self.clock = now

    @property
    def rate(self) -> float:
        """Epochs per second of the group in training."""
        return self.trained_here / self.training_time if self.training_time else 0.0

    @property
    def left(self) -> float | None:
        """Seconds, from the wall time of what is done: compiling is part of it."""
        if not self.trained:
            return None
        return (time.monotonic() - self.started) / self.trained * (self.epochs - self.done)

    def describe(self) -> str:
        parts = [f"{self.label:<10} {self.name}: {self.runs} runs"]
        if self.diverged:
            parts.append(f"{self.diverged} diverged")
        if self.rate:
            parts.append(f"{self.rate:.0f} epochs/s")
        return ", ".join(parts)

    def say(self, text: str) -> None:
        raise NotImplementedError


class Lines(_Counting):
    """A line now and then, for a log.

    Args:
        every: seconds between two lines.
    """

    def __init__(self, every: float = 30.0) -> None:
        self.every, self.said = every, -float("inf")

    def phase(self, name: str) -> None:
        super().phase(name)
        self.tell()

    def advance(self, epochs: int, diverged: int = 0) -> None:
        super().advance(epochs, diverged)
        if time.monotonic() - self.said > self.every:
            self.tell()

    def tell(self) -> None:
        self.said = time.monotonic()
        left = f", {_minutes(self.left)} left" if self.left is not None else ""
        self.say(f"{self.describe()}, {self.done} of {self.epochs} epochs{left}")

    def say(self, text: str) -> None:
        print(text, flush=True)


class Bar(_Counting):
    """A bar on a terminal."""

    def __init__(self) -> None:
        self.bar: Any = None

    def plan(self, networks: int, stored: int, epochs: int) -> None:
        progress = require("rich.progress")
        columns = (
            "{task.description}",
            progress.BarColumn(),
            "{task.completed}/{task.total} epochs",
            "{task.fields[left]}",
        )
        self.bar = progress.Progress(*columns)
        self.task = self.bar.add_task("", total=epochs, left="")
        super().plan(networks, stored, epochs)
        self.bar.start()

    def phase(self, name: str) -> None:
        super().phase(name)
        self.show()

    def advance(self, epochs: int, diverged: int = 0) -> None:
        super().advance(epochs, diverged)
        self.show()

    def show(self) -> None:
        left = f"{_minutes(self.left)} left" if self.left is not None else ""
        self.bar.update(self.task, completed=self.done, description=self.describe(), left=left)

    def end(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False)


def for_output() -> Progress:
    """A bar where the output is a terminal, lines where it is not.

    Example:
        >>> from clockwork.training import sweep
        >>> from clockwork.tasks import Generation
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5)
        >>> results = sweep(task, "results/generation", progress=for_output())
        2 networks to train, 2 of them stored already
    """
    return Bar() if sys.stdout.isatty() else Lines()


def _minutes(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"

"""Handling of Ctrl-C and SIGTERM without losing results."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
WORKER = "clockwork-worker"
LISTEN = 0.1  # seconds after which a waiting thread looks whether it is to stop


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, as ``KeyboardInterrupt`` is on Ctrl-C."""


class Interruptible:
    """While it is entered, Ctrl-C waits for the epochs in progress, and says so; a second one and SIGTERM do not wait.

    Compilations and epochs are computed in another thread (`wait`): in the thread that is in compiled code no signal
    would be heard. An exception out of the blue can get lost, in a callback of the garbage collector, so that `check`
    raises it again.
    """

    def __init__(self) -> None:
        self.asked: KeyboardInterrupt | None = None
        self.training = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruptible":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = self.asked, Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if number == signal.SIGTERM:
            if not isinstance(first, Terminated):  # more than one may come while the runs are stored
                raise self.asked
        elif self.training and first is None:
            _tell("\nStopping after the epochs in progress; press Ctrl-C again to stop at once.\n")
        else:
            raise self.asked

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if it was asked for."""
        if self.asked is not None:
            raise self.asked

    def wait(self, work: Callable[[], T], *, training: bool = False) -> T:
        """Run ``work`` in another thread while this one waits for signals; return its result.

        Args:
            work: must not trace: JAX's settings belong to threads.
            training: whether Ctrl-C lets it finish.
        """
        self.check()
        if not self.before:
            return work()
        found: list[T] = []
        failed: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                found.append(work())
            except BaseException as error:
                failed.append(error)
            finally:
                done.set()

        # No daemon: an interpreter that ends while a thread compiles would crash.
        worker = threading.Thread(target=run, name=WORKER)
        self.training = training
        try:
            worker.start()
            # Not `join`: where a signal interrupts that, CPython takes the thread for ended, and does not wait for it
            # when it ends itself, which aborts the process.
            while not done.wait(LISTEN):
                pass
        finally:
            self.training = False
        if failed:
            raise failed[0]
        return found[0]


def leave(status: int) -> int:
    """The exit status; if a computation that nobody waits for is under way, the process ends with it here and now."""
    if any(thread.name == WORKER for thread in threading.enumerate()):
        os._exit(status)
    return status


def _tell(text: str) -> None:
    # Not through Python's streams: this is called within a signal handler, which may have interrupted a write to them.
    with contextlib.suppress(OSError):
        os.write(2, text.encode())

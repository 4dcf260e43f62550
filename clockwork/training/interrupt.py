"""Ctrl-C at a moment when nothing is lost."""

import signal
import threading
from types import FrameType
from typing import Any


class Interruptible:
    """While it is entered, Ctrl-C and SIGTERM wait for the next `check`; asked twice, they do not.

    An exception out of the blue could strike between two assignments, or in a callback of the
    garbage collector, where it would be lost.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruptible":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if it was asked for."""
        if self.asked:
            raise KeyboardInterrupt

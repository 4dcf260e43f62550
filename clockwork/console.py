"""What surrounds the command: its streams, its signals, and how it ends."""

import codecs
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from clockwork.training.interrupt import Terminated, leave

BAD_INPUT = 2
READER_GONE = 141  # what a shell says of a program that wrote to a pipe whose reader had ended
INTERRUPTED, TERMINATED = 130, 143
ASCII = {"±": "+-", "–": "-", "×": "x"}


def guarded(work: Callable[[], int]) -> int:
    """Call what the command does, and end as other programs do whatever becomes of its streams and signals.

    Args:
        work: returns the exit status.

    Returns:
        The exit status; 2 where standard output is closed or full, 130 after Ctrl-C, 143 after SIGTERM, 141 where the
        reader of a pipe has ended.
    """
    if not _prepare_streams():
        return complain("standard output is closed; send it to a file, or to /dev/null")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        status = work()
        sys.stdout.flush()
        return leave(status)
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except OSError as error:
        _discard_output()
        return complain(sentence(error, "written"))
    except KeyboardInterrupt as stop:
        return leave(stopped(stop))
    finally:
        signal.signal(signal.SIGTERM, before)


def complain(text: str) -> int:
    """Say on standard error, in one line, what is wrong; returns the exit status for bad input."""
    print(f"clockwork: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return BAD_INPUT


def stopped(stop: KeyboardInterrupt, more: str = "") -> int:
    """Say that the command was stopped, and what is to be said besides; returns the exit status."""
    print(f"\nStopped.{more}", file=sys.stderr, flush=True)
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def sentence(error: BaseException, doing: str = "read or written") -> str:
    """An error in words: of a file, its name, what cannot be done with it, and why."""
    if isinstance(error, OSError) and error.strerror:
        where = "standard output" if error.filename is None else os.fsdecode(error.filename)
        return f"{where} cannot be {doing}: {error.strerror}"
    return str(error)


def _terminate(signum: int, frame: object) -> None:
    raise Terminated


def _prepare_streams() -> bool:
    """Let everything be printed, whatever the locale holds; False if there is no standard output."""
    codecs.register_error("clockwork", _substitute)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="clockwork")  # pyright: ignore[reportAttributeAccessIssue]
    return sys.stdout is not None


def _substitute(error: UnicodeError) -> tuple[Any, int]:
    """What is printed for a character that the stream's encoding lacks: of a file's name, the bytes that it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = b""
    for character in error.object[error.start : error.end]:
        try:
            found += character.encode("ascii", "surrogateescape")
        except UnicodeEncodeError:
            found += ASCII.get(character, "?").encode()
    return found, error.end


def _discard_output() -> None:
    # What is still in the buffer would raise again when Python ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

"""The streams, signals and exit status of the command."""

import codecs
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from clockwork.training.interrupt import Terminated, leave

BAD_INPUT = 2
READER_GONE = 141  # a shell's exit status for a program that wrote to a pipe whose reader had exited
INTERRUPTED, TERMINATED = 130, 143
ASCII = {"±": "+-", "–": "-", "×": "x"}


def guarded(work: Callable[[], int]) -> int:
    """Run the command, and exit as Unix programs do when a stream fails or a signal arrives.

    Args:
        work: runs the command and returns its exit status.

    Returns:
        The exit status; 2 if standard output is closed or full, 130 after Ctrl-C, 143 after SIGTERM, 141 if the reader
        of a pipe has exited.
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
    """Print one line on standard error; return the exit status for bad input."""
    print(f"clockwork: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return BAD_INPUT


def stopped(stop: KeyboardInterrupt, more: str = "") -> int:
    """Print on standard error that the command was stopped, followed by ``more``; return the exit status."""
    print(f"\nStopped.{more}", file=sys.stderr, flush=True)
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def sentence(error: BaseException, doing: str = "read or written") -> str:
    """An error in words; for a file: its name, what cannot be done with it, and why."""
    if isinstance(error, OSError) and error.strerror:
        where = "standard output" if error.filename is None else os.fsdecode(error.filename)
        return f"{where} cannot be {doing}: {error.strerror}"
    return str(error)


def _terminate(signum: int, frame: object) -> None:
    raise Terminated


def _prepare_streams() -> bool:
    """Make every text printable in any locale; return False if there is no standard output."""
    codecs.register_error("clockwork", _substitute)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="clockwork")  # pyright: ignore[reportAttributeAccessIssue]
    return sys.stdout is not None


def _substitute(error: UnicodeError) -> tuple[Any, int]:
    """The replacement for characters that the stream cannot encode; undecodable bytes of file names are kept."""
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
    # Otherwise Python would flush the rest of the buffer at exit and raise again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

"""Writing files atomically, and checking files before they are read."""

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from clockwork.optional import require

TEMPORARY = ".tmp-"  # prefix of the name of a file that is still being written
LOCK = ".lock"
ABANDONED = 3600.0  # seconds after which a temporary file counts as abandoned


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a temporary file beside ``path``; when the block succeeds, it is flushed to disk and replaces ``path``.

    The temporary name is unique, also across processes. If the block fails, ``path`` is unchanged.

    Args:
        path: the file to be written; its folder must exist.

    Yields:
        The path to write to, with the same suffix.

    Raises:
        OSError: if the file cannot be written; the error names ``path``.
    """
    beside = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}{path.suffix}")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: if the file cannot be written; the error names ``path``.
    """
    with replacing(path) as beside:
        beside.write_bytes(content)


def encoded(text: str) -> bytes:
    """A text in UTF-8; bytes of a file name that are not UTF-8 are escaped, such as ``\\udcff``."""
    return text.encode(errors="backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write a text file, `encoded`, atomically."""
    write_whole(path, encoded(text))


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a folder for a single writer until the block or the process ends; others may read.

    The operating system holds the lock and releases it however the process ends.

    Args:
        folder: the folder; created if it does not exist.

    Raises:
        ValueError: if another process or thread holds the lock.
        OSError: if the folder cannot be written.
        ImportError: if filelock is not installed; it is in the extra ``[experiments]``.
    """
    filelock = require("filelock")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"{folder} is in use by another sweep: wait until it ends, or choose another folder") from None
    try:
        yield
    finally:
        lock.release()


def remove_abandoned(folder: Path, own: tuple[str, ...]) -> None:
    """Remove the temporary files of `replacing` that killed processes left behind.

    Args:
        folder: the folder to search, with its direct subfolders.
        own: suffixes that nobody but the caller may be writing now; files with other suffixes are removed only when
            they are an hour old.
    """
    for path in [*folder.glob(f"{TEMPORARY}*"), *folder.glob(f"*/{TEMPORARY}*")]:
        with contextlib.suppress(OSError):
            if path.suffix in own or time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def regular_file(path: str | Path, what: str = "file") -> Path:
    """Return the path; raise ``ValueError`` unless it is a regular file.

    Args:
        path: the file.
        what: what the error message calls the file, such as ``"audio file"``.

    Raises:
        ValueError: if the path does not exist, or is a folder, or a pipe or device, whose reading might never end.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{what} {path} does not exist") from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{what} {path} cannot be read: {reason}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{what} {path} is a folder")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{what} {path} is a pipe or a device, not a file")
    return path


def cache_folder() -> Path | None:
    """The cache folder of this library, created if needed; None if it cannot be written.

    It is ``$XDG_CACHE_HOME/clockwork``, or ``~/.cache/clockwork``.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clockwork"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None

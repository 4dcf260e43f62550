"""Files: written whole or not at all, and looked at before they are read."""

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from clockwork.optional import require

TEMPORARY = ".tmp-"  # how the name of a file begins that is not whole yet
LOCK = ".lock"
ABANDONED = 3600.0  # seconds after which nobody can still be writing a file


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` to write, which takes its place, flushed to disk, when the block ends well.

    No two processes have the same name for it. If the block fails, ``path`` is as it was.

    Args:
        path: the file to be written; its folder must exist.

    Yields:
        The path to write to, with the same suffix.

    Raises:
        OSError: if it cannot be written; it names ``path``.
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
    """Write a file whole or not at all.

    Raises:
        OSError: if it cannot be written; it names ``path``.
    """
    with replacing(path) as beside:
        beside.write_bytes(content)


def encoded(text: str) -> bytes:
    """A text in UTF-8; what of a file's name is not UTF-8 becomes ``\\udcff``."""
    return text.encode(errors="backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write a text file, `encoded`, whole or not at all."""
    write_whole(path, encoded(text))


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for one writer alone, until the block or the process ends; others may read.

    The operating system holds the claim, so that it ends with the process, however that ends.

    Args:
        folder: is made if it does not exist.

    Raises:
        ValueError: if another process or thread holds it.
        OSError: if it cannot be written.
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
    """Remove the temporary files of `replacing` that processes left behind which were killed.

    Args:
        folder: where they are looked for, and in the folders in it.
        own: the suffixes that the caller alone may be writing now; files with others go once they are an hour old.
    """
    for path in [*folder.glob(f"{TEMPORARY}*"), *folder.glob(f"*/{TEMPORARY}*")]:
        with contextlib.suppress(OSError):
            if path.suffix in own or time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def regular_file(path: str | Path, what: str = "file") -> Path:
    """The path, if there is a file to be read there.

    Args:
        path: the file.
        what: what it should be, such as ``"audio file"``, for the message.

    Raises:
        ValueError: if there is nothing, a folder, or a pipe or device, whose reading might never end.
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
    """Where this library keeps what can be made again, made if need be; None if there is no such place to write.

    ``$XDG_CACHE_HOME/clockwork``, or ``~/.cache/clockwork``.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clockwork"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    return folder if os.access(folder, os.W_OK) else None

"""Kernels in C++: compiled on this machine the first time they are needed, then kept for all later processes.

A compiler (``c++``, or what the environment variable ``CXX`` names) makes a shared library for this processor, which is
stored in the user's cache folder, ``clockwork`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Where there is none, or with
``CLOCKWORK_NATIVE=0``, everything is evaluated by XLA.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax

from clockwork.files import replacing, write_whole
from clockwork.ops.backend import default_device

logger = logging.getLogger(__name__)

# Products and sums may be contracted into one rounding, as XLA does; NaN and infinity are kept as they are.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-ffp-contract=fast")
FLAGS += ("-fno-math-errno", "-fno-trapping-math")
LONGEST = 300  # seconds that the compiler may take


def refusal(source: Path, targets: tuple[str, ...]) -> str | None:
    """Why the kernels of a source file cannot be used for JAX's default device; None if they can, now registered.

    Args:
        source: a C++ file.
        targets: the names of its handlers, under which they are registered.
    """
    if os.environ.get("CLOCKWORK_NATIVE") == "0":
        return "the native kernels are turned off by CLOCKWORK_NATIVE=0"
    if default_device().platform != "cpu":
        return "the native kernels are for CPUs"
    return _registered(source, targets)


@functools.cache
def _registered(source: Path, targets: tuple[str, ...]) -> str | None:
    named = shlex.split(os.environ.get("CXX", "")) or [
        "c++"
    ]  # with flags, or after the name of a wrapper such as ccache
    if shutil.which(named[0]) is None:
        return "the native kernels need a C++ compiler, and there is none on this machine"
    try:
        library = ctypes.CDLL(str(_built(source, named)))
        handlers = {target: getattr(library, target) for target in targets}
    except (AttributeError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["no message"]
        logger.warning("the native kernels could not be compiled, so XLA evaluates everything: %s", why[0])
        return f"the native kernels could not be compiled: {why[0]}"
    for target, handler in handlers.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="cpu")
    return None


def _built(source: Path, compiler: Sequence[str]) -> Path:
    """The shared library of a source file; it is compiled if this was not done before on such a machine.

    A library is used only if it is as its checksum says: loading one that is cut short ends the process.
    """
    command = [*compiler, *FLAGS, "-isystem", jax.ffi.include_dir()]
    made_of = (
        source.read_text(encoding="utf-8"),
        " ".join(command),
        importlib.metadata.version("jaxlib"),
        _processor(),
        " ".join(platform.libc_ver()),
    )
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clockwork"
    library = folder / f"{source.stem}-{digest}.so"
    checksum = library.with_suffix(".sha256")
    if not (library.exists() and checksum.exists() and checksum.read_text(encoding="utf-8") == _sha256(library)):
        folder.mkdir(parents=True, exist_ok=True)
        logger.info("compiling the native kernels, once on this machine: %s", library)
        with replacing(library) as made:  # at once, since another process may do the same
            subprocess.run(
                [*command, "-o", str(made), str(source)],
                check=True,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LONGEST,
            )
        write_whole(checksum, _sha256(library).encode())
    return library


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _processor() -> str:
    """What the compiler sees of the processor: a home folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text(encoding="utf-8").splitlines()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )

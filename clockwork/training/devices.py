"""The devices that a sweep uses, and the cache of compiled programs."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import jax

from clockwork.checks import ArgumentError
from clockwork.files import cache_folder


def use_all_cores() -> None:
    """Make each core of the processor a JAX device, so that a sweep uses all cores.

    Call this before JAX is initialised; later it has no effect. If ``JAX_NUM_CPU_DEVICES`` is set, that value is used
    instead. It has no effect on a sweep on accelerators.

    Example:
        >>> use_all_cores()
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", cores)


def keep_compiled() -> None:
    """Cache compiled programs on disk, so that the same sweep starts faster the next time.

    Call this before the sweep. The cache is ``$XDG_CACHE_HOME/clockwork`` or ``~/.cache/clockwork``, unless JAX has a
    cache folder already (``JAX_COMPILATION_CACHE_DIR``). If the folder cannot be written, nothing is cached.

    Example:
        >>> keep_compiled()  # doctest: +SKIP
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = cache_folder()
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def all_devices() -> list[Any]:
    """All JAX devices of this process; JAX is initialised if it was not yet.

    Raises:
        ValueError: if the environment asks for devices that do not exist.
    """
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        asked = [
            f"{name} is {os.environ[name]!r}" for name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES") if name in os.environ
        ]
        reasons = [str(error).splitlines()[0]] if str(error) else []
        raise ValueError("; ".join(["JAX finds no device to compute on", *asked, *reasons])) from None


def checked_devices(devices: Sequence[Any] | None) -> list[Any]:
    """The devices to use; all devices if None.

    Raises:
        ValueError: if there is none, one is there twice, or they are something else.
    """
    if devices is None:
        return all_devices()
    try:
        found = list(devices)
    except TypeError:
        raise ArgumentError("devices", f"must be a list of JAX's devices, got {devices!r}") from None
    if not found or not all(isinstance(device, jax.Device) for device in found) or len(set(found)) < len(found):
        raise ArgumentError("devices", f"must be one or more of JAX's devices, each once, got {devices!r}")
    return found

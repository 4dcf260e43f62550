"""The devices that a sweep lays its runs over, and what was compiled for them."""

import contextlib
import os

import jax

from clockwork.files import cache_folder


def use_all_cores() -> None:
    """Let JAX see each core of the processor as a device, so that a sweep uses all of them.

    Call it before anything that starts JAX; later it does nothing. ``JAX_NUM_CPU_DEVICES``, if
    set, is left as it is. It makes no difference to a sweep on accelerators.

    Example:
        >>> use_all_cores()
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", cores)


def keep_compiled() -> None:
    """Keep compiled programs on disk, so that the same sweep starts at once the next time.

    Call it before the sweep. They are kept in ``$XDG_CACHE_HOME/clockwork``, or ``~/.cache/clockwork``;
    where JAX has been told of a folder of its own (``JAX_COMPILATION_CACHE_DIR``), there. Does nothing
    where that cannot be written.

    Example:
        >>> keep_compiled()  # doctest: +SKIP
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = cache_folder()
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

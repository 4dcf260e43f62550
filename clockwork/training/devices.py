"""The devices that a sweep lays its runs over."""

import contextlib
import os

import jax


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

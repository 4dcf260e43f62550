"""Ways to run a function: with jit, without it and over two devices.

Only test cases of absl can use chex.variants, and pytest gives them neither fixtures nor parameters. `VARIANTS` are the
same ways as parameters of pytest.
"""

import functools

import chex
import jax
import pytest


def without_jit(function):
    """The function as Python runs it, with ``jax.jit`` doing nothing."""

    @functools.wraps(function)
    def run(*arguments):
        with chex.fake_jit():
            return function(*arguments)

    return run


def over_two_devices(function):
    """The compiled function, with the first axis of its last argument spread over two devices."""
    chex.assert_devices_available(2, "cpu", not_less_than=True)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    compiled = jax.jit(function)

    @functools.wraps(function)
    def run(*arguments):
        return compiled(*arguments[:-1], jax.device_put(arguments[-1], spread))

    return run


VARIANTS = [
    pytest.param(jax.jit, id="jit"),
    pytest.param(without_jit, id="without jit"),
    pytest.param(over_two_devices, id="two devices"),
]

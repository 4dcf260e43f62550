"""The warning that sequences are shorter than the slowest period. This file uses no Flax API."""

import sys
import warnings

PASSED_OVER = ("clockwork.nn", "flax", "jax")


def warn_if_short(slowest: int, steps: int) -> None:
    """Warn if the slowest period is longer than the sequence, once for each line of user code that calls a layer.

    The library's own networks run on short sequences on purpose, so calls from its other packages do not warn.

    Args:
        slowest: the longest period of the clock.
        steps: ``T``; there is no warning for a symbolic size of `jax.export`.
    """
    if not isinstance(steps, int) or slowest <= steps:
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back and _within(frame.f_globals.get("__name__", ""), PASSED_OVER):
        frame, level = frame.f_back, level + 1
    if not _within(frame.f_globals.get("__name__", ""), ("clockwork",)):
        warnings.warn(
            f"the slowest period, {slowest}, is longer than the sequence of {steps} steps, in which its module updates "
            f"only once: choose periods of at most {steps}, or continue sequences with initial_carry",
            UserWarning,
            stacklevel=level,
        )


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)

"""Timing of several ways to do one piece of work, in turn, in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Timed(NamedTuple):
    """Something to time.

    Attributes:
        call: does the work once and waits for it.
        times: how many pieces of work a call is.
        compiling: seconds from the function to its machine code; None where there is none.
        temporary: bytes of temporary memory of the compiled program; None where unknown.
    """

    call: Callable[[], Any]
    times: int = 1
    compiling: float | None = None
    temporary: int | None = None


def compiled(fun: Any, *arguments: Any, times: int = 1, options: dict[str, str | bool] | None = None) -> Timed:
    """``fun`` of the arguments, compiled with XLA's options."""
    began = time.perf_counter()
    program = (fun if hasattr(fun, "lower") else jax.jit(fun)).lower(*arguments).compile(options)
    compiling = time.perf_counter() - began
    memory = program.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes
    return Timed(lambda: jax.block_until_ready(program(*arguments)), times, compiling, temporary)


def measure(ways: dict[str, Timed], repeats: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Each way in turn, again and again: at least three times, and no more than a way has seconds for.

    Returns:
        For each way: ``ms`` (median of one piece of work), ``quartiles``, ``repeats``, and for all but the
        first ``ratio``: how many times the first one's time it took, median and quartiles over the turns.
    """
    spent = dict.fromkeys(ways, 0.0)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for timed in ways.values():
        timed.call()
    for turn in range(repeats):
        for name, timed in ways.items():
            if turn < 3 or spent[name] < seconds:
                began = time.perf_counter()
                timed.call()
                took = time.perf_counter() - began
                spent[name] += took
                taken[name].append(took / timed.times)
    first = next(iter(ways))
    rows = {}
    for name, timed in ways.items():
        low, middle, high = statistics.quantiles(taken[name], n=4)
        row = {
            "ms": 1e3 * middle,
            "quartiles": [1e3 * low, 1e3 * high],
            "repeats": len(taken[name]),
            "compiling": timed.compiling,
            "temporary": timed.temporary,
        }
        if name != first:
            pairs = [theirs / ours for ours, theirs in zip(taken[first], taken[name], strict=False)]
            low, middle, high = statistics.quantiles(pairs, n=4)
            row["ratio"], row["ratio_quartiles"] = middle, [low, high]
        rows[name] = row
    return rows

"""The names in flat dictionaries of arrays, for both Flax APIs. This file uses no Flax API."""

from collections.abc import Iterable, Mapping
from typing import Any

from clockwork.checks import listed
from clockwork.clock import Clock


def check_names(given: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise ``ValueError`` unless both are the same names."""
    missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or unknown:
        said = [f"{listed(names)} {word}" for names, word in ((missing, "missing"), (unknown, "unknown")) if names]
        raise ValueError(f"the arrays must be named as the module's parameters, got {' and '.join(said)}")


def stored_clocks(arrays: Mapping[str, Any], clocks: Mapping[str, Clock]) -> list[str]:
    """The names of the entries that are clocks; raise ``ValueError`` if one differs from the layer's clock.

    Args:
        arrays: the arrays by name.
        clocks: the clock of each layer, by the path to it.
    """
    names = []
    for path, clock in clocks.items():
        prefix = f"{path}." if path else ""
        if f"{prefix}clock" in arrays:
            names.append(f"{prefix}clock")
            if (stored := Clock.from_flat(arrays, prefix)) != clock:
                raise ValueError(f"{prefix}clock must be that of the layer, {clock}, got {stored}")
    return names

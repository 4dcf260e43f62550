"""The checks of arguments that all parts of the library share; each failure is one sentence."""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SHOWN = 5  # names that a sentence lists before it only counts the rest


class ArgumentError(ValueError):
    """An argument that cannot be used.

    The name is kept apart from the problem, so that the command line can name its option instead.

    Args:
        name: the argument, such as ``"clip_norm"``.
        problem: the rest of the sentence, such as ``"must be positive, got -1"``.

    Example:
        >>> str(ArgumentError("clip_norm", "must be positive, got -1"))
        'clip_norm must be positive, got -1'
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.problem)


def integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """The value as Python's integer, if it is one within the bounds, else `ArgumentError`.

    Example:
        >>> integer("runs", np.int64(3), least=1)
        3
    """
    bounds = "" if least is None else f", {least} or more" if most is None else f" from {least} to {most}"
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise ArgumentError(name, f"must be an integer{bounds}, got {value!r}") from None
    if (least is not None and found < least) or (most is not None and found > most):
        raise ArgumentError(name, f"must be an integer{bounds}, got {value!r}")
    return found


def integers(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """The values as Python's integers, if they are, else `ArgumentError`."""
    try:
        values = tuple(values)
        return tuple(integer(name, value) for value in values)
    except (TypeError, ArgumentError):
        raise ArgumentError(name, f"must be integers, got {values!r}") from None


def static_integer(name: str, value: Any, least: int | None = None) -> int:
    """The value as Python's integer, if it is one that is known before compilation, else `ArgumentError`."""
    try:
        found = operator.index(value)
    except TypeError:
        raise ArgumentError(name, f"must be an integer known before compilation, got {value!r}") from None
    if least is not None and found < least:
        raise ArgumentError(name, f"must be at least {least}, got {found}")
    return found


def finite(
    name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> float:
    """The value as Python's float, if it is a finite number within the bounds, else `ArgumentError`.

    Example:
        >>> finite("stddev", 0.1, least=0)
        0.1
    """
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    bounds += [f"at most {most:g}"] * (most < math.inf)
    wanted = " and ".join(["finite", *bounds])
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(name, f"must be a number, {wanted}, got {value!r}") from None
    if not (math.isfinite(found) and above < found and least <= found <= most):
        raise ArgumentError(name, f"must be {wanted}, got {value!r}")
    return found


def chosen(name: str, values: Sequence[Any], known: Sequence[Any], hint: str = "") -> None:
    """Raise ``ValueError`` unless at least one value is chosen, all are known, and each is there once."""
    if not values:
        raise ValueError(f"at least one {name} must be chosen, of {', '.join(map(str, known))}{hint}")
    for one in values:
        if one not in known:
            raise ValueError(f"unknown {name} {one!r}; choose of {', '.join(map(str, known))}{hint}")
    distinct(name, values)


def distinct(name: str, values: Sequence[Any]) -> None:
    """Raise ``ValueError`` if a value is there twice."""
    if len(set(values)) < len(values):
        shown = (
            values if len(values) <= SHOWN else [value for value in dict.fromkeys(values) if values.count(value) > 1]
        )
        raise ValueError(f"each {name} can be chosen once, got {listed(shown)}")


def listed(names: Iterable[Any], most: int = SHOWN) -> str:
    """Names for a sentence: the first few, and how many more there are.

    Example:
        >>> listed(["one", "two", "three", "four"], most=2)
        'one, two and 2 more'
    """
    names = list(map(str, names))
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def described(value: Any) -> str:
    """A value for a sentence: dtype and shape of an array, else what it looks like, cut where it is long.

    Example:
        >>> described(np.zeros((3, 4)))
        'float64[3,4]'
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."

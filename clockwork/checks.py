"""The checks of arguments that all parts of the library share; each failure is one sentence."""

import math
import operator
import os
import reprlib
import types
from collections.abc import Iterable, Sequence
from typing import Any, Union, get_args, get_origin

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
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(name, f"must be a number, {wanted}, got {value!r}") from None
    if not (math.isfinite(found) and above < found and least <= found <= most):
        raise ArgumentError(name, f"must be {wanted}, got {value!r}")
    return found


def float32(name: str, value: Any) -> float:
    """The value as Python's float, if it is positive and single precision holds it, else `ArgumentError`.

    Example:
        >>> float32("clip_norm", 30)
        30.0
    """
    found, least, most = finite(name, value, above=0), float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    if not least <= found <= most:
        raise ArgumentError(name, f"must be from {least:.2g} to {most:.2g}, which float32 can hold, got {value!r}")
    return found


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value as a field of this type annotation holds it, else `ArgumentError`.

    Lists and arrays become tuples, numbers of NumPy and JAX those of Python, paths strings. An annotation that is
    neither a class, nor a tuple or union of classes, takes every value as it is.

    Example:
        >>> typed("sizes", [100, 250], tuple[int, ...])
        (100, 250)
    """
    try:
        return _fitting(value, hint)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(name, f"must be {_described(hint)}, got {shown(value)}") from None


def _fitting(value: Any, hint: Any) -> Any:
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if get_origin(hint) in (Union, types.UnionType):
        for one in get_args(hint):
            try:
                return _fitting(value, one)
            except (TypeError, ValueError, OverflowError):
                continue
        raise TypeError
    if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
        if not isinstance(value, (list, tuple, range, np.ndarray)):
            raise TypeError
        return tuple(_fitting(one, get_args(hint)[0]) for one in value)
    if hint is str:
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError
        return os.fspath(value)
    fits = {float: (int, float)}.get(hint, hint if isinstance(hint, type) else object)
    if not isinstance(value, fits) or (hint in (int, float) and isinstance(value, bool)):
        raise TypeError
    return float(value) if hint is float else value


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_described, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list, each item {_described(get_args(hint)[0])}"
    return {int: "an integer", float: "a number", str: "a string", types.NoneType: "None"}.get(hint, str(hint))


def shown(value: Any) -> str:
    """A value for a sentence: what it is, shortened where it is long or deep.

    Example:
        >>> shown(list(range(1000)))
        '[0, 1, 2, 3, 4, 5, ...]'
    """
    return reprlib.repr(value)


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


def counted(number: int, noun: str) -> str:
    """A number and its noun, singular or plural.

    Example:
        >>> counted(1, "run"), counted(2, "run")
        ('1 run', '2 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Argument checks shared by all parts of the library. Each error is one sentence."""

import math
import operator
import os
import re
import reprlib
import types
from collections.abc import Iterable, Sequence
from typing import Any, Union, get_args, get_origin

import chex
import numpy as np

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
SHOWN = 5  # an error lists this many names and counts the rest
# The letter of each dimension of an array, in every docstring and check of this library.
DIMENSIONS = {
    "R": "runs", "B": "batch", "T": "time steps", "I": "inputs", "N": "hidden units", "G": "modules", "O": "outputs",
}  # fmt: skip
KINDS = {float: "floating point numbers", int: "integers"}


class ArgumentError(ValueError):
    """An invalid argument.

    The error keeps the argument's name in a separate attribute, so that the command line can name its option instead.

    Args:
        name: the argument's name, such as ``"clip_norm"``.
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
    """Return the value as a Python integer; raise `ArgumentError` unless it is an integer within the bounds.

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
    """Return the values as Python integers; raise `ArgumentError` unless all are integers."""
    try:
        values = tuple(values)
        return tuple(integer(name, value) for value in values)
    except (TypeError, ArgumentError):
        raise ArgumentError(name, f"must be integers, got {values!r}") from None


def static_integer(name: str, value: Any, least: int | None = None) -> int:
    """Return the value as a Python integer; raise `ArgumentError` unless it is an integer that is not traced."""
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
    """Return the value as a Python float; raise `ArgumentError` unless it is a finite number within the bounds.

    Example:
        >>> finite("stddev", 0.1, least=0)
        0.1
    """
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    bounds += [f"at most {most:g}"] * (most < math.inf)
    wanted = " and ".join(filter(None, [", ".join(["finite", *bounds[:-1]]), *bounds[-1:]]))
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
    """Return the value as a Python float; raise `ArgumentError` unless it is positive and float32 can hold it.

    Example:
        >>> float32("clip_norm", 30)
        30.0
    """
    found, least, most = finite(name, value, above=0), float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    if not least <= found <= most:
        raise ArgumentError(name, f"must be from {least:.2g} to {most:.2g}, which float32 can hold, got {value!r}")
    return found


def shaped(
    name: str,
    array: Any,
    dimensions: str,
    *,
    kind: type[float] | type[int] | None = None,
    batch: tuple[int, ...] | None = None,
    hint: str = "",
    **sizes: int,
) -> Any:
    """Return the array; raise `ArgumentError` unless it has these dimensions.

    The assertions are chex's, so ``chex.disable_asserts()`` turns this check off.

    Args:
        name: the argument's name, such as ``"inputs"``.
        array: a JAX or NumPy array, or a tracer.
        dimensions: the expected dimensions, separated by spaces. Each is a letter of `DIMENSIONS`, a multiple of a
            letter (``"4N"``), a number, or ``*batch``, which stands for any number of batch dimensions.
        kind: ``float`` for any floating-point dtype, ``int`` for any integer dtype, None for any dtype.
        batch: the shape that ``*batch`` must have; None for any shape.
        hint: text appended to the error message, such as ``"; batch with jax.vmap"``.
        **sizes: the size of each letter; a letter that is not given may have any size.

    Raises:
        ArgumentError: if the array has another shape or kind.
        TypeError: if ``array`` is not an array, or ``dimensions`` has an unknown name: a bug in the calling code.

    Example:
        >>> shaped("inputs", np.zeros((5, 13)), "T I", I=13).shape
        (5, 13)
        >>> shaped("inputs", np.zeros((5, 12)), "T I", I=13, hint="; batch with jax.vmap")
        Traceback (most recent call last):
        ...
        clockwork.checks.ArgumentError: inputs must have shape (T, 13), got (5, 12); batch with jax.vmap
    """
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise TypeError(f"{name} must be an array, got {shown(array)}")
    wanted, words = _expected(dimensions, batch, sizes)
    try:
        if kind is not None:
            chex.assert_type(array, kind)
    except AssertionError:
        raise ArgumentError(name, f"must be {KINDS[kind]}, got {array.dtype}") from None
    try:
        chex.assert_shape(array, wanted)
    except AssertionError:
        shape = f"({words[0]},)" if len(words) == 1 else f"({', '.join(words)})"
        raise ArgumentError(name, f"must have shape {shape}, got {array.shape}{hint}") from None
    return array


def _expected(
    dimensions: str, batch: tuple[int, ...] | None, sizes: dict[str, int]
) -> tuple[tuple[Any, ...], list[str]]:
    """The shape for ``chex.assert_shape``, and each dimension as the error message shows it."""
    wanted, words, known = [], [], set()
    for one in dimensions.split():
        if one == "*batch":
            wanted += [...] if batch is None else batch
            words += [one] if batch is None else map(str, batch)
            continue
        if one.isdecimal():
            wanted.append(int(one))
            words.append(one)
            continue
        found = re.fullmatch(r"(\d*)([A-Z])", one)
        if found is None or found[2] not in DIMENSIONS:
            raise TypeError(f"a dimension must be one of {', '.join(DIMENSIONS)}, a multiple or *batch, got {one!r}")
        known.add(found[2])
        size = sizes.get(found[2])
        wanted.append(None if size is None else int(found[1] or 1) * size)
        words.append(one if size is None else str(wanted[-1]))
    if unused := set(sizes) - known:
        raise TypeError(f"sizes must be of dimensions of {dimensions!r}, got {', '.join(sorted(unused))}")
    return tuple(wanted), words


def typed(name: str, value: Any, hint: Any) -> Any:
    """Convert the value to this type annotation; raise `ArgumentError` if it does not fit.

    Lists and arrays become tuples, NumPy and JAX scalars Python numbers, and paths strings. An annotation
    that is neither a class, nor a tuple or union of classes, accepts every value unchanged.

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
    """Describe a value in an error: an array by its dtype and shape, anything else by its shortened ``repr``.

    Example:
        >>> shown(list(range(1000))), shown(np.zeros((3, 4)))
        ('[0, 1, 2, 3, 4, 5, ...]', 'float64[3,4]')
    """
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    return " ".join(_REPR.repr(value).split())


def chosen(name: str, values: Sequence[Any], known: Sequence[Any], hint: str = "") -> None:
    """Raise ``ValueError`` unless at least one value is chosen, all are known, and none is repeated."""
    if not values:
        raise ValueError(f"at least one {name} must be chosen, of {', '.join(map(str, known))}{hint}")
    for one in values:
        if one not in known:
            raise ValueError(f"unknown {name} {one!r}; choose of {', '.join(map(str, known))}{hint}")
    distinct(name, values)


def distinct(name: str, values: Sequence[Any]) -> None:
    """Raise ``ValueError`` if a value is repeated."""
    if len(set(values)) < len(values):
        twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
        raise ValueError(f"each {name} can be chosen once, got {listed(values if len(values) <= SHOWN else twice)}")


def listed(names: Iterable[Any], most: int = SHOWN) -> str:
    """List names in a sentence: the first few, and how many more there are.

    Example:
        >>> listed(["one", "two", "three", "four"], most=2)
        'one, two and 2 more'
    """
    names = list(map(str, names))
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def counted(number: object, noun: str) -> str:
    """A number, or a range of numbers in words, followed by its noun in singular or plural.

    Example:
        >>> counted(1, "run"), counted(2, "run")
        ('1 run', '2 runs')
    """
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"

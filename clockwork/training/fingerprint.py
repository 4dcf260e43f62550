"""What a user's functions and data are, as JSON can hold it: a sweep goes on only with the same ones."""

import functools
import hashlib
import inspect
import types
from typing import Any

import jax
import numpy as np
from flax import linen

PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)


def fingerprint(thing: Any) -> str:
    """A digest of a function, class or value: equal for equal sources and equal values, in every process.

    Functions and classes outside installed packages count with their source, their defaults, and whatever they use of
    the variables around them, to any depth; those of installed packages by their name, and what they enclose. An
    object whose attributes cannot be listed counts by its type alone.

    Example:
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> fingerprint(scaled(2)) == fingerprint(scaled(2)), fingerprint(scaled(2)) == fingerprint(scaled(3))
        (True, False)
    """
    return hashlib.sha256(repr(_described(thing, ())).encode()).hexdigest()[:16]


def digest(tree: Any) -> str:
    """A digest of all arrays of a tree, and of its structure."""
    found = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        found.update(repr(_array(leaf)).encode())
    return found.hexdigest()


def _array(array: Any) -> tuple[str, tuple[int, ...], str]:
    if isinstance(array, jax.Array) and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.ascontiguousarray(array)
    return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()


def _described(thing: Any, within: tuple[int, ...]) -> Any:
    """The thing as nested tuples of strings; ``within`` are the ids of what it is part of."""
    if isinstance(thing, PLAIN):
        return repr(thing)
    if id(thing) in within:
        return "itself"
    within = (*within, id(thing))
    if isinstance(thing, (np.ndarray, np.generic, jax.Array)):
        return _array(thing)
    if isinstance(thing, (list, tuple)):
        return (type(thing).__name__, *(_described(one, within) for one in thing))
    if isinstance(thing, (set, frozenset)):
        return (type(thing).__name__, *sorted(repr(_described(one, within)) for one in thing))
    if isinstance(thing, dict):
        return ("dict", *sorted((repr(key), repr(_described(value, within))) for key, value in thing.items()))
    if isinstance(thing, functools.partial):
        return ("partial", *(_described(one, within) for one in (thing.func, thing.args, thing.keywords)))
    if isinstance(thing, types.MethodType):
        return ("method", _described(thing.__func__, within), _described(thing.__self__, within))
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    if inspect.isfunction(thing):
        return _function(thing, within)
    if inspect.isclass(thing):
        return _class(thing, within)
    if hasattr(thing, "__wrapped__"):  # such as what jax.jit makes
        return (type(thing).__name__, _described(thing.__wrapped__, within))
    if isinstance(thing, linen.Module):
        fields = {name: getattr(thing, name) for name in thing.__dataclass_fields__ if name not in ("parent", "name")}
        return (_described(type(thing), within), _described(fields, within))
    attributes = getattr(thing, "__dict__", None)
    return (_described(type(thing), within), _described(attributes, within) if attributes else "")


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _installed(thing: Any) -> bool:
    """Whether it comes from the standard library or an installed package."""
    try:
        file = inspect.getfile(thing)
    except (OSError, TypeError):
        return True
    return any(part in ("site-packages", "dist-packages") for part in file.replace("\\", "/").split("/")) or (
        file.startswith(inspect.getfile(functools).rsplit("/", 1)[0])
    )


def _source(thing: Any) -> Any:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed at a prompt
        code = getattr(thing, "__code__", None)
        return None if code is None else (code.co_code.hex(), repr(code.co_names), repr(_constants(code)))


def _constants(code: types.CodeType) -> list[Any]:
    return [
        (one.co_code.hex(), _constants(one)) if isinstance(one, types.CodeType) else repr(one) for one in code.co_consts
    ]


def _function(function: types.FunctionType, within: tuple[int, ...]) -> Any:
    enclosed = []
    for cell in function.__closure__ or ():
        try:
            enclosed.append(_described(cell.cell_contents, within))
        except ValueError:  # not yet filled
            enclosed.append("")
    defaults = _described((function.__defaults__, function.__kwdefaults__), within)
    if _installed(function):
        return (_name(function), *enclosed, defaults)
    used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    return (_name(function), _source(function), *enclosed, defaults, _described(used, within))


def _names(code: types.CodeType) -> set[str]:
    """The global names that a function uses, those of functions within it too."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _class(kind: type, within: tuple[int, ...]) -> Any:
    if _installed(kind):
        return _name(kind)
    methods = {name: value for name, value in vars(kind).items() if inspect.isfunction(value)}
    return (_name(kind), _source(kind), _described(methods, within), *(_described(b, within) for b in kind.__bases__))

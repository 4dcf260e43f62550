"""Digests of a user's functions and data: a sweep can be continued only with the same ones."""

import functools
import hashlib
import inspect
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen

from clockwork.nn.linen.described import own_fields

LIBRARIES = (Path(__file__).parent.parent, Path(inspect.getfile(functools)).parent)  # ours, the standard one
PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)


def fingerprint(thing: Any) -> str:
    """A digest of a function, class or value: equal for equal sources and equal values, in every process.

    Functions and classes outside installed packages count with their source, their defaults, and whatever they use of
    the variables around them, to any depth; those of installed packages and of this library by their name, and what
    they enclose. An object whose attributes cannot be listed counts by its type alone.

    Example:
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> fingerprint(scaled(2)) == fingerprint(scaled(2)), fingerprint(scaled(2)) == fingerprint(scaled(3))
        (True, False)
    """
    return hashlib.sha256(_Digests().of(thing).encode()).hexdigest()[:16]


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


class _Digests:
    """Digests of things and of all that they refer to; each thing is read once, however many refer to it."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, str]] = {}  # with the thing, since the id of a deleted one is used again
        self.open: set[int] = set()

    def of(self, thing: Any) -> str:
        if isinstance(thing, PLAIN):
            return repr(thing)
        if id(thing) in self.known:
            return self.known[id(thing)][1]
        if id(thing) in self.open:
            return "itself"
        self.open.add(id(thing))
        found = hashlib.sha256(repr(self.parts(thing)).encode()).hexdigest()
        self.open.remove(id(thing))
        self.known[id(thing)] = thing, found
        return found

    def parts(self, thing: Any) -> tuple[Any, ...]:
        if isinstance(thing, (np.ndarray, np.generic, jax.Array)):
            return _array(thing)
        if isinstance(thing, (list, tuple)):
            return (type(thing).__name__, *map(self.of, thing))
        if isinstance(thing, (set, frozenset)):
            return (type(thing).__name__, *sorted(map(self.of, thing)))
        if isinstance(thing, dict):
            return ("dict", *((repr(key), self.of(thing[key])) for key in sorted(thing, key=repr)))
        if isinstance(thing, functools.partial):
            return ("partial", *map(self.of, (thing.func, thing.args, thing.keywords)))
        if isinstance(thing, types.MethodType):
            return ("method", self.of(thing.__func__), self.of(thing.__self__))
        if isinstance(thing, types.ModuleType):
            return ("module", thing.__name__)
        if inspect.isfunction(thing):
            return self.function(thing)
        if inspect.isclass(thing):
            return self.kind(thing)
        if hasattr(thing, "__wrapped__"):  # such as what jax.jit makes
            return (type(thing).__name__, self.of(thing.__wrapped__))
        if isinstance(thing, linen.Module):
            fields = {field.name: getattr(thing, field.name) for field in own_fields(thing)}
            return (self.of(type(thing)), self.of(fields))
        attributes = getattr(thing, "__dict__", None)
        return (self.of(type(thing)), self.of(attributes) if attributes else "")

    def function(self, function: types.FunctionType) -> tuple[Any, ...]:
        enclosed = []
        for cell in function.__closure__ or ():
            try:
                enclosed.append(self.of(cell.cell_contents))
            except ValueError:  # not yet filled
                enclosed.append("")
        defaults = self.of((function.__defaults__, function.__kwdefaults__))
        if _installed(function):
            return (_name(function), *enclosed, defaults)
        used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
        return (_name(function), _source(function), *enclosed, defaults, self.of(used))

    def kind(self, kind: type) -> tuple[Any, ...]:
        if _installed(kind):
            return (_name(kind),)
        methods = {name: value for name, value in vars(kind).items() if inspect.isfunction(value)}
        return (_name(kind), _source(kind), self.of(methods), *map(self.of, kind.__bases__))


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _installed(thing: Any) -> bool:
    """Whether it comes from this library, the standard library or an installed package."""
    try:
        file = Path(inspect.getfile(thing))
    except (OSError, TypeError):
        return True
    return any(map(file.is_relative_to, LIBRARIES)) or not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


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


def _names(code: types.CodeType) -> set[str]:
    """The global names that a function uses, those of functions within it too."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))

"""Pickles of unknown origin: only plain data and NumPy arrays are built, and nothing in them is called."""

import io
import math
import pickle
import re
import struct
from types import MappingProxyType
from typing import Any

import numpy as np

from clockwork.checks import shown

NUMBER = re.compile(r"[<>=|]?[biuf][1248]")  # the dtypes that are read, and "O" for arrays of lists
ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")


class _RefusedError(ValueError):
    """What a file asks for and does not get."""


class _Type:
    """A dtype as a pickle builds it: a name first, its byte order later."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not (NUMBER.fullmatch(name) or name in ("O", "O8", "|O")):
            raise _RefusedError(f"it has an array of dtype {shown(name)}, but only numbers are read")
        self.name, self.order = name.lstrip("<>=|"), ""

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise _RefusedError(f"it has an array of byte order {shown(order)}, but only '<' and '>' are known")
        self.order = order

    def dtype(self) -> np.dtype:
        """As NumPy has it."""
        return np.dtype(object) if self.name.startswith("O") else np.dtype(self.order + self.name)


class _Array(np.ndarray):
    """An array as a pickle builds it: empty first, then with the state that is found."""

    def __setstate__(self, state: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        _version, shape, kind, fortran, content = state
        dtype, shape = kind.dtype(), tuple(map(int, shape))
        if isinstance(content, str):
            content = content.encode("latin-1")  # a string of Python 2
        size = math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize)
        if min(shape, default=0) < 0 or len(content) != size or dtype.hasobject != isinstance(content, list):
            raise _RefusedError(f"it has an array of shape {shape} that does not fit what is stored of it")
        state = 1, shape, dtype, bool(fortran), content
        super().__setstate__(state)  # pyright: ignore[reportArgumentType] because NumPy wants a Python bool


# What stands in for a function that a pickle names. It has no attributes that a pickle could change.


class _Class:
    __slots__ = ()


class _Reconstruct:
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return np.ndarray.__new__(_Array, (0,), np.uint8)


class _Scalar:
    __slots__ = ()

    def __call__(self, kind: Any, content: Any) -> Any:
        array = _Reconstruct()()
        array.__setstate__((1, (1,), kind, False, content))
        return array.tolist()[0]


class _FromBuffer:
    __slots__ = ()

    def __call__(self, content: Any, kind: Any, shape: Any, order: Any) -> _Array:
        array = _Reconstruct()()
        array.__setstate__((1, shape, kind, order == "F", content))
        return array


class _Dtype:
    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Type:
        return _Type(*arguments)


class _Encode:
    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise _RefusedError(f"it has bytes in the encoding {shown(encoding)}, but only latin1 is known")
        return text.encode("latin-1")


class _NoBytes:
    __slots__ = ()

    def __call__(self, *arguments: Any) -> bytes:
        if arguments:
            raise _RefusedError(f"it has bytes made of {shown(arguments[0])}, but only empty ones are known")
        return b""


KNOWN = {
    ("numpy", "ndarray"): _Class(),
    ("numpy", "dtype"): _Dtype(),
    ("builtins", "bytes"): _NoBytes(),  # how Python 3 writes empty bytes in old protocols
    ("__builtin__", "bytes"): _NoBytes(),
    ("_codecs", "encode"): _Encode(),  # how Python 3 writes bytes for Python 2
    **{(module, "_reconstruct"): _Reconstruct() for module in ARRAYS},
    **{(module, "scalar"): _Scalar() for module in ARRAYS},
    **{(module, "_frombuffer"): _FromBuffer() for module in BUFFERS},
}


# The unpickler in C keeps its memo in an array as long as the largest index, which a few bytes can make 64 GB.
_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):
    def find_class(self, module: Any, name: Any) -> Any:
        try:
            return KNOWN[module, name]
        except (KeyError, TypeError):
            raise _RefusedError(
                f"it refers to {shown(f'{module}.{name}')}, which is not built: "
                "only dicts, lists, tuples, strings, numbers and NumPy arrays are"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError(f"it refers to {shown(pid)} outside the file, which is not read")

    def get_extension(self, code: Any) -> Any:
        raise _RefusedError(f"it refers to extension {shown(code)}, which is not built")

    def load_bytes(self) -> None:
        """A bytearray, of which no more is reserved than there is."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch = MappingProxyType({**_InPython.dispatch, pickle.BYTEARRAY8[0]: load_bytes})


def plain_pickle(content: bytes) -> Any:
    """What a pickle of Python 2 or 3 holds, if it is made of plain data.

    Args:
        content: of the file.

    Returns:
        Dicts, lists, tuples, strings, bytes, numbers, ``None``, and NumPy arrays of numbers or of these; NumPy's
        scalars become Python's numbers, and strings of Python 2 become ``str`` by latin-1.

    Raises:
        ValueError: if it is cut or no pickle, or names anything else, which is neither imported nor called.

    Example:
        >>> plain_pickle(pickle.dumps({"train": [[(60, 64), ()]]}, protocol=2))
        {'train': [[(60, 64), ()]]}
        >>> plain_pickle(pickle.dumps(print))
        Traceback (most recent call last):
        ...
        ValueError: it refers to 'builtins.print', which is not built: only dicts, lists, tuples, strings, numbers and
        NumPy arrays are
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception:  # a damaged pickle can fail in any way
        raise ValueError("it is cut or no pickle") from None

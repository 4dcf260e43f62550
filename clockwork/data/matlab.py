"""Cell arrays of matrices in MATLAB files, versions 5 to 7, of unknown origin.

SciPy's reader crashes the process on some damaged files, and reserves whatever sizes a file claims.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Kinds of elements, classes of arrays and flags, as of MathWorks, MAT-File Format, version 7.
COMPRESSED, MATRIX = 15, 14
DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse"}
CELL, NUMERIC = 1, range(6, 16)
COMPLEX = 0x800
HEADER = 128
CUT = "it is cut or no MATLAB file of version 5 to 7"


def matlab_cells(content: bytes, names: Sequence[str], most: int) -> dict[str, list[Any]]:
    """The cell arrays of these names.

    Args:
        content: of the file.
        names: of the variables; others may be there too.
        most: how many bytes the file may unpack to.

    Returns:
        The cells of each, in MATLAB's order: arrays of real numbers as NumPy's, and of anything else what it is.

    Raises:
        ValueError: if the file is damaged or of another version, unpacks to more, or has no such cell arrays.

    Example:
        >>> import io, scipy.io
        >>> file, cells = io.BytesIO(), np.empty((1, 2), object)
        >>> cells[0, :] = [np.eye(2), "text"]
        >>> scipy.io.savemat(file, {"a": cells})
        >>> matlab_cells(file.getvalue(), ["a"], 10000)
        {'a': [array([[1., 0.],
                      [0., 1.]]), 'char']}
    """
    if content[124:128] in (b"\x00\x02IM", b"\x02\x00MI") or content.startswith(b"\x89HDF"):
        raise ValueError("it is of MATLAB 7.3 (HDF5): save it with MATLAB's option -v7")
    order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:HEADER])
    if order is None:
        raise ValueError(CUT)
    found: dict[str, list[Any]] = {}
    for kind, variable in _elements(memoryview(content)[HEADER:], order):
        if kind == COMPRESSED:
            inflated = _inflated(variable, most)
            most -= len(inflated)
            kind, variable = next(_elements(inflated, order), (0, inflated))
        if kind != MATRIX:
            raise ValueError(CUT)
        name, array = _array(variable, order)
        if name not in names:
            continue
        if name in found:
            raise ValueError(f"{name} is there twice")
        if not isinstance(array, list):
            is_matrix = isinstance(array, np.ndarray)
            raise ValueError(f"{name} must be a cell array, got {f'a matrix {array.shape}' if is_matrix else array}")
        cells = [_array(cell, order)[1] for cell in array]
        found[name] = ["cell" if isinstance(cell, list) else cell for cell in cells]
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"it must have {', '.join(names)}, but has no {' and '.join(missing)}")
    return found


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The elements that follow one another: kind and content."""
    position = 0
    while position < len(content):
        start = position + 8
        if start > len(content):
            raise ValueError(CUT)
        kind, size = struct.unpack_from(f"{order}II", content, position)
        if small := kind >> 16:  # of at most 4 bytes, which stand where the size would
            kind, size, start = kind & 0xFFFF, small, position + 4
        element = content[start : start + size]
        if len(element) < size or (small > 4):
            raise ValueError(CUT)
        yield kind, element
        position = max(start + size, position + 8)
        if kind != COMPRESSED:
            position += -position % 8


def _inflated(content: memoryview, most: int) -> memoryview:
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(content, most + 1)
    except zlib.error:
        raise ValueError(CUT) from None
    if len(found) > most:
        raise ValueError("it unpacks to more bytes than will be read")
    if not engine.eof:
        raise ValueError(CUT)
    return memoryview(found)


def _array(content: memoryview, order: str) -> tuple[str, Any]:
    """The name of an array, and the array: of NumPy, a list of the cells' contents, or what it is."""
    if not len(content):
        return "", np.zeros((0, 0))  # as MATLAB writes a cell that was never set
    elements = _elements(content, order)
    flags = _numbers(next(elements, None), order, "u4")
    sort = int(flags[0]) & 0xFF if flags.size else 0
    if sort != CELL and sort not in NUMERIC and sort not in CLASSES:
        return "", "an object"  # without shape or name
    shape = tuple(_numbers(next(elements, None), order, "i4").tolist())
    _, name = next(elements, (0, b""))
    name, count = bytes(name).decode("latin-1"), math.prod(shape)
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(CUT)
    if sort == CELL:
        cells = list(elements)
        if len(cells) != count or any(kind != MATRIX for kind, _ in cells):
            raise ValueError(CUT)
        return name, [cell for _, cell in cells]
    if sort not in NUMERIC or int(flags[0]) & COMPLEX:
        return name, CLASSES.get(sort, "complex")
    values = _numbers(next(elements, None), order)
    if len(values) != count:
        raise ValueError(CUT)
    return name, values.reshape(shape, order="F")


def _numbers(element: tuple[int, memoryview] | None, order: str, wanted: str = "") -> np.ndarray:
    """The numbers of an element, ``(n,)``."""
    kind, content = element or (0, memoryview(b""))
    dtype = DTYPES.get(kind)
    if dtype is None or dtype != (wanted or dtype) or len(content) % int(dtype[1]):
        raise ValueError(CUT)
    return np.frombuffer(content, order + dtype)

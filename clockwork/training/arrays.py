"""Named arrays in files: whole, unaltered, in their own place, and of the shapes that are wanted; or not there."""

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.files import regular_file, write_whole


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], place: str = "") -> None:
    """Write named arrays, whole or not at all, with a digest over all of them.

    Args:
        path: the file.
        arrays: by name.
        place: what the arrays belong to; `read_arrays` must be told the same.

    Raises:
        OSError: if it cannot be written.
    """
    arrays = {name: _storable(np.asarray(array)) for name, array in arrays.items()}
    digest: Any = np.array(_digest(arrays, place))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, digest=digest, **arrays)
    write_whole(path, buffer.getvalue())


def _storable(array: np.ndarray) -> np.ndarray:
    """The array, in float32 if NumPy's format has no such floating point numbers (bfloat16 and smaller ones)."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def read_arrays(path: Path, place: str = "") -> dict[str, np.ndarray] | None:
    """Named arrays; None if the file is not there, damaged or of another place, and then a warning names it."""
    try:
        if not path.exists():
            return None
        with regular_file(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if _digest({k: v for k, v in arrays.items() if k != "digest"}, place) != str(arrays.pop("digest")):
            raise ValueError("its digest does not match its content, name and settings")
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever NumPy and zipfile make of damaged bytes
        warnings.warn(f"{path} is damaged ({error}) and counts as not there", stacklevel=3)
        return None
    return arrays


def _digest(arrays: Mapping[str, np.ndarray], place: str) -> str:
    digest = hashlib.sha256(place.encode(errors="surrogatepass"))
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def mismatch(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[str, ...]], known: Mapping[str, int]) -> str:
    """What is wrong with arrays, in words; empty if nothing is.

    Args:
        arrays: by name.
        wanted: by name, the kinds of dtype (letters of ``numpy.dtype.kind``) and the axes: a letter stands for one
            size of 1 or more wherever it is, a number for itself, a last ``...`` for any further axes. A third item
            is an axis whose size is above all values, which are 0 or more.
        known: the sizes that letters stand for.

    Example:
        >>> mismatch({"error": np.zeros(3)}, {"error": ("f", "R")}, {"R": 3})
        ''
        >>> mismatch({"error": np.zeros(3)}, {"error": ("f", "R")}, {"R": 2})
        'error has shape (3,), not (R) with R = 2'
    """
    sizes = dict(known)
    for name, (kinds, form, *_) in wanted.items():
        if name not in arrays:
            return f"{name} is missing"
        if arrays[name].dtype.kind not in kinds:
            return f"{name} holds {arrays[name].dtype}"
        shape, axes = arrays[name].shape, form.split()
        fixed = [axis for axis in axes if axis != "..."]
        expected = [int(axis) if axis.isdigit() else sizes.get(axis) for axis in fixed]
        fits = len(shape) >= len(fixed) if len(fixed) < len(axes) else len(shape) == len(fixed)
        if not fits or any(
            own != (own or -1 if size is None else size) for own, size in zip(shape, expected, strict=False)
        ):
            known_axes = [
                f"{axis} = {size}" for axis, size in zip(fixed, expected, strict=True) if size and not axis.isdigit()
            ]
            return " with ".join([f"{name} has shape {shape}, not ({', '.join(axes)})", *known_axes[:1]])
        sizes |= dict(zip(fixed, shape, strict=False))
    for name, (_, _, *bound) in wanted.items():
        if bound and not ((arrays[name] >= 0) & (arrays[name] < sizes[bound[0]])).all():
            return f"{name} holds values that are not from 0 to {sizes[bound[0]] - 1}"
    return ""

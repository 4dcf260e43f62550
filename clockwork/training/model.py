"""Models, split into trained arrays, other arrays and static structure."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer

from clockwork.checks import shown

PyTree = Any


class Structure(NamedTuple):
    """The static part of a model, which all runs share.

    Attributes:
        graph: of an nnx module; None where the model is a tree of arrays.
    """

    graph: nnx.GraphDef | None

    def merge(self, params: PyTree, rest: PyTree) -> PyTree:
        """The model with these arrays."""
        return params if self.graph is None else nnx.merge(self.graph, params, rest, copy=True)


def split(model: PyTree) -> tuple[Structure, PyTree, PyTree]:
    """A model's structure, the arrays that are trained, and the others: batch statistics, random streams, counts.

    Args:
        model: an nnx module, of which each `nnx.Param` is trained; or a tree of arrays, all of which are.

    Raises:
        ValueError: if the model is a tree with a leaf that is no array of floating point numbers.
    """
    if isinstance(model, nnx.Module):
        nnx.pop(model, nnx.Intermediate)  # what it has sown
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        _check_module(model, graph, params)
        return Structure(graph), params, rest
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise ValueError(
                "a model must be an nnx.Module or a tree of arrays of floating point numbers, "
                f"got {shown(leaf)} at {jax.tree_util.keystr(path) or 'its root'}"
            )
    if not jax.tree.leaves(model):
        raise ValueError(f"a model must have parameters, got {shown(model)}")
    return Structure(None), model, ()


def _check_module(model: nnx.Module, graph: Any, params: PyTree) -> None:
    if not jax.tree.leaves(params):
        raise ValueError(f"a model must have parameters, got {type(model).__name__} without an nnx.Param")
    for name, value in graph.attributes:
        if isinstance(getattr(value, "value", value), Tracer):
            raise ValueError(
                f"{type(model).__name__} keeps a hyper-parameter as attribute {name!r}: hold it in an nnx.Variable; "
                "a layer that needs its value while it is traced, such as the rate of nnx.Dropout, cannot have one"
            )


def count(params: PyTree) -> int:
    """The number of trained parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def named(params: PyTree) -> dict[str, np.ndarray]:
    """Parameters by name, such as ``"readout.kernel"``.

    Example:
        >>> named({"dense": [np.zeros(2), np.ones(3)]})
        {'dense.0': array([0., 0.]), 'dense.1': array([1., 1., 1.])}
    """
    if isinstance(params, nnx.State):
        return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(params)}
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "array": np.asarray(leaf) for path, leaf in flat}


def unnamed(params: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """The inverse of `named`: parameters in the structure of others, from arrays by name.

    Args:
        params: of the structure that is wanted.
        arrays: by name.

    Raises:
        ValueError: if the names or shapes are not theirs.
    """
    wanted = {name: array.shape for name, array in named(jax.tree.map(lambda x: np.empty(x.shape), params)).items()}
    given = {name: array.shape for name, array in arrays.items()}
    if given != wanted:
        raise ValueError(f"the parameters of this network have shapes {wanted}, the stored ones {given}")
    leaves, tree = jax.tree.flatten(params)
    names = named(jax.tree.unflatten(tree, [np.full((), i) for i in range(len(leaves))]))
    order = {int(position): name for name, position in names.items()}
    return jax.tree.unflatten(tree, [jnp.asarray(arrays[order[i]]).astype(leaf.dtype) for i, leaf in enumerate(leaves)])


def key_kinds(tree: PyTree) -> list[Any]:
    """The generator of each leaf that is a random key, in the order of the leaves; None for other leaves."""
    return [jax.random.key_impl(leaf) if _is_key(leaf) else None for leaf in jax.tree.leaves(tree)]


def without_keys(tree: PyTree) -> PyTree:
    """The tree with the data of each random key in its place, as NumPy can store it."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def with_keys(tree: PyTree, kinds: list[Any]) -> PyTree:
    """The inverse of `without_keys`; ``kinds`` is from `key_kinds`."""
    leaves, structure = jax.tree.flatten(tree)
    restored = [
        leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)
        for leaf, kind in zip(leaves, kinds, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

"""An operation on arrays whose batch or runs are sharded over a mesh with explicit axes (`jax.set_mesh`).

Sequences and runs are independent except in the gradients of shared parameters. So each device evaluates its own shard,
as inside ``jax.shard_map``, and these gradients are summed over the devices.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from clockwork.ops.layout import PARAMETER, Axes

PyTree = Any


class Spread(NamedTuple):
    """How the axes of batch and runs are sharded over the axes of a mesh.

    Attributes:
        mesh: the mesh of all arrays.
        axes: the axes of batch and runs.
        over: maps each sharded axis to its mesh axes, in the form of a partition spec.
    """

    mesh: Any
    axes: Axes
    over: dict[tuple[str, int], Any]

    @classmethod
    def of(cls, avals: Sequence[Any], kinds: Sequence[int], axes: Axes) -> "Spread":
        """The sharding of an operation's operands, read from their types.

        Raises:
            ValueError: if an axis other than batch and runs is sharded, or the operands are sharded differently.
        """
        meshes = [x.sharding.mesh for x in avals]
        over: dict[tuple[str, int], Any] = {}
        for aval, kind in zip(avals, kinds, strict=True):
            known = axes.of(kind, aval.ndim)
            for i, names in enumerate(aval.sharding.spec):
                if names is not None and (i not in known or over.setdefault(known[i], names) != names):
                    raise ValueError(
                        "the fast kernels need arrays that are all sharded in the same way, over batch and runs "
                        f"only, got {aval.str_short()}; see jax.sharding.reshard"
                    )
        return cls(next((mesh for mesh in meshes if not mesh.empty), meshes[0]), axes, over)

    def spec(self, kind: int, ndim: int) -> PartitionSpec:
        """The partition spec of an array of this kind."""
        axes = self.axes.of(kind, ndim)
        return PartitionSpec(*(self.over.get(axes[i]) if i in axes else None for i in range(ndim)))

    def sharding(self, kind: int, ndim: int) -> NamedSharding:
        """The sharding of an array of this kind."""
        return NamedSharding(self.mesh, self.spec(kind, ndim))

    def evaluate(
        self,
        evaluate: Callable[..., list[Array]],
        leaves: Sequence[Array],
        kinds: Sequence[int],
        results: Sequence[tuple[int, jax.ShapeDtypeStruct]],
    ) -> list[Array]:
        """Evaluate an operation; each device computes its own shard.

        Args:
            evaluate: the operation.
            leaves: its arguments.
            kinds: the kind of each argument.
            results: the kind and shape of each result.
        """
        batch = [names for (axis, _), names in self.over.items() if axis == "batch"]
        summed = tuple(name for names in batch for name in (names if isinstance(names, tuple) else (names,)))
        specs = [self.spec(kind, x.ndim) for x, kind in zip(leaves, kinds, strict=True)]
        # Empty arrays are created on each device, since XLA may crash if one is an argument.
        given, made = [x.size != 0 for x in leaves], [x.size != 0 for _, x in results]
        shapes = [NamedSharding(self.mesh, spec).shard_shape(x.shape) for x, spec in zip(leaves, specs, strict=True)]

        def share(*some: Array) -> list[Array]:
            rest = iter(some)
            whole = zip(leaves, given, shapes, strict=True)
            found = evaluate(*(next(rest) if there else jnp.zeros(shape, x.dtype) for x, there, shape in whole))
            kept = [(x, kind) for x, (kind, _), there in zip(found, results, made, strict=True) if there]
            return [jax.lax.psum(x, summed) if kind == PARAMETER and summed else x for x, kind in kept]

        mesh_axes = zip(self.mesh.axis_names, self.mesh.axis_types, strict=True)
        over_mesh = jax.shard_map(
            share,
            mesh=self.mesh,
            in_specs=tuple(itertools.compress(specs, given)),
            out_specs=[self.spec(kind, x.ndim) for kind, x in itertools.compress(results, made)],
            axis_names={name for name, axis_type in mesh_axes if axis_type == AxisType.Explicit},
            check_vma=False,
        )
        rest = iter(over_mesh(*itertools.compress(leaves, given)))
        return [
            next(rest) if there else jnp.zeros(x.shape, x.dtype) for (_, x), there in zip(results, made, strict=True)
        ]


def spread_over(x: Array, axis: int) -> Any:
    """The explicit mesh axes over which an axis of an array is sharded; None if it is not."""
    return jax.typeof(x).sharding.spec[axis]


def spread(x: Array, axis: int, over: Any) -> Array:
    """The array with one axis resharded over these axes of the current mesh."""
    if over is None or spread_over(x, axis) == over:
        return x
    spec = jax.typeof(x).sharding.spec
    return jax.sharding.reshard(x, PartitionSpec(*spec[:axis], over, *spec[axis + 1 :]))


def repeated(x: Array, axis: int, size: int, like: Any) -> Array:
    """An array with a new axis along which all values are the same.

    Args:
        x: the array.
        axis: the position of the new axis.
        size: the size of the new axis.
        like: the mesh, and the mesh axes over which to shard the new axis, or None.
    """
    mesh, over = like
    new = jnp.expand_dims(x, axis)
    shape = (*x.shape[:axis], size, *x.shape[axis:])
    if over is None:
        return jnp.broadcast_to(new, shape)
    spec = jax.typeof(new).sharding.spec
    with jax.sharding.use_abstract_mesh(mesh):
        return jnp.broadcast_to(new, shape, out_sharding=PartitionSpec(*spec[:axis], over, *spec[axis + 1 :]))


def equally_varying(leaves: Sequence[Array]) -> list[Array]:
    """Inside ``jax.shard_map``, make all arrays vary over the same mesh axes, as every JAX operation requires."""
    varying = [jax.typeof(x).manual_axis_type.varying for x in leaves]
    union = frozenset().union(*varying)
    return [
        jax.lax.pcast(x, tuple(union - axes), to="varying") if union - axes else x
        for x, axes in zip(leaves, varying, strict=True)
    ]

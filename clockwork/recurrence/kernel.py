"""A forward and a backward function, made into one operation that JAX differentiates and batches.

A kernel's arrays have one of four layouts, and its functions serve all of them:

==================  ==============================  ================================
layout              parameters                      sequences; states
==================  ==============================  ================================
one sequence        ``(K, N)``                      ``(S, K)``; ``(K,)``
a batch             ``(K, N)``                      ``(S, B, K)``; ``(B, K)``
many runs           ``(K, N, R)``                   ``(S, K, R)``; ``(K, R)``
a batch each        ``(K, N, R)``                   ``(S, B, K, R)``; ``(B, K, R)``
==================  ==============================  ================================

``jax.vmap`` chooses: over parameters it adds runs, else a batch. With runs last a small recurrence
is a handful of elementwise multiply-adds over contiguous memory; with the batch between time and
units every product is one large matrix product, and so is the gradient of the weights. Runs that
have a batch each are therefore evaluated each by itself.

That gradient is why these are primitives and not a ``jax.custom_vjp``: under ``grad(vmap(...))``
the latter computes a gradient of the weights for each sequence and then adds them up, while the
transpose of a primitive knows that they are shared.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

PyTree = Any

# Where a batch goes in an array, and what a parameter has in its place: nothing, it is shared.
SEQUENCE, STATE, PARAMETER = 1, 0, -1


class Kernel(Protocol):
    """What `run` evaluates; hashable, since it is static.

    Inputs, outputs and residuals are sequences, ``hidden`` and ``last`` are states; each may be any
    pytree of arrays. The residuals are the same in all layouts, but for the axes of batch and runs:
    a ``cond`` under ``vmap`` puts zeros in place of those of a branch that is not taken.
    """

    @property
    def small(self) -> bool:
        """Whether many runs of one sequence are best laid side by side, or else each by itself."""
        ...

    def __hash__(self) -> int:
        """Equal kernels are compiled once."""
        ...

    def forward(self, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
        """``(outputs, last), residuals``."""
        ...

    def backward(self, parameters: PyTree, inputs: PyTree, residuals: PyTree, cotangents: PyTree) -> PyTree:
        """``parameters_bar, inputs_bar, hidden_bar`` of the cotangents ``(outputs_bar, last_bar)``."""
        ...


class Vmapped(NamedTuple):
    """A kernel under a plain ``jax.vmap`` of its functions: every array has one more axis, the first."""

    kernel: Any
    small = False

    def forward(self, *arguments: PyTree) -> PyTree:
        """The kernel's."""
        return jax.vmap(self.kernel.forward)(*arguments)

    def backward(self, *arguments: PyTree) -> PyTree:
        """The kernel's."""
        return jax.vmap(self.kernel.backward)(*arguments)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def run(kernel: Kernel, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
    """The outputs and the last state of a kernel; first derivatives of it are by its backward function.

    Args:
        kernel: static.
        parameters: arrays that a batch of sequences shares.
        inputs: sequences, or None.
        hidden: the state before the first step.
    """
    return _forward(kernel, parameters, inputs, hidden)[0]


@run.defjvp
def _run_jvp(kernel: Kernel, primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    results, residuals = _forward(kernel, *primals)
    return results, _tangent(kernel, *primals, residuals, tangents)


class _Operation:
    """A primitive on pytrees, of one of a kernel's functions.

    Args:
        name: of the primitive.
        evaluate: ``(kernel, *arguments)`` to results.
        shapes: the same, of abstract arrays.
        arguments: places of the arguments, a tuple for a tuple; the first are the parameters.
        results: places of the results.
    """

    def __init__(
        self, name: str, evaluate: Callable[..., PyTree], shapes: Callable[..., PyTree], arguments: tuple, results: Any
    ) -> None:
        self.arguments, self.results, self.shapes = arguments, results, functools.lru_cache(maxsize=512)(shapes)
        self.primitive = primitive = Primitive(name)
        primitive.multiple_results = True

        def flat(*leaves: Array, kernel: Kernel, tree: Any, runs: bool, batch: bool) -> list[Array]:
            del runs, batch
            return jax.tree.leaves(evaluate(kernel, *jax.tree.unflatten(tree, leaves)))

        primitive.def_impl(jax.jit(flat, static_argnames=("kernel", "tree", "runs", "batch")))
        primitive.def_abstract_eval(self.abstract)
        lower = mlir.lower_fun(flat, multiple_results=True)

        def lower_plainly(context: Any, *operands: Any, **static: Any) -> Any:
            # Inside ``jax.shard_map`` the operation is local; Pallas' kernels know nothing of varying axes.
            plain = [[ShapedArray(x.shape, x.dtype) for x in avals] for avals in (context.avals_in, context.avals_out)]
            return lower(context.replace(avals_in=plain[0], avals_out=plain[1]), *operands, **static)

        mlir.register_lowering(primitive, lower_plainly)
        batching.primitive_batchers[primitive] = self.vmap
        ad.primitive_jvps[primitive] = _refuse

    def __call__(self, kernel: Kernel, *arguments: PyTree, runs: bool = False, batch: bool = False) -> PyTree:
        leaves, tree = jax.tree.flatten(arguments)
        leaves = _equally_varying(leaves)
        found = self.primitive.bind(*leaves, kernel=kernel, tree=tree, runs=runs, batch=batch)
        shapes = self.shapes(kernel, tree, *map(_shape, leaves))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    def abstract(self, *avals: Any, kernel: Kernel, tree: Any, runs: bool, batch: bool) -> list[ShapedArray]:
        del runs, batch
        shapes = jax.tree.leaves(self.shapes(kernel, tree, *map(_shape, avals)))
        # Like an operand but for these: so are the mesh axes of ``shard_map`` that it varies over.
        sharding = NamedSharding(avals[0].sharding.mesh, PartitionSpec())
        return [avals[0].update(shape=x.shape, dtype=x.dtype, weak_type=False, sharding=sharding) for x in shapes]

    def vmap(
        self, leaves: Any, axes: Any, *, kernel: Kernel, tree: Any, runs: bool, batch: bool
    ) -> tuple[list[Array], list[int]]:
        (size,) = {x.shape[axis] for x, axis in zip(leaves, axes, strict=True) if axis is not None}
        arguments = jax.tree.unflatten(tree, leaves)
        places = _spread(self.arguments, arguments)
        shared = [axis is None for axis, place in zip(axes, places, strict=True) if place == PARAMETER]
        many = not all(shared[: len(jax.tree.leaves(arguments[0]))])
        if many:
            alone = not kernel.small or batch
        else:  # where each sequence has a gradient of the parameters
            alone = not all(shared) or PARAMETER in _spread(self.results, self.results)
        if alone or isinstance(kernel, Vmapped):
            entered = [_to_axis(x, axis, 0, size) for x, axis in zip(leaves, axes, strict=True)]
            found = self.primitive.bind(*entered, kernel=Vmapped(kernel), tree=tree, runs=runs, batch=batch)
            return found, [0] * len(found)
        if not many:
            entered = [
                x if place == PARAMETER else _to_axis(x, axis, place, size)
                for x, axis, place in zip(leaves, axes, places, strict=True)
            ]
            found = self.primitive.bind(*entered, kernel=kernel, tree=tree, runs=runs, batch=batch or size != 1)
            shapes = self.shapes(kernel, tree, *map(_shape, entered))
            return found, _spread(self.results, shapes)
        entered = [_to_axis(x, axis, x.ndim - (axis is not None), size) for x, axis in zip(leaves, axes, strict=True)]
        if runs:  # runs of runs
            entered = [x.reshape(*x.shape[:-2], -1) for x in entered]
        found = self.primitive.bind(*entered, kernel=kernel, tree=tree, runs=True, batch=batch)
        if runs:
            found = [x.reshape(*x.shape[:-1], -1, size) for x in found]
        return found, [x.ndim - 1 for x in found]


def _equally_varying(leaves: list[Array]) -> list[Array]:
    """Inside ``jax.shard_map``: all arrays varying over the same mesh axes, as those of any operation must be."""
    varying = [jax.typeof(x).manual_axis_type.varying for x in leaves]
    union = frozenset().union(*varying)
    return [
        jax.lax.pcast(x, tuple(union - axes), to="varying") if union - axes else x
        for x, axes in zip(leaves, varying, strict=True)
    ]


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _spread(places: Any, tree: PyTree) -> list[int]:
    """The place of every leaf."""
    if isinstance(places, tuple):
        return [place for part, branch in zip(places, tree, strict=True) for place in _spread(part, branch)]
    return [places] * len(jax.tree.leaves(tree))


def _to_axis(x: Array, axis: int | None, place: int, size: int) -> Array:
    if axis is not None:
        return jnp.moveaxis(x, axis, place)
    shape = (*x.shape[:place], size, *x.shape[place:])
    return jnp.broadcast_to(jnp.expand_dims(x, place), shape)


def _refuse(*args: Any, **static: Any) -> Any:
    raise ValueError('second derivatives of the fast kernels are not defined; use method="masked" for them')


def _forward_shapes(kernel: Kernel, tree: Any, *leaves: Any) -> PyTree:
    return jax.eval_shape(kernel.forward, *jax.tree.unflatten(tree, leaves)[:3])


def _tangent_shapes(kernel: Kernel, tree: Any, *leaves: Any) -> PyTree:
    return _forward_shapes(kernel, tree, *leaves)[0]


def _backward_shapes(kernel: Kernel, tree: Any, *leaves: Any) -> PyTree:
    parameters, inputs, _, (_, last_bar) = jax.tree.unflatten(tree, leaves)
    return parameters, inputs, last_bar


def _evaluate_tangent(
    kernel: Kernel, parameters: PyTree, inputs: PyTree, hidden: PyTree, _: PyTree, t: PyTree
) -> PyTree:
    """Forward mode: JAX's own derivative of the forward function."""
    return jax.jvp(lambda *primals: kernel.forward(*primals)[0], (parameters, inputs, hidden), t)[1]


_PRIMALS, _RESULTS = (PARAMETER, SEQUENCE, STATE), (SEQUENCE, STATE)
_forward = _Operation(
    "clockwork_forward", lambda kernel, *xs: kernel.forward(*xs), _forward_shapes, _PRIMALS, (_RESULTS, SEQUENCE)
)
# The tangents of outputs and last state: linear in those of parameters, inputs and hidden.
_tangent = _Operation(
    "clockwork_tangent", _evaluate_tangent, _tangent_shapes, (*_PRIMALS, SEQUENCE, _PRIMALS), _RESULTS
)
_backward = _Operation(
    "clockwork_backward",
    lambda kernel, *xs: kernel.backward(*xs),
    _backward_shapes,
    (PARAMETER, SEQUENCE, SEQUENCE, _RESULTS),
    _PRIMALS,
)


def _transpose_tangent(cotangents: Any, *leaves: Any, kernel: Kernel, tree: Any, runs: bool, batch: bool) -> list[Any]:
    parameters, inputs, hidden, residuals, _ = jax.tree.unflatten(tree, leaves)
    primals = jax.tree.leaves((parameters, inputs, hidden))
    shapes = _tangent.shapes(kernel, tree, *[_shape(x.aval if ad.is_undefined_primal(x) else x) for x in leaves])
    results = jax.tree.unflatten(jax.tree.structure(shapes), [ad.instantiate_zeros(ct) for ct in cotangents])
    bars = jax.tree.leaves(_backward(kernel, parameters, inputs, residuals, results, runs=runs, batch=batch))
    asked = map(ad.is_undefined_primal, leaves[-len(primals) :])
    return [None] * (len(leaves) - len(primals)) + [bar if a else None for bar, a in zip(bars, asked, strict=True)]


ad.primitive_transposes[_tangent.primitive] = _transpose_tangent

"""Combines a forward and a backward function into one operation that JAX can differentiate and batch.

``jax.vmap`` determines which `Layout` the functions see: a ``vmap`` over parameters adds runs, any other adds a batch.
With runs in the last axis, a small recurrence is a handful of elementwise multiply-adds over contiguous memory; with
the batch between time and units, every product is one large matrix product, and so is the gradient of the weights. If
the last axis is not the best place for the runs, or each run has a batch, the operation itself is vmapped.

The gradient of the weights is why these are primitives and not a ``jax.custom_vjp``: under ``grad(vmap(...))`` a
``custom_vjp`` computes a gradient of the weights for each sequence and then adds them up, while the transpose of a
primitive knows that the weights are shared.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from clockwork.ops.jax_internals import Primitive, ShapedArray, ad, batching, mlir
from clockwork.ops.layout import PARAMETER, SEQUENCE, STATE, Axes, Layout
from clockwork.ops.sharded import Spread, equally_varying, repeated, spread_over

PyTree = Any

UNBATCHED = Axes()


class Operation(Protocol):
    """An operation that `apply` evaluates. It must be hashable, since it is static.

    Inputs, outputs and residuals are sequences, ``hidden`` and ``last`` are states; each may be any
    pytree of arrays. The residuals have the same structure in all layouts, apart from the axes of batch
    and runs: a ``cond`` under ``vmap`` fills the residuals of the branch that is not taken with zeros.
    """

    @property
    def runs_last(self) -> bool:
        """Whether many runs of one sequence are fastest in the last axis; if not, each run is evaluated by itself."""
        ...

    def __hash__(self) -> int:
        """Equal operations are compiled once."""
        ...

    def forward(self, layout: Layout, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
        """Return ``(outputs, last), residuals``."""
        ...

    def backward(
        self, layout: Layout, parameters: PyTree, inputs: PyTree, residuals: PyTree, cotangents: PyTree
    ) -> PyTree:
        """Return ``parameters_bar, inputs_bar, hidden_bar`` for the cotangents ``(outputs_bar, last_bar)``."""
        ...


def portable(operation: Any) -> Any:
    """The operation in JAX's own operations: for other platforms, for `jax.export`, and for forward mode.

    An operation that calls compiled kernels has an attribute ``portable``, an operation with the same residuals.
    """
    return getattr(operation, "portable", operation)


def for_parameters(operation: Any) -> Any:
    """The operation where nobody asks for the gradient of the inputs.

    XLA leaves out what nobody asks for. An operation that calls compiled kernels has an attribute ``for_parameters``,
    an operation whose backward function returns zeros in its place.
    """
    return getattr(operation, "for_parameters", operation)


class Vmapped(NamedTuple):
    """An operation under a plain ``jax.vmap`` of its functions: every array has one more leading axis."""

    operation: Any
    runs_last = False

    @property
    def portable(self) -> "Vmapped":
        """See `portable`."""
        return Vmapped(portable(self.operation))

    @property
    def for_parameters(self) -> "Vmapped":
        """See `for_parameters`."""
        return Vmapped(for_parameters(self.operation))

    def forward(self, layout: Layout, *arguments: PyTree) -> PyTree:
        """The operation's forward function, vmapped."""
        return jax.vmap(functools.partial(self.operation.forward, layout))(*arguments)

    def backward(self, layout: Layout, *arguments: PyTree) -> PyTree:
        """The operation's backward function, vmapped."""
        return jax.vmap(functools.partial(self.operation.backward, layout))(*arguments)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def apply(operation: Operation, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
    """The outputs and the last state of an operation; reverse mode calls its backward function.

    Args:
        operation: the operation, static.
        parameters: arrays that all sequences of a batch share.
        inputs: the input sequences, or None.
        hidden: the state before the first step.
    """
    return _forward(operation, parameters, inputs, hidden)[0]


@apply.defjvp
def _apply_jvp(operation: Operation, primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    results, residuals = _forward(operation, *primals)
    return results, _tangent(operation, *primals, residuals, tangents)


class _Primitive:
    """A JAX primitive on pytrees that evaluates one of an operation's functions.

    Args:
        name: the name of the primitive.
        evaluate: maps ``(operation, layout, *arguments)`` to the results.
        shapes: the same for abstract arrays.
        arguments: the kinds of the arguments, with a tuple for each tuple; the first argument is the parameters.
        results: the kinds of the results.
    """

    def __init__(
        self, name: str, evaluate: Callable[..., PyTree], shapes: Callable[..., PyTree], arguments: tuple, results: Any
    ) -> None:
        self.evaluate, self.arguments, self.results = evaluate, arguments, results
        self.shapes = functools.lru_cache(maxsize=512)(shapes)
        self.primitive = primitive = Primitive(name)
        primitive.multiple_results = True
        compiled = jax.jit(primitive.bind, static_argnames=("operation", "tree", "axes"))

        def at_once(*leaves: Array, **static: Any) -> list[Array]:
            with jax.disable_jit(False):  # otherwise `compiled` would call this function again
                return compiled(*leaves, **static)

        primitive.def_impl(at_once)
        primitive.def_abstract_eval(self.abstract)
        lower = mlir.lower_fun(self.on_shares, multiple_results=True)

        def lower_locally(context: Any, *operands: Any, **static: Any) -> Any:
            # Inside ``jax.shard_map`` the operation is local; Pallas kernels do not handle varying axes.
            spread = self.spread(context.avals_in, static["tree"], static["axes"])
            shardings = [x.sharding if spread.over else None for x in context.avals_in]
            avals = [
                ShapedArray(x.shape, x.dtype, sharding=s) for x, s in zip(context.avals_in, shardings, strict=True)
            ]
            module = context.module_context
            if module.lowering_parameters.for_export or tuple(module.platforms) != ("cpu",):
                static["operation"] = portable(static["operation"])
            return lower(context.replace(avals_in=avals), *operands, spread=spread, **static)

        mlir.register_lowering(primitive, lower_locally)
        batching.primitive_batchers[primitive] = self.vmap
        ad.primitive_jvps[primitive] = _refuse

    def __call__(self, operation: Operation, *arguments: PyTree, axes: Axes = UNBATCHED) -> PyTree:
        leaves, tree = jax.tree.flatten(arguments)
        leaves = equally_varying(leaves)
        found = self.primitive.bind(*leaves, operation=operation, tree=tree, axes=axes)
        shapes = self.shapes(operation, axes.layout, tree, *map(_shape, leaves))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    def argument_kinds(self, tree: Any, leaves: Any) -> list[int]:
        """The kind of every array among the arguments."""
        return _kinds(self.arguments, jax.tree.unflatten(tree, leaves))

    def result_shapes(
        self, operation: Operation, layout: Layout, tree: Any, leaves: Any
    ) -> list[tuple[int, jax.ShapeDtypeStruct]]:
        """The kind and shape of every array among the results."""
        shapes = self.shapes(operation, layout, tree, *map(_shape, leaves))
        return list(zip(_kinds(self.results, shapes), jax.tree.leaves(shapes), strict=True))

    def spread(self, avals: Any, tree: Any, axes: Axes) -> Spread:
        """How the arguments are sharded over a mesh."""
        return Spread.of(avals, self.argument_kinds(tree, avals), axes)

    def on_shares(self, *leaves: Array, spread: Spread, operation: Operation, tree: Any, axes: Axes) -> list[Array]:
        """The results; if the arguments are sharded, each device evaluates its own shard."""

        def evaluate(*leaves: Array) -> list[Array]:
            return jax.tree.leaves(self.evaluate(operation, axes.layout, *jax.tree.unflatten(tree, leaves)))

        if not spread.over:
            return evaluate(*leaves)
        results = self.result_shapes(operation, axes.layout, tree, leaves)
        return spread.evaluate(evaluate, leaves, self.argument_kinds(tree, leaves), results)

    def abstract(self, *avals: Any, operation: Operation, tree: Any, axes: Axes) -> list[ShapedArray]:
        spread = self.spread(avals, tree, axes)
        # Everything else, such as the mesh axes of ``shard_map`` over which a result varies, is that of an operand.
        return [
            avals[0].update(shape=x.shape, dtype=x.dtype, weak_type=False, sharding=spread.sharding(kind, x.ndim))
            for kind, x in self.result_shapes(operation, axes.layout, tree, avals)
        ]

    def vmap(
        self, leaves: Any, mapped: Any, *, operation: Operation, tree: Any, axes: Axes
    ) -> tuple[list[Array], list[int]]:
        """The batching rule; it chooses between runs in the last axis, a batch, and a plain ``jax.vmap``."""
        size, like = _mapped(leaves, mapped)
        arguments = jax.tree.unflatten(tree, leaves)
        kinds = self.argument_kinds(tree, leaves)
        shared = [axis is None for axis, kind in zip(mapped, kinds, strict=True) if kind == PARAMETER]
        over_runs = not all(shared[: len(jax.tree.leaves(arguments[0]))])
        if over_runs:
            spread_runs_of_runs = axes.layout.runs_last and like[1] is not None
            plainly = not operation.runs_last or axes.layout.batched or spread_runs_of_runs
        else:  # a plain vmap if each sequence has its own gradient of the parameters
            plainly = not all(shared) or PARAMETER in _kinds(self.results, self.results)
        if plainly or isinstance(operation, Vmapped):
            entered = [_to_axis(x, axis, 0, size, like) for x, axis in zip(leaves, mapped, strict=True)]
            found = self.primitive.bind(*entered, operation=Vmapped(operation), tree=tree, axes=axes.with_outer())
            return found, [0] * len(found)
        if not over_runs:
            entered = [
                x if kind == PARAMETER else _to_axis(x, axis, kind, size, like)
                for x, axis, kind in zip(leaves, mapped, kinds, strict=True)
            ]
            axes = axes.with_batch(size)
            found = self.primitive.bind(*entered, operation=operation, tree=tree, axes=axes)
            return found, [kind for kind, _ in self.result_shapes(operation, axes.layout, tree, entered)]
        entered = [
            _to_axis(x, axis, x.ndim - (axis is not None), size, like) for x, axis in zip(leaves, mapped, strict=True)
        ]
        if axes.layout.runs_last:  # runs of runs
            entered = [x.reshape(*x.shape[:-2], math.prod(x.shape[-2:])) for x in entered]
        found = self.primitive.bind(*entered, operation=operation, tree=tree, axes=axes.with_runs())
        if axes.layout.runs_last:
            found = [x.reshape(*x.shape[:-1], x.shape[-1] // size, size) for x in found]
        return found, [x.ndim - 1 for x in found]


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _kinds(kinds: Any, tree: PyTree) -> list[int]:
    """The kind of every leaf of a tree."""
    if isinstance(kinds, tuple):
        return [kind for part, branch in zip(kinds, tree, strict=True) for kind in _kinds(part, branch)]
    return [kinds] * len(jax.tree.leaves(tree))


def _mapped(leaves: list[Array], axes: list[int | None]) -> tuple[int, tuple[Any, Any]]:
    """The size of the mapped axis; the mesh, and the mesh axes over which the mapped axis is sharded."""
    mapped = [(x, axis) for x, axis in zip(leaves, axes, strict=True) if axis is not None]
    (size,) = {x.shape[axis] for x, axis in mapped}
    ((mesh, over), *_) = ((jax.typeof(x).sharding.mesh, spread_over(x, axis)) for x, axis in mapped)
    return size, (mesh, over)


def _to_axis(x: Array, axis: int | None, target: int, size: int, like: tuple[Any, Any]) -> Array:
    return jnp.moveaxis(x, axis, target) if axis is not None else repeated(x, target, size, like)


def _refuse(*args: Any, **static: Any) -> Any:
    raise ValueError(
        'second derivatives of this method are not defined; use method="masked", or "reference" for a deep transition'
    )


def _forward_shapes(operation: Operation, layout: Layout, tree: Any, *leaves: Any) -> PyTree:
    return jax.eval_shape(functools.partial(operation.forward, layout), *jax.tree.unflatten(tree, leaves)[:3])


def _tangent_shapes(operation: Operation, layout: Layout, tree: Any, *leaves: Any) -> PyTree:
    return _forward_shapes(operation, layout, tree, *leaves)[0]


def _backward_shapes(operation: Operation, layout: Layout, tree: Any, *leaves: Any) -> PyTree:
    parameters, inputs, _, (_, last_bar) = jax.tree.unflatten(tree, leaves)
    return parameters, inputs, last_bar


def _evaluate_tangent(
    operation: Operation,
    layout: Layout,
    parameters: PyTree,
    inputs: PyTree,
    hidden: PyTree,
    residuals: PyTree,
    tangents: PyTree,
) -> PyTree:
    """Forward mode: JAX's own derivative of the forward function."""
    del residuals
    forward = portable(operation).forward
    return jax.jvp(lambda *primals: forward(layout, *primals)[0], (parameters, inputs, hidden), tangents)[1]


_PRIMALS, _RESULTS = (PARAMETER, SEQUENCE, STATE), (SEQUENCE, STATE)
_forward = _Primitive(
    "clockwork_forward",
    lambda operation, *xs: operation.forward(*xs),
    _forward_shapes,
    _PRIMALS,
    (_RESULTS, SEQUENCE),
)
# The tangents of outputs and last state: linear in those of parameters, inputs and hidden.
_tangent = _Primitive(
    "clockwork_tangent", _evaluate_tangent, _tangent_shapes, (*_PRIMALS, SEQUENCE, _PRIMALS), _RESULTS
)
_backward = _Primitive(
    "clockwork_backward",
    lambda operation, *xs: operation.backward(*xs),
    _backward_shapes,
    (PARAMETER, SEQUENCE, SEQUENCE, _RESULTS),
    _PRIMALS,
)


def _transpose_tangent(cotangents: Any, *leaves: Any, operation: Operation, tree: Any, axes: Axes) -> list[Any]:
    parameters, inputs, hidden, residuals, _ = jax.tree.unflatten(tree, leaves)
    primals = jax.tree.leaves((parameters, inputs, hidden))
    avals = [_shape(x.aval if ad.is_undefined_primal(x) else x) for x in leaves]
    shapes = _tangent.shapes(operation, axes.layout, tree, *avals)
    results = jax.tree.unflatten(jax.tree.structure(shapes), [ad.instantiate_zeros(ct) for ct in cotangents])
    asked = list(map(ad.is_undefined_primal, leaves[-len(primals) :]))
    _, asked_inputs, _ = jax.tree.unflatten(jax.tree.structure((parameters, inputs, hidden)), asked)
    if not any(jax.tree.leaves(asked_inputs)):
        operation = for_parameters(operation)
    bars = jax.tree.leaves(_backward(operation, parameters, inputs, residuals, results, axes=axes))
    return [None] * (len(leaves) - len(primals)) + [bar if a else None for bar, a in zip(bars, asked, strict=True)]


ad.primitive_transposes[_tangent.primitive] = _transpose_tangent

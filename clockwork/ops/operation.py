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

from clockwork.ops.sharded import (
    ONE,
    PARAMETER,
    SEQUENCE,
    STATE,
    Layout,
    Spread,
    equally_varying,
    repeated,
    spread_over,
)

PyTree = Any


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
        self.evaluate, self.arguments, self.results = evaluate, arguments, results
        self.shapes = functools.lru_cache(maxsize=512)(shapes)
        self.primitive = primitive = Primitive(name)
        primitive.multiple_results = True
        compiled = jax.jit(primitive.bind, static_argnames=("kernel", "tree", "layout"))

        def at_once(*leaves: Array, **static: Any) -> list[Array]:
            with jax.disable_jit(False):  # else `compiled` would be this function again
                return compiled(*leaves, **static)

        primitive.def_impl(at_once)
        primitive.def_abstract_eval(self.abstract)
        lower = mlir.lower_fun(self.on_shares, multiple_results=True)

        def lower_locally(context: Any, *operands: Any, **static: Any) -> Any:
            # Inside ``jax.shard_map`` the operation is local; Pallas' kernels know nothing of varying axes.
            spread = self.spread(context.avals_in, static["tree"], static["layout"])
            shardings = [x.sharding if spread.over else None for x in context.avals_in]
            avals = [
                ShapedArray(x.shape, x.dtype, sharding=s) for x, s in zip(context.avals_in, shardings, strict=True)
            ]
            return lower(context.replace(avals_in=avals), *operands, spread=spread, **static)

        mlir.register_lowering(primitive, lower_locally)
        batching.primitive_batchers[primitive] = self.vmap
        ad.primitive_jvps[primitive] = _refuse

    def __call__(self, kernel: Kernel, *arguments: PyTree, layout: Layout = ONE) -> PyTree:
        leaves, tree = jax.tree.flatten(arguments)
        leaves = equally_varying(leaves)
        found = self.primitive.bind(*leaves, kernel=kernel, tree=tree, layout=layout)
        shapes = self.shapes(kernel, tree, *map(_shape, leaves))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    def places(self, tree: Any, leaves: Any) -> list[int]:
        """The places of the arguments."""
        return _spread(self.arguments, jax.tree.unflatten(tree, leaves))

    def found(self, kernel: Kernel, tree: Any, leaves: Any) -> list[tuple[int, jax.ShapeDtypeStruct]]:
        """The places of the results, and their shapes."""
        shapes = self.shapes(kernel, tree, *map(_shape, leaves))
        return list(zip(_spread(self.results, shapes), jax.tree.leaves(shapes), strict=True))

    def spread(self, avals: Any, tree: Any, layout: Layout) -> Spread:
        """Over which axes of a mesh the arguments are spread."""
        return Spread.of(avals, self.places(tree, avals), layout)

    def on_shares(self, *leaves: Array, spread: Spread, kernel: Kernel, tree: Any, layout: Layout) -> list[Array]:
        """The results; where the arguments are spread, each device evaluates its share."""
        del layout

        def evaluate(*leaves: Array) -> list[Array]:
            return jax.tree.leaves(self.evaluate(kernel, *jax.tree.unflatten(tree, leaves)))

        if not spread.over:
            return evaluate(*leaves)
        return spread.evaluate(evaluate, leaves, self.places(tree, leaves), self.found(kernel, tree, leaves))

    def abstract(self, *avals: Any, kernel: Kernel, tree: Any, layout: Layout) -> list[ShapedArray]:
        spread = self.spread(avals, tree, layout)
        # Like an operand but for these: so are the mesh axes of ``shard_map`` that it varies over.
        return [
            avals[0].update(shape=x.shape, dtype=x.dtype, weak_type=False, sharding=spread.sharding(place, x.ndim))
            for place, x in self.found(kernel, tree, avals)
        ]

    def vmap(
        self, leaves: Any, axes: Any, *, kernel: Kernel, tree: Any, layout: Layout
    ) -> tuple[list[Array], list[int]]:
        size, like = _mapped(leaves, axes)
        arguments = jax.tree.unflatten(tree, leaves)
        places = self.places(tree, leaves)
        shared = [axis is None for axis, place in zip(axes, places, strict=True) if place == PARAMETER]
        many = not all(shared[: len(jax.tree.leaves(arguments[0]))])
        if many:
            alone = not kernel.small or layout.several or (layout.runs and like[1] is not None)
        else:  # where each sequence has a gradient of the parameters
            alone = not all(shared) or PARAMETER in _spread(self.results, self.results)
        if alone or isinstance(kernel, Vmapped):
            entered = [_to_axis(x, axis, 0, size, like) for x, axis in zip(leaves, axes, strict=True)]
            found = self.primitive.bind(
                *entered, kernel=Vmapped(kernel), tree=tree, layout=layout._replace(outer=layout.outer + 1)
            )
            return found, [0] * len(found)
        if not many:
            entered = [
                x if place == PARAMETER else _to_axis(x, axis, place, size, like)
                for x, axis, place in zip(leaves, axes, places, strict=True)
            ]
            found = self.primitive.bind(*entered, kernel=kernel, tree=tree, layout=layout.with_batch(size))
            return found, [place for place, _ in self.found(kernel, tree, entered)]
        entered = [
            _to_axis(x, axis, x.ndim - (axis is not None), size, like) for x, axis in zip(leaves, axes, strict=True)
        ]
        if layout.runs:  # runs of runs
            entered = [x.reshape(*x.shape[:-2], -1) for x in entered]
        found = self.primitive.bind(*entered, kernel=kernel, tree=tree, layout=layout._replace(runs=True))
        if layout.runs:
            found = [x.reshape(*x.shape[:-1], -1, size) for x in found]
        return found, [x.ndim - 1 for x in found]


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _spread(places: Any, tree: PyTree) -> list[int]:
    """The place of every leaf."""
    if isinstance(places, tuple):
        return [place for part, branch in zip(places, tree, strict=True) for place in _spread(part, branch)]
    return [places] * len(jax.tree.leaves(tree))


def _mapped(leaves: list[Array], axes: list[int | None]) -> tuple[int, tuple[Any, Any]]:
    """The size of the axis that is mapped; the mesh, and the axes of it that this axis is spread over."""
    mapped = [(x, axis) for x, axis in zip(leaves, axes, strict=True) if axis is not None]
    (size,) = {x.shape[axis] for x, axis in mapped}
    ((mesh, over), *_) = ((jax.typeof(x).sharding.mesh, spread_over(x, axis)) for x, axis in mapped)
    return size, (mesh, over)


def _to_axis(x: Array, axis: int | None, place: int, size: int, like: tuple[Any, Any]) -> Array:
    return jnp.moveaxis(x, axis, place) if axis is not None else repeated(x, place, size, like)


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


def _transpose_tangent(cotangents: Any, *leaves: Any, kernel: Kernel, tree: Any, layout: Layout) -> list[Any]:
    parameters, inputs, hidden, residuals, _ = jax.tree.unflatten(tree, leaves)
    primals = jax.tree.leaves((parameters, inputs, hidden))
    shapes = _tangent.shapes(kernel, tree, *[_shape(x.aval if ad.is_undefined_primal(x) else x) for x in leaves])
    results = jax.tree.unflatten(jax.tree.structure(shapes), [ad.instantiate_zeros(ct) for ct in cotangents])
    bars = jax.tree.leaves(_backward(kernel, parameters, inputs, residuals, results, layout=layout))
    asked = map(ad.is_undefined_primal, leaves[-len(primals) :])
    return [None] * (len(leaves) - len(primals)) + [bar if a else None for bar, a in zip(bars, asked, strict=True)]


ad.primitive_transposes[_tangent.primitive] = _transpose_tangent

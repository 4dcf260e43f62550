"""The recurrence of a deep transition, and its gradient by hand.

The input weights are applied in one product before the loop over time, and the gradient of each matrix is one product
of each window of time in the backward pass. Each layer has one array of rows: a row holds the drive of the layer, and
the forward loop replaces it by the layer's values. The backward pass keeps the errors of the pre-activations of one
window only. No derivative of tanh is stored, since it follows from the value.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from clockwork.deep.weights import DeepWeights
from clockwork.ops.backend import Backend, Cost
from clockwork.ops.chunked import in_chunks
from clockwork.ops.layout import Layout
from clockwork.ops.linalg import (
    Activation,
    accumulator,
    activate,
    broadcast_batch,
    get_row,
    gram,
    matmul,
    set_row,
    total,
    transpose,
    units_axis,
)
from clockwork.ops.operation import apply
from clockwork.ops.sharded import equally_varying

# Many runs are laid in the last axis up to this many units in the largest layer; larger ones are evaluated run by run.
RUNS_LAST_MAX_UNITS = 32
# The backward pass keeps the errors of one window of time, and adds the window's part to the gradients of the weights.
# A window has at least this many rows, steps times sequences, so that its products are efficient.
GRADIENT_ROWS = 512


class DeepCall(NamedTuple):
    """A call of ``deep_unroll``, as its back ends see it.

    Attributes:
        steps: ``T``.
        sizes: ``n_1, ..., n_L``.
        activations: elementwise, one for each layer.
        dtype: of the computation.
    """

    steps: int
    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    dtype: DTypeLike


class Residuals(NamedTuple):
    """What the forward pass keeps for the backward pass.

    Attributes:
        values: of each layer, ``(T, n_k)``.
        slopes: ``f'`` of each layer, ``(T, n_k)``; None for tanh, whose slope follows from its value.
        hidden: the state before the first step, ``(1, N)``.
    """

    values: tuple[Array, ...]
    slopes: tuple[Array | None, ...]
    hidden: Array


class Deep(NamedTuple):
    """The `clockwork.ops.operation.Operation` of a deep transition; parameters are ``(weights, readout)``.

    Attributes:
        steps: ``T``.
        sizes: ``n_1, ..., n_L``.
        activations: elementwise, one for each layer.
    """

    steps: int
    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]

    @property
    def runs_last(self) -> bool:
        """Whether many runs are laid in the last axis."""
        return max(self.sizes) <= RUNS_LAST_MAX_UNITS

    def forward(
        self, layout: Layout, parameters: tuple[DeepWeights, Array | None], inputs: Array | None, hidden: Array
    ) -> tuple[tuple[Array, Array], Residuals]:
        """Outputs and last state."""
        del layout
        weights, readout = parameters
        axis, dtype = units_axis(weights.bias), accumulator(hidden.dtype)
        biases = [broadcast_batch(b, hidden) for b in _blocks(weights.bias.astype(dtype), self.sizes, axis)]
        fed = _blocks(weights.input, weights.fed, axis)
        rows = []
        for k, n in enumerate(self.sizes):
            if inputs is not None and k < len(fed):
                rows.append(matmul(inputs, fed[k]))
            else:
                rows.append(jnp.zeros((self.steps, *_of_units(hidden, n, axis)), dtype))
        slopes = [None if f is jnp.tanh else jnp.zeros_like(x) for f, x in zip(self.activations, rows, strict=True)]

        def tick(s: Array, carry: tuple) -> tuple:
            h_tm1, rows, slopes = carry
            rows, slopes = list(rows), list(slopes)
            sent = _blocks(matmul(h_tm1, weights.recurrent), weights.fed, axis)
            z = h_tm1
            for k, f in enumerate(self.activations):
                a = get_row(rows[k], s) + biases[k]
                if k < len(sent):
                    a = a + sent[k]
                if k:
                    a = a + matmul(z, weights.between[k - 1])
                z, slope = activate(f, a)
                z = z.astype(h_tm1.dtype)
                rows[k] = set_row(rows[k], z, s)
                if slope is not None:
                    slopes[k] = set_row(slopes[k], slope, s)
            return z, tuple(rows), tuple(slopes)

        last, values, slopes = lax.fori_loop(0, self.steps, tick, (hidden, tuple(rows), tuple(slopes)))
        outputs = values[-1].astype(hidden.dtype)
        outputs = outputs if readout is None else matmul(outputs, readout).astype(hidden.dtype)
        return (outputs, last), Residuals(values, slopes, hidden[None])

    def backward(
        self,
        layout: Layout,
        parameters: tuple[DeepWeights, Array | None],
        inputs: Array | None,
        residuals: Residuals,
        cotangents: tuple[Array, Array],
    ) -> tuple[tuple[DeepWeights, Array | None], Array | None, Array]:
        """The transpose of `forward`.

        With ``e_t`` the error of ``h_t``: ``δ_L = e_t f'``, ``δ_{k-1} = (δ_k W_kᵀ) f'``, and
        ``Σ_k δ_k S_kᵀ`` is the error that goes on to ``h_{t-1}``.
        """
        weights, readout = parameters
        values, slopes, hidden = residuals
        dtype, axis, runs = accumulator(hidden.dtype), units_axis(weights.bias), layout.runs_last
        outputs_bar, last_bar = (x.astype(dtype) for x in cotangents)
        inputs = None if inputs is None else inputs.astype(dtype)
        steps, fed, layers = self.steps, weights.fed, len(self.sizes)
        window = steps if runs else min(steps, -(-GRADIENT_ROWS // math.prod(last_bar.shape[:-1])))
        to_inputs = [transpose(w) for w in _blocks(weights.input.astype(dtype), fed, axis)]
        to_hidden = transpose(weights.recurrent).astype(dtype)
        down = [transpose(w).astype(dtype) for w in weights.between]
        to_outputs = None if readout is None else transpose(readout).astype(dtype)

        def slope(k: int, s: Array) -> Array:
            stored = slopes[k]
            return 1 - jnp.square(get_row(values[k], s)) if stored is None else get_row(stored, s)

        def tick(first: Array, s: Array, carry: tuple) -> tuple:
            later, deltas = carry
            error = get_row(outputs_bar, s)
            error = error if to_outputs is None else matmul(error, to_outputs)
            error = error + jnp.where(s == steps - 1, last_bar, 0) + matmul(later, to_hidden)
            found = []
            for k in reversed(range(layers)):
                found.insert(0, error * slope(k, s))
                if k:
                    error = matmul(found[0], down[k - 1])
            deltas = tuple(set_row(rows, delta, s - first) for rows, delta in zip(deltas, found, strict=True))
            return jnp.concatenate(found[: len(fed)], axis), deltas

        def gradients(first: Array, deltas: tuple[Array, ...]) -> tuple[DeepWeights, Array | None]:
            """The part of the steps of a window."""
            at = functools.partial(lax.dynamic_slice_in_dim, start_index=first, slice_size=window)
            rows = [at(x) for x in values]
            before = jnp.where(first == 0, hidden.astype(dtype), get_row(values[-1], jnp.maximum(first - 1, 0))[None])
            before = jnp.concatenate([before, rows[-1][:-1]])
            received = deltas[: len(fed)]
            of_inputs, inputs_bar = jnp.zeros(weights.input.shape, dtype), None
            if inputs is not None:
                given = at(inputs)
                of_inputs = jnp.concatenate([gram(given, delta, runs=runs) for delta in received], 1)
                sent = [matmul(delta, w) for delta, w in zip(received, to_inputs, strict=True)]
                inputs_bar = functools.reduce(jnp.add, sent)
            weights_bar = DeepWeights(
                of_inputs,
                jnp.concatenate([gram(before, delta, runs=runs) for delta in received], 1),
                tuple(gram(x, delta, runs=runs) for x, delta in zip(rows, deltas[1:], strict=False)),
                jnp.concatenate([total(delta, runs=runs) for delta in deltas]),
            )
            return weights_bar, inputs_bar

        def back(i: Array, carry: tuple) -> tuple:
            later, weights_bar, inputs_bar = carry
            end = steps - i * window
            first = jnp.maximum(end - window, 0)
            # In the last window, the rows from `end` on belong to the one before it: their errors stay zero here.
            deltas = tuple(jnp.zeros((window, *x.shape[1:]), dtype) for x in values)
            later, deltas = lax.fori_loop(
                0, end - first, lambda n, carry: tick(first, end - 1 - n, carry), (later, deltas)
            )
            more, sent = gradients(first, deltas)
            if inputs_bar is not None and sent is not None:
                sent = sent + lax.dynamic_slice_in_dim(inputs_bar, first, window)
                inputs_bar = lax.dynamic_update_slice_in_dim(inputs_bar, sent, first, 0)
            return later, jax.tree.map(jnp.add, weights_bar, more), inputs_bar

        zeros = jax.tree.map(lambda w: jnp.zeros(w.shape, dtype), (weights, inputs))
        start = (jnp.zeros(_of_units(last_bar, sum(fed), axis), dtype), *zeros)
        windows = -(-steps // window)
        later, weights_bar, inputs_bar = lax.fori_loop(jnp.int32(0), jnp.int32(windows), back, start)
        readout_bar = None if readout is None else gram(values[-1], outputs_bar, runs=runs)
        bars = ((weights_bar, readout_bar), inputs_bar, matmul(later, to_hidden))
        return jax.tree.map(lambda bar: bar.astype(cotangents[0].dtype), bars)


def transition(activations: tuple[Activation, ...], weights: DeepWeights, h_tm1: Array, x_t: Array | None) -> Array:
    """One step ``h_{t-1}`` to ``h_t``, ``(N,)``: the equations as they are written."""
    sizes, dtype = weights.sizes, accumulator(h_tm1.dtype)
    sent = matmul(h_tm1, weights.recurrent)
    if x_t is not None:
        sent = sent + matmul(x_t, weights.input)
    blocks, z = _blocks(sent, weights.fed, -1), h_tm1
    for k, (f, b) in enumerate(zip(activations, _blocks(weights.bias.astype(dtype), sizes, -1), strict=True)):
        a = b
        if k < len(blocks):
            a = a + blocks[k]
        if k:
            a = a + matmul(z, weights.between[k - 1])
        z = f(a).astype(h_tm1.dtype)
    return z


def evaluate_reference(
    call: DeepCall, weights: DeepWeights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Scan `transition` over time; arguments and results as of `evaluate`."""
    hidden = equally_varying([hidden, *jax.tree.leaves((weights, inputs))])[0]  # as the carry of a loop must be

    def tick(h_tm1: Array, x_t: Array | None) -> tuple[Array, Array]:
        h_t = transition(call.activations, weights, h_tm1, x_t)
        return h_t, h_t

    last, outputs = lax.scan(tick, hidden, inputs, length=call.steps)
    return (outputs if readout is None else matmul(outputs, readout).astype(hidden.dtype)), last


def evaluate(
    call: DeepCall, weights: DeepWeights, inputs: Array | None, hidden: Array, readout: Array | None
) -> tuple[Array, Array]:
    """Evaluate a layer, with the gradient by hand.

    Args:
        call: of ``deep_unroll``.
        weights: of the layer.
        inputs: ``(T, I)`` or None.
        hidden: ``(N,)``, the state before the first step.
        readout: ``(N, O)`` or None.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last state ``(N,)``.
    """
    operation = in_chunks(Deep(call.steps, call.sizes, call.activations), call.steps)
    return apply(operation, (weights, readout), inputs, hidden)


REFERENCE = Backend("reference", evaluate_reference, lambda call: None, lambda call: Cost(2, "JAX differentiates it"))
BACKEND = Backend("scan", evaluate, lambda call: None, lambda call: Cost(1, "its gradient is written by hand"))


def _of_units(state: Array, units: int, axis: int) -> tuple[int, ...]:
    """The shape of a state of another number of units."""
    shape = list(state.shape)
    shape[axis] = units
    return tuple(shape)


def _blocks(x: Array, sizes: tuple[int, ...], axis: int) -> list[Array]:
    """The parts of an array of units side by side, one for each layer."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [lax.slice_in_dim(x, a, a + n, axis=x.ndim + axis) for a, n in zip(starts, sizes, strict=True)]

"""Evaluation of a long sequence in chunks.

The working set of one chunk fits into the CPU's cache; that of a whole long sequence does not, and each step of many
runs then takes more than twice as long. So the forward pass keeps only the states between chunks, and the backward pass
computes each chunk again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from clockwork.checks import static_integer
from clockwork.ops.layout import Layout
from clockwork.ops.operation import Operation, PyTree, for_parameters, portable

# The minimum number of steps of a chunk: with 100 runs of 40 units, its working set is 4 MB.
CHUNK_MIN_STEPS = 512
# The same where a loop over time does not gain by the cache, as in kernels: chunks only save memory there.
UNCACHED_CHUNK_MIN_STEPS = 4096


class Chunked(NamedTuple):
    """An operation of many steps, cut along time. Its residuals are the states before each chunk.

    Attributes:
        chunk: the operation over ``steps`` steps; it applies to every chunk, since chunks start multiples of ``steps``
            apart.
        rest: the operation over the remaining steps, or None.
        steps: the number of steps of a chunk.
        chunks: the number of whole chunks.
    """

    chunk: Any
    rest: Any
    steps: int
    chunks: int

    @property
    def runs_last(self) -> bool:
        """As for the operation of a chunk."""
        return self.chunk.runs_last

    @property
    def portable(self) -> "Chunked":
        """See `clockwork.ops.operation.portable`."""
        return self._replace(chunk=portable(self.chunk), rest=portable(self.rest))

    @property
    def for_parameters(self) -> "Chunked":
        """See `clockwork.ops.operation.for_parameters`."""
        return self._replace(chunk=for_parameters(self.chunk), rest=for_parameters(self.rest))

    def forward(self, layout: Layout, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
        """Outputs and last state."""

        def step(hidden: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            (outputs, last), _ = self.chunk.forward(layout, parameters, inputs, hidden)
            return last, (outputs, hidden)

        chunks, rest = self._cut(inputs)
        last, (outputs, starts) = jax.lax.scan(step, hidden, chunks, length=self.chunks)
        outputs = jax.tree.map(_join, outputs)
        if self.rest is not None:
            starts = _append(starts, jax.tree.map(lambda x: x[None], last))
            (more, last), _ = self.rest.forward(layout, parameters, rest, last)
            outputs = _append(outputs, more)
        return (outputs, last), starts

    def backward(
        self, layout: Layout, parameters: PyTree, inputs: PyTree, residuals: PyTree, cotangents: PyTree
    ) -> PyTree:
        """The gradients; each chunk is computed again."""
        (outputs_bar, last_bar), starts = cotangents, residuals

        def back(operation: Operation, start: PyTree, inputs: PyTree, outputs_bar: PyTree, last_bar: PyTree) -> PyTree:
            _, residuals = operation.forward(layout, parameters, inputs, start)
            return operation.backward(layout, parameters, inputs, residuals, (outputs_bar, last_bar))

        def step(carry: tuple[PyTree, PyTree], xs: tuple) -> tuple[tuple[PyTree, PyTree], PyTree]:
            total, last_bar = carry
            start, x, y_bar = xs
            parameters_bar, inputs_bar, last_bar = back(self.chunk, start, x, y_bar, last_bar)
            return (jax.tree.map(jnp.add, total, parameters_bar), last_bar), inputs_bar

        (x, x_rest), (y_bar, y_rest_bar) = self._cut(inputs), self._cut(outputs_bar)
        total = jax.tree.map(jnp.zeros_like, parameters)
        rest_bar = None
        if self.rest is not None:
            final = jax.tree.map(lambda s: s[-1], starts)
            total, rest_bar, last_bar = back(self.rest, final, x_rest, y_rest_bar, last_bar)
            starts = jax.tree.map(lambda s: s[:-1], starts)
        (total, hidden_bar), inputs_bar = jax.lax.scan(step, (total, last_bar), (starts, x, y_bar), reverse=True)
        inputs_bar = jax.tree.map(_join, inputs_bar)
        return total, inputs_bar if self.rest is None else _append(inputs_bar, rest_bar), hidden_bar

    def _cut(self, sequences: PyTree) -> tuple[PyTree, PyTree]:
        end = self.steps * self.chunks
        chunks = jax.tree.map(lambda x: x[:end].reshape(self.chunks, self.steps, *x.shape[1:]), sequences)
        return chunks, jax.tree.map(lambda x: x[end:], sequences)


def in_chunks(operation: Any, steps: int, multiple: int = 1, *, cached: bool = True) -> Operation:
    """The operation, in chunks if the sequence is long enough for at least two.

    Args:
        operation: a NamedTuple with a field ``steps``.
        steps: the number of its steps.
        multiple: the number of steps of a chunk must be a multiple of this.
        cached: whether its loops over time are faster if a chunk fits into the cache.
    """
    length = multiple * -(-(CHUNK_MIN_STEPS if cached else UNCACHED_CHUNK_MIN_STEPS) // multiple)
    count, left = divmod(steps, length)
    if count < 2:
        return operation
    chunk, rest = operation._replace(steps=length), operation._replace(steps=left) if left else None
    return Chunked(chunk, rest, length, count)


def _join(x: jax.Array) -> jax.Array:
    """The steps of all chunks; sizes may be zero."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _append(first: PyTree, second: PyTree) -> PyTree:
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), first, second)


def check_steps(steps: int | None) -> int:
    """Return the number of steps; raise ``ValueError`` unless it is an integer of at least 1."""
    steps = static_integer("steps", steps)
    if steps < 1:
        raise ValueError(f"a sequence must have at least one step, got {steps}")
    return steps

"""A long sequence, piece by piece.

What one piece needs fits into the processor's cache; what a whole long sequence needs does not, and
each step of many runs then takes more than twice as long. So the forward pass keeps the states
between pieces alone, and the backward pass computes each piece again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from clockwork.ops.operation import Kernel, PyTree

# Steps of a piece, at least: at 100 runs of 40 units their working set is 4 MB.
PIECE = 512
# The same where loops are kernels of a GPU, which has no such cache: there a piece saves memory alone.
FUSED_PIECE = 4096


class InPieces(NamedTuple):
    """A kernel of many steps, cut along time. Its residuals are the states before each piece.

    Attributes:
        piece: ``steps`` of them; any piece that starts a multiple of ``steps`` later is the same.
        rest: what is left over, or None.
        steps: of a piece.
        pieces: how many whole ones.
    """

    piece: Any
    rest: Any
    steps: int
    pieces: int

    @property
    def small(self) -> bool:
        """As the kernel."""
        return self.piece.small

    def forward(self, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
        """Outputs and last state."""

        def step(hidden: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            (outputs, last), _ = self.piece.forward(parameters, inputs, hidden)
            return last, (outputs, hidden)

        pieces, rest = self._cut(inputs)
        last, (outputs, starts) = jax.lax.scan(step, hidden, pieces, length=self.pieces)
        outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
        if self.rest is not None:
            starts = _append(starts, jax.tree.map(lambda x: x[None], last))
            (more, last), _ = self.rest.forward(parameters, rest, last)
            outputs = _append(outputs, more)
        return (outputs, last), starts

    def backward(self, parameters: PyTree, inputs: PyTree, residuals: PyTree, cotangents: PyTree) -> PyTree:
        """The gradients, with each piece computed again."""
        (outputs_bar, last_bar), starts = cotangents, residuals

        def back(kernel: Kernel, start: PyTree, inputs: PyTree, outputs_bar: PyTree, last_bar: PyTree) -> PyTree:
            _, kept = kernel.forward(parameters, inputs, start)
            return kernel.backward(parameters, inputs, kept, (outputs_bar, last_bar))

        def step(carry: tuple[PyTree, PyTree], xs: tuple) -> tuple[tuple[PyTree, PyTree], PyTree]:
            total, last_bar = carry
            start, x, y_bar = xs
            parameters_bar, inputs_bar, last_bar = back(self.piece, start, x, y_bar, last_bar)
            return (jax.tree.map(jnp.add, total, parameters_bar), last_bar), inputs_bar

        (x, x_rest), (y_bar, y_rest_bar) = self._cut(inputs), self._cut(outputs_bar)
        total = jax.tree.map(jnp.zeros_like, parameters)
        rest_bar = None
        if self.rest is not None:
            final = jax.tree.map(lambda s: s[-1], starts)
            total, rest_bar, last_bar = back(self.rest, final, x_rest, y_rest_bar, last_bar)
            starts = jax.tree.map(lambda s: s[:-1], starts)
        (total, hidden_bar), inputs_bar = jax.lax.scan(step, (total, last_bar), (starts, x, y_bar), reverse=True)
        inputs_bar = jax.tree.map(lambda bar: bar.reshape(-1, *bar.shape[2:]), inputs_bar)
        return total, inputs_bar if self.rest is None else _append(inputs_bar, rest_bar), hidden_bar

    def _cut(self, sequences: PyTree) -> tuple[PyTree, PyTree]:
        end = self.steps * self.pieces
        pieces = jax.tree.map(lambda x: x[:end].reshape(self.pieces, self.steps, *x.shape[1:]), sequences)
        return pieces, jax.tree.map(lambda x: x[end:], sequences)


def in_pieces(kernel: Any, steps: int, multiple: int = 1, *, fused: bool = False) -> Kernel:
    """The kernel, or the same in pieces where it has several.

    Args:
        kernel: a NamedTuple with a ``steps``.
        steps: how many it has.
        multiple: a piece must be a multiple of so many steps.
        fused: whether its loops are kernels of a GPU.
    """
    length = multiple * -(-(FUSED_PIECE if fused else PIECE) // multiple)
    count, left = divmod(steps, length)
    if count < 2:
        return kernel
    piece, rest = kernel._replace(steps=length), kernel._replace(steps=left) if left else None
    return InPieces(piece, rest, length, count)


def _append(first: PyTree, second: PyTree) -> PyTree:
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), first, second)

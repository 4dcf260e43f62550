"""A long sequence of many runs, piece by piece.

What one piece needs fits into the processor's cache; what a whole long sequence needs does not, and
each step then takes more than twice as long. So the forward pass keeps the states between
pieces alone, and the backward pass computes each piece again. That pays for many runs side by side;
one network keeps what it needs, and can have the same by hand (``jax.checkpoint``).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from clockwork.recurrence.kernel import Kernel, PyTree

# Steps of a piece, at least: at 100 runs of 40 units its working set is 4 MB.
PIECE = 512


class InPieces(NamedTuple):
    """A kernel of many steps whose arrays are cut along time where runs lie side by side.

    Attributes:
        whole: all steps at once.
        piece: ``steps`` of them; any piece that starts a multiple of ``steps`` later is the same.
        rest: what is left over, or None.
        steps: of a piece.
        count: how many whole pieces.
    """

    whole: Any
    piece: Any
    rest: Any
    steps: int
    count: int

    @property
    def small(self) -> bool:
        """As the kernel."""
        return self.whole.small

    def runs(self, parameters: PyTree) -> bool:
        """As the kernel."""
        return self.whole.runs(parameters)

    def forward(self, parameters: PyTree, inputs: PyTree, hidden: PyTree) -> tuple[PyTree, PyTree]:
        """Outputs and last state; the residuals are the states before each piece."""
        if not self.runs(parameters):
            return self.whole.forward(parameters, inputs, hidden)

        def step(hidden: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            (outputs, last), _ = self.piece.forward(parameters, inputs, hidden)
            return last, (outputs, hidden)

        pieces, rest = self._cut(inputs)
        last, (outputs, starts) = jax.lax.scan(step, hidden, pieces, length=self.count)
        outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
        if self.rest is not None:
            starts = _append(starts, jax.tree.map(lambda x: x[None], last))
            (more, last), _ = self.rest.forward(parameters, rest, last)
            outputs = _append(outputs, more)
        # In the tree of the whole's, since ``vmap`` chooses between the two and must not change it.
        tree = jax.tree.structure(jax.eval_shape(self.whole.forward, parameters, inputs, hidden)[1])
        starts = jax.tree.leaves(starts)
        spare = [jnp.zeros_like(starts[0][:1])] * (tree.num_leaves - len(starts))
        return (outputs, last), jax.tree.unflatten(tree, starts + spare)

    def backward(self, parameters: PyTree, inputs: PyTree, residuals: PyTree, cotangents: PyTree) -> PyTree:
        """The gradients, with each piece computed again."""
        if not self.runs(parameters):
            return self.whole.backward(parameters, inputs, residuals, cotangents)
        outputs_bar, last_bar = cotangents
        starts = jax.tree.unflatten(
            jax.tree.structure(last_bar), jax.tree.leaves(residuals)[: jax.tree.structure(last_bar).num_leaves]
        )

        def back(kernel: Kernel, start: PyTree, inputs: PyTree, outputs_bar: PyTree, last_bar: PyTree) -> PyTree:
            _, kept = kernel.forward(parameters, inputs, start)
            return kernel.backward(parameters, inputs, kept, (outputs_bar, last_bar))

        def step(carry: tuple[PyTree, PyTree], xs: tuple) -> tuple[tuple[PyTree, PyTree], PyTree]:
            total, last_bar = carry
            parameters_bar, inputs_bar, last_bar = back(self.piece, *xs, last_bar)
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
        end = self.steps * self.count
        pieces = jax.tree.map(lambda x: x[:end].reshape(self.count, self.steps, *x.shape[1:]), sequences)
        return pieces, jax.tree.map(lambda x: x[end:], sequences)


def in_pieces(kernel: Any, steps: int, multiple: int = 1) -> Kernel:
    """The kernel, or the same in pieces where it has several.

    Args:
        kernel: a NamedTuple with a ``steps``.
        steps: how many it has.
        multiple: a piece must be a multiple of so many steps.
    """
    length = multiple * -(-PIECE // multiple)
    count, left = divmod(steps, length)
    if count < 2:
        return kernel
    piece, rest = kernel._replace(steps=length), kernel._replace(steps=left) if left else None
    return InPieces(kernel, piece, rest, length, count)


def _append(first: PyTree, second: PyTree) -> PyTree:
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), first, second)

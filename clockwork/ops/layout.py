"""The positions of the batch and runs axes in the arrays of an operation."""

import enum
from typing import NamedTuple

# Batch axis by kind of argument; -1 means unbatched: a parameter is shared by the sequences of a batch.
SEQUENCE, STATE, PARAMETER = 1, 0, -1


class Layout(enum.Enum):
    """How many runs and sequences an operation's functions see at once.

    ======================  ==============  ================================
    layout                  parameters      sequences; states
    ======================  ==============  ================================
    ``ONE``                 ``(K, N)``      ``(S, K)``; ``(K,)``
    ``BATCH``               ``(K, N)``      ``(S, B, K)``; ``(B, K)``
    ``RUNS_LAST``           ``(K, N, R)``   ``(S, K, R)``; ``(K, R)``
    ``RUNS_LAST_BATCHED``   ``(K, N, R)``   ``(S, B, K, R)``; ``(B, K, R)``
    ======================  ==============  ================================

    A batch of one sequence does not count as a batch; its axis may be present or absent.
    """

    ONE = "one sequence of one run"
    BATCH = "a batch of sequences of one run"
    RUNS_LAST = "one sequence of each of many runs"
    RUNS_LAST_BATCHED = "a batch of sequences of each of many runs"

    @property
    def runs_last(self) -> bool:
        """Whether the last axis of every array is the runs."""
        return self in (Layout.RUNS_LAST, Layout.RUNS_LAST_BATCHED)

    @property
    def batched(self) -> bool:
        """Whether there is a batch of more than one sequence."""
        return self in (Layout.BATCH, Layout.RUNS_LAST_BATCHED)

    def with_batch(self) -> "Layout":
        """This layout with a batch of more than one sequence."""
        return Layout.RUNS_LAST_BATCHED if self.runs_last else Layout.BATCH

    def with_runs(self) -> "Layout":
        """This layout with the runs in the last axis."""
        return Layout.RUNS_LAST_BATCHED if self.batched else Layout.RUNS_LAST


class Axes(NamedTuple):
    """The axes that ``jax.vmap`` has given the arrays of an operation.

    Attributes:
        outer: the number of leading axes that a plain ``jax.vmap`` of the operation added to every array.
        batch: the number of batch axes. The kind of an array determines their position; parameters have none.
        layout: the layout that the operation's functions see.
    """

    outer: int = 0
    batch: int = 0
    layout: Layout = Layout.ONE

    def with_outer(self) -> "Axes":
        """These axes and one more outer axis."""
        return self._replace(outer=self.outer + 1)

    def with_batch(self, size: int) -> "Axes":
        """These axes and one more batch axis of this size."""
        return self._replace(batch=self.batch + 1, layout=self.layout.with_batch() if size != 1 else self.layout)

    def with_runs(self) -> "Axes":
        """These axes with the runs in the last axis."""
        return self._replace(layout=self.layout.with_runs())

    def of(self, kind: int, ndim: int) -> dict[int, tuple[str, int]]:
        """The axes of an array of this kind that ``jax.vmap`` added, and the role of each."""
        axes = {i: ("outer", i) for i in range(self.outer)}
        if kind != PARAMETER:
            axes |= {self.outer + kind + i: ("batch", i) for i in range(self.batch)}
        return axes | ({ndim - 1: ("runs", 0)} if self.layout.runs_last else {})

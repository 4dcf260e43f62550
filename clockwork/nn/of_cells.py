"""A clockwork whose modules are cells of any kind, as a Flax (nnx) cell."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax import Array, lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from clockwork.checks import integer, shaped, shown
from clockwork.clock import Clock, check_clock
from clockwork.nn import modules
from clockwork.nn.carry import check_carry
from clockwork.nn.cells import PeepholeLSTMCell
from clockwork.nn.deep_cells import DeepTransitionCell
from clockwork.nn.described import Described
from clockwork.nn.modules import CellsState
from clockwork.nn.stock import gru_of_whole, lstm_of_parts, lstm_of_whole, scan_stock
from clockwork.recurrence import Method, check_time

PyTree = Any


class ClockworkOfCells(Described, nnx.RNNCellBase):
    """One step of a clockwork whose modules are cells of any kind, itself a cell for ``nnx.RNN``.

    At the ticks of module i, ``c_i, y_i = cell_i(c_i, [x_t, y_{i+1}, ..., y_G])``, where ``y_{i+1}, ..., y_G`` are the
    slower modules' outputs at the previous step. At all other steps the module keeps its output and its whole carry.
    With ``nnx.SimpleCell`` this is the clockwork layer (Koutník et al. 2014, eqs. 1 and 4).
    For whole sequences, ``Clockwork(clock, in_features, cell=...)`` computes the same faster.

    Args:
        clock: when each module updates; its ``sizes`` are the numbers of features of the cells.
        in_features: ``I``, the number of inputs of the layer.
        cell: a class or function that makes a cell, called as ``cell(in_features, hidden_features, rngs=rngs)``:
            ``nnx.LSTMCell``, ``nnx.GRUCell``, ``nnx.SimpleCell``, `PeepholeLSTMCell`, or your own cell class. Pass
            other arguments with ``functools.partial``.
        rngs: the source of the random keys for the cells' parameters.

    Raises:
        ValueError: if ``clock`` is not a clock, ``in_features`` is negative, or ``cell`` does not make a cell.

    Example:
        >>> import clockwork as cw, jax.numpy as jnp
        >>> from flax import nnx
        >>> clock = cw.Clock.exponential(width=12, modules=3)
        >>> cell = ClockworkOfCells(clock, 13, nnx.GRUCell, rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((8, 320, 13))).shape
        (8, 320, 12)
    """

    def __init__(self, clock: Clock, in_features: int, cell: Callable[..., nnx.RNNCellBase], *, rngs: nnx.Rngs) -> None:
        self.clock = check_clock(clock, "ClockworkOfCells(clock, in_features, cell, rngs=rngs)")
        self.in_features = integer("in_features", in_features, least=0)
        sizes = zip(modules.widths(clock, in_features), clock.sizes, strict=True)
        self.cells = nnx.List([_make(cell, width, size, rngs) for width, size in sizes])

    def _arguments(self) -> dict[str, Any]:
        return {"clock": self.clock, "in_features": self.in_features, "cell": type(self.cells[0])}

    def __call__(self, carry: CellsState, inputs: ArrayLike) -> tuple[CellsState, Array]:
        """One step.

        Args:
            carry: the carries of the cells, their outputs ``(*batch, N)`` and the time ``(*batch, 1)``.
            inputs: ``(*batch, I)``.

        Returns:
            The next carry, and the outputs of all modules ``(*batch, N)``.

        Raises:
            ValueError: if the inputs have the wrong number of features, the carry belongs to another clock or batch, or
                the outputs of a cell have the wrong shape.
        """
        x = jnp.asarray(inputs)
        shaped("inputs", x, "*batch I", I=self.in_features)
        check_carry(carry, jax.eval_shape(lambda: self.initialize_carry(x.shape)))
        return modules.step(self.clock, carry, x, lambda j, c, x: self.cells[j](c, x))

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> CellsState:
        """The carry before the first step: the initial carry of each cell, outputs of zero, time zero.

        Args:
            input_shape: the shape of one step's inputs, ``(*batch, I)``.
            rngs: the source of the keys for the cells' carries; ``nnx.Rngs(0)`` if None.
            carry_init: draws the cells' carries; the default of each cell if None.

        Raises:
            ValueError: if the clock's cycle exceeds the range of int32.
        """
        check_time(self.clock)
        return self._first_carry(input_shape, rngs, carry_init)

    def _first_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> CellsState:
        """The carry before the first step, without the check that int32 can count the clock's cycle."""
        batch, rngs = input_shape[:-1], nnx.Rngs(0) if rngs is None else rngs
        shapes = [(*batch, width) for width in modules.widths(self.clock, self.in_features)]
        carries = [
            # Not initialize_carry of our cells: nnx.tabulate watches public methods, and cannot show its arguments.
            getattr(cell, "_first_carry", cell.initialize_carry)(
                shape, rngs, **({} if carry_init is None else {"carry_init": carry_init})
            )
            for cell, shape in zip(self.cells, shapes, strict=True)
        ]
        return modules.initial(self.clock, tuple(carries), batch)

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def _unroll(
        self, inputs: Array, carry: CellsState, lengths: Array | None, *, start: int | None, method: Method
    ) -> tuple[CellsState, Array]:
        """Run the cascade over a batch; `Clockwork` calls this.

        Args:
            inputs: ``(T, B, I)``.
            carry: the carry, with one batch dimension B.
            lengths: ``(B,)``, the number of steps after which each sequence's carry is returned; None for all steps.
            start: the carry's time modulo ``clock.cycle``; None if the caller does not know it.
            method: the layer's method; see `Clockwork`.

        Returns:
            The carry, and the outputs ``(T, B, N)``.
        """
        return modules.unroll(
            self.clock, inputs, carry, lengths, start=start, method=method,
            scan=lambda j, c, x, ticks: scan_cell(self.cells[j], c, x, ticks),
            stepwise=lambda c, x, ticks: scan_cell(self, c, x, ticks),
        )  # fmt: skip


def _make(cell: Callable[..., nnx.RNNCellBase], width: int, size: int, rngs: nnx.Rngs) -> nnx.RNNCellBase:
    if not callable(cell):
        raise ValueError(f"cell must be a class or function such as nnx.LSTMCell, got {shown(cell)}")
    try:
        made = cell(width, size, rngs=rngs)
    except TypeError as error:
        raise ValueError(f"cell must be called as cell(in_features, hidden_features, rngs=rngs): {error}") from error
    if not isinstance(made, nnx.RNNCellBase) or made.num_feature_axes != 1:
        raise ValueError(
            f"cell must make an nnx.RNNCellBase of one feature axis, such as nnx.LSTMCell, got {type(made)}"
        )
    return made


class _Arrays(dict[str, Array | None]):
    """The arrays of a cell's submodules, by path."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell

    def __missing__(self, path: str) -> Array:
        name, array = path.split("/")
        return getattr(getattr(self._cell, name), array)[...]


def _as_flax_builds_it(cell: Any) -> bool:
    """Whether a GRU or LSTM cell of Flax computes what its class says: a user may replace each of its layers."""
    biased = ("dense_i",) if type(cell) is nnx.GRUCell else ("dense_h", "hi", "hf", "hg", "ho")
    return cell.promote_dtype is promote_dtype and all(
        type(layer) is nnx.Linear
        and layer.use_bias == (name in biased)
        and layer.dtype == cell.dtype
        and layer.dot_general is lax.dot_general
        and layer.promote_dtype is promote_dtype
        and layer.precision is None
        and getattr(layer, "preferred_element_type", None) is None
        for name, layer in nnx.iter_children(cell)
    )


# Flax's own cells that the kernels compute, and their weights.
_STOCK: dict[type, Callable[[_Arrays], Any]] = {
    nnx.LSTMCell: functools.partial(lstm_of_parts, prefixes=("ii", "if_", "ig", "io")),
    nnx.OptimizedLSTMCell: lstm_of_whole,
    nnx.GRUCell: gru_of_whole,
}


def scan_cell(cell: nnx.RNNCellBase, carry: PyTree, inputs: Array, ticks: Array | None) -> tuple[PyTree, Array]:
    """Scan a cell over ``(S, B, I)``, and keep its state besides the carry, such as random streams.

    Args:
        cell: a cell with one feature axis.
        carry: its carry, with one batch dimension B.
        inputs: ``(S, B, I)``.
        ticks: ``(B,)``, the number of steps after which a sequence's carry no longer changes; None for all steps.

    Returns:
        The last carry, and the outputs ``(S, B, N)``.
    """
    if isinstance(cell, DeepTransitionCell):
        return cell._unroll(inputs, carry, ticks)
    if isinstance(cell, PeepholeLSTMCell) and ticks is None:
        return cell._unroll(inputs, carry)
    weights = _STOCK.get(type(cell))
    if weights is not None and _as_flax_builds_it(cell):
        found = scan_stock(cell, functools.partial(weights, _Arrays(cell)), carry, inputs, ticks)
        if found is not None:
            return found
    graph, params, rest = nnx.split(cell, nnx.Param, ...)

    def tick(state: tuple[nnx.State, PyTree], xs: tuple[Array, Array]) -> tuple[tuple[nnx.State, PyTree], Array]:
        rest, carry = state
        module = nnx.merge(graph, params, rest)
        carry, y = modules.scan_ticks(module, ticks)(carry, xs)
        return (nnx.state(module, nnx.Not(nnx.Param)), carry), y

    carry = jax.tree.map(jnp.asarray, carry)
    (rest, carry), outputs = lax.scan(tick, (rest, carry), (jnp.arange(inputs.shape[0]), inputs))
    if jax.tree.leaves(rest):
        nnx.update(cell, rest)
    return carry, outputs

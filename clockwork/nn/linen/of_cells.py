"""A clockwork whose modules are cells of any kind, as a Flax (linen) cell."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax import Array
from jax.typing import ArrayLike

from clockwork.checks import shown
from clockwork.clock import Clock, check_clock
from clockwork.nn import modules
from clockwork.nn.carry import check_carry
from clockwork.nn.linen.cells import PeepholeLSTMCell
from clockwork.nn.linen.deep_cells import DeepTransitionCell
from clockwork.nn.linen.described import Described
from clockwork.nn.modules import CellsState
from clockwork.nn.stock import gru_of_parts, lstm_of_parts, scan_stock
from clockwork.recurrence import Method, check_time

PyTree = Any


class ClockworkOfCells(Described, nn.RNNCellBase):
    """One step of a clockwork whose modules are cells of any kind, itself a cell for ``nn.RNN``.

    At the ticks of module i, ``c_i, y_i = cell_i(c_i, [x_t, y_{i+1}, ..., y_G])``, where ``y_{i+1}, ..., y_G`` are the
    slower modules' outputs at the previous step. At all other steps the module keeps its output and its whole carry.
    With ``nn.SimpleCell`` this is the clockwork layer (Koutník et al. 2014, eqs. 1 and 4).
    For whole sequences, ``Clockwork(clock, cell=...)`` computes the same faster.

    Attributes:
        clock: when each module updates; its ``sizes`` are the numbers of features of the cells.
        cell: a class or function that makes a cell, called as ``cell(features)``: ``nn.LSTMCell``, ``nn.GRUCell``,
            ``nn.SimpleCell``, `PeepholeLSTMCell`, or your own cell class. Pass other arguments with
            ``functools.partial``.

    Raises:
        ValueError: if ``clock`` is not a clock or ``cell`` is not a function; when called, if it does not make a cell.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> rnn = nn.RNN(ClockworkOfCells(cw.Clock.exponential(width=12, modules=3), nn.GRUCell))
        >>> outputs, variables = rnn.init_with_output(jax.random.key(0), jnp.ones((8, 320, 13)))
        >>> outputs.shape
        (8, 320, 12)
    """

    clock: Clock
    cell: Callable[..., nn.RNNCellBase]

    def __post_init__(self) -> None:
        check_clock(self.clock, "ClockworkOfCells(clock, cell)")
        if not callable(self.cell):
            raise ValueError(
                f"cell must be a class or function such as nn.LSTMCell, got {shown(self.cell)}; "
                "linen cells take the number of inputs from the first call"
            )
        super().__post_init__()

    def setup(self) -> None:
        """The cells, fastest first."""
        self.cells = [_make(self.cell, size) for size in self.clock.sizes]

    def __call__(self, carry: CellsState, inputs: ArrayLike) -> tuple[CellsState, Array]:
        """One step.

        Args:
            carry: the carries of the cells, their outputs ``(*batch, N)`` and the time ``(*batch, 1)``.
            inputs: ``(*batch, I)``.

        Returns:
            The next carry, and the outputs of all modules ``(*batch, N)``.

        Raises:
            ValueError: if the carry belongs to another clock or batch, or the outputs of a cell have the wrong shape.
        """
        check_carry(carry, jax.eval_shape(lambda: self.initialize_carry(None, jnp.shape(inputs))))
        return modules.step(self.clock, carry, jnp.asarray(inputs), lambda j, c, x: self.cells[j](c, x))

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> CellsState:
        """The carry before the first step: the initial carry of each cell, outputs of zero, time zero.

        Args:
            rng: the key for the cells' carries; ``jax.random.key(0)`` if None.
            input_shape: the shape of one step's inputs, ``(*batch, I)``.

        Raises:
            ValueError: if the clock's cycle exceeds the range of int32.
        """
        check_time(self.clock)
        return self.first_carry(rng, input_shape)

    @nn.nowrap
    def first_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> CellsState:
        """The carry before the first step, without the check that int32 can count the clock's cycle."""
        *batch, features = input_shape
        cells = self.cells if self.scope is not None else [_make(self.cell, size) for size in self.clock.sizes]
        keys = jax.random.split(jax.random.key(0) if rng is None else rng, len(cells))
        widths = modules.widths(self.clock, features)
        carries = [c.initialize_carry(k, (*batch, width)) for c, k, width in zip(cells, keys, widths, strict=True)]
        return modules.initial(self.clock, tuple(carries), tuple(batch))

    @property
    def num_feature_axes(self) -> int:
        """The number of trailing feature axes, one."""
        return 1

    def unroll(
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


def _make(cell: Callable[..., nn.RNNCellBase], size: int) -> nn.RNNCellBase:
    try:
        made = cell(size)
    except TypeError as error:
        raise ValueError(f"cell must be called as cell(features): {error}") from error
    if not isinstance(made, nn.RNNCellBase) or made.num_feature_axes != 1:
        raise ValueError(f"cell must make an nn.RNNCellBase of one feature axis, such as nn.LSTMCell, got {type(made)}")
    return made


_OF_PARTS = functools.partial(lstm_of_parts, prefixes=("ii", "if", "ig", "io"))
# Flax's own cells that the kernels compute, and their weights.
_STOCK: dict[type, Callable[..., Any]] = {
    nn.LSTMCell: _OF_PARTS, nn.OptimizedLSTMCell: _OF_PARTS, nn.GRUCell: gru_of_parts
}  # fmt: skip


def scan_cell(cell: nn.RNNCellBase, carry: PyTree, inputs: Array, ticks: Array | None) -> tuple[PyTree, Array]:
    """Scan a cell over ``(S, B, I)``; see `clockwork.nn.of_cells.scan_cell`."""
    if isinstance(cell, DeepTransitionCell):
        return cell.unroll(inputs, carry, ticks)
    if isinstance(cell, PeepholeLSTMCell) and ticks is None:
        return cell.unroll(inputs, carry)
    weights = _STOCK.get(type(cell))
    if weights is not None and not cell.is_initializing():
        params = flatten_dict(nn.meta.unbox(cell.variables["params"]), sep="/")
        found = scan_stock(cell, lambda: weights(params), carry, inputs, ticks)
        if found is not None:
            return found

    def tick(cell: nn.RNNCellBase, carry: PyTree, xs: tuple[Array, Array]) -> tuple[PyTree, Array]:
        return modules.scan_ticks(cell, ticks)(carry, xs)

    scan = nn.scan(tick, variable_broadcast="params", split_rngs={"params": False})
    return scan(cell, jax.tree.map(jnp.asarray, carry), (jnp.arange(inputs.shape[0]), inputs))

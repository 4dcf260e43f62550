"""The clock of a clockwork layer: when each module updates, and the cost of a step."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.export
import numpy as np

from clockwork.checks import ArgumentError, integer, integers, listed, shown


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Clock:
    """The periods and sizes of the modules of a clockwork layer, fastest first.

    Module i updates at the steps t that its period divides, ``t mod T_i = 0``, and keeps
    its value at all other steps (Koutník et al. 2014, eq. 4). It receives from every module
    j >= i, itself included. Periods need not nest and may repeat; among equal periods, the
    position decides which module receives. No period has to be 1: all modules update at step 0, and at a later step
    without an active module the hidden state and the output stay the same and the input is not read.

    A clock is hashable, and a pytree without leaves: ``jax.jit``, ``jax.vmap``, ``jax.grad`` and ``jax.lax.scan`` take
    it as an ordinary argument and recompile for a different clock.

    Args:
        periods: ``G`` positive integers in ascending order.
        sizes: ``G`` positive integers, the number of units of each module.

    Raises:
        ValueError: if the periods are empty, not positive integers or not ascending, or if
            the sizes are not one positive integer for each period.

    Example:
        >>> clock = Clock(periods=(1, 2, 4), sizes=(4, 4, 3))
        >>> clock.width, clock.modules, clock.starts
        (11, 3, (0, 4, 8))
        >>> clock.active(6)
        array([ True,  True, False])
        >>> Clock(periods=(2, 3), sizes=(4, 3)).active(5)
        array([False, False])
    """

    periods: tuple[int, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        periods = integers("periods", self.periods)
        sizes = integers("sizes", self.sizes)
        if not periods:
            raise ValueError("periods must name at least one module, got ()")
        if min(periods) < 1 or list(periods) != sorted(periods):
            raise ValueError(f"periods must be positive and in ascending order, got {periods}")
        if periods[-1] > np.iinfo(np.int32).max:
            raise ValueError(f"periods must fit a 32-bit integer, got {periods}")
        if len(sizes) != len(periods):
            raise ValueError(f"sizes must have one entry for each of the {len(periods)} periods, got {sizes}")
        if min(sizes) < 1:
            raise ValueError(f"sizes must be at least 1, got {sizes}")
        object.__setattr__(self, "periods", periods)
        object.__setattr__(self, "sizes", sizes)

    @classmethod
    def even(cls, width: int, periods: Sequence[int]) -> "Clock":
        """A clock of ``width`` units split as evenly as possible; the fastest modules get the remainder.

        Args:
            width: ``N``, the number of hidden units, at least one for each module.
            periods: ``G`` positive integers in ascending order.

        Raises:
            ValueError: if there are fewer units than modules, or the periods are invalid.

        Example:
            >>> Clock.even(11, periods=(1, 2, 3, 5)).sizes
            (3, 3, 3, 2)
        """
        width = integer("width", width)
        periods = integers("periods", periods)
        if not periods:
            raise ValueError("periods must name at least one module, got ()")
        if width < len(periods):
            raise ValueError(f"width must be at least one unit for each of the {len(periods)} modules, got {width}")
        size, rest = divmod(width, len(periods))
        return cls(periods, tuple(size + (i < rest) for i in range(len(periods))))

    @classmethod
    def exponential(cls, width: int, modules: int, *, fastest: int = 1) -> "Clock":
        """The paper's clock: periods 1, 2, 4, ..., 2^(modules - 1) (Koutník et al. 2014, sec. 3).

        Args:
            width: ``N``, the number of hidden units.
            modules: ``G``, the number of modules.
            fastest: the period of the fastest module; all other periods are multiples of it. A stacked
                layer may start at the slowest period of the layer below.

        Raises:
            ValueError: if there are no modules, fewer units than modules, or ``fastest`` is below 1.

        Example:
            >>> Clock.exponential(width=40, modules=9).sizes
            (5, 5, 5, 5, 4, 4, 4, 4, 4)
            >>> Clock.exponential(width=8, modules=3, fastest=4).periods
            (4, 8, 16)
        """
        modules, fastest = integer("modules", modules, least=1), integer("fastest", fastest, least=1)
        return cls.even(width, tuple(fastest * 2**i for i in range(modules)))

    def flat(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The clock as an entry of a flat dictionary of arrays, for safetensors and other formats.

        Args:
            prefix: put before the name, such as ``"encoder."``.

        Returns:
            ``clock``: ``(2, G)``, int32, the periods and the sizes.

        Example:
            >>> Clock(periods=(1, 2), sizes=(4, 3)).flat()["clock"].tolist()
            [[1, 2], [4, 3]]
        """
        return {f"{prefix}clock": np.array([self.periods, self.sizes], np.int32)}

    @classmethod
    def from_flat(cls, arrays: Mapping[str, Any], prefix: str = "") -> "Clock":
        """The inverse of `flat`.

        Args:
            arrays: the arrays by name; all but the clock's are ignored.
            prefix: the prefix given to `flat`.

        Raises:
            ValueError: if the clock's array is missing or does not describe a valid clock.

        Example:
            >>> Clock.from_flat({"cell.clock": np.array([[1, 2], [4, 3]])}, "cell.")
            Clock(periods=(1, 2), sizes=(4, 3))
        """
        if f"{prefix}clock" not in arrays:
            raise ValueError(f"arrays must have {prefix + 'clock'!r}, got {listed(sorted(arrays))}")
        stored = np.asarray(arrays[f"{prefix}clock"])
        if stored.ndim != 2 or len(stored) != 2:
            raise ValueError(f"{prefix}clock must have shape (2, G), got {stored.shape}")
        return cls(*map(tuple, stored.tolist()))

    @property
    def width(self) -> int:
        """``N``, the number of hidden units."""
        return sum(self.sizes)

    @property
    def modules(self) -> int:
        """``G``, the number of modules."""
        return len(self.periods)

    @property
    def starts(self) -> tuple[int, ...]:
        """``G`` integers, the index of each module's first unit."""
        return tuple(sum(self.sizes[:i]) for i in range(self.modules))

    @property
    def cycle(self) -> int:
        """The least common multiple of the periods: the clock repeats after this many steps."""
        return math.lcm(*self.periods)

    @property
    def unit_periods(self) -> np.ndarray:
        """``(N,)``, int64, the period of each unit's module."""
        return np.repeat(np.asarray(self.periods), self.sizes)

    def active(self, time: int) -> np.ndarray:
        """Which modules update at step ``time``, counted from 0: ``(G,)``, bool.

        Raises:
            ValueError: if ``time`` is not an integer of at least 0.
        """
        time = integer("time", time, least=0)
        return np.array([time % period == 0 for period in self.periods])

    @property
    def recurrent_parameters(self) -> int:
        """The number of recurrent weights, the paper's ``N_H`` (Koutník et al. 2014, appendix).

        For g modules of equal size k this is n²/2 + nk/2.

        Example:
            >>> Clock.exponential(width=36, modules=9).recurrent_parameters == 36**2 / 2 + 36 * 4 / 2
            True
        """
        return sum(size * (start + size) for start, size in zip(self.starts, self.sizes, strict=True))

    def parameters(self, inputs: int = 0, outputs: int = 0) -> int:
        """The number of parameters of a network with this hidden layer, as Table 1 counts them.

        It counts recurrent, input and readout weights, both biases and the ``G`` periods themselves
        ("the clock periods were included in the parameter count", Koutník et al. 2014, sec. 4).

        Args:
            inputs: ``I``, the number of inputs.
            outputs: ``O``, the number of outputs of a linear readout; 0 for none.

        Raises:
            ValueError: if ``inputs`` or ``outputs`` is not an integer of at least 0.

        Example:
            >>> Clock.exponential(width=40, modules=9).parameters(outputs=1)
            980
        """
        inputs, outputs = integer("inputs", inputs, least=0), integer("outputs", outputs, least=0)
        return self.recurrent_parameters + (inputs + 1) * self.width + (self.width + 1) * outputs + self.modules

    def multiply_adds(self, inputs: int = 0, method: Literal["masked", "paper", "cascade"] = "cascade") -> float:
        """The multiply-adds of one step of the layer, averaged over the clock's cycle.

        Args:
            inputs: ``I``, the number of inputs.
            method: how the layer is evaluated; module i has k_i units and period T_i:

                - ``"masked"``: all rows at every step, ``N² + N I``;
                - ``"paper"``: only the rows of active modules, ``O_H + O_I = Σ_i k_i (Σ_{j>=i} k_j + I) / T_i``
                  (Koutník et al. 2014, appendix, where all k_i are equal);
                - ``"cascade"``: what each module sends is computed once, when it changes,
                  ``Σ_j k_j (Σ_{i<=j} k_i + I) / T_j``.

        Raises:
            ValueError: if the method is unknown, or if ``inputs`` is not an integer of at least 0.

        Example:
            >>> clock = Clock.exponential(width=40, modules=9)
            >>> [clock.multiply_adds(method=m) for m in ("masked", "paper", "cascade")]
            [1600.0, 348.6875, 94.5]
        """
        inputs = integer("inputs", inputs, least=0)
        n, starts, sizes, periods = self.width, self.starts, self.sizes, self.periods
        if method == "masked":
            return float(n * (n + inputs))
        if method == "paper":
            return sum(k * (n - a + inputs) / period for a, k, period in zip(starts, sizes, periods, strict=True))
        if method == "cascade":
            return sum(k * (a + k + inputs) / period for a, k, period in zip(starts, sizes, periods, strict=True))
        raise ValueError(f"method must be 'masked', 'paper' or 'cascade', got {method!r}")


jax.export.register_pytree_node_serialization(  # so that functions that take a clock can be exported and stored
    Clock,
    serialized_name="clockwork.Clock",
    serialize_auxdata=lambda clock: json.dumps([clock.periods, clock.sizes]).encode(),
    deserialize_auxdata=lambda data: Clock(*json.loads(bytes(data))),
    from_children=lambda aux_data, children: aux_data,
)


def check_clock(clock: Any, call: str = "") -> Clock:
    """Return the clock; raise ``ValueError`` if it is not a `Clock`.

    Args:
        clock: the value to check.
        call: the correct call, shown in the error.
    """
    if isinstance(clock, Clock):
        return clock
    hint = f"; the call is {call}" if call else ""
    raise ArgumentError(
        "clock",
        f"must be a clockwork.Clock, such as Clock.exponential(width=40, modules=9), got {shown(clock)}{hint}",
    )

"""One call of ``unroll``, as its back ends see it."""

from typing import NamedTuple

from jax import Array
from jax.typing import DTypeLike

from clockwork.clock import Clock
from clockwork.ops.linalg import Activation


class Call(NamedTuple):
    """The static description of a call, and its start, which may be traced.

    Attributes:
        clock: the layer's clock.
        start: the clock's value at the first step; an array if it is traced.
        steps: ``T``.
        activation: ``f``, elementwise.
        dtype: the dtype of the computation.
    """

    clock: Clock
    start: int | Array
    steps: int
    activation: Activation
    dtype: DTypeLike


def start_refusal(call: Call, method: str) -> str | None:
    """Why a back end that needs the start before compilation cannot evaluate a call; None if it can."""
    if isinstance(call.start, int):
        return None
    return f'start must be known before compilation for method "{method}", got an array'

"""The recurrence of a clockwork layer: one function of weights and inputs, and several back ends that evaluate it."""

from clockwork.ops.chunked import check_steps
from clockwork.ops.linalg import Activation
from clockwork.recurrence.layer import (
    METHODS,
    Method,
    State,
    advance,
    as_time,
    check_activation,
    check_time,
    explain,
    step,
    unroll,
)

__all__ = [
    "METHODS",
    "Activation",
    "Method",
    "State",
    "advance",
    "as_time",
    "check_activation",
    "check_steps",
    "check_time",
    "explain",
    "step",
    "unroll",
]

"""The recurrence of a clockwork layer: one function of weights and inputs, and several back ends that evaluate it."""

from clockwork.recurrence.layer import (
    METHODS,
    Activation,
    Method,
    State,
    advance,
    as_time,
    check_activation,
    check_steps,
    check_time,
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
    "step",
    "unroll",
]

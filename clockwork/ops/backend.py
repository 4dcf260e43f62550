"""Which back end evaluates a recurrence, and why.

Each back end states in its own file which calls it refuses and roughly what a call costs on JAX's default device;
`choose` compares them. Decisions that depend on the number of runs and sequences, which is only known under
``jax.vmap``, are made by the batching rule of `clockwork.ops.operation`.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

logger = logging.getLogger(__name__)


class Cost(NamedTuple):
    """The expected cost of a call with one back end.

    Attributes:
        amount: the cost, in a unit that all back ends of a recurrence share; infinite if the back end is used only on
            request.
        reason: the reason, in words.
    """

    amount: float
    reason: str


class Backend(NamedTuple):
    """One way to evaluate a recurrence. ``Call`` stands for whatever describes a call of the recurrence.

    Attributes:
        name: the value of the recurrence's argument ``method`` that selects this back end.
        evaluate: maps ``(call, *arrays)`` to outputs and last state.
        refusal: maps a call to a sentence that says why this back end cannot evaluate it; None if it can.
        cost: maps a call to its cost on JAX's default device.
        stand_in: returns the name of the back end that replaces this one on JAX's default device; None if this one
            runs there.
    """

    name: str
    evaluate: Callable[..., Any]
    refusal: Callable[[Any], str | None]
    cost: Callable[[Any], Cost]
    stand_in: Callable[[], str | None] = lambda: None


class Choice(NamedTuple):
    """The back end that evaluates a call.

    Attributes:
        backend: the chosen back end.
        reason: why it is chosen, in words.
        others: the name of each other back end, and why it is not chosen.
    """

    backend: Backend
    reason: str
    others: tuple[tuple[str, str], ...]


def choose(backends: Sequence[Backend], call: Any, method: str = "auto") -> Choice:
    """Choose the back end for a call: the requested one, or the cheapest of those that do not refuse.

    Args:
        backends: the back ends of the recurrence; of equally cheap ones, the last is chosen.
        call: the call of the recurrence.
        method: the name of a back end, or ``"auto"``.

    Raises:
        ValueError: if there is no back end of that name, or it refuses the call.
    """
    by_name = {backend.name: backend for backend in backends}
    if method != "auto" and method not in by_name:
        raise ValueError(f"method must be one of {('auto', *by_name)}, got {method!r}")
    if method != "auto":
        asked = by_name[method]
        refusal = asked.refusal(call)
        if refusal is not None:
            raise ValueError(refusal)
        cost, stand_in = asked.cost(call), asked.stand_in()
        reason = f'method="{method}" is asked for'
        if stand_in is not None:
            reason += f", and {stand_in} stands in for it: {cost.reason}"
        elif cost.amount == math.inf:
            reason += f", but {cost.reason}"
        others = [(b.name, b.refusal(call) or "it is not asked for") for b in backends]
        return _logged(by_name[stand_in or method], reason, others)
    costs: dict[str, Cost] = {}
    others = []
    for backend in backends:
        refusal = backend.refusal(call)
        if refusal is None:
            costs[backend.name] = backend.cost(call)
        others.append((backend.name, refusal or costs[backend.name].reason))
    cheapest = min(reversed(costs), key=lambda name: costs[name].amount)
    return _logged(by_name[cheapest], costs[cheapest].reason, others)


def explain(backends: Sequence[Backend], call: Any, method: str = "auto") -> list[tuple[str, str]]:
    """The name of every back end and the reason for or against it, the chosen one first; arguments as in `choose`."""
    choice = choose(backends, call, method)
    return [(choice.backend.name, f"chosen: {choice.reason}"), *choice.others]


def default_device() -> Any:
    """The device that JAX uses unless the caller chooses another one."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.devices(chosen)[0] if chosen is None or isinstance(chosen, str) else chosen


def _logged(backend: Backend, reason: str, others: list[tuple[str, str]]) -> Choice:
    choice = Choice(backend, reason, tuple((name, why) for name, why in others if name != backend.name))
    logger.debug("%s is chosen: %s", backend.name, reason)
    for name, why in choice.others:
        logger.debug("%s is not chosen: %s", name, why)
    return choice

"""Which back end evaluates a recurrence, and why.

A back end says in its own file which calls it refuses and roughly what a call costs on the device that JAX computes on;
`choose` compares. What only ``jax.vmap`` knows, how many runs and sequences there are, is not decided here but by the
batching rule of `clockwork.ops.operation`.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

logger = logging.getLogger(__name__)


class Cost(NamedTuple):
    """What a call costs a back end.

    Attributes:
        amount: in a unit that the back ends of a recurrence share; infinite where only a request can choose it.
        reason: in words.
    """

    amount: float
    reason: str


class Backend(NamedTuple):
    """One way to evaluate a recurrence. ``Call`` stands for whatever describes a call of the recurrence.

    Attributes:
        name: as the argument ``method`` of the recurrence has it.
        evaluate: ``(call, *arrays)`` to outputs and last state.
        refusal: ``(call)`` to a sentence that says why this back end cannot evaluate it; None if it can.
        cost: ``(call)`` to the cost on the device that JAX computes on.
        stand_in: ``()`` to the name of the back end that replaces this one on the device that JAX computes on; None
            where this one runs.
    """

    name: str
    evaluate: Callable[..., Any]
    refusal: Callable[[Any], str | None]
    cost: Callable[[Any], Cost]
    stand_in: Callable[[], str | None] = lambda: None


class Choice(NamedTuple):
    """The back end that evaluates a call.

    Attributes:
        backend: the one chosen.
        reason: why, in words.
        others: name of each other back end, and why it is not chosen.
    """

    backend: Backend
    reason: str
    others: tuple[tuple[str, str], ...]


def choose(backends: Sequence[Backend], call: Any, method: str = "auto") -> Choice:
    """The back end for a call: the one asked for, or the cheapest of those that do not refuse.

    Args:
        backends: of the recurrence; of equally cheap ones the last is chosen.
        call: of the recurrence.
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
    """The name of every back end and what is said for or against it, the chosen one first; arguments as of `choose`."""
    choice = choose(backends, call, method)
    return [(choice.backend.name, f"chosen: {choice.reason}"), *choice.others]


def default_device() -> Any:
    """The device that JAX computes on where the caller does not choose one."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.devices(chosen)[0] if chosen is None or isinstance(chosen, str) else chosen


def _logged(backend: Backend, reason: str, others: list[tuple[str, str]]) -> Choice:
    choice = Choice(backend, reason, tuple((name, why) for name, why in others if name != backend.name))
    logger.debug("%s is chosen: %s", backend.name, reason)
    for name, why in choice.others:
        logger.debug("%s is not chosen: %s", name, why)
    return choice

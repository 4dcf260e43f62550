"""The loss of connectionist temporal classification (CTC)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from clockwork.checks import integer
from clockwork.ctc.decoding import required_steps
from clockwork.ctc.lattice import Emissions, log_probability, occupancy
from clockwork.ctc.pairs import ZERO, Pair, of_log2
from clockwork.ops.linalg import matmul


def loss(
    logits: ArrayLike,
    labels: ArrayLike,
    length: ArrayLike | None = None,
    label_length: ArrayLike | None = None,
    *,
    blank: int = 0,
) -> Array:
    """The CTC loss of one sequence: ``-ln p(l | x)``, p summed over all paths that read the labels l.

    A path has one output per frame; it reads the labels that remain after merging repeats and removing blanks (Graves
    et al. 2006, eqs. 3 and 14). For batches and runs, use ``jax.vmap``, nested as you like: all sequences are computed
    side by side in one loop. The gradient is ``softmax(logits)`` minus the probability of each output given the labels
    (eqs. 15 and 16), computed by a forward and a backward sum over paths. Both are exact at any length: probabilities
    are pairs of a mantissa and an exponent and cannot underflow. There is no second derivative and no forward mode.

    Args:
        logits: ``(T, O)``, scores before the softmax, of any floating point dtype; float16 and bfloat16 are computed
            in float32.
        labels: ``(L,)``, integers from 0 to ``O - 1`` that are not the blank; those after ``label_length`` are
            ignored.
        length: ``()``, integer from 0 to T; later frames are ignored, even if they are NaN. None stands for T.
        label_length: ``()``, integer from 0 to L. None stands for L.
        blank: the index of the blank.

    Returns:
        ``()``, in nats, in the dtype of the logits but at least float32. It is infinite, with a gradient of 0, if there
        are fewer frames than the labels need (`required_steps`), or a label has probability 0; it is NaN if a logit is
        NaN or inf.

    Raises:
        ValueError: if an argument has the wrong shape or dtype, a number is out of range, or there are fewer frames
            than the labels need. Traced values are not checked.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))  # paths that read "1": 11, 01 and 10
        >>> round(float(jnp.exp(-loss(logits, jnp.array([1])))), 6)
        0.875
        >>> lengths = jnp.array([2, 1])
        >>> jax.vmap(loss, (None, None, 0))(logits, jnp.array([1]), lengths).shape
        (2,)
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim != 2 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"logits must be floating point numbers (T, O), got {logits.dtype} {logits.shape}; use jax.vmap"
        )
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers (L,), got {labels.dtype} {labels.shape}; use jax.vmap for batches")
    if logits.shape[1] < 1:
        raise ValueError(f"logits must have at least one output, got shape {logits.shape}")
    blank = integer("blank", blank, 0, logits.shape[1] - 1)
    length = _length("length", length, logits.shape[0])
    label_length = _length("label_length", label_length, labels.shape[0])
    _check_values(labels, length, label_length, logits.shape, blank)
    dtype = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    return _loss(logits.astype(dtype), labels.astype(jnp.int32), jnp.int32(length), jnp.int32(label_length), blank)


def _length(name: str, value: ArrayLike | None, most: int) -> Any:
    if value is None:
        return most
    if isinstance(value, (np.ndarray, Array)):
        if value.shape or not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(f"{name} must be one integer, got {value.dtype} {value.shape}; use jax.vmap for batches")
        if isinstance(value, Tracer):
            return value.astype(jnp.int32)
        value = value.item()
    return integer(name, value, 0, most)


def _check_values(labels: Array, length: Any, label_length: Any, shape: tuple[int, ...], blank: int) -> None:
    """Check the values of labels that are not traced."""
    if isinstance(labels, Tracer) or isinstance(label_length, Tracer):
        return
    known = np.asarray(labels)[:label_length]
    wrong = known[(known < 0) | (known >= shape[1]) | (known == blank)]
    if wrong.size:
        raise ValueError(f"labels must be from 0 to {shape[1] - 1} and not the blank, {blank}; got {wrong[0]}")
    if not isinstance(length, Tracer) and length < required_steps(known):
        raise ValueError(
            f"{len(known)} labels need at least {required_steps(known)} frames, one each and a blank between equal "
            f"neighbours; got {length}"
        )


@jax.custom_vjp
def _loss(logits: Array, labels: Array, length: Array, label_length: Array, blank: Array | int) -> Array:
    _, emissions, healthy = _emissions(logits, labels, length, label_length, blank)
    return _nats(log_probability(emissions)[0], healthy)


def _nats(log2: Array, healthy: Array) -> Array:
    return jnp.where(healthy, -math.log(2) * log2, jnp.nan)


def _forward(
    logits: Array, labels: Array, length: Array, label_length: Array, blank: Array | int
) -> tuple[Array, tuple[Array]]:
    log_softmax, emissions, healthy = _emissions(logits, labels, length, label_length, blank)
    log2, shares = occupancy(emissions)
    letters = shares[:, 1:, 0]  # (T, L)
    outputs = jnp.arange(logits.shape[1], dtype=jnp.int32)
    which = (labels[:, None] == outputs[None]).astype(logits.dtype)  # (L, O)
    blanks = (outputs == blank).astype(logits.dtype)
    occupied = matmul(letters, which) + (1 - letters.sum(1))[:, None] * blanks[None]
    counts = (jnp.arange(logits.shape[0], dtype=jnp.int32) < length)[:, None] & jnp.isfinite(log2[0])
    gradient = jnp.where(counts, jnp.exp(log_softmax) - occupied, 0)
    return _nats(log2[0], healthy), (jnp.where(healthy, gradient, jnp.nan),)


def _backward(kept: tuple[Array], cotangent: Array) -> tuple[Array, None, None, None, None]:
    return cotangent * kept[0], None, None, None, None


_loss.defvjp(_forward, _backward)


def _emissions(
    logits: Array, labels: Array, length: Array, label_length: Array, blank: Array | int
) -> tuple[Array, Emissions, Array]:
    """Log probabilities ``(T, O)``, the lattice of one line, and whether no logit of the line is NaN or inf."""
    frames, places = jnp.arange(logits.shape[0], dtype=jnp.int32), jnp.arange(labels.shape[0], dtype=jnp.int32)
    within, there = frames < length, places < label_length
    largest = logits.max(1, keepdims=True)
    shifted = jnp.where(within[:, None], logits - largest, 0)
    log_softmax = shifted - jnp.log(jnp.exp(shifted).sum(1, keepdims=True))
    healthy = jnp.isfinite(jnp.where(within, largest[:, 0] + log_softmax.max(1), 0)).all()
    scores = log_softmax / math.log(2)
    chosen = jnp.where(there, labels, 0)
    letters = jnp.where(within[:, None] & there[None], scores[:, chosen], -jnp.inf)
    letters = of_log2(jnp.pad(letters, ((0, 0), (1, 0)), constant_values=-jnp.inf))
    blanks = of_log2(jnp.where(within, scores[:, blank], 0))
    next_differs = jnp.concatenate([jnp.zeros(1, bool), labels[1:] != labels[:-1], jnp.zeros(1, bool)])[
        : len(places) + 1
    ]
    last = jnp.arange(labels.shape[0] + 1, dtype=jnp.int32) == label_length
    lane = lambda pair: Pair(pair.m[..., None], pair.e[..., None])  # noqa: E731
    return (
        log_softmax,
        Emissions(
            lane(blanks),
            lane(letters),
            jnp.where(next_differs, 0, ZERO).astype(jnp.int32)[:, None],
            jnp.where(last, 0, ZERO).astype(jnp.int32)[:, None],
        ),
        healthy,
    )

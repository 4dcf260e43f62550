"""What a trained network writes after a prompt."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from clockwork.checks import finite, integer
from clockwork.nn import SequenceNetwork
from clockwork.report.aggregate import best_rows, watched_end
from clockwork.training import Results

if TYPE_CHECKING:
    from clockwork.tasks.text.task import TextPrediction


def generate(results: Results, prompt: str, *, symbols: int = 300, temperature: float = 0.8, seed: int = 0) -> str:
    """The network with the lowest validation error continues a text.

    It reads the prompt symbol by symbol, then draws each next symbol from its own prediction, whose logarithm is
    divided by the temperature, and reads what it has drawn.

    Args:
        results: of a sweep of `TextPrediction`.
        prompt: the beginning, at least one symbol.
        symbols: how many characters or words to draw.
        temperature: 1 for the network's own prediction; lower values prefer what is likely, 0 takes the likeliest.
        seed: of the draws.

    Returns:
        What follows the prompt.

    Raises:
        ValueError: if there is no trained network, a number is out of range, or the prompt is empty or has a symbol
            that the network does not know.

    Example:
        >>> from clockwork.training import open_results
        >>> len(generate(open_results("results/text"), "Call me ", symbols=20))
        20
    """
    task: TextPrediction = results.task  # pyright: ignore[reportAssignmentType]
    symbols, temperature = integer("symbols", symbols, least=1), finite("temperature", temperature, least=0)
    trained = [row for row in best_rows(results).values() if not row.diverged.all()]
    if not trained:
        raise ValueError("there is no trained network in the results")
    best = min(trained, key=lambda row: watched_end(results, row))
    (condition,) = (
        c
        for c in results.conditions
        if (c.network, c.size, c.hyperparameters) == (best.network, best.size, best.hyperparameters)
    )
    encoded = task.text.encode(prompt)
    model: SequenceNetwork = results.trained(condition)
    one_hot = jax.nn.one_hot(jnp.asarray(encoded)[None], task.features)
    carry, scores = model(one_hot, return_carry=True)
    keys = jax.random.key(integer("seed", seed, least=0))
    written = drawn(model, carry, scores[:, -1], symbols, temperature, keys, task.features)
    text = task.text.decode(np.asarray(written[0]))
    return text if task.unit == "characters" else f" {text}"


def drawn(
    model: SequenceNetwork, carry: Any, scores: Array, steps: int, temperature: float, key: Array, features: int
) -> Array:
    """The symbols ``(B, steps)``, int32, that a network draws one after the other.

    Args:
        model: with one-hot inputs.
        carry: after the prompt.
        scores: ``(B, V)``, of the first symbol.
        steps: how many.
        temperature: that the scores are divided by; 0 takes the largest.
        key: of the draws.
        features: ``V``.
    """

    def step(state: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
        carry, scores = state
        symbol = jax.random.categorical(key, scores / temperature) if temperature else jnp.argmax(scores, -1)
        symbol = symbol.astype(jnp.int32)
        carry, after = model(jax.nn.one_hot(symbol, features)[:, None], initial_carry=carry, return_carry=True)
        return (carry, after[:, 0]), symbol

    carry = jax.tree.map(jnp.asarray, carry)
    return lax.scan(step, (carry, scores), jax.random.split(key, steps))[1].T

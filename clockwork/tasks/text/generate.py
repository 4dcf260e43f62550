"""What a trained network writes after a prompt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from clockwork.checks import finite, integer
from clockwork.report.aggregate import best_condition
from clockwork.tasks.pascanu import continued
from clockwork.tasks.text.task import TextPrediction
from clockwork.training import Results


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
    task = results.task
    if not isinstance(task, TextPrediction):
        raise ValueError(f"these are results of {task.name}, not of text: they hold no network that writes")
    symbols, temperature = integer("symbols", symbols, least=1), finite("temperature", temperature, least=0)
    key = jax.random.key(integer("seed", seed, least=0))
    model = results.trained(best_condition(results))
    carry, scores = model(task.encode(jnp.asarray(task.text.encode(prompt))[None]), return_carry=True)
    written = continued(model, carry, scores[:, -1], symbols, key, functools.partial(task.draw, temperature))
    text = task.text.decode(np.asarray(written[0]))
    return text if task.unit == "characters" else f" {text}"

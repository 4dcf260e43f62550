"""CTC and the networks of the handwriting, against what one would write with Flax and optax.

``python benchmarks/handwriting.py`` prints milliseconds, medians and quartiles of turns taken alternately in one
process on one device: of the CTC loss and its gradient, and of the gradient of one update of 16 lines by each network,
ours and a ``nnx.Bidirectional`` of ``nnx.RNN`` with Flax's own cells and ``optax.ctc_loss``. Flax has no clockwork;
there its simple cell with as many parameters stands against ours.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from timing import compiled, measure

from clockwork import ctc
from clockwork.tasks.handwriting.network import INPUTS, OUTPUTS, UNITS, Transcriber

BATCH, STEPS, LABELS = 16, 240, 40  # as a batch of IAM-OnDB has: the median line has 212 frames and 29 characters
CELLS = {"srn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "cwrnn": nnx.SimpleCell}


def lines(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Inputs, lengths, labels and their numbers of a batch."""
    lengths = rng.integers(STEPS // 2, STEPS + 1, BATCH).astype(np.int32)
    counts = rng.integers(LABELS // 2, LABELS + 1, BATCH).astype(np.int32)
    labels = rng.integers(1, OUTPUTS, (BATCH, LABELS)).astype(np.int32)
    return rng.normal(size=(BATCH, STEPS, INPUTS)).astype(np.float32), lengths, labels, counts


def our_loss(logits: jax.Array, lengths: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
    """The mean CTC loss by this library."""
    return jax.vmap(ctc.loss)(logits, labels, lengths, counts).mean()


def optax_loss(logits: jax.Array, lengths: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
    """The mean CTC loss by optax."""
    frames = (jnp.arange(STEPS)[None] >= lengths[:, None]).astype(jnp.float32)
    places = (jnp.arange(LABELS)[None] >= counts[:, None]).astype(jnp.float32)
    return optax.ctc_loss(logits, frames, labels, places).mean()


class Plain(nnx.Module):
    """The network as Flax has it."""

    def __init__(self, cell: type, units: int) -> None:
        rngs = nnx.Rngs(0)
        layers = [nnx.RNN(cell(INPUTS, units, rngs=rngs), rngs=rngs) for _ in range(2)]
        self.layer = nnx.Bidirectional(*layers, rngs=rngs)
        self.readout = nnx.Linear(2 * units, OUTPUTS, rngs=rngs)

    def __call__(self, inputs: jax.Array, lengths: jax.Array) -> jax.Array:
        """Scores ``(B, T, O)``."""
        return self.readout(self.layer(inputs, seq_lengths=lengths))  # pyright: ignore[reportArgumentType]


def gradient(network: nnx.Module, loss, data):
    """The gradient of one update."""
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def total(params: nnx.State, inputs: jax.Array, lengths: jax.Array, labels: jax.Array, counts: jax.Array):
        logits = nnx.merge(graph, params, rest, copy=True)(inputs, lengths)
        return loss(logits, lengths, labels, counts)

    return compiled(jax.grad(total), params, *map(jnp.asarray, data))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for each way of a row")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    inputs, *rest = lines(rng)
    logits = rng.normal(size=(BATCH, STEPS, OUTPUTS)).astype(np.float32)
    works = {
        "CTC loss and gradient": {
            "ours": compiled(jax.value_and_grad(our_loss), logits, *rest),
            "optax": compiled(jax.value_and_grad(optax_loss), logits, *rest),
        }
    }
    for size, units in UNITS.items():
        for name, cell in CELLS.items():
            network = Transcriber(name, units[name], INPUTS, OUTPUTS, modules=9, rngs=nnx.Rngs(0))
            works[f"{name}, {size} parameters, an update"] = {
                "ours": gradient(network, our_loss, (inputs, *rest)),
                "Flax and optax": gradient(
                    Plain(cell, units["srn" if name == "cwrnn" else name]), optax_loss, (inputs, *rest)
                ),
            }
    print(f"{BATCH} lines of {STEPS // 2} to {STEPS} frames and up to {LABELS} labels; {jax.devices()[0]}")
    print("| work | ours, ms | Flax and optax, ms | ratio (quartiles) |\n| --- | ---: | ---: | ---: |")
    for work, ways in works.items():
        ours, other = measure(ways, options.repeats, options.seconds).values()
        low, high = other["ratio_quartiles"]
        print(
            f"| {work} | {ours['ms']:.1f} | {other['ms']:.1f} | {other['ratio']:.2f} ({low:.2f} to {high:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()

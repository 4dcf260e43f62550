"""What a network reads in lines, and how wrong it is."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork import ctc
from clockwork.tasks.handwriting.data import Bucket
from clockwork.tasks.handwriting.network import Transcriber


def read(model: Transcriber, bucket: Bucket) -> tuple[Array, Array]:
    """The characters that best path decoding finds in each line of a bucket, and how many edits they are off.

    Returns:
        Labels ``(M, T)``, int32, -1 beyond their end; insertions, deletions and substitutions ``(M,)``, int32.
    """
    inputs, lengths, labels, label_lengths = (jnp.asarray(leaf) for leaf in bucket[:4])

    def chunk(rows: Array) -> tuple[Array, Array]:
        rows = jnp.maximum(rows, 0)  # what fills up the last chunk is read and dropped
        found = jax.vmap(ctc.best_path)(model(inputs[rows], lengths[rows]), lengths[rows])
        counts = (found >= 0).sum(1, dtype=jnp.int32)
        return found, jax.vmap(ctc.edits)(found, counts, labels[rows], label_lengths[rows])

    found, edits = lax.map(chunk, jnp.asarray(bucket.chunks))
    count = inputs.shape[0]
    return found.reshape(-1, found.shape[-1])[:count], edits.reshape(-1)[:count]


def error_of(edits: Sequence[Array], buckets: Sequence[Bucket]) -> Array:
    """The character error rate: all edits in all lines by the number of all their characters, ``()``."""
    wrong = sum((one.sum() for one in edits), jnp.int32(0))
    characters = sum((jnp.asarray(bucket.label_lengths).sum() for bucket in buckets), jnp.int32(0))
    return wrong.astype(jnp.float32) / characters.astype(jnp.float32)

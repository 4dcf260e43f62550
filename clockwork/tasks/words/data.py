"""The words as arrays: what the networks are trained on, and what a report needs to know of it."""

import math
from typing import NamedTuple

import numpy as np

from clockwork.data.speech import PAPER_WORDS
from clockwork.data.words import Corpus, Split

# Sequences are computed as if they were as long as the longest of their bucket; each bucket is a program to compile.
BUCKETS = 4
# Sequences that are evaluated at a time: all at once would not fit into the processor's cache.
CHUNK = 20


class Data(NamedTuple):
    """What the runs of a condition are trained on.

    Attributes:
        features: ``(S, T, 13)``, float32, all ``S`` sequences of the corpus.
        lengths: ``(S,)``, int32, their numbers of frames.
        labels: ``(S,)``, int32, their words.
        train: ``(L,)``, int32, the sequences of the training set.
        test: ``(M,)``, int32, others, by other speakers.
        mean: ``(13,)``, float32, of each channel over all frames of the training set.
        scale: ``(13,)``, float32, their standard deviations.
        chunks: for each bucket of lengths ``(C, B)``, int32, its sequences, in rows that are evaluated together.
    """

    features: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    chunks: tuple[np.ndarray, ...]


def data_of(corpus: Corpus, side: Split) -> Data:
    """The arrays of a split of a corpus, and what normalises its features.

    Raises:
        ValueError: if a normalised sequence is not finite.
    """
    frames = np.concatenate([corpus.features[i, : corpus.lengths[i]] for i in side.train]).astype(np.float64)
    scale = frames.std(0)
    scale[scale == 0] = 1  # a channel without variance is as good as none
    mean, scale = frames.mean(0).astype(np.float32), scale.astype(np.float32)
    for source, sequence, length in zip(corpus.sources, corpus.features, corpus.lengths, strict=True):
        with np.errstate(over="ignore"):
            normalised = (sequence[:length] - mean) / scale
        if not np.isfinite(normalised).all():
            raise ValueError(f"the features of {source} are not finite when normalised by the training set's")
    chunks = _chunks(corpus.lengths, limits_of(corpus.lengths))
    return Data(corpus.features, corpus.lengths, corpus.labels, side.train, side.test, mean, scale, chunks)


def limits_of(lengths: np.ndarray) -> np.ndarray:
    """The longest sequence of each bucket, ascending; buckets hold about as many sequences each."""
    ranks = np.linspace(0, 1, BUCKETS + 1)[1:]
    return np.unique(np.quantile(lengths, ranks, method="higher"))


def _chunks(lengths: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, ...]:
    """The sequences of each bucket, in rows of at most `CHUNK`; the last row is filled up with the first ones."""
    buckets = np.searchsorted(limits, lengths)
    members = [np.flatnonzero(buckets == bucket).astype(np.int32) for bucket in range(len(limits))]
    return tuple(np.resize(m, (math.ceil(len(m) / CHUNK), min(CHUNK, len(m)))) for m in members)


def record_of(corpus: Corpus, data: Data) -> dict[str, np.ndarray]:
    """Labels, speakers and sources of the test sequences, whom the training set is of, words, normalisation.

    ``corpus`` is its name, ``origin`` what it was read from; ``paper_data`` tells whether it is the paper's 25
    words of TIMIT, ``embedded`` whether it is the stand-in; ``longest`` has the frames of the longest training
    sequence.
    """
    speakers = np.asarray(corpus.speakers)
    return {
        "labels": corpus.labels[data.test],
        "speakers": speakers[data.test],
        "train_labels": corpus.labels[data.train],
        "train_speakers": speakers[data.train],
        "longest": corpus.lengths[data.train].max(),
        "corpus": np.asarray(corpus.name),
        "origin": np.asarray(corpus.origin),
        "embedded": np.asarray(corpus.origin == "embedded"),
        "paper_data": np.asarray(corpus.origin == "timit" and set(corpus.words) == set(PAPER_WORDS)),
        "sources": np.asarray([corpus.sources[i] for i in data.test]),
        "words": np.asarray(corpus.words),
        "notes": np.asarray(corpus.notes),
        "mean": data.mean,
        "scale": data.scale,
        "rate": np.asarray(corpus.rate),
    }

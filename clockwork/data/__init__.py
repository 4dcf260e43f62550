"""Readers of real formats, and the small embedded sets with their credits."""

from clockwork.data.audio import Clip, embedded_clips, read_clip
from clockwork.data.mfcc import mfcc
from clockwork.data.words import Corpus, embedded_words, read_words, split

__all__ = ["Clip", "Corpus", "embedded_clips", "embedded_words", "mfcc", "read_clip", "read_words", "split"]

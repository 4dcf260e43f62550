"""Readers of real formats, and the small embedded sets with their credits."""

from clockwork.data.audio import Clip, embedded_clips, read_clip
from clockwork.data.iam_ondb import read_iam_ondb, write_iam_ondb
from clockwork.data.mfcc import mfcc
from clockwork.data.stroke_files import read_strokes
from clockwork.data.strokes import Line, Lines
from clockwork.data.words import Corpus, embedded_words, read_words, split
from clockwork.data.writer import embedded_lines

__all__ = [
    "Clip",
    "Corpus",
    "Line",
    "Lines",
    "embedded_clips",
    "embedded_lines",
    "embedded_words",
    "mfcc",
    "read_clip",
    "read_iam_ondb",
    "read_strokes",
    "read_words",
    "split",
    "write_iam_ondb",
]

"""Readers of real formats, and the small embedded sets with their credits."""

from clockwork.data.audio import Clip, embedded_clips, read_clip
from clockwork.data.iam_ondb import read_iam_ondb, write_iam_ondb
from clockwork.data.mfcc import mfcc
from clockwork.data.piano_rolls import PianoRolls, embedded_pieces, read_piano_rolls, synthesise, write_midi
from clockwork.data.stroke_files import read_strokes
from clockwork.data.strokes import Line, Lines
from clockwork.data.texts import Text, embedded_text, read_text
from clockwork.data.words import Corpus, embedded_words, read_words, split
from clockwork.data.writer import embedded_lines

__all__ = [
    "Clip",
    "Corpus",
    "Line",
    "Lines",
    "PianoRolls",
    "Text",
    "embedded_clips",
    "embedded_lines",
    "embedded_pieces",
    "embedded_text",
    "embedded_words",
    "mfcc",
    "read_clip",
    "read_iam_ondb",
    "read_piano_rolls",
    "read_strokes",
    "read_text",
    "read_words",
    "split",
    "synthesise",
    "write_iam_ondb",
    "write_midi",
]

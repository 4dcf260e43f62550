"""Connectionist temporal classification: sequences of labels from frames that are not aligned with them.

Graves, Fernández, Gomez, Schmidhuber (2006), Connectionist temporal classification: labelling unsegmented sequence data
with recurrent neural networks.
"""

from clockwork.ctc.beam_search import beam_search
from clockwork.ctc.decoding import best_path, edits, required_steps
from clockwork.ctc.loss import loss
from clockwork.ctc.ngram import NGram

__all__ = ["NGram", "beam_search", "best_path", "edits", "loss", "required_steps"]

"""Online handwriting (Koutník et al. 2014, sec. 4.3): pen strokes in, text out."""

from clockwork.tasks.handwriting.task import Handwriting

__all__ = ["Handwriting"]

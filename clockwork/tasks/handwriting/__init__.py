"""Online handwriting recognition (Koutník et al. 2014, sec. 4.3): pen strokes in, text out."""

from clockwork.tasks.handwriting.network import Transcriber
from clockwork.tasks.handwriting.task import Handwriting
from clockwork.tasks.handwriting.transcribe import Transcript, describe_all, transcribe_all
from clockwork.tasks.handwriting.transcript import draw_transcript

__all__ = ["Handwriting", "Transcriber", "Transcript", "describe_all", "draw_transcript", "transcribe_all"]

"""The experiments of both papers: a folder for each, and one line here."""

from clockwork.tasks.generation import Generation
from clockwork.tasks.handwriting import Handwriting
from clockwork.tasks.music import Music
from clockwork.tasks.paper import Experiment
from clockwork.tasks.text import TextPrediction
from clockwork.tasks.words import Words
from clockwork.training import Task

__all__ = ["TASKS", "Experiment", "Generation", "Handwriting", "Music", "TextPrediction", "Words"]

TASKS: dict[str, type[Task]] = {task.name: task for task in (Generation, Words, Handwriting, Music, TextPrediction)}

"""The paper's experiments: a folder for each, and one line here."""

from clockwork.tasks.generation import Generation
from clockwork.tasks.handwriting import Handwriting
from clockwork.tasks.paper import Experiment
from clockwork.tasks.words import Words
from clockwork.training import Task

__all__ = ["TASKS", "Experiment", "Generation", "Handwriting", "Words"]

TASKS: dict[str, type[Task]] = {task.name: task for task in (Generation, Words, Handwriting)}

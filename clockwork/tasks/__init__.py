"""The paper's experiments, and what a task must have to be swept over."""

from clockwork.tasks.experiment import Experiment
from clockwork.tasks.generation import Generation
from clockwork.tasks.task import Cell, Task
from clockwork.tasks.words import Words

__all__ = ["TASKS", "Cell", "Experiment", "Generation", "Task", "Words"]

TASKS: dict[str, type[Generation] | type[Words]] = {task.name: task for task in (Generation, Words)}

"""The paper's experiments, and what a task must have to be swept over."""

from clockwork.tasks.generation import Generation
from clockwork.tasks.task import Cell, Task

__all__ = ["Cell", "Generation", "Task"]

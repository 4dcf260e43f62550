"""The paper's experiments, one file each."""

from clockwork.tasks.generation import Generation
from clockwork.tasks.task import Cell, Task

__all__ = ["Cell", "Generation", "Task"]

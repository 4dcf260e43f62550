"""Sequence generation (Koutník et al. 2014, sec. 4.1): a network without input memorises a piece of sound."""

from clockwork.tasks.generation.outputs import draw_outputs
from clockwork.tasks.generation.sounds import write_sounds
from clockwork.tasks.generation.task import Generation

__all__ = ["Generation", "draw_outputs", "write_sounds"]

"""Polyphonic music (Pascanu et al. 2013, sec. 5.1): which keys sound in the next step."""

from clockwork.tasks.music.rolls import draw_rolls
from clockwork.tasks.music.task import Music

__all__ = ["Music", "draw_rolls"]

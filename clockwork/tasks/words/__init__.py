"""Spoken word classification (Koutník et al. 2014, sec. 4.2): which of 25 words was said."""

from clockwork.tasks.words.task import Words

__all__ = ["Words"]

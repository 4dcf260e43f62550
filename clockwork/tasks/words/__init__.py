"""Spoken word classification (Koutník et al. 2014, sec. 4.2): which of 25 words was said."""

from clockwork.tasks.words.classify import Answer, classify, classify_all, describe, describe_all
from clockwork.tasks.words.confusion import draw_confusion
from clockwork.tasks.words.task import Words

__all__ = ["Answer", "Words", "classify", "classify_all", "describe", "describe_all", "draw_confusion"]

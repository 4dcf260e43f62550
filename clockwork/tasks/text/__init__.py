"""Language modelling (Pascanu et al. 2013, sec. 5.2): which character or word comes next."""

from clockwork.tasks.text.generate import generate
from clockwork.tasks.text.task import TextPrediction

__all__ = ["TextPrediction", "generate"]

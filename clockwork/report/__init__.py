"""Tables, figures and sounds from stored results."""

from collections.abc import Sequence
from pathlib import Path

from clockwork.checks import chosen
from clockwork.files import write_text
from clockwork.report.canvas import FORMATS
from clockwork.report.figures import draw_curves, draw_errors, draw_outputs
from clockwork.report.table import table
from clockwork.tasks import Words
from clockwork.tasks.generation.sounds import write_sounds
from clockwork.tasks.words.classify import Answer, classify, classify_all, describe, describe_all
from clockwork.tasks.words.confusion import draw_confusion
from clockwork.training import Results

__all__ = [
    "FORMATS",
    "Answer",
    "classify",
    "classify_all",
    "describe",
    "describe_all",
    "draw_confusion",
    "draw_curves",
    "draw_errors",
    "draw_outputs",
    "table",
    "write_report",
    "write_sounds",
]

GENERATION = {"figure3": draw_errors, "figure5": draw_outputs, "curves": draw_curves}
WORDS = {"figure4": draw_errors, "curves": draw_curves, "confusion": draw_confusion}


def write_report(results: Results, folder: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write ``table.md``, the figures and, of generated sequences, the best as sound into a results folder.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; at least one finished condition.
        folder: where to; it must exist.
        formats: of the figures, each of which is written in each: ``"png"``, ``"pdf"``, ``"svg"``.

    Returns:
        The files written: ``table.md``, ``curves.png`` and, of `clockwork.tasks.Generation`, ``figure3.png``,
        ``figure5.png``, ``best/*.wav``; of `clockwork.tasks.Words`, ``figure4.png`` and ``confusion.png``.

    Raises:
        ValueError: if no condition is finished, they are of another task, or a format is none of the three.
        ImportError: if matplotlib or soundfile is not installed; both are in the extra ``[experiments]``.
        OSError: if a file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> files = write_report(open_results("results/words"), "results/words")
        >>> [file.name for file in files]
        ['table.md', 'figure4.png', 'curves.png', 'confusion.png']
    """
    folder = Path(folder)
    chosen("format", formats, FORMATS)
    if not results.conditions:
        raise ValueError(f"{folder} holds no finished results yet")
    spoken = isinstance(results.task, Words)
    write_text(folder / "table.md", table(results))
    written = [folder / "table.md"]
    for name, draw in (WORDS if spoken else GENERATION).items():
        for form in formats:
            written.append(folder / f"{name}.{form}")
            draw(results, written[-1])
    return written if spoken else written + write_sounds(results, folder / "best")

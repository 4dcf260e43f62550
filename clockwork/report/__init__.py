"""Tables, figures and sounds from stored results."""

from pathlib import Path

from clockwork.files import write_text
from clockwork.report.classify import Answer, classify, classify_all, describe, describe_all
from clockwork.report.confusion import draw_confusion
from clockwork.report.figures import draw_curves, draw_errors, draw_outputs
from clockwork.report.sounds import write_sounds
from clockwork.report.table import table
from clockwork.tasks import Words
from clockwork.training import Results

__all__ = [
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

GENERATION = {"figure3.png": draw_errors, "figure5.png": draw_outputs, "curves.png": draw_curves}
WORDS = {"figure4.png": draw_errors, "curves.png": draw_curves, "confusion.png": draw_confusion}


def write_report(results: Results, folder: str | Path) -> list[Path]:
    """Write ``table.md``, the figures and, of generated sequences, the best as sound into a results folder.

    Args:
        results: of a sweep of `clockwork.tasks.Generation` or `clockwork.tasks.Words`; at least one finished cell.
        folder: where to; it must exist.

    Returns:
        The files written: ``table.md``, ``curves.png`` and, of `clockwork.tasks.Generation`, ``figure3.png``,
        ``figure5.png``, ``best/*.wav``; of `clockwork.tasks.Words`, ``figure4.png`` and ``confusion.png``.

    Raises:
        ValueError: if no cell is finished, or they are of another task.
        ImportError: if matplotlib or soundfile is not installed; both are in the extra ``[experiments]``.
        OSError: if a file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> files = write_report(open_results("results/words"), "results/words")
        >>> [file.name for file in files]
        ['table.md', 'figure4.png', 'curves.png', 'confusion.png']
    """
    folder = Path(folder)
    if not results.cells:
        raise ValueError(f"{folder} holds no finished results yet")
    spoken = isinstance(results.task, Words)
    figures = WORDS if spoken else GENERATION
    write_text(folder / "table.md", table(results))
    for name, draw in figures.items():
        draw(results, folder / name)
    written = [folder / name for name in ("table.md", *figures)]
    return written if spoken else written + write_sounds(results, folder / "best")

"""Write all files of a report: the table, the figures, and the task's own files."""

from collections.abc import Sequence
from pathlib import Path

from clockwork.checks import chosen
from clockwork.files import write_text
from clockwork.report.aggregate import searched
from clockwork.report.description import description_of
from clockwork.report.drawing import FORMATS
from clockwork.report.figures import draw_curves, draw_errors, draw_search
from clockwork.report.html import write_html
from clockwork.report.table import table
from clockwork.training import Results

FIGURES = {"errors": draw_errors, "curves": draw_curves}  # of a task that names none


def write_report(
    results: Results, folder: str | Path, formats: Sequence[str] = ("png",), command: str = ""
) -> list[Path]:
    """Write ``table.md``, ``report.html``, the figures and the task's own files into a results folder.

    Args:
        results: of a sweep of any task; at least one finished condition.
        folder: where to; it must exist.
        formats: of the figures, each of which is written in each: ``"png"``, ``"pdf"``, ``"svg"``.
        command: the command line that made the results, for ``report.html``.

    Returns:
        The files written: ``table.md``; ``report.html`` (see `write_html`); the task's figures, ``errors.png`` and
        ``curves.png`` unless it names others; ``search.png`` if several values of a hyper-parameter were trained;
        further files of the task.
        Those of `clockwork.tasks.Generation` are ``figure3.png``, ``figure5.png``, ``curves.png`` and ``best/*.wav``,
        those of `clockwork.tasks.Words` ``figure4.png``, ``curves.png`` and ``confusion.png``.

    Raises:
        ValueError: if no condition is finished, or a format is none of the three.
        ImportError: if matplotlib or soundfile is not installed; both are in the extra ``[experiments]``.
        OSError: if a file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> files = write_report(open_results("results/words"), "results/words")
        >>> [file.name for file in files]
        ['table.md', 'report.html', 'figure4.png', 'curves.png', 'confusion.png']
    """
    folder = Path(folder)
    chosen("format", formats, FORMATS)
    if not results.conditions:
        raise ValueError(f"{folder} holds no finished results yet")
    description = description_of(results)
    figures = dict(FIGURES if description.figures is None else description.figures)
    if searched(results):
        figures["search"] = draw_search
    write_text(folder / "table.md", table(results))
    written = [folder / "table.md", write_html(results, folder, command)]
    for name, draw in figures.items():
        for form in formats:
            written.append(folder / f"{name}.{form}")
            draw(results, written[-1])
    return written + (description.files(results, folder) if description.files else [])

"""Tables, figures and sounds from stored results."""

from pathlib import Path

from clockwork.report.figures import draw_curves, draw_errors, draw_outputs
from clockwork.report.sounds import write_sounds
from clockwork.report.table import table
from clockwork.training import Results
from clockwork.training.store import write_whole

__all__ = ["draw_curves", "draw_errors", "draw_outputs", "table", "write_report", "write_sounds"]


def write_report(results: Results, folder: str | Path) -> list[Path]:
    """Write ``table.md``, the figures and the best outputs as sound into a results folder.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished cell.
        folder: where to; it must exist.

    Returns:
        The files written: ``table.md``, ``figure3.png``, ``figure5.png``, ``curves.png``, ``best/*.wav``.

    Raises:
        ValueError: if no cell is finished.
        ImportError: if matplotlib or soundfile is not installed; both are in the extra ``[experiments]``.
        OSError: if a file cannot be written.
    """
    folder = Path(folder)
    if not results.cells:
        raise ValueError(f"{folder} holds no finished results yet")
    write_whole(folder / "table.md", table(results).encode())
    draw_errors(results, folder / "figure3.png")
    draw_outputs(results, folder / "figure5.png")
    draw_curves(results, folder / "curves.png")
    figures = [folder / name for name in ("table.md", "figure3.png", "figure5.png", "curves.png")]
    return figures + write_sounds(results, folder / "best")

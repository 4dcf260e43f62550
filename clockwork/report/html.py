"""``report.html``: all of a sweep on one page that needs no network and no other file."""

import base64
import html
import importlib.resources
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.files import encoded, write_text
from clockwork.optional import require
from clockwork.report.aggregate import networks
from clockwork.report.description import Description, Listing, Sound, description_of
from clockwork.report.figures import shown
from clockwork.report.table import table
from clockwork.training import Results
from clockwork.training.config import read_config

LIMIT = 2_000_000  # bytes of the page
POINTS = 150  # moments of a learning curve
BUDGETS = (60_000, 20_000, 5_000)  # numbers in all learning curves; the first with which the page is small enough
RUNS = (20_000, 5_000)  # runs on the page
LISTED = 200  # rows of a listing
SOUNDS = 1_300_000  # bytes of all sounds together


def write_html(results: Results, folder: str | Path, command: str = "") -> Path:
    """Write ``report.html`` into a results folder: figures to zoom, sounds to play, filters, all runs, configuration.

    The page is a single file of less than 2 MB that loads nothing else. What it leaves out to stay below that, it says.

    Args:
        results: of a sweep of any task, as `clockwork.training.open_results` reads them; none need be finished.
        folder: the results folder; its ``config.json`` is shown if there is one.
        command: the command line that made the results, to be shown on the page.

    Raises:
        ValueError: if the folder's ``config.json`` cannot be read.
        ImportError: if markdown-it-py is not installed; it is in the extra ``[experiments]``.
        OSError: if the page cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> write_html(open_results("results/generation"), "results/generation").name
        'report.html'
    """
    path = Path(folder) / "report.html"
    write_text(path, page(results, Path(folder), command))
    return path


def page(results: Results, folder: Path, command: str = "", live: str | None = None) -> str:
    """The page as text; with the stamp of its data if it is to look for newer ones on its server."""
    description = description_of(results)
    config = read_config(folder) if (folder / "config.json").exists() else {}
    parts = {
        "title": html.escape(f"{description.title.replace('`', '')}: {folder.name}"),
        "styles": _asset("uPlot.min.css") + _asset("page.css"),
        "summary": _markdown(table(results)),
        "library": _asset("uPlot.iife.min.js"),
        "script": _asset("page.js"),
        "made": _made(command, config),
    }
    listings = description.listings(results) if description.listings and results.conditions else ()
    listed = "\n".join(map(_listing, listings))
    sounds, left = _sounds(description.sounds(results) if description.sounds else ())
    fixed = {"sounds": sounds, "live": live}
    template, text = string.Template(_asset("page.html")), ""
    for runs, budget, shown_listings in [
        *((RUNS[0], budget, listed) for budget in BUDGETS),
        (RUNS[1], BUDGETS[-1], "<p>Listings are left out: the page would be too large.</p>"),
    ]:
        data = {**_data(results, description, runs, budget), **fixed}
        data["notes"] += left
        written = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        text = template.substitute(parts, data=written, listings=shown_listings)
        if len(encoded(text)) <= LIMIT:
            break
    return text


def _asset(name: str) -> str:
    return importlib.resources.files("clockwork.report").joinpath("web", name).read_text(encoding="utf-8")


def _markdown(text: str) -> str:
    """Markdown as HTML; HTML within it is shown, not obeyed, and pictures and links are text."""
    parser = require("markdown_it").MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link"])
    return (
        parser.render(text)
        .replace("<table>", '<div class="wide" tabindex="0" role="region" aria-label="Table"><table>')
        .replace("</table>", "</table></div>")
    )


def _data(results: Results, description: Description, runs: int, budget: int) -> dict[str, Any]:
    """The data for the page's script."""
    measure, names = description.measure, networks(results, description.labels)
    each = max(1, runs // max(1, len(results.conditions)))
    points = [min(len(result.curve_epochs), POINTS) for result in results.conditions.values()]
    curves = max(1, budget // max(1, sum(points) * len(measure.lines)))
    lines = list(measure.lines)
    return {
        "labels": {name: description.label(name) for name in names},
        "piece": description.piece,
        "error": measure.label,
        "curves": measure.curves or measure.label,
        "lines": [line.name for line in lines],
        "runs": results.task.runs,
        "conditions": [
            {
                "network": condition.network,
                "size": condition.size,
                "data": condition.data,
                "hyperparameters": {name: float(f"{value:.6g}") for name, value in condition.hyperparameters},
                "shown": (some := _some(len(result.error), each)).tolist(),
                "error": _numbers(measure.factor * result.error[some].astype(np.float64)),
                "epochs": result.epochs[some].tolist(),
                "diverged": result.diverged[some].astype(int).tolist(),
                "curve": _curve(results, result, [line.number for line in lines], measure.factor, curves),
            }
            for condition, result in results.conditions.items()
        ],
        "notes": [
            *[f"{each} of {results.task.runs} runs of each condition are shown."] * (each < results.task.runs),
            *[f"{curves} of {results.task.runs} learning curves of each condition are drawn."]
            * (curves < results.task.runs),
        ],
    }


def _some(count: int, most: int) -> np.ndarray:
    """At most ``most`` of the numbers from 0 to ``count - 1``, evenly spaced."""
    return np.arange(count) if count <= most else np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _curve(results: Results, result: Any, numbers: list[int | None], factor: float, most: int) -> dict[str, Any]:
    at, some = _some(len(result.curve_epochs), POINTS), _some(result.curve.shape[1], most)
    curve = result.curve[at][:, some]
    return {
        "epochs": result.curve_epochs[at].tolist(),
        "runs": some.tolist(),
        "values": [
            [_numbers(run) for run in (factor * shown(results, curve, one).astype(np.float64)).T] for one in numbers
        ],
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """The values rounded to four digits; None for those that are not finite."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def _sounds(sounds: Sequence[Sound]) -> tuple[list[dict[str, Any]], list[str]]:
    """The sounds that there is space for, the first ones, and a note if some are left out."""
    written, space = [], SOUNDS
    for sound in map(_sound, sounds):
        space -= len(sound["samples"])
        if space < 0:
            break
        written.append(sound)
    left = len(sounds) - len(written)
    return written, [f"{left} of {len(sounds)} sounds are left out: the page would be too large."] * (left > 0)


def _sound(sound: Sound) -> dict[str, Any]:
    samples = (np.clip(np.nan_to_num(sound.samples), -1, 1) * 32767).astype("<i2")
    return {**sound._asdict(), "samples": base64.b64encode(samples.tobytes()).decode()}


def _listing(listing: Listing) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) + "</tr>"

    left = len(listing.rows) - LISTED
    more = f'<p class="hint">{left} more rows are left out.</p>' if left > 0 else ""
    body = "".join(cells(row, "td") for row in listing.rows[:LISTED])
    name = html.escape(listing.title)
    return (
        f'<h2>{name}</h2><div class="wide" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<thead>{cells(listing.header, 'th')}</thead><tbody>{body}</tbody></table></div>{more}"
    )


def _made(command: str, config: dict[str, Any]) -> str:
    """The part of the page with the command, the versions and the configuration."""
    by = f"<pre><code>{html.escape(command)}</code></pre>" if command else "<p>From Python, by a sweep.</p>"
    text = html.escape(json.dumps(config, indent=1, ensure_ascii=False))
    return (
        f"<h2>How it was made</h2>{by}<details><summary>Configuration and versions</summary><pre>{text}</pre></details>"
    )

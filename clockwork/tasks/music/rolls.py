"""Piano rolls with the probabilities that the networks predict, and what they compose, as figure, MIDI and sound."""

from pathlib import Path
from typing import Any

import numpy as np

from clockwork.data.piano_rolls import LOWEST, synthesise, write_midi
from clockwork.data.recording import write_wav
from clockwork.files import replacing
from clockwork.report import Sound
from clockwork.report.aggregate import best_kept, largest_rows
from clockwork.report.drawing import canvas, save
from clockwork.tasks.music.task import PROMPT
from clockwork.tasks.pascanu import LABELS
from clockwork.training import ConditionResult, Results

RATE = 11_025  # samples a second of the sounds
PAGE_RATE, PAGE_STEPS = 6_000, (8, 24)  # of the sounds in ``report.html``: steps before and after the prompt ends
STEPS = 48  # that the figure shows


def best_networks(results: Results) -> list[tuple[str, ConditionResult, int]]:
    """The best run of each network at its largest size: its name, its result, and its place among those kept."""
    found = []
    for row in largest_rows(results, LABELS):
        for result in row.conditions.values():
            if not result.diverged.all():
                found.append((row.network, result, best_kept(result)))
    return found


def draw_rolls(results: Results, path: str | Path) -> None:
    """The beginning of a test piece, and the probability that each network gives to each key in each step.

    Args:
        results: of a sweep of `Music`; at least one finished condition with a run that did not diverge.
        path: the file to write; its suffix says which format.

    Raises:
        ImportError: if matplotlib is not installed; it is in the extra ``[experiments]``.
        OSError: if the file cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_rolls(open_results("results/music"), "rolls.png")
    """
    members = best_networks(results)
    figure, axes = canvas(1 + len(members), 1, 7.2, 1.9)
    rolls: list[tuple[str, Any]] = []
    if members:
        example = members[0][1].data["example"][1 : STEPS + 1]
        rolls.append(("the piece: keys that sound", example))
        used = np.flatnonzero(members[0][1].data["example"].any(0))
        low, high = max(0, int(used.min()) - 3), min(87, int(used.max()) + 3)
        for network, result, kept in members:
            error = float(result.error[result.kept[kept]])
            shown = result.outputs["probabilities"][kept][:STEPS].astype(np.float32)
            rolls.append((f"{LABELS[network]}: probability before each step (test NLL {error:.2f})", shown))
        for axis, (title, roll) in zip(axes[:, 0], rolls, strict=True):
            extent = (0.5, len(roll) + 0.5, low + LOWEST - 0.5, high + LOWEST + 0.5)
            axis.imshow(
                roll.T[low : high + 1], origin="lower", aspect="auto", cmap="Greys", vmin=0, vmax=1, extent=extent,
                interpolation="nearest",
            )  # fmt: skip
            axis.set_title(title, fontsize=9)
            axis.set_ylabel("MIDI number", fontsize=8)
        axes[-1, 0].set_xlabel("step")
    save(figure, results, path)


def pieces(results: Results) -> list[tuple[str, str, np.ndarray]]:
    """The example as it goes on, and its beginning as each network continues it: name, network and roll."""
    found: list[tuple[str, str, np.ndarray]] = []
    for network, result, kept in best_networks(results):
        example = result.data["example"]
        prompt = example[:PROMPT]
        if not found:
            found.append(("the piece itself", "", example))
        composed = np.concatenate([prompt, result.outputs["continuation"][kept]])
        found.append((f"{LABELS[network]} continues after {len(prompt)} steps", network, composed))
    return found


def sounds(results: Results) -> list[Sound]:
    """The pieces for ``report.html``, shorter than the files: around the end of the prompt."""
    before, after = PAGE_STEPS
    found = []
    for name, network, roll in pieces(results):
        begin = max(0, min(PROMPT, len(roll)) - before)
        sound = synthesise(roll[begin : PROMPT + after], rate=PAGE_RATE, beats_per_minute=120)
        found.append(Sound(name, network, "", sound, PAGE_RATE))
    return found


def write_pieces(results: Results, folder: Path) -> list[Path]:
    """Write the pieces as MIDI and as sound; return the files.

    Raises:
        OSError: if one cannot be written.
    """
    folder.mkdir(exist_ok=True)
    written = []
    for _, network, roll in pieces(results):
        midi, wave = (folder / f"{network or 'piece'}{suffix}" for suffix in (".mid", ".wav"))
        with replacing(midi) as whole:
            write_midi(whole, roll)
        write_wav(wave, synthesise(roll, rate=RATE), RATE)
        written += [midi, wave]
    return written

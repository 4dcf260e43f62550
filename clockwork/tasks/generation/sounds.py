"""The best outputs as sound."""

from pathlib import Path

import numpy as np

from clockwork.data.recording import write_wav
from clockwork.report import Sound
from clockwork.report.aggregate import best_run
from clockwork.tasks.paper import LABELS
from clockwork.training import Results

SECONDS = 1.0  # a clip lasts milliseconds: it is repeated for so long, or it would be a click


def best_sounds(results: Results) -> list[Sound]:
    """The best output of each network on each clip, and each target; not those of a network whose runs all diverged."""
    found = []
    for clip in dict.fromkeys(condition.data for condition in results.conditions):
        outputs, targets = [], []
        for network in dict.fromkeys(condition.network for condition in results.conditions):
            best = best_run(results, network, clip)
            if best is not None:
                condition, output, error = best
                data = results.conditions[condition].data
                rate, label = int(data["rate"]), LABELS.get(network, network)
                targets = [Sound(f"{clip}, target", "", clip, data["target"], rate)]
                outputs.append(Sound(f"{clip}, {label}, NMSE {error:.2g}", network, clip, output, rate))
        found += targets + outputs
    return found


def write_sounds(results: Results, folder: str | Path) -> list[Path]:
    """Write the best output of each network on each clip, and each target, as 16-bit WAV.

    Each is repeated to a second, so that it can be heard, and clipped to [-1, 1].

    Args:
        results: of a sweep.
        folder: where to; it is made if it does not exist, but not the folder that it is in.

    Returns:
        The files written, ``CLIP-NETWORK.wav`` and ``CLIP-target.wav``. A network whose runs all diverged on a
        clip is left out.

    Raises:
        ImportError: if soundfile is not installed; it is in the extra ``[experiments]``.
        OSError: if one cannot be written.

    Example:
        >>> from clockwork.training import open_results
        >>> files = write_sounds(open_results("results/generation"), "best")
        >>> [file.name for file in files]
        ['choir-target.wav', 'choir-cwrnn.wav']
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    written = []
    for sound in best_sounds(results):
        path = folder / f"{sound.data}-{sound.network or 'target'}.wav"
        signal = np.tile(np.clip(sound.samples, -1, 1), max(1, round(SECONDS * sound.rate / len(sound.samples))))
        write_wav(path, signal, sound.rate)
        written.append(path)
    return written

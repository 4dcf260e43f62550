"""The best outputs as sound."""

from pathlib import Path

import numpy as np

from clockwork.files import replacing
from clockwork.optional import require
from clockwork.report.aggregate import best_run
from clockwork.training import Results

SECONDS = 1.0  # a clip lasts milliseconds: it is repeated for so long, or it would be a click


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
        ['choir-cwrnn.wav', 'choir-target.wav']
    """
    soundfile = require("soundfile")
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    written = []
    for clip in dict.fromkeys(condition.data for condition in results.conditions):
        sounds, rate = {}, 0
        for network in dict.fromkeys(condition.network for condition in results.conditions):
            best = best_run(results, network, clip)
            if best is not None:
                condition, sounds[f"{clip}-{network}"], _ = best
                sounds[f"{clip}-target"] = results.conditions[condition].data["target"]
                rate = int(results.conditions[condition].data["rate"])
        for name, samples in sounds.items():
            repeats = max(1, round(SECONDS * rate / len(samples)))
            path = folder / f"{name}.wav"
            try:
                # An open file: soundfile takes no names that are not UTF-8.
                with replacing(path) as whole, whole.open("wb") as file:
                    signal = np.tile(np.clip(samples, -1, 1), repeats)
                    soundfile.write(file, signal, rate, format="WAV", subtype="PCM_16")
            except soundfile.SoundFileError as error:
                raise OSError(f"{path} cannot be written: {error}") from None
            written.append(path)
    return written

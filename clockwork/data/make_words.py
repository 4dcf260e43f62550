"""Make the embedded words.npz from the recordings that make_words.sh makes.

Run as ``python -m clockwork.data.make_words FOLDER``; the folder has ``VOICE/WORD.wav`` and ``words.tsv``.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from clockwork.data.mfcc import mfcc
from clockwork.data.speech import PAPER_WORDS, read_folder
from clockwork.data.words import pack

# The person behind each voice: sh_child and sh_deep are slt and awb at another pitch.
SPEAKERS = {
    "fl_kal16": "kal16",
    "fl_awb": "awb",
    "fl_rms": "rms",
    "fl_slt": "slt",
    "fe_ked": "ked",
    "sh_child": "slt",
    "sh_deep": "awb",
}


def make_words(folder: str | Path) -> dict[str, np.ndarray]:
    """The arrays of words.npz, in the order of ``words.tsv``; the features are float16, which halves the file.

    Raises:
        ValueError: if a recording is missing or cannot be read.
    """
    with Path(folder, "words.tsv").open(newline="") as table:
        order = [row["file"] for row in csv.DictReader(table, delimiter="\t")]
    found, missing = read_folder(folder, PAPER_WORDS)
    if missing:
        raise ValueError(f"recordings are missing below {folder}: {'; '.join(missing)}")
    by_source = {utterance.source: utterance for utterance in found}
    utterances = [by_source[source]._replace(speaker=SPEAKERS[by_source[source].speaker]) for source in order]
    features = [mfcc(utterance.samples, utterance.rate).astype(np.float16) for utterance in utterances]
    return pack(utterances, features)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m clockwork.data.make_words FOLDER")
    target = Path(__file__).with_name("words.npz")
    np.savez_compressed(target, allow_pickle=False, **make_words(sys.argv[1]))
    print(f"{target}: {target.stat().st_size} bytes")

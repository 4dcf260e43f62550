"""Makes ``handwriting.json``: single-stroke glyphs of the Hershey fonts, and the text that a program writes with them.

Run with the folder of Debian's package hershey-fonts-data: ``python -m clockwork.data.make_handwriting
/usr/share/hershey-fonts``.
"""

import json
import re
import string
import sys
from pathlib import Path

from clockwork.files import write_text

FONTS = ("rowmans", "scripts")  # upright and joined, of single strokes; futural and cursive have the same letters
CHARACTERS = string.ascii_letters + ".,"
ACKNOWLEDGEMENT = (
    "The Hershey Fonts were originally created by Dr. A. V. Hershey while working at the U. S. National Bureau of "
    "Standards.",
    "The format of the Font data in this distribution was originally created by James Hurt, Cognition, Inc., 900 "
    "Technology Park Drive, Billerica, MA 01821 (mit-eddie!ci-dandelion!hurt).",
)
TEXTS = (
    (
        "Lewis Carroll, Alice's Adventures in Wonderland (1865)",
        "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once "
        "or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "
        "'and what is the use of a book,' thought Alice 'without pictures or conversation?' So she was considering in "
        "her own mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the "
        "pleasure of making a daisy-chain would be worth the trouble of getting up and picking the daisies, when "
        "suddenly a White Rabbit with pink eyes ran close by her. There was nothing so very remarkable in that; nor "
        "did Alice think it so very much out of the way to hear the Rabbit say to itself, 'Oh dear! Oh dear! I shall "
        "be late!' (when she thought it over afterwards, it occurred to her that she ought to have wondered at this, "
        "but at the time it all seemed quite natural); but when the Rabbit actually took a watch out of its "
        "waistcoat-pocket, and looked at it, and then hurried on, Alice started to her feet, for it flashed across "
        "her mind that she had never before seen a rabbit with either a waistcoat-pocket, or a watch to take out of "
        "it, and burning with curiosity, she ran across the field after it, and fortunately was just in time to see "
        "it pop down a large rabbit-hole under the hedge.",
    ),
    (
        "Herman Melville, Moby-Dick (1851)",
        "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
        "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part "
        "of the world. It is a way I have of driving off the spleen and regulating the circulation. Whenever I find "
        "myself growing grim about the mouth; whenever it is a damp, drizzly November in my soul; whenever I find "
        "myself involuntarily pausing before coffin warehouses, and bringing up the rear of every funeral I meet; "
        "and especially whenever my hypos get such an upper hand of me, that it requires a strong moral principle to "
        "prevent me from deliberately stepping into the street, and methodically knocking people's hats off, then, I "
        "account it high time to get to sea as soon as I can. This is my substitute for pistol and ball. With a "
        "philosophical flourish Cato throws himself upon his sword; I quietly take to the ship. There is nothing "
        "surprising in this. If they but knew it, almost all men in their degree, some time or other, cherish very "
        "nearly the same feelings towards the ocean with me.",
    ),
    (
        "Jane Austen, Pride and Prejudice (1813)",
        "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want "
        "of a wife. However little known the feelings or views of such a man may be on his first entering a "
        "neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered "
        "the rightful property of some one or other of their daughters. 'My dear Mr. Bennet,' said his lady to him "
        "one day, 'have you heard that Netherfield Park is let at last?' Mr. Bennet replied that he had not. 'But it "
        "is,' returned she; 'for Mrs. Long has just been here, and she told me all about it.' Mr. Bennet made no "
        "answer. 'Do you not want to know who has taken it?' cried his wife impatiently. 'You want to tell me, and I "
        "have no objection to hearing it.' This was invitation enough.",
    ),
    (
        "Abraham Lincoln, Gettysburg Address (1863)",
        "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in "
        "Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a great "
        "civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure. We "
        "are met on a great battle-field of that war. We have come to dedicate a portion of that field, as a final "
        "resting place for those who here gave their lives that that nation might live. It is altogether fitting and "
        "proper that we should do this.",
    ),
)


def glyphs(path: Path) -> dict[str, list]:
    """The glyphs of a font in Hurt's format by character: left and right bearing, then x, y, x, y, ... of each stroke.

    A glyph is a line: five columns for its number, three for its number of points, and two letters per point, whose
    distances from "R" are the coordinates. The first point holds the bearings; a blank and "R" lift the pen.
    """
    records: list[str] = []
    for line in path.read_text("ascii").splitlines():
        if records and len(records[-1]) < 8 + 2 * int(records[-1][5:8]):
            records[-1] += line
        else:
            records.append(line)
    found = {}
    for code, record in enumerate(records, 32):
        if chr(code) not in CHARACTERS:
            continue
        pairs = [record[i : i + 2] for i in range(8, len(record), 2)]
        left, right = (ord(letter) - ord("R") for letter in pairs[0])
        strokes: list[list[int]] = [[]]
        for pair in pairs[1:]:
            if pair == " R":
                strokes.append([])
            else:
                strokes[-1] += [ord(letter) - ord("R") for letter in pair]
        found[chr(code)] = [left, right, *filter(None, strokes)]
    return found


def plain(text: str) -> str:
    """Reduce a text to the `CHARACTERS`: a network cannot learn characters that are rare in a small text."""
    text = re.sub(r"(?<=[a-z])'(?=[a-z])", "", text).replace("-", " ")
    return " ".join(re.sub("[;:?!]", ",", re.sub("['()]", "", text)).split())


def main(folder: str) -> None:
    """Write ``handwriting.json`` beside this file."""
    content = {
        "acknowledgement": ACKNOWLEDGEMENT,
        "fonts": {name: glyphs(Path(folder) / f"{name}.jhf") for name in FONTS},
        "texts": [{"source": f"{source}, in the public domain", "text": plain(text)} for source, text in TEXTS],
    }
    lines = json.dumps(content, indent=0, separators=(",", ":")).replace(",\n", ",").replace("[\n", "[")
    write_text(Path(__file__).with_name("handwriting.json"), lines.replace("\n]", "]").replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

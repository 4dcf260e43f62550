"""Texts as symbols: the forms that are read, what is refused, and the embedded excerpt."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clockwork.data import embedded_text, read_text

LINES = {"train": " no it was n't <unk> \n it was \n", "valid": " it was \n", "test": " no \n"}


@pytest.fixture
def treebank(tmp_path):
    for part, text in LINES.items():
        (tmp_path / f"ptb.{part}.txt").write_text(text)
    return tmp_path


def test_the_treebank_as_characters_and_as_words(treebank):
    text = read_text(treebank)
    assert text.decode(text.train) == "no it was n't <unk>\nit was\n"
    assert text.decode(text.test) == "no\n"
    assert len(text.symbols) == len(set("no it was n't <unk>\nit was\n"))
    words = read_text(treebank, "words")
    assert words.symbols == ("<eos>", "<unk>", "it", "n't", "no", "was")
    assert [words.symbols[i] for i in words.train] == ["no", "it", "was", "n't", "<unk>", "<eos>", "it", "was", "<eos>"]
    assert words.decode(words.train) == "no it was n't <unk>\nit was\n"
    assert words.train.dtype == np.int32


def test_rare_and_new_words_are_one_symbol(treebank):
    (treebank / "ptb.test.txt").write_text(" the whale \n")
    words = read_text(treebank, "words", vocabulary=4)
    assert words.symbols == ("<eos>", "<unk>", "it", "was")
    assert words.decode(words.test) == "<unk> <unk>\n"
    characters = read_text(treebank)
    assert "<unk>" in characters.symbols  # for h, l and e, which the training part does not have
    assert characters.decode(characters.test) == "t<unk><unk> w<unk>a<unk><unk>\n"


def test_a_file_is_cut_by_position(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("abcdefghij" * 10)
    text = read_text(path, split=(0.5, 0.3, 0.2))
    assert [len(part) for part in text[3:]] == [50, 30, 20]
    assert text.decode(np.concatenate(text[3:])) == "abcdefghij" * 10
    path.write_text("one two\nthree\n\nfour five six seven eight\n" * 4)
    words = read_text(path, "words", split=(0.5, 0.25, 0.25))
    assert words.decode(words.train).startswith("one two\nthree\n\nfour")
    path.write_bytes(b"\xef\xbb\xbfline\r\n" * 1 + b"line\r\n" * 20)
    assert read_text(path).decode(read_text(path).train).startswith("line\nline")


@settings(max_examples=20, deadline=None)
@given(st.text(alphabet="Moby-Dick, .", min_size=1, max_size=30))
def test_what_is_encoded_is_decoded(text):
    embedded = embedded_text()
    assert embedded.decode(embedded.encode(text)) == text


def test_the_embedded_text_is_the_first_chapters_of_moby_dick():
    text = embedded_text()
    whole = text.decode(np.concatenate(text[3:]))
    assert hashlib.sha256(whole.encode()).hexdigest() == SHA
    assert len(text.symbols) == 74
    assert whole.isascii()
    words = embedded_text("words")
    assert words.decode(words.test[-6:]) == "fate into the <unk> <unk>\n"


SHA = "26bc26a1fd06412e7286a7de69728ce8865945e33877876c2424bdd12145dbc9"


def bad(content, name="book.txt"):
    return lambda folder: (folder / name).write_bytes(content) and folder / name


@pytest.mark.parametrize(
    ("make", "options", "complaint"),
    [
        (bad(b"a\xffb"), {}, "must be a text in UTF-8, got byte 0xff at position 1"),
        (bad(b"a\0b"), {}, "must be a text, got a zero byte at position 1"),
        (bad(b" \n "), {}, "is empty: a text must have at least one word"),
        (bad(b"abc"), {}, "has 3 characters, too few: the part for valid must have at least 2, got 0"),
        (
            bad(b"abc" * 99),
            {"split": (0.5, 0.5, 0.5)},
            r"split must be three shares that sum to 1, got \(0.5, 0.5, 0.5\)",
        ),
        (bad(b"abc" * 99), {"unit": "letters"}, "unknown unit 'letters'; choose of characters, words"),
        (bad(b"abc" * 99), {"vocabulary": 2}, "vocabulary must be an integer, 3 or more, got 2"),
        (lambda folder: folder, {}, r"must have one file \*train\*.txt, such as ptb.train.txt, got none"),
        (lambda folder: folder / "none.txt", {}, "text file"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, make, options, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        read_text(make(tmp_path), **options)
    assert "\n" not in str(raised.value)


def test_a_part_that_is_doubled_or_empty(treebank):
    (treebank / "other.test.txt").write_text("x")
    with pytest.raises(ValueError, match=r"one file \*test\*.txt, .* got other.test.txt, ptb.test.txt"):
        read_text(treebank)
    (treebank / "other.test.txt").unlink()
    (treebank / "ptb.test.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"ptb\.test\.txt is empty"):
        read_text(treebank)


def test_an_unknown_symbol_is_named():
    with pytest.raises(ValueError, match="only the symbols that were learnt, got 'ü'"):
        embedded_text().encode("Zürich")
    with pytest.raises(ValueError, match="at least one symbol, got none"):
        embedded_text().encode("")

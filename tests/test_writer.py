"""The embedded lines: who writes what, and that the hand moves as a hand does."""

import importlib.util
import itertools
import json
from importlib import resources
from zlib import crc32

import numpy as np
import pytest

from clockwork.data.iam_ondb import read_iam_ondb, write_iam_ondb
from clockwork.data.strokes import points
from clockwork.data.writer import SPEED, WRITERS, acknowledgement, embedded_lines


@pytest.fixture(scope="module")
def lines():
    return embedded_lines(lines_each=6)


def test_writers_and_sentences_of_the_sets_differ(lines):
    sets = [lines.training, lines.validation, lines.test]
    assert [len(one) for one in sets] == [6 * count for count in WRITERS.values()]
    writers = [{line.source.split(",")[0] for line in one} for one in sets]
    assert [len(one) for one in writers] == list(WRITERS.values())
    assert not (writers[0] & writers[1] | writers[0] & writers[2] | writers[1] & writers[2])
    trained = {line.text for line in lines.training}
    assert all(2 <= line.text.count(" ") + 1 <= 3 for one in sets for line in one)
    assert sum(line.text in trained for line in lines.test) <= 0.1 * len(lines.test)


@pytest.fixture(scope="module")
def whole():
    return embedded_lines()


def test_every_character_of_validation_and_test_can_be_learnt(whole):
    learnt = {character for line in whole.training for character in line.text}
    assert learnt == set(whole.characters)


def test_the_set_that_figures_are_of_stays_as_it_is(whole):
    lines = [*whole.training, *whole.validation, *whole.test]
    assert crc32("\n".join(line.text for line in lines).encode()) == 2_325_439_327
    every = np.concatenate([stroke for line in lines for stroke in line.strokes])
    # Another machine's sine may round a few points to another unit.
    assert abs(len(every) - 311_384) < 10
    np.testing.assert_allclose(every.sum(0), [383_950_835, 8_588_910, 731_298.98], rtol=1e-4)


def test_the_same_seed_gives_the_same_lines_and_another_others(lines):
    for line, again in zip(lines.test, embedded_lines(lines_each=6).test, strict=True):
        assert line.text == again.text
        assert all(np.array_equal(a, b) for a, b in zip(line.strokes, again.strokes, strict=True))
    assert [line.text for line in embedded_lines(seed=1, lines_each=6).test] != [line.text for line in lines.test]


def test_points_are_as_a_pad_records_them(lines):
    for line in lines.test:
        every = np.concatenate(line.strokes)
        np.testing.assert_array_equal(every[:, :2], np.round(every[:, :2]))
        np.testing.assert_allclose(every[:, 2], np.round(every[:, 2], 2))
        assert (np.diff(every[:, 2]) >= 0).all()
        assert len(points(line)) >= 2 * len(line.text)  # enough frames for a label each, and for blanks


def test_the_pen_is_slower_where_the_curve_is_tighter(lines):
    paces, turns = [], []
    for line in lines.training[:60]:
        for stroke in line.strokes:
            if len(stroke) < 12:
                continue
            inner = stroke[2:-2]  # the ends are slow whatever their curve
            moves = np.diff(inner[:, :2], axis=0)
            pace = np.hypot(*moves.T)
            angle = np.unwrap(np.arctan2(moves[:, 1], moves[:, 0]))
            turns += (np.abs(np.diff(angle)) / np.maximum(pace[1:], 1)).tolist()
            paces += pace[1:].tolist()
    paces, turns = np.asarray(paces), np.asarray(turns)
    straight, curved = turns < np.quantile(turns, 0.3), turns > np.quantile(turns, 0.9)
    assert np.median(paces[curved]) < 0.75 * np.median(paces[straight])
    assert paces.max() * 100 < 3 * SPEED


def test_dots_and_bars_come_after_their_word():
    whole = embedded_lines(lines_each=3)
    delayed = 0
    for line in whole.training:
        starts = [stroke[0, 0] for stroke in line.strokes]
        delayed += sum(b < a - 40 for a, b in itertools.pairwise(starts))
    letters = sum(line.text.count(letter) for line in whole.training for letter in "ijt")
    assert delayed > 0.2 * letters


def test_a_written_set_is_read_unchanged(lines, tmp_path):
    write_iam_ondb(lines, tmp_path / "set")
    again = read_iam_ondb(tmp_path / "set")
    assert again.characters == lines.characters
    for line, wanted in zip(again.test, lines.test, strict=True):
        assert line.text == wanted.text
        start = wanted.strokes[0][0, 2]
        for stroke, other in zip(line.strokes, wanted.strokes, strict=True):
            np.testing.assert_allclose(stroke, other - [0, 0, start], atol=1e-9)


def test_the_acknowledgement_is_shipped_with_the_letters():
    assert "Hershey" in acknowledgement()[0]
    assert "James Hurt" in acknowledgement()[1]
    stored = json.loads(resources.files("clockwork.data").joinpath("handwriting.json").read_text("utf-8"))
    assert set(stored) == {"acknowledgement", "fonts", "texts"}
    assert all("public domain" in one["source"] for one in stored["texts"])


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="lines_each must be an integer, 1 or more, got 0"):
        embedded_lines(lines_each=0)


def test_glyphs_are_read_from_lines_that_go_on(tmp_path):
    assert importlib.util.find_spec("clockwork.data.make_handwriting")
    from clockwork.data.make_handwriting import glyphs

    records = [f"{i:5}  1JZ" for i in range(32, 128)]
    records[ord("i") - 32] = "  105  6NVPKRM RQ\nFRV"
    records[ord("a") - 32] = "   97  3MWPKRM"
    (tmp_path / "font.jhf").write_text("\n".join(records) + "\n")
    found = glyphs(tmp_path / "font.jhf")
    assert found["a"] == [-5, 5, [-2, -7, 0, -5]]
    assert found["i"] == [-4, 4, [-2, -7, 0, -5], [-1, -12, 0, 4]]

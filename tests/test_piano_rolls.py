"""Readers of polyphonic music: each form with its quirks, damaged files, and what is written."""

import contextlib
import json
import pickle
import struct
import zlib

import mido
import numpy as np
import pytest
import scipy.io

from clockwork.data import make_music, piano_rolls
from clockwork.data.piano_rolls import (
    KEYS,
    PianoRolls,
    embedded_pieces,
    read_piano_rolls,
    roll_of,
    synthesise,
    write_midi,
)

PIECES = {"train": [[[60, 64, 67], [60], []], [[21, 108]]], "valid": [[[48]]], "test": [[[50], [50]]]}


def same(rolls, pieces=PIECES):
    """Whether a set holds these pieces."""
    for part in ("train", "valid", "test"):
        for roll, piece in zip(getattr(rolls, part), pieces[part], strict=True):
            assert roll.dtype == np.uint8
            assert [[int(key) + 21 for key in np.flatnonzero(step)] for step in roll] == piece


def as_mat(pieces=PIECES, dtype=np.uint8):
    content = {}
    for part, members in pieces.items():
        content[f"{part}data"] = np.empty((1, len(members)), object)
        for i, piece in enumerate(members):
            content[f"{part}data"][0, i] = roll_of(piece).astype(dtype)
    return content


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_matlab_files(tmp_path, dtype):
    scipy.io.savemat(tmp_path / "JSB.mat", as_mat(dtype=dtype))
    rolls = read_piano_rolls(tmp_path / "JSB.mat")
    same(rolls)
    assert rolls.name == "JSB"


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_pickles_of_any_age(tmp_path, protocol, kind):
    content = {part: [[kind(step) for step in piece] for piece in pieces] for part, pieces in PIECES.items()}
    (tmp_path / "set.pickle").write_bytes(pickle.dumps(content, protocol))
    same(read_piano_rolls(tmp_path / "set.pickle"))


def test_a_pickle_of_python_2(tmp_path):
    two = b"(dp0\nS'train'\np1\n(lp2\n(lp3\n(I60\nI64\nI67\ntp4\na(I60\ntp5\na(tp6\naa(lp7\n(I21\nI108\ntp8\naas"
    two += b"S'valid'\n(lp9\n(lp10\n(I48\ntp11\naasS'test'\n(lp12\n(lp13\n(L50L\ntp14\na(I50\ntp15\naas."
    (tmp_path / "set.pkl").write_bytes(two)
    same(read_piano_rolls(tmp_path / "set.pkl"))


class Evil:
    """What a pickle may do to whoever loads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Evil(eval, "1"), "builtins.eval"),
        (Evil(__import__("os").system, "true"), "posix.system"),
        (Evil(__import__("functools").partial, int), "functools.partial"),
        (Evil(np.load, "x"), "numpy.load"),
        (Evil(bytearray, 5), "builtins.bytearray"),
    ],
)
def test_nothing_in_a_pickle_is_executed(tmp_path, call, named):
    (tmp_path / "set.pickle").write_bytes(pickle.dumps({**PIECES, "test": call}))
    with pytest.raises(ValueError, match=f"it refers to '{named}', which is not built"):
        read_piano_rolls(tmp_path / "set.pickle")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (Evil(bytes, 2**62), "it has bytes made of 4611686018427387904, but only empty ones"),
        (Evil(__import__("codecs").encode, "x", "rot13"), "it has bytes in the encoding 'rot13'"),
        (Evil(np.dtype, "V9"), "it has an array of dtype 'V9', but only numbers are read"),
    ],
)
def test_what_arrays_are_built_with_builds_nothing_else(tmp_path, call, complaint):
    (tmp_path / "set.pickle").write_bytes(pickle.dumps({**PIECES, "test": call}))
    with pytest.raises(ValueError, match=f"is not a pickle of pieces: {complaint}"):
        read_piano_rolls(tmp_path / "set.pickle")


def test_a_pickle_does_not_reserve_what_it_claims(tmp_path):
    huge = [b"\x80\x02K\x00r\xff\xff\xff\x7f.", b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
            b"\x80\x04\x8e" + struct.pack("<Q", 2**62)]  # fmt: skip
    for content in huge:
        (tmp_path / "set.pickle").write_bytes(content)
        with pytest.raises(ValueError, match=r"set\.pickle"):
            read_piano_rolls(tmp_path / "set.pickle")


def test_json_with_silences(tmp_path):
    content = {**PIECES, "valid": [[[48, -1, -1, -1]]]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    same(read_piano_rolls(tmp_path / "set.json"))


def song(path, notes, ticks=480, *, running=True):
    """A MIDI file of notes ``(channel, number, begin, end)`` in ticks; a note may end by a note_on of velocity 0."""
    events = [(begin, 1, channel, number) for channel, number, begin, _ in notes]
    events += [(end, 0, channel, number) for channel, number, _, end in notes]
    file, track, now = mido.MidiFile(ticks_per_beat=ticks), mido.MidiTrack(), 0
    file.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=400_000)]))
    file.tracks.append(track)
    for time, on, channel, number in sorted(events):
        kind = "note_on" if on or running else "note_off"
        track.append(mido.Message(kind, channel=channel, note=number, velocity=80 * on, time=time - now))
        now = time
    file.save(path)


def test_folders_of_midi_files(tmp_path):
    for part, running in (("train", True), ("valid", False), ("test", True)):
        (tmp_path / part).mkdir()
        song(tmp_path / part / "a.mid", [(0, 60, 0, 240), (1, 64, 0, 480), (9, 35, 0, 960)], running=running)
    rolls = read_piano_rolls(tmp_path, steps_per_beat=2)
    assert [[int(k) + 21 for k in np.flatnonzero(step)] for step in rolls.valid[0]] == [[60, 64], [64]]
    assert len(read_piano_rolls(tmp_path, steps_per_beat=4).train[0]) == 4
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(21):
        song(flat / f"{number:02}.midi", [(0, 40 + number, 0, 480)])
    rolls = read_piano_rolls(flat)
    assert [len(part) for part in rolls[1:]] == [17, 2, 2]
    assert int(np.flatnonzero(rolls.test[1][0])[0]) + 21 == 60


def test_what_is_written_is_read_again(tmp_path):
    roll = embedded_pieces().test[0]
    for part in ("train", "valid", "test"):
        (tmp_path / part).mkdir()
        write_midi(tmp_path / part / "piece.mid", roll)
    np.testing.assert_array_equal(read_piano_rolls(tmp_path, steps_per_beat=2).test[0], roll)


def damaged(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def of_json(**changes):
    return damaged("set.json", json.dumps({**PIECES, **changes}).encode())


def of_mat(**changes):
    def write(folder):
        scipy.io.savemat(folder / "set.mat", {**as_mat(), **changes})
        return folder / "set.mat"

    return write


def of_midi(notes):
    def write(folder):
        for part in ("train", "valid", "test"):
            (folder / part).mkdir()
            song(folder / part / "a.mid", notes)
        return folder

    return write


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (of_json(test=[]), "has no pieces for test"),
        (of_json(test=[[]]), "test piece 0 must be a list of at least one step"),
        (of_json(test=[[[20]]]), "test piece 0, step 0 must hold MIDI numbers from 21 to 108, got 20"),
        (of_json(test=[[["C"]]]), "step 0 must hold MIDI numbers, got 'C'"),
        (of_json(test=[[60]]), "step 0 must be a list of MIDI numbers, got 60"),
        (of_json(test=[[[60.5]]]), "must hold MIDI numbers, got 60.5"),
        (damaged("set.json", b"[1"), "is not a JSON file of pieces"),
        (damaged("set.json", b"\xff"), "is not a JSON file of pieces"),
        (damaged("set.json", b"[" * 100_000), "is not a JSON file of pieces"),
        (damaged("set.json", b"[]"), "must have the parts train, valid and test"),
        (damaged("set.json", b'{"train": [[[60]]]}'), "must have the parts train, valid and test, got ..train"),
        (damaged("set.pickle", b""), "is not a pickle of pieces"),
        (damaged("set.pickle", pickle.dumps(PIECES)[:-9]), "is not a pickle of pieces"),
        (damaged("set.pickle", b"\x80\x04\x95" + struct.pack("<Q", 2**62)), "is not a pickle of pieces"),
        (damaged("set.mat", b"MATLAB 5.0 MAT-file" + b"\0" * 200), "is not a MATLAB file of pieces"),
        (of_mat(testdata=np.zeros((3, 3))), r"testdata must be a cell array, got a matrix \(3, 3\)"),
        (of_mat(testdata=as_mat({"x": [[[60]]]})["xdata"][:, :0]), "has no pieces for test"),
        (damaged("set.txt", b"x"), "must end in .mat, .pickle, .pkl or .json, or be a folder"),
        (lambda folder: folder, "has no MIDI files for train"),
        (lambda folder: folder / "nothing.mat", "set of pieces"),
        (of_midi([(0, 20, 0, 480)]), "must have notes from MIDI number 21 to 108, got 20"),
        (of_midi([(9, 40, 0, 480)]), "has no notes"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_sentence(tmp_path, make, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        read_piano_rolls(make(tmp_path))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(("shape", "value"), [((5, 87), 0), ((5, 88), 2)])
def test_arrays_of_another_width_or_other_numbers(tmp_path, shape, value):
    content = as_mat()
    content["testdata"][0, 0] = np.full(shape, value, np.uint8)
    scipy.io.savemat(tmp_path / "set.mat", content)
    with pytest.raises(
        ValueError, match=r"test piece 0 must (be an array .* got shape \(5, 87\)|hold only 0 and 1, got 2)"
    ):
        read_piano_rolls(tmp_path / "set.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_no_damage_to_a_matlab_file_is_more_than_one_sentence(tmp_path, compressed):
    """SciPy's reader ends the process at some of these."""
    path = tmp_path / "set.mat"
    scipy.io.savemat(path, as_mat(), do_compression=compressed)
    same(read_piano_rolls(path))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for length in (0, 100, 128, 130, 140, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a MATLAB file of pieces"):
            read_piano_rolls(path)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(128, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):  # read, or refused; anything else fails
            read_piano_rolls(path)
    path.write_bytes(whole[:124] + b"\x00\x02IM" + whole[128:])
    with pytest.raises(ValueError, match=r"it is of MATLAB 7\.3"):
        read_piano_rolls(path)


def test_the_sizes_that_a_matlab_file_claims_are_not_believed(tmp_path, monkeypatch):
    path = tmp_path / "set.mat"
    scipy.io.savemat(path, as_mat())
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<II", 3, 88), struct.pack("<II", 2**30, 88)))
    with pytest.raises(ValueError, match="is not a MATLAB file of pieces"):
        read_piano_rolls(path)
    packed = zlib.compress(bytes(10**6))
    path.write_bytes(whole[:128] + struct.pack("<II", 15, len(packed)) + packed)
    monkeypatch.setattr(piano_rolls, "MOST_BYTES", 10**5)
    with pytest.raises(ValueError, match="it unpacks to more bytes than will be read"):
        read_piano_rolls(path)


def test_a_midi_file_that_is_cut(tmp_path):
    of_midi([(0, 60, 0, 480)])(tmp_path)
    path = tmp_path / "test" / "a.mid"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="is not a MIDI file of pieces"):
        read_piano_rolls(tmp_path)


def test_the_embedded_pieces_are_those_that_the_program_composes():
    rolls = embedded_pieces()
    assert isinstance(rolls, PianoRolls)
    assert [len(part) for part in rolls[1:]] == [120, 30, 30]
    for number in (0, 1):
        composed = make_music.compose(np.random.default_rng((make_music.SEED, number)))
        np.testing.assert_array_equal(roll_of(composed), rolls.train[number])
    for piece in rolls.train:
        assert set(piece.sum(1)) <= {3, 4}  # two parts may meet
        assert 16 <= len(piece) <= 128
    assert len({piece.tobytes() for part in rolls[1:] for piece in part}) == 180


def test_a_sound_has_the_pitches_of_its_keys():
    roll = np.zeros((4, KEYS), np.uint8)
    roll[:, 69 - 21] = 1  # A4
    sound = synthesise(roll, rate=8000)
    assert sound.dtype == np.float32
    assert abs(np.abs(sound).max() - 0.9) < 1e-5
    spectrum = np.abs(np.fft.rfft(sound))
    assert abs(np.argmax(spectrum) * 8000 / len(sound) - 440) < 1
    assert max(abs(sound[0]), abs(sound[-1])) < 0.01  # no click
    assert not synthesise(np.zeros((2, KEYS))).any()
    with pytest.raises(ValueError, match=r"by 88 keys, got shape \(3, 4\)"):
        synthesise(np.zeros((3, 4)))
    assert piano_rolls.LOWEST == 21

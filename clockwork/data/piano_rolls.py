"""Polyphonic music as piano rolls: readers of the sets of Boulanger-Lewandowski et al. (2012), JSON and MIDI files."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork.checks import finite, integer, shown
from clockwork.data.matlab import matlab_cells
from clockwork.data.recording import printable
from clockwork.data.safe_pickle import plain_pickle
from clockwork.files import regular_file
from clockwork.optional import require

LOWEST, KEYS = 21, 88  # the MIDI number of the first key, A0, and the number of keys of a piano
PARTS = ("train", "valid", "test")
MIDI = (".mid", ".midi")
MOST_BYTES = 2**31  # that a MATLAB file may unpack to
DRUMS = 9  # the channel of percussion, whose numbers are not pitches


class PianoRolls(NamedTuple):
    """Pieces of music in time steps of equal length.

    Attributes:
        name: the name of the set.
        train: pieces for training, ``(T, 88)`` each, uint8: 1 where a key sounds in a step. Column 0 is A0, MIDI
            number 21.
        valid: pieces for validation.
        test: pieces for the test.

    Example:
        >>> rolls = embedded_pieces()
        >>> len(rolls.train), len(rolls.valid), len(rolls.test), rolls.train[0].shape[1]
        (120, 30, 30, 88)
    """

    name: str
    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


def read_piano_rolls(path: str | Path, *, steps_per_beat: int = 4) -> PianoRolls:
    """Read a set of pieces from a file or a folder of MIDI files.

    - ``.mat``: ``traindata``, ``validdata`` and ``testdata``, each an array of objects that are arrays ``(T, 88)``.
    - ``.pickle`` or ``.pkl``: a dictionary of ``train``, ``valid`` and ``test``, each a list of pieces, which are lists
      of steps, which are lists of MIDI numbers. Nothing in the file is executed: only numbers, strings, lists,
      dictionaries and arrays are read.
    - ``.json``: the same structure as in a pickle; -1 stands for no note.
    - a folder: with subfolders ``train``, ``valid`` and ``test`` of MIDI files; without them, the files in the order of
      their names are divided 8 : 1 : 1. A key sounds in every step that its note overlaps; percussion is left out.

    Args:
        path: the file or folder.
        steps_per_beat: the number of steps per quarter note, for MIDI files.

    Raises:
        ValueError: if the form is unknown, a part is missing or empty, a piece has no step or is not one of 88 keys, or
            a file is damaged.
        OSError: if a file cannot be read.
        ImportError: if mido is not installed, for MIDI files; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "set.json"
        ...     _ = path.write_text('{"train": [[[60, 64], []]], "valid": [[[60]]], "test": [[[108]]]}')
        ...     read_piano_rolls(path).train[0].sum(1).tolist()
        [2, 0]
    """
    path = Path(path)
    integer("steps_per_beat", steps_per_beat, least=1)
    if path.is_dir():
        return _folder(path, steps_per_beat)
    regular_file(path, "set of pieces")
    readers = {".mat": _mat, ".pickle": _pickle, ".pkl": _pickle, ".json": _json}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{printable(str(path))} must end in .mat, .pickle, .pkl or .json, or be a folder of MIDI files"
        )
    return _set(path, readers[path.suffix.lower()](path))


def _pickle(path: Path) -> Any:
    try:
        return plain_pickle(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, "pickle", error) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "JSON file", error) from None


def _mat(path: Path) -> Any:
    try:
        found = matlab_cells(path.read_bytes(), [f"{part}data" for part in PARTS], MOST_BYTES)
    except ValueError as error:
        raise _damaged(path, "MATLAB file", error) from None
    return {part: found[f"{part}data"] for part in PARTS}


def _damaged(path: Path, kind: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{printable(str(path))} is not a {kind} of pieces: {reason}")


def _set(path: Path, content: Any) -> PianoRolls:
    name = printable(str(path))
    if not isinstance(content, dict) or not set(PARTS) <= set(content):
        has = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{name} must have the parts train, valid and test, got {shown(has)}")
    parts = []
    for part in PARTS:
        if not isinstance(content[part], Sequence) or not len(content[part]):
            raise ValueError(f"{name} has no pieces for {part}")
        parts.append(tuple(_piece(one, f"{name}, {part} piece {i}") for i, one in enumerate(content[part])))
    return PianoRolls(printable(path.resolve().stem), *parts)


def _piece(content: Any, name: str) -> np.ndarray:
    """The piano roll of a piece given as an array ``(T, 88)`` or as lists of MIDI numbers."""
    if isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind in "biuf":
        if content.shape[1] != KEYS or not len(content):
            raise ValueError(f"{name} must be an array of at least one step by 88 keys, got shape {content.shape}")
        if not np.isin(content, (0, 1)).all():
            raise ValueError(f"{name} must hold only 0 and 1, got {content[~np.isin(content, (0, 1))][0]}")
        return content.astype(np.uint8)
    if not isinstance(content, (Sequence, np.ndarray)) or isinstance(content, str) or not len(content):
        raise ValueError(f"{name} must be a list of at least one step, got {shown(content)}")
    roll = np.zeros((len(content), KEYS), np.uint8)
    for t, notes in enumerate(content):
        if not isinstance(notes, (Sequence, np.ndarray)) or isinstance(notes, str):
            raise ValueError(f"{name}, step {t} must be a list of MIDI numbers, got {shown(notes)}")
        for number in notes:
            number = number.item() if isinstance(number, np.generic) else number
            if number == -1:
                continue
            if isinstance(number, bool) or not isinstance(number, (int, float)) or number != int(number):
                raise ValueError(f"{name}, step {t} must hold MIDI numbers, got {shown(number)}")
            if not LOWEST <= number < LOWEST + KEYS:
                raise ValueError(f"{name}, step {t} must hold MIDI numbers from 21 to 108, got {number:g}")
            roll[t, int(number) - LOWEST] = 1
    return roll


def _folder(path: Path, steps_per_beat: int) -> PianoRolls:
    folders = [path / part for part in PARTS]
    if all(folder.is_dir() for folder in folders):
        parts = [_midi_files(folder) for folder in folders]
    else:
        files = _midi_files(path)
        tenth = max(1, len(files) // 10)
        parts = [files[: len(files) - 2 * tenth], files[len(files) - 2 * tenth : -tenth], files[-tenth:]]
    for part, files in zip(PARTS, parts, strict=True):
        if not files:
            raise ValueError(
                f"{printable(str(path))} has no MIDI files for {part}: it must have three files that end in .mid, or "
                "subfolders train, valid and test with at least one each"
            )
    return PianoRolls(
        printable(path.resolve().name), *(tuple(_midi(file, steps_per_beat) for file in files) for files in parts)
    )


def _midi_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in MIDI)


def _midi(path: Path, steps_per_beat: int) -> np.ndarray:
    """The piano roll of a MIDI file."""
    mido = require("mido")
    try:
        song = mido.MidiFile(str(regular_file(path, "MIDI file")))
        messages = [message for message in mido.merge_tracks(song.tracks) if not message.is_meta]
        ticks = song.ticks_per_beat / steps_per_beat
    except Exception as error:  # damaged files raise errors of almost any kind
        raise _damaged(path, "MIDI file", error) from None
    now, sounding, notes = 0, {}, []
    for message in messages:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
            continue
        key = message.channel, message.note
        if key in sounding:
            notes.append((message.note, sounding.pop(key), now))
        if message.type == "note_on" and message.velocity:
            sounding[key] = now
    notes += [(note, begun, now) for (_, note), begun in sounding.items()]
    steps = max((int(np.ceil(end / ticks)) for _, _, end in notes), default=0)
    if not steps:
        raise ValueError(f"{printable(str(path))} has no notes")
    roll = np.zeros((steps, KEYS), np.uint8)
    for note, begun, end in notes:
        if not LOWEST <= note < LOWEST + KEYS:
            raise ValueError(f"{printable(str(path))} must have notes from MIDI number 21 to 108, got {note}")
        roll[int(begun // ticks) : max(int(begun // ticks) + 1, int(np.ceil(end / ticks))), note - LOWEST] = 1
    return roll


def write_midi(path: str | Path, roll: np.ndarray, *, steps_per_beat: int = 2, beats_per_minute: float = 90.0) -> None:
    """Write a piano roll as a MIDI file; a key in consecutive steps is one held note.

    Args:
        path: the file to write.
        roll: ``(T, 88)`` of 0 and 1.
        steps_per_beat: the number of steps per quarter note.
        beats_per_minute: quarter notes per minute.

    Raises:
        ValueError: if ``roll`` has another shape.
        OSError: if the file cannot be written.
        ImportError: if mido is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_midi(Path(folder) / "piece.mid", embedded_pieces().test[0])
    """
    mido, held = require("mido"), _check_roll(roll).astype(bool)
    integer("steps_per_beat", steps_per_beat, 1, 480)
    song, ticks = mido.MidiFile(), 480 // steps_per_beat
    track = mido.MidiTrack()
    song.tracks.append(track)
    tempo = mido.bpm2tempo(finite("beats_per_minute", beats_per_minute, least=1))
    track.append(mido.MetaMessage("set_tempo", tempo=tempo))
    waited, before = 0, np.zeros(KEYS, bool)
    for now in (*held, np.zeros(KEYS, bool)):
        for kind, keys in (("note_off", before & ~now), ("note_on", now & ~before)):
            for key in np.flatnonzero(keys):
                track.append(mido.Message(kind, note=int(key) + LOWEST, velocity=64, time=waited))
                waited = 0
        waited, before = waited + ticks, now
    song.ticks_per_beat = ticks * steps_per_beat
    with Path(path).open("wb") as file:
        song.save(file=file)


def synthesise(
    roll: np.ndarray, *, rate: int = 22_050, steps_per_beat: int = 2, beats_per_minute: float = 90.0
) -> np.ndarray:
    """The sound of a piano roll: each note is five partials that fade away.

    Args:
        roll: ``(T, 88)`` of 0 and 1.
        rate: samples per second.
        steps_per_beat: the number of steps per quarter note.
        beats_per_minute: quarter notes per minute.

    Returns:
        Samples ``(S,)``, float32, whose largest magnitude is 0.9; zeros if no key sounds.

    Raises:
        ValueError: if ``roll`` has another shape.

    Example:
        >>> synthesise(embedded_pieces().test[0][:4]).shape
        (29841,)
    """
    held = _check_roll(roll).astype(bool)
    step = 60 / beats_per_minute / steps_per_beat
    sound = np.zeros(int(np.ceil((len(held) * step + 0.02) * rate)), np.float64)
    edges = np.diff(np.pad(held.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    for key in np.flatnonzero(held.any(0)):
        pitch = 440.0 * 2 ** ((key + LOWEST - 69) / 12)
        begins, ends = np.flatnonzero(edges[:, key] == 1), np.flatnonzero(edges[:, key] == -1)
        for begin, end in zip(begins * step, ends * step, strict=True):
            first = int(begin * rate)
            time = np.arange(min(int((end - begin + 0.015) * rate), len(sound) - first)) / rate
            partials = [np.sin(2 * np.pi * pitch * k * time) / k**2 for k in range(1, 6) if pitch * k < rate / 2]
            fade = np.minimum(1, time / 0.008) * np.minimum(1, np.maximum(0, (time[-1] - time)) / 0.015)
            sound[first : first + len(time)] += sum(partials) * np.exp(-1.5 * time) * fade
    peak = np.abs(sound).max()
    return (0.9 * sound / peak if peak else sound).astype(np.float32)


def _check_roll(roll: Any) -> np.ndarray:
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS or not len(roll):
        raise ValueError(f"roll must have at least one step by 88 keys, got shape {roll.shape}")
    return roll


def embedded_pieces() -> PianoRolls:
    """Four-part pieces composed by a program: 120 for training, 30 for validation and 30 for the test.

    They are free to use. ``clockwork/data/make_music.py`` composes them: phrases of common chords with a cadence, in
    all keys, major and minor, with a melody and three parts that move as little as they can. A step is an eighth note.

    Example:
        >>> rolls = embedded_pieces()
        >>> sum(len(piece) for piece in rolls.train) > 5000
        True
    """
    with np.load(Path(__file__).with_name("music.npz")) as stored:
        voices, ends = stored["voices"], stored["ends"]  # (S, 4), uint8 MIDI numbers; (P,)
    pieces = [roll_of(part) for part in np.split(voices, ends[:-1])]
    return PianoRolls("embedded pieces", tuple(pieces[:120]), tuple(pieces[120:150]), tuple(pieces[150:]))


def roll_of(voices: Iterable[Sequence[int]]) -> np.ndarray:
    """The piano roll ``(T, 88)`` of the MIDI numbers of each step.

    Example:
        >>> roll_of([[60, 64], [21, 108]]).sum(1).tolist()
        [2, 2]
    """
    return _piece([list(map(int, notes)) for notes in voices], "the piece")

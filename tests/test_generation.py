"""Sounds of one's own to generate: several files, each with its name, and what cannot be learnt."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clockwork.cli import main
from clockwork.data.audio import clip_names, matching_files
from clockwork.tasks import Generation
from clockwork.training import Store, open_results


def sound(path, rate=8000, samples=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(np.arange(800) * (1 + len(path.name)) / 100) if samples is None else samples
    soundfile.write(path, samples, rate, **options)
    return path


def test_each_file_is_a_target_at_its_own_rate(tmp_path):
    files = sound(tmp_path / "kick.wav"), sound(tmp_path / "b" / "kick.flac", 44100), sound(tmp_path / "c.wav", 16000)
    task = Generation(audio=files, audio_start=0.001, samples=300, networks=("cwrnn",), sizes=(100,))
    assert task.pieces() == ("kick", "kick-2", "c")
    records = [task.record(condition) for condition in task.conditions()]
    assert [(str(r["file"]), int(r["rate"]), float(r["start"]), len(r["target"])) for r in records] == [
        ("kick.wav", 8000, 0.001, 300),
        ("kick.flac", 44100, 0.001, 300),
        ("c.wav", 16000, 0.001, 300),
    ]
    assert not any(r["paper_data"] or r["embedded"] for r in records)
    settings = json.loads(json.dumps(task.settings()))
    assert settings["sounds"][1] == {
        "name": "kick-2",
        "file": "kick.flac",
        "start": 0.001,
        "rate": 44100,
        "samples": 300,
    }
    assert "clips" not in settings
    assert Generation.from_settings(settings) == task
    alone: list[Any] = [files[0], str(files[0]), [files[0]]]
    assert {Generation(audio=one).audio for one in alone} == {(str(files[0]),)}
    embedded = Generation(clips=("choir",))
    assert embedded.record(embedded.conditions()[0])["paper_data"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"audio": "a.wav", "clips": ("choir",)},
            "clips chooses embedded clips, and audio files take their place; got ch",
        ),
        ({"audio": ()}, "audio must name at least one file, got none"),
        ({"audio": ("a.wav", "./a.wav")}, "each audio file can be chosen once, got a.wav, a.wav"),
        ({"audio": "a.wav", "samples": 1}, "samples must be an integer, 2 or more, got 1"),
        ({"audio": "a.wav", "audio_start": -1.0}, "audio_start must be finite, at least 0"),
        ({"audio": "a.wav", "audio_start": float("nan")}, "audio_start must be finite, at least 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Generation(**arguments)


def test_what_would_overflow_is_scaled_or_named(tmp_path):
    wave = np.sin(np.arange(400.0))
    loud = Generation(audio=sound(tmp_path / "loud.wav", samples=1.7e308 * wave, subtype="DOUBLE"))
    target = loud.record(loud.conditions()[0])["target"]
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, (2 * (wave - wave.min()) / np.ptp(wave) - 1)[:320], atol=1e-3)
    both = sound(tmp_path / "both.wav", samples=1.7e308 * np.stack([wave, wave], 1), subtype="DOUBLE")
    with pytest.raises(ValueError, match=r"both\.wav holds values that are not finite, such as inf"):
        Generation(audio=both).settings()
    flat = sound(tmp_path / "flat.wav", samples=np.zeros(400))
    with pytest.raises(ValueError, match=r"audio file .*flat\.wav cannot be learnt: clip 'flat' is constant"):
        Generation(audio=flat).settings()


def test_names_are_told_apart_and_fit_for_a_file():
    long = "ü" * 100
    names = clip_names([f"{long}1.wav", f"{long}2.wav", "kick-2.wav", "a/kick.wav", "b/KICK.wav"])
    assert names == ("ü" * 30, "ü" * 30 + "-2", "kick-2", "kick", "KICK-3")
    assert all(len(name.encode()) < 70 for name in names)
    task = Generation(audio=(f"{long}1.wav", f"{long}2.wav"))
    assert max(len(f"{condition.name}.npz".encode()) for condition in task.conditions()) < 150


def test_patterns_are_expanded_as_a_shell_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.wav", "c[1].wav", "d/e.wav"):
        sound(Path(name))
    assert matching_files(["*.wav"]) == ("a.wav", "b.wav", "c[1].wav")
    assert matching_files(["c[1].wav", "b.wav", "[ab].wav"]) == ("c[1].wav", "b.wav", "a.wav")
    assert matching_files(["**/e.wav"]) == (str(Path("d/e.wav")),)
    assert matching_files(["gone.wav"]) == ("gone.wav",)
    with pytest.raises(ValueError, match=r"no file matches x\*\.wav"):
        matching_files(["x*.wav"])


def test_a_folder_of_another_sound_says_whose_results_it_holds(tmp_path):
    one, other = sound(tmp_path / "one.wav"), sound(tmp_path / "other.wav", 44100)
    Store(tmp_path / "out", Generation(audio=one))
    with pytest.raises(
        ValueError,
        match=r"out holds results for one\.wav \(320 samples from 0 s at 8000 Hz\), not for other\.wav \(320 samples "
        r"from 0 s at 44100 Hz\); choose another by --out",
    ):
        Store(tmp_path / "out", Generation(audio=other))
    with pytest.raises(ValueError, match=r"holds results for one\.wav .*, not for the embedded clips guitar"):
        Store(tmp_path / "out", Generation())
    with pytest.raises(ValueError, match=r"another configuration \(runs is 10 there, 3 here\)"):
        Store(tmp_path / "out", Generation(audio=one, runs=3))
    (tmp_path / "moved").mkdir()
    Store(tmp_path / "out", Generation(audio=one.rename(tmp_path / "moved" / "one.wav")))


def test_the_command_learns_several_files(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        sound(tmp_path / "sounds" / name)
    command = ["generation", "--runs", "1", "--networks", "cwrnn", "--sizes", "100", "--epochs", "2", "--samples", "64"]
    assert main([*command, "--audio", "sounds/*.wav", "--out", "out"]) == 0
    assert {condition.data for condition in open_results("out").conditions} == {"a", "b"}
    capsys.readouterr()
    for arguments, sentence in (
        (["--audio", "sounds/a.wav", "--out", "out"], "out holds results for a.wav, b.wav (64 samples"),
        (["--audio", "sounds/a.wav", "--clips", "choir"], "--clips chooses embedded clips"),
        (["--audio", "sounds/x*.wav"], "no file matches sounds/x*.wav"),
        (["--audio"], "--audio must name at least one file, got none"),
        (["--audio", "sounds"], "audio file sounds is a folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, *arguments])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("clockwork: ")
        assert sentence in line
    assert sorted(os.listdir()) == ["out", "sounds"]

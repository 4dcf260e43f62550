"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parent.parent


def run(script, *arguments, cwd=None):
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=environment, check=True,
    ).stdout  # fmt: skip


def test_quickstart_learns():
    lines = run("examples/quickstart.py").splitlines()
    first, last = (float(line.rsplit(" ", 1)[1]) for line in (lines[0], lines[-1]))
    assert last < first / 20


def test_a_sweep_from_python(tmp_path):
    said = run("examples/sweep.py", tmp_path / "out")
    assert "| CW-RNN" in said
    assert (tmp_path / "out" / "figure5.png").exists()


def test_own_audio(tmp_path):
    sound = tmp_path / "tone.wav"
    soundfile.write(sound, 0.3 * np.sin(np.arange(8000) / 30), 8000)
    said = run("examples/own_audio.py", sound, tmp_path / "out")
    assert "figure3.png" in said
    samples, rate = soundfile.read(tmp_path / "out" / "best" / "tone-cwrnn.wav")
    assert (rate, len(samples)) == (8000, 8000)


@pytest.mark.parametrize("script", ["benchmarks/epoch.py"])
def test_benchmarks_run(script):
    said = run(script, "--runs", 2, "--repeats", 2)
    assert "| LSTM N = 15 |" in said

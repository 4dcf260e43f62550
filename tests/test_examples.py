"""The examples run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parent.parent


def run(script, *arguments, cwd=None):
    environment = {**os.environ, "PYTHONWARNINGS": os.environ["CLOCKWORK_TEST_WARNINGS"]}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=environment, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr, sep="\n")  # pytest shows it if the test fails
    done.check_returncode()
    return done.stdout


def figures(line):
    """The numbers of a line that have a decimal point."""
    return [float(x) for x in re.findall(r"\d+\.\d+", line)]


def test_quickstart_learns():
    lines = run("examples/quickstart.py").splitlines()
    first, last = (float(line.rsplit(" ", 1)[1]) for line in (lines[0], lines[-1]))
    assert last < first / 5


@pytest.mark.slow
def test_a_sweep_from_python(tmp_path):
    said = run("examples/sweep.py", tmp_path / "out")
    assert "| CW-RNN" in said
    assert (tmp_path / "out" / "figure5.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--submitit"]])
def test_workers_in_processes_and_jobs(tmp_path, option):
    lines = run("examples/many_workers.py", tmp_path / "out", *option, cwd=tmp_path).splitlines()
    assert re.fullmatch(r"cwrnn-100-choir-0\.0003: NMSE \d\.\d+, 0 of 20 diverged", lines[-1])


@pytest.mark.slow
def test_own_audio(tmp_path):
    sound = tmp_path / "tone.wav"
    soundfile.write(sound, 0.3 * np.sin(np.arange(8000) / 30), 8000)
    said = run("examples/own_audio.py", sound, tmp_path / "out")
    assert "figure3.png" in said
    samples, rate = soundfile.read(tmp_path / "out" / "best" / "tone-cwrnn.wav")
    assert (rate, len(samples)) == (8000, 8000)


@pytest.mark.slow
def test_a_long_sequence_trains_in_little_memory():
    cost, learnt = run("examples/long_sequence.py").splitlines()
    assert float(cost.split(" MB")[0].rsplit(" ", 1)[1]) < 20  # what a whole sequence would keep: 25
    first, last = (float(x) for x in re.findall(r"\d\.\d+", learnt))
    assert last < first


@pytest.mark.slow
@pytest.mark.parametrize("example", ["own_task", "own_linen", "own_functions"])
def test_a_model_of_ones_own_in_fifteen_lines(example, tmp_path):
    source = (ROOT / f"examples/{example}.py").read_text()
    code = [line for line in source.split('"""', 2)[2].splitlines() if line.strip()]
    assert len(code) <= 15
    said = run(f"examples/{example}.py", cwd=tmp_path)
    assert "96 of 96 training runs are finished" in said
    for name in ("table.md", "errors.png", "curves.png", "search.png"):
        assert f"{name}" in said.splitlines()[-1]
    again = run(f"examples/{example}.py", cwd=tmp_path)
    assert again.endswith(said.split("# Model")[1])  # nothing is trained again
    if "for_output" in source:
        assert again.startswith("96 networks to train, 96 of them stored already")


@pytest.mark.slow
@pytest.mark.parametrize("example", ["drop_in", "drop_in_linen"])
def test_a_clockwork_layer_where_an_lstm_stood(example):
    lstm, clockwork = run(f"examples/{example}.py").splitlines()
    assert lstm.startswith("LSTM, 4385 parameters")
    assert clockwork.startswith("Clockwork, 737 parameters")
    first, last = figures(lstm)
    assert last < first
    first, last = figures(clockwork)
    assert last < first / 4  # one end alone: half of it


def test_beside_layers_of_equinox():
    pytest.importorskip("equinox")
    before, after = (figures(line)[0] for line in run("examples/with_equinox.py").splitlines())
    assert before < 75
    assert after > 80  # chance: 50; 99 or more from 16 seeds


@pytest.mark.slow
def test_labels_of_padded_sequences_need_both_directions():
    forwards, both_ways = run("examples/padded_classifier.py").splitlines()
    assert figures(forwards)[0] < 80
    assert figures(both_ways)[0] > 85
    assert forwards.endswith("the same with NaN as padding: True")
    assert both_ways.endswith("the same with NaN as padding: True")


def test_streaming_equals_the_whole():
    first, *_, streamed, whole, difference, latency = run("examples/streaming.py").splitlines()
    assert figures(streamed)[0] < figures(first)[0] / 50
    assert figures(streamed)[0] == pytest.approx(figures(whole)[0], rel=1e-2, abs=2e-6)
    assert float(difference.rsplit(" ", 1)[1]) < 1e-4
    assert re.fullmatch(r"median time of a step: \d+ µs", latency)


def test_an_ensemble_is_better_than_its_models():
    first, *_, trained = run("examples/ensemble.py").splitlines()
    mean, sd, together = figures(trained)
    assert mean < figures(first)[0] / 2
    assert sd > 0
    assert together < 0.9 * mean


@pytest.mark.slow
def test_the_benchmarks_run_and_report(tmp_path):
    options = ("--results", tmp_path / "cpu.json", "--docs", tmp_path / "docs")
    said = run("benchmarks/run.py", "--quick", *options)
    assert "| sweep epoch, CW-RNN N = 11" in said
    assert (tmp_path / "docs" / "speed.png").exists()
    results = json.loads((tmp_path / "cpu.json").read_text())
    assert all(row["ms"] > 0 for work in results["works"] for row in work["rows"].values())
    assert run("benchmarks/run.py", "--report", *options) == said


@pytest.mark.slow
def test_everyday_sizes_are_timed():
    head, _, batch, runs = run("benchmarks/small.py", "--quick").splitlines()
    assert head.startswith("| what | ours, ms |")
    for row in (batch, runs):
        assert len(figures(row)) == 6  # ours, two ratios, three times of compilation


@pytest.mark.slow
def test_the_accelerators_benchmark_runs_without_one(tmp_path):
    said = run("benchmarks/accelerator.py", "--quick", "--seed", 1, "--results", tmp_path / "accelerator.json")
    assert "8 of 8 kernels within" in said
    assert "WRONG" not in said
    assert "| CW-RNN N = 8, g = 3, T = 16, 3 runs | fused |" in said
    assert "Figure 3, 3 networks of 3 epochs each, 0 diverged" in said
    results = json.loads((tmp_path / "accelerator.json").read_text())
    assert all(np.isfinite(check["error"]) for check in results["checks"])
    assert not any("error" in row for work in results["works"] for row in work["rows"].values())
    assert run("benchmarks/accelerator.py", "--report", "--results", tmp_path / "accelerator.json") == said


def test_the_accelerators_benchmark_says_where_there_is_none():
    for options, why in (((), "JAX sees no accelerator"), (("--quick",), "give --results another file")):
        with pytest.raises(subprocess.CalledProcessError) as ended:
            run("benchmarks/accelerator.py", *options)
        assert ended.value.returncode == 2
        assert why in ended.value.stderr


def test_a_benchmark_without_results_says_so(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as ended:
        run("benchmarks/run.py", "--report", "--results", tmp_path / "none.json")
    assert ended.value.returncode == 2
    assert "no results" in ended.value.stderr

"""The command line as a user meets it, wrong turns included."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import clockwork as cw
from clockwork.cli import main

TINY = ["--runs", 2, "--networks", "cwrnn", "srn", "--sizes", 100, "--clips", "choir", 5, "--epochs", 5]


def clockwork(*arguments, cwd=None, **environment):
    """The command; a variable that is None is not set."""
    known = {**os.environ, "PYTHONWARNINGS": os.environ["CLOCKWORK_TEST_WARNINGS"], **environment}
    return subprocess.run(
        [sys.executable, "-m", "clockwork", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={name: text for name, text in known.items() if text is not None},
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "out"
    done = clockwork("generation", *TINY, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_version():
    said = clockwork("--version")
    assert (said.returncode, said.stdout) == (0, f"clockwork {cw.__version__}\n")


def test_a_sweep_writes_all_that_it_promises(results):
    folder, said = results
    names = {path.name for path in folder.iterdir()}
    wanted = {"config.json", "runs.csv", "table.md", "figure3.png", "figure5.png", "curves.png", "best", "conditions"}
    assert wanted <= names
    assert {path.name for path in (folder / "best").iterdir()} == {
        f"{clip}-{what}.wav" for clip in ("choir", "tabla") for what in ("srn", "cwrnn", "target")
    }
    rows = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["runs"] == 2
    assert config["environment"]["jax"]
    assert config["environment"]["devices"]
    samples, rate = soundfile.read(folder / "best" / "choir-target.wav")
    assert rate == 44100
    assert abs(len(samples) / rate - 1) < 0.01
    assert "8 networks to train" in said
    assert "epochs" in said
    assert "| CW-RNN " in said
    assert "\x1b" not in said  # no terminal, no colours


# Where the users' compiled programs go, not those of this session.
OWN_CACHE = {"JAX_COMPILATION_CACHE_DIR": None}


def test_compiled_programs_are_kept(tmp_path):
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    done = clockwork("generation", *TINY[:-1], 1, "--out", out, XDG_CACHE_HOME=cache, **OWN_CACHE)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache" / "clockwork").glob("*segment*-cache"))


def test_a_cache_that_cannot_be_written_is_no_trouble(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    done = clockwork("generation", *TINY[:-1], 1, "--out", out, XDG_CACHE_HOME=cache, **OWN_CACHE)
    assert done.returncode == 0, done.stderr


def test_the_table_holds_the_figures_of_runs_csv(results):
    folder, _ = results
    rows = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))
    errors = np.array([float(row["nmse"]) for row in rows if row["network"] == "cwrnn"])
    (line,) = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| CW-RNN")][:1]
    columns = [column.strip() for column in line.split("|")[1:-1]]
    assert columns[:5] == ["CW-RNN", "100", "11", "100", "0.0003"]
    assert columns[5] == f"{errors.mean():.2f} ± {errors.std(ddof=1):.2g}"
    assert columns[6:9] == [f"{np.median(errors):.2f}", f"{errors.min():.2f}", "0 of 4"]


def test_report_redraws_what_was_deleted_and_needs_no_training(results, tmp_path):
    folder, _ = results
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("table.md", "figure3.png", "figure5.png", "curves.png"):
        (copy / name).unlink()
    shutil.rmtree(copy / "best")
    done = clockwork("report", copy)
    assert done.returncode == 0, done.stderr
    assert (copy / "table.md").read_text() == (folder / "table.md").read_text()
    assert (copy / "figure3.png").read_bytes() == (folder / "figure3.png").read_bytes()
    assert len(list((copy / "best").iterdir())) == 6


def test_report_writes_the_formats_that_are_asked_for(results, tmp_path):
    shutil.copytree(results[0], tmp_path / "copy")
    done = clockwork("report", tmp_path / "copy", "--format", "pdf", "svg")
    assert done.returncode == 0, done.stderr
    drawn = {path.name for path in (tmp_path / "copy").iterdir() if path.suffix in (".pdf", ".svg")}
    assert drawn == {f"{name}.{form}" for name in ("figure3", "figure5", "curves") for form in ("pdf", "svg")}


def test_a_second_call_trains_nothing(results):
    folder, _ = results
    done = clockwork("generation", *TINY, "--out", folder)
    assert done.returncode == 0
    assert "8 networks to train, 8 of them stored already" in done.stdout
    assert "training:" not in done.stdout


def test_a_damaged_result_is_named_and_the_rest_kept(results, tmp_path):
    folder, _ = results
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    condition = copy / "conditions" / "srn-100-tabla-0.0003.npz"
    condition.write_bytes(condition.read_bytes()[:100])
    done = clockwork("generation", *TINY, "--out", copy, PYTHONWARNINGS="default")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("srn-100-tabla-0.0003.npz is damaged") == 1
    assert (copy / "runs.csv").read_text() == (folder / "runs.csv").read_text()
    again = clockwork("report", copy)
    assert again.stderr == ""


def test_own_audio_from_the_shell(tmp_path):
    sound = tmp_path / "tone.flac"
    soundfile.write(sound, 0.3 * np.sin(np.arange(8000) / 30), 8000)
    command = ["generation", "--runs", 1, "--networks", "cwrnn", "--sizes", 100, "--epochs", 5]
    done = clockwork(*command, "--audio", sound, "--start", 0.5, "--samples", 200, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "best" / "tone-cwrnn.wav").exists()
    sound.unlink()
    assert clockwork("report", tmp_path / "out").returncode == 0


def test_info_prints_versions_devices_and_table_1():
    done = clockwork("info")
    assert done.returncode == 0
    for text in ("jax ", "devices", "1000", "980", "1021", "1024", "stable", "paper"):
        assert text in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["generation", "--help"], ["report", "--help"], ["info", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: clockwork" in capsys.readouterr().out


def one_sentence(done):
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("clockwork: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--networks", "gru"], "unknown network 'gru'; choose of srn, lstm, cwrnn, cwlstm"),
        (["--sizes", "123"], "unknown size 123; choose of 100, 250, 500, 1000"),
        (["--clips", "piano"], "unknown clip 'piano'; choose of guitar, choir, mika, safari, tabla"),
        (["--networks"], "at least one network must be chosen"),
        (["--protocol", "wild"], "unknown protocol 'wild'; choose of paper, stable"),
        (["--runs", "0"], "--runs must be an integer from 1 to 4294967296, got 0"),
        (["--epochs", "-5"], "--epochs must be an integer from 1 to 2147483647, got -5"),
        (["--learning-rate", "0"], "--learning-rate must be finite and above 0, got 0.0"),
        (["--audio", "none.wav"], "audio file none.wav does not exist"),
        (["--samples", "100"], "--samples cuts a clip out of an audio file, and none is given; got 100"),
        (["--format", "png", "jpg"], "unknown format 'jpg'; choose of png, pdf, svg"),
        (["--format"], "at least one format must be chosen"),
        (["--start", "2"], "--start cuts a clip out of an audio file, and none is given; got 2.0"),
    ],
)
def test_wrong_values_end_in_one_sentence(tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        main(["generation", *arguments, "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    done = subprocess.CompletedProcess([], int(str(ended.value.code)), said.out, said.err)
    assert sentence in one_sentence(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--runs", "ten"], ["--no-such-option"]])
def test_what_cannot_be_parsed_ends_with_status_2(tmp_path, arguments):
    done = clockwork("generation", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert clockwork("no-such-command").returncode == 2


def test_folders_that_do_not_fit_end_in_one_sentence(results, tmp_path):
    folder, _ = results
    before = (folder / "runs.csv").read_text()
    assert "another configuration (runs is 2 there" in one_sentence(
        clockwork("generation", *TINY, "--runs", 3, "--out", folder)
    )
    assert (folder / "runs.csv").read_text() == before
    (tmp_path / "file").write_text("")
    assert "cannot be written" in one_sentence(clockwork("generation", *TINY, "--out", tmp_path / "file"))
    assert "cannot be written" in one_sentence(clockwork("generation", *TINY, "--out", "/proc/results"))
    assert "holds no results" in one_sentence(clockwork("report", tmp_path / "nothing"))


def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path):
    (tmp_path / "tyro.py").write_text("raise ImportError")
    done = clockwork("info", PYTHONPATH=str(tmp_path))
    assert (
        done.stderr.strip()
        == "clockwork: tyro is not installed; in a clone of clockwork, run: pip install '.[experiments]'"
    )


def test_importing_the_library_needs_no_extra():
    script = "import clockwork, clockwork.nn, sys; print([m for m in ('matplotlib', 'tyro', 'soundfile') "
    script += "if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"

"""The command in surroundings that are not as they should be: one sentence and status 2, or what other programs do."""

import os
import shutil
import subprocess
import sys

import pytest

from clockwork.cli import main
from clockwork.files import claimed

COMMAND = [sys.executable, "-m", "clockwork"]


def run(*arguments, shell=None, **environment):
    """The command, or a line of a shell with the command in place of ``$@``; a variable that is None is not set."""
    command = ["bash", "-c", shell, "bash", *COMMAND] if shell else COMMAND
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, env=variables)


def one_sentence(done):
    assert done.returncode == 2, done
    (line,) = done.stderr.decode(errors="surrogateescape").splitlines()
    assert line.startswith("clockwork: ")
    return line


@pytest.fixture
def folder(finished, tmp_path):
    """A finished results folder."""
    return shutil.copytree(finished(["generation"]) / "results" / "generation", tmp_path / "results")


# What the fixture in conftest.py trained.
FINISHED = [
    "generation",
    "--runs",
    2,
    "--networks",
    "cwrnn",
    "--sizes",
    100,
    "--clips",
    "choir",
    "--epochs",
    5,
    "--out",
]


@pytest.mark.parametrize(
    ("command", "environment", "sentence"),
    [
        ("info", {"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS is 'nonsense'"),
        ("generation", {"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS is 'nonsense'"),
        ("report", {"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS is 'cuda'"),
        ("report", {"JAX_NUM_CPU_DEVICES": "abc"}, "JAX cannot read its environment, JAX_NUM_CPU_DEVICES=abc: "),
        ("generation", {"JAX_NUM_CPU_DEVICES": "0"}, "JAX_NUM_CPU_DEVICES is '0'"),
    ],
)
def test_devices_that_there_are_not(folder, tmp_path, command, environment, sentence):
    if "cuda" in environment.values() and shutil.which("nvidia-smi"):
        pytest.skip("there may be one")
    arguments = {"info": [], "report": [folder], "generation": ["--out", tmp_path / "out"]}[command]
    assert sentence in one_sentence(run(command, *arguments, **environment))
    assert not (tmp_path / "out").exists()


def test_standard_output_that_is_closed_or_full(tmp_path):
    done = run("generation", "--out", tmp_path / "out", shell='"$@" >&-')
    assert one_sentence(done) == "clockwork: standard output is closed; send it to a file, or to /dev/null"
    assert not (tmp_path / "out").exists()
    done = run("info", shell='"$@" >/dev/full')
    assert one_sentence(done) == "clockwork: standard output cannot be written: No space left on device"
    assert run("info", shell='"$@" 2>&-').returncode == 0


def test_a_pipe_that_ends_is_the_end_and_nothing_is_lost(folder, tmp_path):
    for arguments in (["report", folder], [*FINISHED, folder], [*FINISHED, tmp_path / "new"]):
        done = run(*arguments, shell='"$@" | (sleep 0; exec 0<&-); exit ${PIPESTATUS[0]}')
        assert (done.returncode, done.stderr) == (141, b""), done
    assert run("report", folder).returncode == 0
    assert main([*map(str, FINISHED), str(tmp_path / "new")]) == 0


@pytest.mark.parametrize("home", [None, "/nowhere/at/all"])
def test_no_home(folder, home):
    done = run(*FINISHED, folder, HOME=home, XDG_CACHE_HOME=None)
    assert done.returncode == 0, done
    assert b"Traceback" not in done.stderr


def test_a_locale_without_unicode(folder):
    done = run("report", folder, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "NMSE mean +- sd" in done.stdout.decode("ascii")
    assert "NMSE mean ± sd" in (folder / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_folder_whose_name_is_not_utf8(folder, encoding):
    named = folder.rename(os.fsdecode(os.fsencode(folder.parent) + b"/r\xff \xe9"))
    done = run(*FINISHED, named, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b""), done
    assert os.fsencode(named / "table.md") in done.stdout  # as ls would show it
    done = run(*FINISHED, named, "--runs", 3, PYTHONIOENCODING=encoding)
    assert os.fsencode(named) in os.fsencode(one_sentence(done))


def test_two_at_once(folder):
    with claimed(folder):
        assert f"{folder} is in use by another sweep" in one_sentence(run(*FINISHED, folder))
        assert run("report", folder).returncode == 0
    assert run(*FINISHED, folder).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--runs", "99999999999999999999999"], "--runs must be an integer from 1 to 4294967296, got 99999"),
        (["--runs", "1000000000"], "--runs must be fewer: the results of 5000000000 runs of srn-100 need at least "),
        (["--seed", str(2**63)], "--seed must be an integer from 0 to 4294967295, got 9223372036854775808"),
        (["--seed", str(2**32)], "--seed must be an integer from 0 to 4294967295, got 4294967296"),
        (["--epochs", str(10**20)], "--epochs must be an integer from 1 to 2147483647, got 1000"),
        (["--learning-rate", "1e300"], "--learning-rate must be from 1.2e-38 to 3.4e+38, which float32 can hold, got"),
        (["--learning-rate", "1e-300"], "--learning-rate must be from 1.2e-38 to 3.4e+38, which float32 can hold, got"),
        (["--clip-norm", "1e300"], "--clip-norm must be from 1.2e-38 to 3.4e+38, which float32 can hold, got 1e+300"),
        (["--clip-norm", "nan"], "--clip-norm must be finite and above 0, got nan"),
        (["--out", "/dev/null"], "results folder /dev/null cannot be written: it is not a folder"),
        (["--out", "/dev/null/out"], "/dev/null/out cannot be written: Not a directory"),
    ],
)
def test_values_that_nothing_can_hold(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["generation", *arguments])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"clockwork: {sentence}")
    assert not list(tmp_path.iterdir())

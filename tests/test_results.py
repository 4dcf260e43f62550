"""docs/results.md is what a results folder holds: every file, column and key is named there, and nothing else is."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from clockwork.report import write_report
from clockwork.tasks import Generation, Handwriting, Words
from clockwork.tasks.paper import LABELS
from clockwork.training import Progress, open_results, sweep

PAGE = (Path(__file__).parent.parent / "docs/results.md").read_text(encoding="utf-8")
TASKS = {"generation": Generation(), "words": Words(), "handwriting": Handwriting()}
BLOCKS = ("partial/GROUP.A-B.npz", "partial/GROUP.A-B.trained.npz")
SOMETIMES = ("partial/GROUP.npz", *BLOCKS, "runs.parquet", "search.png")  # in training, with pyarrow, of a search


def is_of(task, row):
    """Whether a row of the page is of this task: one that begins with the names of tasks is of these alone."""
    names = "|".join(TASKS)
    found = re.match(rf"((?:{names})(?:, (?:{names}))*):", row[1])
    return not found or task in found[1].split(", ")


def tables_of(text):
    """The tables of a part of the page, each with its cells by row; the first cell without its backticks."""
    blocks = re.findall(r"^\|[^\n]*\n\| ---[^\n]*\n((?:\|[^\n]*\n?)+)", text, re.MULTILINE)
    return [[[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in b.splitlines()] for b in blocks]


def section(title):
    """The tables below a heading, up to the next."""
    (found,) = re.findall(rf"^#+ {title}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return tables_of(found)


FILES = tables_of(PAGE)[0]
ARCHIVES = {
    "generation": section("Sequence generation")[0],
    "words": section("Spoken words")[0],
    "handwriting": section("Handwriting")[0],
}
COMMON, PARTIAL = section("Archives of conditions")[0], section("Archives of runs in training")[0]
CONFIG, SETTINGS, *OWN = section("config.json")


def stands_for(name, key):
    """Whether a name of the page is a key's; capitals in it stand for what differs."""
    pattern = re.sub(r"[A-Z]+", "[^/]+", re.escape(name).replace(r"\ ", " "))
    return re.fullmatch(pattern, key) is not None


def agree(names, keys):
    """Every key has a name and every name a key."""
    unnamed = [key for key in keys if not any(stands_for(name, key) for name in names)]
    absent = [name for name in names if not any(stands_for(name, key) for key in keys)]
    assert (unnamed, absent) == ([], [])


def agree_with_archive(rows, archive):
    arrays = {key: archive[key] for key in archive.files}
    agree([row[0] for row in rows], arrays)
    for name, dtype, shape, _ in rows:
        for key, array in arrays.items():
            if stands_for(name, key):
                assert dtype == "any" or (array.dtype.kind == "U" if dtype == "text" else array.dtype == dtype), key
                if shape != "by name" and "..." not in shape:
                    assert array.ndim == len(re.findall(r"\w+", shape)), key


class Stopped(Progress):
    """Interrupts a sweep once something is trained."""

    def advance(self, epochs, diverged=0):
        if epochs:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folders(finished):
    here = finished(TASKS) / "results"
    for name in TASKS:
        write_report(open_results(here / name), here / name)
    return here


@pytest.mark.parametrize("task", TASKS)
def test_every_file_is_named(folders, task):
    found = [path.relative_to(folders / task).as_posix() for path in (folders / task).rglob("*") if path.is_file()]
    names = [row[0] for row in FILES if is_of(task, row)]
    agree([name for name in names if name in found or name not in SOMETIMES], found)


@pytest.mark.parametrize("task", TASKS)
def test_every_key_of_the_archives_is_named_with_its_dtype_and_axes(folders, task):
    for path in (folders / task / "conditions").iterdir():
        with np.load(path) as archive:
            agree_with_archive(COMMON + ARCHIVES[task], archive)


def test_every_key_of_an_interrupted_sweep_is_named(tmp_path):
    task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5)
    with pytest.raises(KeyboardInterrupt):
        sweep(task, tmp_path, progress=Stopped())
    (path,) = (tmp_path / "partial").iterdir()
    with np.load(path) as archive:
        agree_with_archive(PARTIAL, archive)


def test_every_parameter_is_named():
    clockworks, lstm, cwlstm = section("Parameters")
    for network in LABELS:
        rows = {"lstm": lstm, "cwlstm": cwlstm}.get(network, clockworks)
        for task in (TASKS["generation"], TASKS["words"]):
            net = nnx.eval_shape(lambda n=network, t=task: t.network(n, t.sizes[0], nnx.Rngs(0)))
            shapes = {
                ".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(net, nnx.Param))
            }
            agree([row[0] for row in rows if task.inputs or row[0] != "input"], shapes)
            for name, shape, _ in rows:
                for key, found in shapes.items():
                    assert not stands_for(name, key) or len(found) == len(shape.strip("(,)").split(",")), key


def test_every_parameter_of_the_handwriting_is_named():
    (text,) = re.findall(r"^The networks of the handwriting.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    names = {name for name in re.findall(r"`([\w.]+)`", text) if not name.startswith("layer.")}
    task, found = TASKS["handwriting"], set()
    for network in LABELS:
        net = nnx.eval_shape(lambda n=network: task.network_of(n, 9, 5, nnx.Rngs(0)))
        for path, leaf in nnx.to_flat_state(nnx.state(net, nnx.Param)):
            key = ".".join(map(str, path))
            if key.startswith("readout."):
                assert leaf.shape[-1] == 5
                continue
            assert re.match(r"layer\.(forward|backward)_rnn\.cell\.", key)
            found.add(re.sub(r"\d+", "J", key.split(".cell.")[1]))
    assert found == names


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_and_every_column_is_named(folders, task):
    config = json.loads((folders / task / "config.json").read_text(encoding="utf-8"))
    agree([row[0] for row in CONFIG], config)
    agree([row[0] for row in SETTINGS + OWN[list(TASKS).index(task)]], config["settings"])
    rows = csv.reader((folders / task / "runs.csv").read_text(encoding="utf-8").splitlines())
    for title, found in (("runs.csv", next(rows)), ("table.md", header(folders / task / "table.md"))):
        assert [row[0] for row in section(title)[0] if is_of(task, row)] == found


def header(path):
    line = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_pages_code_runs(folders, monkeypatch):
    monkeypatch.chdir(folders.parent)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    (result,) = open_results(folders / "generation").conditions.values()
    assert names["errors"] == pytest.approx(result.error.tolist())
    assert names["best"].shape == result.outputs.shape[1:]

"""The README's code runs, its commands are CI's, and every public name is documented."""

import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import jax
import pytest

import clockwork as cw
import clockwork.ctc
import clockwork.data
import clockwork.nn
import clockwork.nn.linen
import clockwork.report
import clockwork.tasks
import clockwork.tasks.generation
import clockwork.tasks.handwriting
import clockwork.tasks.words
import clockwork.training

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = (
    cw,
    clockwork.nn,
    clockwork.nn.linen,
    clockwork.ctc,
    clockwork.data,
    clockwork.tasks,
    clockwork.tasks.generation,
    clockwork.tasks.words,
    clockwork.tasks.handwriting,
    clockwork.training,
    clockwork.report,
)


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_readmes_code_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users have it
        exec(code, {})


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"^(pip install -e '\.\[test\]' && .*)$", README, re.MULTILINE)
    installed, tested = command.split(" && ")
    ci = (ROOT / ".ci/run").read_text()
    assert installed.removeprefix("pip install ") + " && " + tested in ci


def test_files_that_the_readme_names_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", [f"{m.__name__}.{n}" for m in MODULES for n in m.__all__])
def test_every_public_name_has_a_docstring(name):
    module, attribute = name.rsplit(".", 1)
    thing = getattr(__import__(module, fromlist=[attribute]), attribute)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, (property, classmethod))):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_the_readmes_table_of_speed_is_that_of_the_stored_results():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    run = importlib.import_module("run")
    results = json.loads((ROOT / "benchmarks/results/cpu.json").read_text())
    assert run.summary(results) in README
    assert run.report(results) in (ROOT / "docs/speed.md").read_text()


def test_the_accelerators_tables_are_those_of_the_stored_results():
    results = json.loads((ROOT / "benchmarks/results/accelerator.json").read_text())
    sys.path.insert(0, str(ROOT / "benchmarks"))
    accelerator = importlib.import_module("accelerator")
    assert accelerator.report(results) in (ROOT / "docs/accelerator.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \| \*\*([\d.]+)\*\* \|", README.split("### On a GPU")[1], re.MULTILINE)
    assert len(rows) == 7
    for name, ours, times in rows:
        (work,) = (work for work in results["works"] if work["name"] == name)
        fused, scan = list(work["rows"].values())[:2]
        assert (ours, times) == (f"{fused['ms']:.3g}", f"{scan['ratio']:.1f}"), name


def test_the_api_reference_is_that_of_the_docstrings():
    sys.path.insert(0, str(ROOT / "docs"))
    make_api = importlib.import_module("make_api")
    assert [module.__name__ for module in MODULES] == list(make_api.MODULES)
    current = make_api.PAGE.read_text(encoding="utf-8") == make_api.page()
    assert current, "docs/api.md is out of date: run python docs/make_api.py"

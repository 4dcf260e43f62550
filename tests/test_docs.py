"""The README's code runs, its commands are CI's, and every public name is documented."""

import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "docs"))
MODULES = [importlib.import_module(name) for name in importlib.import_module("hooks").MODULES]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {page: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL) for page in PAGES}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCKS[page] and page.stem != "results"], ids=lambda page: page.stem
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    """That of results.md needs a results folder: tests/test_results.py runs it."""
    monkeypatch.chdir(tmp_path)
    names = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users have it
        for code in BLOCKS[page]:
            exec(code, names)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"^(pip install -e '\.\[test\]' && .*)$", README, re.MULTILINE)
    installed, tested = command.split(" && ")
    ci = (ROOT / ".ci/run").read_text()
    assert installed.removeprefix("pip install ") + " && " + tested in ci


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page):
    for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        made = Path(path).parent.name == "api" and Path(path).stem in [module.__name__ for module in MODULES]
        assert made or (page.parent / path).exists(), path


@pytest.mark.parametrize("name", [f"{m.__name__}.{n}" for m in MODULES for n in m.__all__])
def test_every_public_name_has_a_docstring(name):
    module, attribute = name.rsplit(".", 1)
    thing = getattr(__import__(module, fromlist=[attribute]), attribute)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, (property, classmethod))):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_the_tables_of_speed_are_those_of_the_stored_results():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    run = importlib.import_module("run")
    results = json.loads((ROOT / "benchmarks/results/cpu.json").read_text())
    assert run.front(results) in README
    assert run.report(results) in (ROOT / "docs/speed.md").read_text(encoding="utf-8")


def test_the_accelerators_tables_are_those_of_the_stored_results():
    results = json.loads((ROOT / "benchmarks/results/accelerator.json").read_text())
    sys.path.insert(0, str(ROOT / "benchmarks"))
    accelerator = importlib.import_module("accelerator")
    assert accelerator.report(results) in (ROOT / "docs/accelerator.md").read_text(encoding="utf-8")
    (times,) = re.findall(r"500 runs \(N = 40, T = 320\) are ([\d.]+) times as fast as a masked `lax.scan`", README)
    (work,) = (work for work in results["works"] if work["name"] == "CW-RNN N = 40, g = 9, T = 320, 500 runs")
    assert times == f"{work['rows']['XLA: masked scan, vmap']['ratio']:.1f}"


def test_every_public_module_has_a_page():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.findall(r"- api/(.*)\.md", navigation) == [module.__name__ for module in MODULES]

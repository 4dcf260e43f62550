"""The README's code runs, its commands are CI's, and every public name is documented."""

import importlib
import inspect
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "docs"))
hooks = importlib.import_module("hooks")
MODULES = [importlib.import_module(name) for name in hooks.MODULES]
NOTEBOOKS = [ROOT / "docs" / name for name in hooks.NOTEBOOKS]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {page: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL) for page in PAGES}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCKS[page] and page.stem != "results"], ids=lambda page: page.stem
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, caplog):
    """That of results.md needs a results folder: tests/test_results.py runs it."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.NOTSET, "clockwork")  # set back in the end, whatever the page sets
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
def test_files_and_headings_that_a_page_links_to_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"https?:", link):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if target.parent.name == "api":
            assert target.stem in hooks.MODULES, link
            if heading:
                assert heading.removeprefix(f"{target.stem}.") in importlib.import_module(target.stem).__all__, link
        elif target.with_suffix(".ipynb") not in NOTEBOOKS:
            assert target.exists(), link
            if heading:
                assert heading in headings(target), link


def without_code(page):
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def headings(page):
    """The names under which headings of a page can be linked to."""
    titles = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles]


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


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_page_of_a_module_has_each_public_name(module):
    found = re.findall(r"^::: (\S+)$", hooks.api_page(module.__name__), re.MULTILINE)
    assert sorted(path.rsplit(".")[-1] for path in found) == sorted(module.__all__)
    for path in found:  # a function may have the name of the file that it is in: the page is to show the function
        where, name = path.rsplit(".", 1)
        assert getattr(sys.modules[where], name) is getattr(module, name)


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://example.org/a.js"></script>',
        '<img alt="" src="//example.org/a.png">',
        '<link rel="stylesheet" href="http://example.org/a.css">',
        "src: url(https://example.org/a.woff2)",
        '@import "https://example.org/a.css"',
        '<image href="https://example.org/a.png"/>',
    ],
)
def test_what_another_host_would_send_is_found(text):
    assert "//example.org/a." in hooks.loaded_from_elsewhere(f"<p>text</p>\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        '<a href="https://example.org">a link</a>',
        '<img src="../a.png"><script src="a.js"></script>',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        "background: url(data:image/png;base64,AAAA//AA)",
    ],
)
def test_links_and_own_files_are_not_refused(text):
    assert hooks.loaded_from_elsewhere(text) is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_the_outputs_of_all_its_cells(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] and cell["outputs"][0]["output_type"] != "error" for cell in cells)
    assert hooks.notebook_page(path).startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    code = "import sys, nbformat, nbclient; nbclient.NotebookClient(nbformat.read(sys.argv[1], 4)).execute()"
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=path.parent)

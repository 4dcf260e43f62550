"""What MkDocs does here besides making pages of Markdown; it calls the functions ``on_...`` while it builds.

- Each public module gets a page of its own in the API reference.
- The notebook becomes a page that shows its text, code and stored outputs.
- Equations become MathML, which browsers draw without a script.
- A site that would load anything from another host is refused: it is for reading without a network too.
"""

import importlib
import inspect
import json
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
MODULES = (  # the only list of the public modules: the pages, the navigation and the tests are made from it
    "clockwork",
    "clockwork.nn",
    "clockwork.nn.linen",
    "clockwork.deep",
    "clockwork.ctc",
    "clockwork.data",
    "clockwork.tasks",
    "clockwork.tasks.generation",
    "clockwork.tasks.words",
    "clockwork.tasks.handwriting",
    "clockwork.tasks.music",
    "clockwork.tasks.text",
    "clockwork.training",
    "clockwork.report",
)
NOTEBOOKS = ("notebooks/clock.ipynb",)
EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\s(?:src|srcset)=["']?((?:https?:)?//[^"'\s>]+)
    |<link\b(?![^>]*rel="?canonical)[^>]*?\shref=["']?((?:https?:)?//[^"'\s>]+)
    |<(?:image|use)\b[^>]*?href=["']((?:https?:)?//[^"']+)
    |url\(["']?((?:https?:)?//[^"')]+)
    |@import\s+["']((?:https?:)?//[^"']+)""",
    re.VERBOSE,
)


def api_page(name: str) -> str:
    """The page of a module in Markdown: its docstring, a list of the names in ``__all__``, and each of them."""
    module = importlib.import_module(name)
    rows, entries = [], []
    for public in sorted(module.__all__, key=str.lower):
        path = f"{name}.{public}"
        if path in sys.modules:  # a function of the same name as the file that it is in
            path = f"{path}.{public}"
        rows.append(f"| [`{public}`][{path}] | {first_sentence(getattr(module, public))} |")
        entries.append(f"::: {path}")
    table = "\n".join(["| name | what it is |", "| --- | --- |", *rows])
    return "\n\n".join([f"# {name}", inspect.getdoc(module) or "", table, *entries, ""])


def first_sentence(thing: Any) -> str:
    """The first line of a docstring; for a constant, nothing, since its docstring is that of its type."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return ""
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("|", r"\|")


def notebook_page(path: Path) -> str:
    """A notebook in Markdown, with the outputs that are stored in it and a link to the notebook itself."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![Output of the cell above](data:image/png;base64,{data['image/png'].strip()})")
            else:
                text = "".join(output.get("text") or data["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    title, *rest = parts
    return "\n\n".join([title, f"[Download this notebook]({path.name}) to run and change it.", *rest, ""])


def on_config(config: Any) -> Any:
    """Put the pages of the modules at the end of the navigation."""
    config.nav.append({"API": [f"api/{name}.md" for name in MODULES]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    made = {f"api/{name}.md": api_page(name) for name in MODULES}
    made |= {re.sub(r"ipynb$", "md", name): notebook_page(DOCS / name) for name in NOTEBOOKS}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Turn the equations of a page into MathML."""
    from latex2mathml.converter import convert

    def mathml(found: re.Match[str]) -> str:
        return convert(unescape(found["tex"]), display="block" if found["open"] == "[" else "inline")

    return EQUATION.sub(mathml, html)


def loaded_from_elsewhere(text: str) -> str | None:
    """The first script, style, font or picture of another host that a page, a style sheet or an SVG would load."""
    found = ELSEWHERE.search(text)
    return found and next(group for group in found.groups() if group)


def on_post_build(config: Any) -> None:
    """Refuse a site that loads anything from another host."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            text = path.read_text(encoding="utf-8")
            # Material loads Mermaid from another host where a page has a diagram of it.
            foreign = 'class="mermaid"' if 'class="mermaid"' in text else loaded_from_elsewhere(text)
            if foreign:
                raise PluginError(f"{path} would load from another host: {foreign}")

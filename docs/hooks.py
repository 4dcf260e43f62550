"""What MkDocs does beside its own: a page for each public module, and equations as MathML, which browsers draw.

A page that would load anything from another host ends the build: the site is for reading without a network too.
"""

import importlib
import inspect
import re
from html import unescape
from typing import Any

MODULES = (
    "clockwork",
    "clockwork.nn",
    "clockwork.nn.linen",
    "clockwork.ctc",
    "clockwork.data",
    "clockwork.tasks",
    "clockwork.tasks.generation",
    "clockwork.tasks.words",
    "clockwork.tasks.handwriting",
    "clockwork.training",
    "clockwork.report",
)
EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def page(name: str) -> str:
    """The API page of a module: its docstring, and what mkdocstrings makes of each name in its ``__all__``."""
    module = importlib.import_module(name)
    names = "\n\n".join(f"::: {name}.{public}" for public in sorted(module.__all__))
    return f"# {name}\n\n{inspect.getdoc(module)}\n\n{names}\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the modules."""
    from mkdocs.structure.files import File

    for name in MODULES:
        files.append(File.generated(config, f"api/{name}.md", content=page(name)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Equations of a page as MathML."""
    from latex2mathml.converter import convert

    def mathml(found: re.Match[str]) -> str:
        return convert(unescape(found["tex"]), display="block" if found["open"] == "[" else "inline")

    return EQUATION.sub(mathml, html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse scripts, styles, fonts and pictures of other hosts."""
    from mkdocs.exceptions import PluginError

    foreign = re.findall(r'(?:src=|<link[^>]* href=)"((?:https?:)?//[^"]*)', output)
    if foreign:
        raise PluginError(f"{page.file.src_uri} would load {foreign[0]}")
    return output

"""Write docs/api.md, the reference of all public names, from their docstrings.

``python docs/make_api.py`` writes it; with ``--check`` it only fails where the page is out of date.
"""

import argparse
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

PAGE = Path(__file__).with_name("api.md")
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
HEAD = """\
<!-- Written by docs/make_api.py from the docstrings: change those and run it again. -->

# API reference

All public names, by module. The [README](../README.md) shows them at work.

"""
WIDTH = 100  # of a signature on one line


def page() -> str:
    """The reference as Markdown. The sources are read, not imported."""
    options: Any = {"returns_multiple_items": False, "returns_named_value": False}
    parser: Any = {"docstring_parser": griffe.Parser.google, "docstring_options": options}
    package: Any = griffe.load("clockwork", search_paths=[PAGE.parent.parent], resolve_aliases=True, **parser)
    entries: list[tuple[int, str, Any]] = []  # level of the heading, title, what it is about
    for module in (package.modules_collection[path] for path in MODULES):
        entries.append((2, module.path, module))
        for name in module.exports:
            member = module[name][name] if module[name].is_module else module[name]  # a function named like its file
            public = member.final_target if member.is_alias else member
            entries.append((3, f"{module.path}.{name}", public))
            entries += [(4, f"{name}.{method.name}", method) for method in _members(public, "function")]
    anchors, taken = {}, Counter()
    for _, title, thing in entries:
        slug = re.sub(r"[^\w-]", "", title.lower())  # as GitHub makes them
        anchors[title] = anchors[thing.path] = f"#{slug}-{taken[slug]}".removesuffix("-0")
        taken[slug] += 1
    contents, body = [], []
    for level, title, thing in entries:
        texts = list(_sections(thing, anchors))
        if level < 4:
            summary = ": " + texts[0].split("\n\n")[0].replace("\n", " ") if texts else ""
            contents.append(f"{'  ' * (level - 2)}- [`{title}`]({anchors[title]}){summary}")
        read = [(f"{p.name}: {p.annotation}", "\n\n".join(_sections(p, anchors))) for p in _members(thing)]
        above = [*_signature(title, thing), *_bases(thing, anchors)]
        body += [f"{'#' * level} `{title}`", *above, *texts, *_list("Properties", read)]
    return HEAD + "\n".join(contents) + "\n\n" + "\n\n".join(body) + "\n"


def _members(thing: Any, kind: str = "attribute") -> list[Any]:
    """What users read (attributes) or call (functions) of a class, inherited or not: what has a docstring."""
    members = [*thing.members.values(), *thing.inherited_members.values()] if thing.is_class else []
    hidden = re.compile(r"_(?!_call__$)|setup$")  # Flax calls setup
    return [m for m in members if m.kind.value == kind and m.docstring and not hidden.match(m.name)]


def _find(name: str, thing: Any) -> Any:
    """What a name means where a docstring or signature has it; None if it is nothing of this package."""
    try:
        return thing.modules_collection[name if name.startswith("clockwork.") else thing.resolve(name)]
    except (KeyError, griffe.NameResolutionError):
        return None


def _signature(title: str, thing: Any) -> Iterator[str]:
    """How it is called, or a constant's value; types that only this package has a name for are spelled out."""

    def spelled(match: re.Match[str]) -> str:
        found = _find(match[0], thing)
        return str(found.value) if found and found.is_attribute and str(found.value) != "Any" else match[0]

    if thing.is_module:
        return
    if thing.is_attribute:
        text = f"{thing.name} = {thing.value}"
    elif thing.is_function:
        name = title if thing.parent.is_class else thing.name
        text = "classmethod " * ("classmethod" in thing.labels) + thing.signature(name=name, return_type=True)
    elif "__init__" in thing.all_members:
        text = thing.signature()
    else:  # a NamedTuple or a linen module is called with its fields; one that inherits some is not shown
        fields = [field for field in thing.attributes.values() if "property" not in field.labels]
        sections = [section.value for section in thing.docstring.parsed if section.kind.value == "attributes"]
        if not fields or [[field.name for field in fields]] != [[item.name for item in items] for items in sections]:
            return
        given = (f"{field.name}: {field.annotation}" + f" = {field.value}" * bool(field.value) for field in fields)
        text = f"{thing.name}({', '.join(given)})"
    text = re.sub(r"\b[A-Z][a-z]\w*", spelled, text)
    if len(text) > WIDTH:
        text = re.sub(r"\((.*)\)", lambda m: "(\n    " + re.sub(r", (?=\w+[:=]|\*)", ",\n    ", m[1]) + ",\n)", text)
    yield f"```python\n{text}\n```"


def _bases(thing: Any, anchors: dict[str, str]) -> Iterator[str]:
    """The public classes that a class inherits from, of this package and of others."""
    classes = [thing, *thing.mro()] if thing.is_class else []
    named = [(str(base), each) for each in classes for base in each.bases if not str(base).startswith("Generic[")]
    bases = {base: _find(base, each) for base, each in named}
    shown = [f"`{name}`" for name, found in bases.items() if not found or found.canonical_path in anchors]
    if shown:
        yield _linked(f"Bases: {', '.join(shown)}", thing, anchors)


def _sections(thing: Any, anchors: dict[str, str]) -> Iterator[str]:
    """The parts of a docstring, in Markdown."""
    if not thing.docstring:
        return
    thing.docstring.value = re.sub(r"^Example:$", "Examples:", thing.docstring.value, flags=re.MULTILINE)
    for section in thing.docstring.parsed:
        kind: str = section.kind.value
        if kind == "text":
            yield _linked(section.value, thing, anchors)
        elif kind == "examples":
            yield "**Example**"
            yield from (f"```pycon\n{text}\n```" if part.value == kind else text for part, text in section.value)
        elif kind == "returns":
            yield "**Returns**\n\n" + _linked(section.value[0].description, thing, anchors)
        else:
            title = {"parameters": "Arguments"}.get(kind, kind.title())
            described = [(item, _linked(item.description, thing, anchors)) for item in section.value]
            yield from _list(title, [(getattr(item, "name", item.annotation), text) for item, text in described])


def _list(title: str, items: list[tuple[str, str]]) -> Iterator[str]:
    if items:
        listed = [f"- ``{name}``: {textwrap.indent(text, '  ').lstrip()}" for name, text in items]
        yield f"**{title}**\n\n" + "\n".join(listed)


def _linked(text: str, thing: Any, anchors: dict[str, str]) -> str:
    """Cross references, in single backticks, as links; a property's is to its class."""

    def link(match: re.Match[str]) -> str:
        found = _find(match[1], thing)
        paths = [match[1], *([found.canonical_path, found.parent.canonical_path] if found and found.parent else [])]
        anchor = next((anchors[path] for path in paths if path in anchors), None)
        return f"[{match[0]}]({anchor})" if anchor else match[0]

    return re.sub(r"(?<!`)`([\w.]+)`(?!`)", link, text)


def main() -> None:
    """Write the page or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    check = parser.parse_args().check
    text = page()
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/api.md is out of date: run python docs/make_api.py")


if __name__ == "__main__":
    main()

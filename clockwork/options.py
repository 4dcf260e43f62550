"""The options of a task's command, built from the fields and the docstring of the task's class.

A field becomes an option of the same name, ``--stop-after`` for ``stop_after``; its help is the field's entry under
``Args:`` in the docstring of the class. The metadata of a field may hold

- ``option``: the name of the option, if it differs;
- ``metavar``: the placeholder for the value in the help, such as ``"PATH"``;
- ``files``: True if the values are files: patterns such as ``"*.wav"`` are expanded.
"""

import dataclasses
import inspect
import re
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from clockwork.optional import require
from clockwork.training import Task

PATTERNS = 'A name may be a pattern such as "more/*".'
CONTINUED = (
    "The results, a table and figures are written to --out. Run the same command again to continue a stopped one: "
    "it skips finished runs."
)


def options_of(kind: type[Task]) -> list[tuple[str, Any, Any]]:
    """The options of a task; each is a name, an annotation for tyro and a dataclass field."""
    described = _described(kind)
    hints = get_type_hints(kind)
    options = []
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        text = _plain(described.get(field.name, ""), kind)
        if field.metadata.get("files"):
            text = f"{text} {PATTERNS}"
        hint = _option_type(hints[field.name])
        options.append(_option(field.name, hint, text, field, field.metadata))
    for name in getattr(kind, "actions", ()):
        text, nothing = f"Train nothing. {_plain(_summary(getattr(kind, name)), kind)}", dataclasses.field(default=None)
        if takes_files(kind, name):
            options.append(_option(name, tuple[str, ...], f"{text} {PATTERNS}", nothing, {"metavar": "FILE"}))
        elif reads_results(kind, name):
            options.append(_option(name, tuple[str, ...], text, nothing, {"metavar": "TEXT"}))
        else:
            options.append(_option(name, str, text, nothing, {"metavar": "DIR"}))
    return options


def reads_results(kind: type[Task], action: str) -> bool:
    """Whether an action takes results and texts (a static method) rather than a folder (a method of the task)."""
    return isinstance(inspect.getattr_static(kind, action), staticmethod)


def takes_files(kind: type[Task], action: str) -> bool:
    """Whether the texts of such an action are file names: its second argument is called ``files``."""
    return reads_results(kind, action) and list(inspect.signature(getattr(kind, action)).parameters)[1] == "files"


def option_names(kind: type[Task]) -> dict[str, str]:
    """Map the names of a task's fields to its options, such as ``--learning-rate``."""
    fields: Any = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    names = {field.name: field.metadata.get("option", field.name) for field in fields}
    names |= {name: name for name in getattr(kind, "actions", ())}
    return {name: "--" + option.replace("_", "-") for name, option in names.items()}


def help_of(kind: type[Task]) -> str:
    """The help of a task's command above the options: the first two paragraphs of the task's docstring."""
    found = require("docstring_parser").parse(inspect.getdoc(kind) or "")
    texts = [found.short_description or "", (found.long_description or "").split("\n\n")[0]]
    return "\n\n".join([*(_plain(text, kind) for text in texts if text), CONTINUED])


def _option(name: str, hint: Any, text: str, field: Any, metadata: Any) -> tuple[str, Any, Any]:
    default = {"default": field.default, "default_factory": field.default_factory}
    default = {key: value for key, value in default.items() if value is not dataclasses.MISSING}
    shown = {"name": metadata.get("option", name).replace("-", "_"), "help": text}
    if field.default is None:  # otherwise the help would say "(default: None)"
        many = get_origin(hint) is tuple
        one = get_args(hint)[0] if many else hint
        metavar = metadata.get("metavar") or getattr(one, "__name__", "VALUE").upper()
        shown |= {"metavar": f"[{metavar} [{metavar} ...]]" if many else metavar, "help_behavior_hint": ""}
        if many and "metavar" not in metadata:
            default["default"] = ()  # not None, since tyro's error for a wrong value would then name both types
        else:
            hint = hint | None
    elif "metavar" in metadata:
        shown["metavar"] = metadata["metavar"]
    return name, Annotated[hint, require("tyro").conf.arg(**shown)], dataclasses.field(**default)


def _option_type(hint: Any) -> Any:
    """The type of the option for a field with a union type: the list, else the text, since a shell passes these."""
    if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
        return tuple[_option_type(get_args(hint)[0]), ...]
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    members = [member for member in get_args(hint) if member is not types.NoneType]
    lists = [member for member in members if get_origin(member) is tuple]
    texts = [member for member in members if member in (str, Path)]
    return _option_type((lists or texts or members)[0]) if lists or texts or len(members) == 1 else hint


def _described(kind: type[Task]) -> dict[str, str]:
    """The descriptions of arguments in the docstrings of a class and its base classes."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        parsed = require("docstring_parser").parse(inspect.cleandoc(one.__doc__ or ""))
        found |= {param.arg_name: param.description or "" for param in parsed.params}
    return found


def _summary(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return require("docstring_parser").parse(inspect.getdoc(thing) or "").short_description or ""


def _plain(text: str, kind: type[Task]) -> str:
    """Docstring text for a terminal: capitalised, without backticks, with options in place of field names."""
    names = option_names(kind)
    text = re.sub(r"``(.+?)``", lambda match: names.get(match[1], match[1].strip('"')), text)
    text = " ".join(text.replace("`", "").split())
    return f"{text[:1].upper()}{text[1:]}"

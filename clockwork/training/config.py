"""``config.json`` of a results folder: what was trained, with which versions and devices."""

import contextlib
import importlib
import json
import platform
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import clockwork
from clockwork.checks import shown
from clockwork.files import LOCK, TEMPORARY, regular_file
from clockwork.training.devices import all_devices
from clockwork.training.task import Task

# Sound files may have moved: the digest of what is learnt is among the settings.
PATHS = ("audio", "data_folder", "sounds")
FOLDERS = ("conditions", "partial", "best")  # in a results folder
REPORTED = (".md", ".png", ".pdf", ".svg", ".wav")  # what a report writes
DEEPEST = 20  # how deep the values in a configuration may nest


class FolderError(ValueError):
    """Raised for a results folder that cannot be used."""


def read_config(folder: Path) -> dict[str, Any]:
    """The stored configuration of a results folder.

    Raises:
        FolderError: if there is none, or it cannot be read.
    """
    path = folder / "config.json"
    try:
        if not path.exists():
            raise FolderError(f"{folder} holds no results: there is no {path}")
        regular_file(path, "configuration")
    except (OSError, ValueError) as error:
        raise FolderError(str(error)) from None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if _deeper(config, DEEPEST):
            raise RecursionError
    except RecursionError:
        raise FolderError(f"{path} cannot be read: it nests values more than {DEEPEST} deep") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{path} cannot be read: {error}") from None
    _expect(path, "the file", config, dict)
    settings = _expect(path, "settings", config.get("settings"), dict)
    _expect(path, "settings.task", settings.get("task"), str)
    _expect(path, "class", config.get("class"), str)
    config.setdefault("environment", {})
    for begun in (config["environment"], *_expect(path, "continued_in", config.setdefault("continued_in", []), list)):
        _expect(path, "an environment", begun, dict)
    return config


def stored_task(folder: Path, config: dict[str, Any]) -> Task:
    """The task that a configuration describes, an object of the class that it names.

    Only modules of this library are imported for it; others must have been imported before.

    Raises:
        FolderError: if the class is not there, or takes no such settings.
    """
    module, _, name = config["class"].partition(":")
    if module.split(".")[0] == "clockwork":
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    if module not in sys.modules:
        raise FolderError(f"{folder} holds results of {shown(config['class'])}: import {shown(module)} first")
    kind: Any = sys.modules[module]
    for part in name.split("."):
        kind = getattr(kind, part, None)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise FolderError(
            f"{folder} holds results of a task that is not there, {shown(config['class'])}; a class within a function "
            "or in a program of its own cannot be found from elsewhere"
        )
    try:
        return kind.from_settings(config["settings"])
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise FolderError(f"{folder / 'config.json'} is not the configuration of a results folder: {error}") from None


def _expect(path: Path, what: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list", str: "a string"}[kind]
        raise FolderError(
            f"{path} is not the configuration of a results folder: {what} must be {wanted}, got {shown(value)}"
        )
    return value


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_deeper(one, levels - 1) for one in inner)


def agreed_config(folder: Path, task: Task, told: bool = False) -> dict[str, Any]:
    """The configuration to store for a task: the one that is there, if it is the task's, or a new one.

    Args:
        folder: the results folder, there or not; nothing is written.
        task: what is to be trained.
        told: whether a warning tells of other versions or devices.

    Raises:
        FolderError: if the folder holds another configuration, or something else.
    """
    kind = f"{type(task).__module__}:{type(task).__qualname__}"
    settings = {"task": task.name, **task.settings()}
    asked = {"class": kind, "settings": settings, "environment": environment(), "continued_in": []}
    asked = json.loads(json.dumps(asked))
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"results folder {folder} cannot be written: it is not a folder")
    if not (folder / "config.json").exists():
        if folder.is_dir() and any(not path.name.startswith((LOCK, TEMPORARY)) for path in folder.iterdir()):
            raise FolderError(f"{folder} is not empty and holds no config.json; choose another folder")
        return asked
    stored = read_config(folder)
    _check_same(folder, {"class": stored["class"], **stored["settings"]}, {"class": kind, **asked["settings"]})
    known = [stored["environment"], *stored["continued_in"]]
    if asked["environment"] not in known:
        if told:
            warnings.warn(f"{folder} was begun {_difference(known[0], asked['environment'])}", stacklevel=4)
        known.append(asked["environment"])
    return {**stored, "continued_in": known[1:]}


def check_files(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Raise `FolderError` if something else is in the place of a file or folder that is to be written.

    Args:
        folder: the results folder, there or not.
        suffixes: of the files that a sweep writes.
    """
    suffixes = (*suffixes, *REPORTED)
    try:
        for name in FOLDERS:
            if (folder / name).exists() and not (folder / name).is_dir():
                raise ValueError(f"{folder / name} is not a folder")
        for path in [*folder.glob("*"), *(path for name in FOLDERS for path in folder.glob(f"{name}/*"))]:
            if path.suffix in suffixes:
                regular_file(path)
    except ValueError as error:
        raise FolderError(f"{error}; move it away, or choose another folder") from None


def _check_same(folder: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    differ = [name for name in asked if stored.get(name) != asked[name] and name not in PATHS]
    if "data" in differ and "data" in stored:  # in words
        raise FolderError(
            f"{folder} holds results for {stored['data']}, not for {asked['data']}; choose another by --out"
        )
    if differ:
        name = differ[0]
        raise FolderError(
            f"{folder} holds results of another configuration ({name} is {shown(stored.get(name))} there, "
            f"{shown(asked[name])} here); choose another folder"
        )


def place_of(settings: dict[str, Any], name: str) -> str:
    """What the digest of a file covers besides its arrays: its name and the settings, without paths."""
    kept = {key: value for key, value in settings.items() if key not in PATHS}
    return json.dumps([name, kept], sort_keys=True)


def _difference(begun: dict[str, Any], now: dict[str, Any]) -> str:
    """How the versions and devices differ, for a sentence."""
    differ = [
        f"{name} {_plain(begun.get(name))} (now {_plain(now[name])})" for name in now if begun.get(name) != now[name]
    ]
    return f"with {', '.join(differ)}: the last digits of what is trained now may depend on it"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def environment() -> dict[str, Any]:
    """Versions and devices: what else the last digits of a result depend on."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    return {
        "clockwork": clockwork.__version__,
        **versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in all_devices()],
    }

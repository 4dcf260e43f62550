"""Optional dependencies, imported when a feature needs them."""

import importlib
from typing import Any


def require(module: str, extra: str = "experiments") -> Any:
    """Import a module of an optional dependency.

    Args:
        module: the module's name.
        extra: the extra in ``pyproject.toml`` that installs the module.

    Raises:
        ImportError: if the module is not installed; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        raise ImportError(f"{name} is not installed; in a clone of clockwork, run: pip install '.[{extra}]'") from None

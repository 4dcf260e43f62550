"""What a feature needs beyond the core, asked for when it is needed."""

import importlib
from typing import Any


def require(module: str, extra: str = "experiments") -> Any:
    """Import a module of an extra.

    Args:
        module: its name.
        extra: which of the extras in ``pyproject.toml`` has it.

    Raises:
        ImportError: if it is not installed, naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        raise ImportError(f"{name} is not installed; in a clone of clockwork, run: pip install '.[{extra}]'") from None

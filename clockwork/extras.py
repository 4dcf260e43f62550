"""What the experiments need beyond the core, asked for when it is needed."""

import importlib
from typing import Any

INSTALL = "pip install 'clockwork-rnn[experiments]'"


def require(module: str) -> Any:
    """Import a module of the extra ``[experiments]``.

    Raises:
        ImportError: if it is not installed, naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{module.split('.')[0]} is not installed; run: {INSTALL}") from None

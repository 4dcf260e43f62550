"""One run as a pure function of its key, the sweep over runs and devices, and stored results."""

from clockwork.training.config import FolderError
from clockwork.training.devices import keep_compiled, use_all_cores
from clockwork.training.interrupt import Terminated
from clockwork.training.progress import Progress, for_output
from clockwork.training.store import CellResult, Results, Store, open_results
from clockwork.training.sweep import sweep

__all__ = [
    "CellResult",
    "FolderError",
    "Progress",
    "Results",
    "Store",
    "Terminated",
    "for_output",
    "keep_compiled",
    "open_results",
    "sweep",
    "use_all_cores",
]

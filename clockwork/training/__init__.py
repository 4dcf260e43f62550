"""One run as a pure function of its key, the sweep over runs and devices, and stored results."""

from clockwork.training.devices import keep_compiled, use_all_cores
from clockwork.training.store import CellResult, Results, Store
from clockwork.training.sweep import sweep

__all__ = ["CellResult", "Results", "Store", "keep_compiled", "sweep", "use_all_cores"]

"""Train any model over seeds and hyper-parameters, side by side in one program, and keep what comes out."""

from clockwork.training.config import FolderError
from clockwork.training.devices import keep_compiled, use_all_cores
from clockwork.training.interrupt import Terminated
from clockwork.training.progress import Progress, for_output
from clockwork.training.results import ConditionResult, Results, open_results
from clockwork.training.store import Store
from clockwork.training.sweep import sweep
from clockwork.training.task import Condition, Loss, Step, Task

__all__ = [
    "Condition",
    "ConditionResult",
    "FolderError",
    "Loss",
    "Progress",
    "Results",
    "Step",
    "Store",
    "Task",
    "Terminated",
    "for_output",
    "keep_compiled",
    "open_results",
    "sweep",
    "use_all_cores",
]

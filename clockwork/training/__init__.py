"""Train any model over seeds and hyper-parameters, side by side in one program, and keep what comes out."""

from clockwork.training.callback import Callback, TensorBoard
from clockwork.training.config import FolderError
from clockwork.training.devices import keep_compiled, use_all_cores
from clockwork.training.interrupt import Terminated
from clockwork.training.linen import linen_model
from clockwork.training.model_task import ModelTask
from clockwork.training.pool import Pool, PoolError
from clockwork.training.progress import Progress, for_output
from clockwork.training.results import ConditionResult, Results, open_results
from clockwork.training.search import grid, random
from clockwork.training.status import status
from clockwork.training.store import Store
from clockwork.training.sweep import sweep
from clockwork.training.task import Condition, Loss, Step, Task

__all__ = [
    "Callback",
    "Condition",
    "ConditionResult",
    "FolderError",
    "Loss",
    "ModelTask",
    "Pool",
    "PoolError",
    "Progress",
    "Results",
    "Step",
    "Store",
    "Task",
    "TensorBoard",
    "Terminated",
    "for_output",
    "grid",
    "keep_compiled",
    "linen_model",
    "open_results",
    "random",
    "status",
    "sweep",
    "use_all_cores",
]

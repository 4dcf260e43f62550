"""Blocks of runs trained by a pool of workers: a Dask cluster, or any ``concurrent.futures.Executor``."""

import collections
import concurrent.futures
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from clockwork.checks import ArgumentError, counted
from clockwork.training.blocks import Part
from clockwork.training.config import FolderError, read_config
from clockwork.training.devices import all_devices, keep_compiled
from clockwork.training.group import Group, Log
from clockwork.training.interrupt import Interruptible
from clockwork.training.progress import Progress
from clockwork.training.store import States, Store
from clockwork.training.task import Condition, Task, group_label

LARGE = 1000  # runs of a block, about: sending it and its results takes far less than training it
AHEAD, LEAST = 4, 8  # blocks for each worker that are sent before they are asked for, and of all together at least
POLL = 0.5  # seconds after which futures that cannot be waited for are asked
DEATHS = ("KilledWorker", "FutureCancelledError", "UncompletedJobError")  # of Dask, and of submitit
ATTEMPTS = 10  # times that a block is sent before the workers that died of it are taken as its fault
KEPT = 4  # groups whose compiled programs a worker keeps


class PoolError(RuntimeError):
    """Raised when the workers of a pool are lost. What they have trained is stored."""


class Pool:
    """The workers that train the blocks of a sweep, in place of its own process.

    Every worker needs this library, and the module of the task if it is of another. A block is trained by one worker on
    all devices that JAX finds there. A block whose worker died is trained again by another, from its last stored state
    where the workers see the results folder under the same path, else from the beginning.

    Args:
        client: a ``dask.distributed.Client``, whose workers may join and leave at will, or an executor with ``submit``
            of ``concurrent.futures``, such as those of processes, of submitit and of mpi4py.

    Raises:
        ValueError: if it is something else.

    Example:
        >>> from concurrent.futures import ProcessPoolExecutor
        >>> from clockwork.tasks import Generation
        >>> from clockwork.training import sweep
        >>> task = Generation(runs=1000, networks=("cwrnn",))
        >>> with ProcessPoolExecutor(2) as workers:  # doctest: +SKIP
        ...     results = sweep(task, "many", client=workers)
    """

    def __init__(self, client: Any) -> None:
        if not callable(getattr(client, "submit", None)):
            raise ArgumentError("client", f"must be a Dask client or an executor with submit, got {client!r}")
        self.client = client
        get_executor = getattr(client, "get_executor", None)
        self.executor = client if get_executor is None else get_executor(pure=False)

    @property
    def workers(self) -> int:
        """The number of blocks that are trained at a time, as far as it is known; 0 if it is not."""
        if hasattr(self.client, "nthreads"):  # Dask's: each thread trains a block
            return sum(self.client.nthreads().values())
        return getattr(self.executor, "_max_workers", 0)

    def block_size(self, runs: int, conditions: int, asked: int | None) -> int:
        """The number of runs of each condition of a block: about 1000 runs together, and a block for each worker."""
        if asked is not None:
            return max(1, asked // conditions)
        blocks = max(1, self.workers, runs * conditions // LARGE)
        return -(-runs // min(runs, blocks))

    def train(
        self,
        task: Task,
        groups: Mapping[str, Sequence[Condition]],
        blocks: Mapping[str, Sequence[range]],
        store: Store,
        progress: Progress,
        log: Log | None,
    ) -> Iterator[str]:
        """Train all blocks; yields the label of each group whose blocks are all trained and stored.

        Args:
            task: what is trained.
            groups: the conditions of each group that is to be trained.
            blocks: those of each group; those that are stored are not trained again.
            store: of the results folder.
            progress: receives the progress.
            log: of the experiment tracker.

        Raises:
            PoolError: if the pool broke, or a block was the end of ten workers.
        """
        waiting = collections.deque()
        left = {label: len(blocks[label]) for label in groups}
        networks = sum(len(runs) * len(groups[label]) for label in groups for runs in blocks[label])
        progress.group(counted(self.workers, "worker") if self.workers else "workers", networks)
        progress.phase("training")
        for label in groups:
            _, trained = store.states.blocks(label, task.runs)
            for runs in blocks[label]:
                if runs in trained and store.states.load_part(label, runs, task, groups[label]) is not None:
                    left[label] -= 1
                    progress.advance(task.epochs)
                else:
                    waiting.append((label, runs))
            if not left[label]:
                yield label
        sent: dict[Any, tuple[str, range]] = {}
        attempts: collections.Counter[tuple[str, range]] = collections.Counter()
        diverged = 0
        folder = str(store.folder.resolve())
        try:
            while waiting or sent:
                while waiting and (len(sent) < max(LEAST, AHEAD * self.workers) or not self.workers):
                    label, runs = waiting.popleft()
                    attempts[label, runs] += 1
                    future = self.executor.submit(train_block, task, label, runs, folder, store.settings)
                    sent[future] = (label, runs)
                for future in _ended(sent):
                    label, runs = sent.pop(future)
                    try:
                        part: Part = future.result()
                    except Exception as error:
                        if not _worker_died(error):
                            raise
                        if attempts[label, runs] >= ATTEMPTS or not self._lives(error):
                            raise PoolError(
                                f"the workers of runs {runs.start} to {runs.stop - 1} of {label} died "
                                f"({counted(attempts[label, runs], 'time')}): {error}"
                            ) from None
                        waiting.appendleft((label, runs))
                        continue
                    store.states.save_part(label, part)
                    diverged += sum(int(result.diverged.sum()) for result in part.results.values())
                    progress.advance(task.epochs, diverged)
                    if log is not None:
                        log(_metrics(part), task.epochs)
                    left[label] -= 1
                    if not left[label]:
                        yield label
        finally:
            for future in sent:
                future.cancel()

    def _lives(self, error: Exception) -> bool:
        """Whether the pool takes another block after a worker has died."""
        if isinstance(error, concurrent.futures.BrokenExecutor):
            return False
        return getattr(self.client, "status", "running") == "running"


def _ended(futures: Iterable[Any]) -> list[Any]:
    """Those that have ended, once there is one."""
    if all(isinstance(future, concurrent.futures.Future) for future in futures):
        return list(concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED).done)
    while not (ended := [future for future in futures if future.done()]):  # jobs of submitit
        time.sleep(POLL)
    return ended


def _worker_died(error: Exception) -> bool:
    """Whether the fault is not the block's but the worker's or the pool's."""
    known = (concurrent.futures.BrokenExecutor, concurrent.futures.CancelledError)
    return isinstance(error, known) or type(error).__name__ in DEATHS


def _metrics(part: Part) -> dict[str, float]:
    found: dict[str, float] = {}
    for condition, result in part.results.items():
        whole = result.error[~result.diverged]
        found[f"{condition.name}/error"] = float(np.median(whole)) if whole.size else float("nan")
        found[f"{condition.name}/diverged"] = int(result.diverged.sum())
    return found


_groups: collections.OrderedDict[str, Group] = collections.OrderedDict()
_lock = threading.Lock()


def train_block(task: Task, label: str, runs: range, folder: str, settings: dict[str, Any]) -> Part:
    """Train a block of runs in this process, on all of its devices; called in a worker.

    Args:
        task: what is trained.
        label: of a group.
        runs: their numbers.
        folder: the results folder; if it is there, runs in training are stored in it.
        settings: of the folder's ``config.json``.
    """
    keep_compiled()
    key = json.dumps([label, settings], sort_keys=True)
    with _lock:
        if key not in _groups:
            conditions = [one for one in task.conditions() if group_label(task, one) == label]
            _groups[key] = Group(task, label, conditions, Mesh(np.asarray(all_devices()), ("runs",)))
            while len(_groups) > KEPT:
                _groups.popitem(last=False)
        _groups.move_to_end(key)
        group = _groups[key]
    return group.train(runs, _shared(Path(folder), settings), Progress(), Interruptible(), None)


def _shared(folder: Path, settings: dict[str, Any]) -> States | None:
    """Where the runs of a block in training are stored; None if the results folder is not seen from here."""
    try:
        if read_config(folder)["settings"] == settings:
            return States(folder, settings)
    except (FolderError, OSError):
        pass
    return None

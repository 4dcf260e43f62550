"""The training of a group of conditions: all of its runs, or a block of them, side by side in one program."""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clockwork.training.arrays import mismatch
from clockwork.training.blocks import Part, lowest_errors
from clockwork.training.interrupt import Interruptible
from clockwork.training.model import named
from clockwork.training.placement import Placement
from clockwork.training.program import Program, program
from clockwork.training.progress import Progress
from clockwork.training.results import ConditionResult, watched_errors
from clockwork.training.store import States
from clockwork.training.task import Condition, Task
from clockwork.training.train_state import Trainer, TrainState

Log = Callable[[dict[str, float] | None, int], None]
# Seconds between two writes of runs in training, at least; and the share of the time that writing may take.
SAVE_EVERY, SAVE_SHARE = 20.0, 0.02


class Group:
    """The conditions that are trained in one program. What is compiled for one block of runs serves the others.

    Args:
        task: what is trained.
        label: of the group, such as ``"cwrnn-1000"``.
        conditions: of the group.
        mesh: of one axis, ``"runs"``.
    """

    def __init__(self, task: Task, label: str, conditions: Sequence[Condition], mesh: Mesh) -> None:
        self.task, self.label, self.conditions, self.mesh = task, label, list(conditions), mesh
        self.trainer = Trainer(task, self.conditions[0])
        self.functions: Program | None = None
        self.compiled: dict[tuple[str, int], Callable] = {}  # by name and width

    def memory(self, runs: range) -> int:
        """The bytes that the program for these runs of each condition takes on all devices together, by its compiler.

        0 if the back end does not tell.
        """
        placement, functions = self._placed(runs)
        state = jax.eval_shape(functions.begin, placement.runs)
        found = functions.segment.lower(state, placement.runs, jnp.int32(0)).compile().memory_analysis()
        if found is None:
            return 0
        each = found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
        return self.mesh.size * (each - found.alias_size_in_bytes)

    def _placed(self, runs: range) -> tuple[Placement, Program]:
        placement = Placement(self.task, self.conditions, self.mesh, runs)
        if self.functions is None:
            self.functions = program(self.trainer, placement.layout, self.mesh)
        return placement, self.functions

    def train(
        self,
        runs: range,
        states: States | None,
        progress: Progress,
        interruptible: Interruptible,
        log: Log | None,
    ) -> Part:
        """Train these runs of each condition to the end, from their stored state if there is one.

        Args:
            runs: numbers of runs, in a row.
            states: where the runs in training are stored; None to store nothing.
            progress: receives the progress.
            interruptible: entered, or not, where another process answers signals.
            log: of the experiment tracker.
        """
        task, conditions, each = self.task, self.conditions, len(runs)
        count = len(conditions) * each
        progress.group(self.label, count)
        progress.phase("compiling")
        placement, functions = self._placed(runs)

        def compiled(name: str, placement: Placement, *arguments: Any) -> Callable:
            if (name, placement.width) not in self.compiled:
                lowered = getattr(functions, name).lower(*arguments)  # traced here: JAX's settings belong to threads
                self.compiled[name, placement.width] = interruptible.wait(lowered.compile)
            return self.compiled[name, placement.width]

        def computed(name: str, placement: Placement, *arguments: Any) -> Any:
            function = compiled(name, placement, *arguments)
            return interruptible.wait(lambda: jax.block_until_ready(function(*arguments)), training=name == "segment")

        state: TrainState = computed("begin", placement, placement.runs)
        # All runs on the host, as they were when they were last in training; those that still are lie on the devices.
        whole: TrainState = jax.tree.map(lambda leaf: np.array(leaf)[:count], state)
        errors: list[np.ndarray] = []
        name = states.name(self.label, runs, task.runs) if states is not None else ""
        stored = _restored(states, name, task, whole) if states is not None else None
        if stored is not None:
            whole, errors, training = stored
            # The same runs side by side as before, those that have stopped among them: the last digits depend on it.
            placement = placement.of(training)
            state = placement.to_devices(whole)
        done = sum(map(len, errors))
        active = _active(task, whole)
        progress.advance(done)
        if log is not None:
            log(None, done)  # what was trained before the sweep was interrupted
        due = time.monotonic() + SAVE_EVERY
        reached = (placement, state, errors)  # one name, so that Ctrl-C never finds the one without the others
        try:
            while done < task.epochs and active.any():
                placement, state, errors = reached
                if placement.should_compact(active):
                    whole = placement.to_host(whole, state)
                    placement = placement.of(active)
                    state = placement.to_devices(whole)
                arguments = (state, placement.runs, jnp.int32(done))
                if ("segment", placement.width) not in self.compiled:
                    progress.phase("compiling")
                    compiled("segment", placement, *arguments)
                progress.phase("training")
                state, latest = computed("segment", placement, *arguments)
                latest, went_on = (np.asarray(x)[:, : task.epochs - done] for x in latest)
                latest = placement.spread(latest, went_on, errors, count)
                reached = (placement, state, [*errors, latest])
                done += len(latest)
                active = placement.to_host(np.zeros(count, bool), _active(task, state))
                diverged = placement.to_host(whole.diverged, state.diverged)
                progress.advance(len(latest), int(diverged.sum()))
                progress.spare(int((task.epochs - done) * (1 - active.mean())))
                if log is not None:
                    log(_metrics(task, conditions, latest[-1], diverged, active), len(latest))
                interruptible.check()
                if states is not None and time.monotonic() > due:
                    began = time.monotonic()
                    _save(states, name, whole, *reached)
                    ended = time.monotonic()
                    due = ended + max(SAVE_EVERY, (ended - began) / SAVE_SHARE)
            progress.phase("evaluating")
            progress.advance(task.epochs - done)  # what early stopping has spared
            placement, state, errors = reached
            whole = placement.to_host(whole, state)
            every_run = placement.of(np.ones(count, bool))
            arguments = (every_run.to_devices(whole), every_run.runs)
            if task.restore_best:
                arguments = (computed("restore", every_run, *arguments), every_run.runs)
                whole = every_run.to_host(whole, arguments[0])
            if task.kept_outputs is None:
                final, diverged, outputs, last = _first(count, computed("finish", every_run, *arguments))
                kept = np.tile(np.arange(runs.start, runs.stop), (len(conditions), 1))
            else:
                final, diverged, last = _first(count, computed("errors", every_run, *arguments))
                lowest = lowest_errors(final.reshape(len(conditions), each), task.kept_outputs)
                kept = lowest + runs.start
                chosen = np.zeros((len(conditions), each), bool)
                np.put_along_axis(chosen, lowest, True, 1)
                some = placement.of(chosen.reshape(-1))
                arguments = (some.to_devices(whole), some.runs)
                _, _, outputs, _ = _first(kept.size, computed("finish", some, *arguments))
        except BaseException:  # Ctrl-C, a full disk, nobody who reads the progress any more, an error in a callback
            if reached[-1] and states is not None:
                _save(states, name, whole, *reached)
            raise
        every = task.curve_every
        if not task.curve_ends_with_error:
            last = np.where(diverged.reshape(-1, *[1] * (last.ndim - 1)), np.nan, errors[-1][-1])
        curve = np.concatenate([np.concatenate(errors)[::every], last[None]])
        results, latest = {}, {}
        for position, condition in enumerate(conditions):
            own = slice(position * each, (position + 1) * each)
            outputs_of = slice(position * kept.shape[1], (position + 1) * kept.shape[1])
            best = position * each + int(np.argmin(np.where(diverged[own], np.inf, final[own])))
            results[condition] = ConditionResult(
                error=final[own],
                epochs=np.asarray(whole.epoch)[own],
                diverged=diverged[own],
                curve=curve[:, own],
                curve_epochs=np.append(np.arange(0, done, every), done),
                kept=kept[position],
                outputs=jax.tree.map(lambda x, own=outputs_of: x[own], outputs),
                num_parameters=np.asarray(task.num_parameters(condition, self.trainer.abstract.params)),
                data=task.record(condition),
                best=named(jax.tree.map(lambda leaf, i=best: leaf[i], whole.params)),
                state=named(jax.tree.map(lambda leaf, i=best: leaf[i], whole.rest)),
            )
            latest[condition] = errors[-1][-1][own]
        return Part(runs, results, latest)


def _metrics(
    task: Task, conditions: list[Condition], errors: np.ndarray, diverged: np.ndarray, active: np.ndarray
) -> dict[str, float]:
    """The metrics for `Callback.log` of the runs of all conditions; ``errors`` is ``(R, ...)``."""
    watched = watched_errors(task, errors).reshape(len(conditions), -1)
    found: dict[str, float] = {}
    for condition, error, lost, left in zip(
        conditions,
        watched,
        diverged.reshape(len(conditions), -1),
        active.reshape(len(conditions), -1),
        strict=True,
    ):
        median = float(np.median(error[~lost])) if not lost.all() else float("nan")
        found |= {
            f"{condition.name}/error": median,
            f"{condition.name}/diverged": int(lost.sum()),
            f"{condition.name}/training": int(left.sum()),
        }
    return found


def _first(count: int, tree: Any) -> Any:
    """The first runs of results, on the host; the others fill up the devices."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], tree)


def _active(task: Task, state: TrainState) -> np.ndarray:
    """Which runs are still to be trained."""
    diverged, stopped, epoch = (np.asarray(x) for x in (state.diverged, state.stopped, state.epoch))
    return ~diverged & ~stopped & (epoch < task.epochs)


def _save(
    states: States, name: str, whole: TrainState, placement: Placement, state: TrainState, errors: list[np.ndarray]
) -> None:
    leaves = {f"state{i}": leaf for i, leaf in enumerate(jax.tree.leaves(placement.to_host(whole, state)))}
    training = np.isin(np.arange(len(whole.epoch)), placement.numbers)
    states.save(name, {**leaves, "errors": np.concatenate(errors), "training": training})


def _restored(
    states: States, name: str, task: Task, begun: TrainState
) -> tuple[TrainState, list[np.ndarray], np.ndarray] | None:
    """What `_save` stored: all runs, their errors, and which were in training; None if that is not there or damaged."""
    stored = states.load(name)
    if stored is None:
        return None
    leaves, tree = jax.tree.flatten(begun)
    axes = [(leaf.dtype.kind.replace("V", "f"), " ".join(["R", *map(str, leaf.shape[1:])])) for leaf in leaves]
    wanted = {f"state{i}": form for i, form in enumerate(axes)}
    wrong = mismatch(stored, {**wanted, "errors": ("f", "E R ..."), "training": ("b", "R")}, {"R": len(begun.epoch)})
    if not wrong and not (0 < len(stored["errors"]) <= task.epochs and stored["training"].any()):
        wrong = "it holds no epoch or no run"
    if wrong:
        warnings.warn(f"{states.path(name)} is not of this sweep ({wrong}) and counts as not there", stacklevel=5)
        return None
    state = [stored[name].astype(leaf.dtype) for name, leaf in zip(wanted, leaves, strict=True)]
    return jax.tree.unflatten(tree, state), [stored["errors"]], stored["training"]

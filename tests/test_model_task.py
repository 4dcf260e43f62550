"""Any model in a sweep: all of its state is kept, and every run is what a plain loop over seeds computes."""

import functools
import signal
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from models import BATCH, EPOCHS, RATES, RUNS, apply, examples, init, pure_error, pure_square, square, task_of

from clockwork.training import (
    Condition,
    Loss,
    ModelTask,
    Progress,
    Results,
    Task,
    TensorBoard,
    grid,
    open_results,
    sweep,
)
from clockwork.training.train_state import Trainer


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it():
    """optax and stock Flax layers leave promotion to JAX."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A function of the kind of model: its folder and results."""

    @functools.cache
    def found(kind):
        folder = tmp_path_factory.mktemp(kind)
        return folder, sweep(task_of(kind), folder)

    return found


def plain_loop(kind, rate, run):
    """What a user would write: one seed, one rate, a Python loop. The losses of each epoch, and the model."""
    x, y = examples()
    key = jax.random.fold_in(jax.random.key(0), run)
    task = task_of(kind)
    optimizer = optax.adam(rate)
    if kind == "pure":
        params, graph, rest = init(key), None, ()
    else:
        model = task._networks["model"](nnx.Rngs(key))
        graph, params, rest = nnx.split(model, nnx.Param, ...)
    moments = optimizer.init(params)

    @jax.jit
    def update(params, moments, rest, batch, key):
        def loss(params):
            if graph is None:
                return pure_square(params, batch, 0.1, key), ()
            model = nnx.merge(graph, params, rest, copy=True)
            model.train()
            value = square(model, batch)
            return value, nnx.split(model, nnx.Param, ...)[2]

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, rest, value

    losses = []
    for epoch in range(EPOCHS):
        order = jax.random.fold_in(jax.random.fold_in(key, 0x6F726472), epoch)
        training = jax.random.fold_in(jax.random.fold_in(key, 0x7472616E), epoch)
        batches = jax.random.permutation(order, jnp.arange(len(y), dtype=jnp.int32)).reshape(-1, BATCH)
        values = []
        for step, batch in enumerate(batches):
            step_key = jax.random.fold_in(training, step)
            params, moments, rest, value = update(params, moments, rest, (x[batch], y[batch]), step_key)
            values.append(float(value))
        losses.append(np.mean(values))
    return losses, params, rest


@pytest.mark.parametrize("kind", ["nnx", "linen", "pure"])
def test_a_sweep_is_a_plain_loop_over_seeds(kind, swept):
    _, results = swept(kind)
    assert [dict(condition.hyperparameters)["learning_rate"] for condition in results.conditions] == list(RATES)
    for condition, run in zip(list(results.conditions)[:2], (2, 0), strict=True):
        losses, _, _ = plain_loop(kind, condition.learning_rate, run)
        np.testing.assert_allclose(results.conditions[condition].curve[:EPOCHS, run], losses, rtol=1e-5)


@pytest.mark.parametrize("kind", ["nnx", "linen", "pure"])
def test_the_best_model_comes_back_with_all_of_its_state(kind, swept):
    folder, results = swept(kind)
    condition, result = max(results.conditions.items(), key=lambda item: item[0].learning_rate)
    best = int(np.argmin(result.error))
    _, params, rest = plain_loop(kind, condition.learning_rate, best)
    model = results.trained(condition)
    if kind == "pure":
        chex.assert_trees_all_close(model, params, rtol=1e-4, atol=1e-5)
        error = pure_error(model, examples())
    else:
        _, own, state = nnx.split(model, nnx.Param, ...)
        chex.assert_trees_all_close(nnx.to_pure_dict(own), nnx.to_pure_dict(nnx.State(params)), rtol=1e-3, atol=1e-4)
        moved = [leaf for leaf in jax.tree.leaves(rest) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        kept = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        assert moved
        chex.assert_trees_all_close(kept, moved, rtol=1e-3, atol=1e-4)
        error = square(model, examples())
    np.testing.assert_allclose(error, result.error[best], rtol=1e-5)
    chex.assert_trees_all_equal(open_results(folder).conditions[condition]._asdict(), result._asdict())


class Interrupting(Progress):
    """Interrupts a sweep after so many of its compiled calls."""

    def __init__(self, calls):
        self.left = calls

    def advance(self, epochs, diverged=0):
        self.left -= epochs > 0
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["nnx", "linen", "pure"])
def test_an_interrupted_sweep_goes_on_with_the_same_numbers(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("clockwork.training.program.SEGMENT", 4)  # an epoch or two in a compiled call
    task = task_of(kind)
    whole = sweep(task, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep(task, tmp_path / "cut", progress=Interrupting(2))
    assert list((tmp_path / "cut" / "partial").iterdir())
    again = sweep(task, tmp_path / "cut")
    for condition, result in whole.conditions.items():
        chex.assert_trees_all_equal(again.conditions[condition]._asdict(), result._asdict())


def test_results_are_rows_frames_and_datasets(swept):
    folder, results = swept("pure")
    columns = ["task", "network", "parameters", "run", "seed", "learning_rate", "noise", "epochs", "error", "diverged"]
    assert results.columns == columns
    lines = (folder / "runs.csv").read_text().splitlines()
    assert lines[0] == ",".join(columns)
    assert len(lines) == 1 + len(RATES) * RUNS
    assert lines[1].startswith("model,model,65,0,0,0.001,0.1,4,")
    pandas = pytest.importorskip("pandas")
    frame = results.to_dataframe()
    assert list(frame.columns) == columns
    assert frame.groupby("learning_rate")["error"].count().to_dict() == dict.fromkeys(RATES, RUNS)
    pandas.testing.assert_frame_equal(pandas.read_parquet(folder / "runs.parquet"), frame)
    pytest.importorskip("xarray")
    data = results.to_xarray()
    assert dict(data.sizes) == {"condition": len(RATES), "run": RUNS, "epoch": EPOCHS + 1}
    np.testing.assert_array_equal(data["learning_rate"], np.asarray(RATES))
    best = int(data["error"].mean("run").argmin("condition"))
    assert data["error"][best].values.tolist() == list(results.conditions.values())[best].error.tolist()


def test_several_networks_and_no_hyperparameters(tmp_path):
    task = ModelTask(
        init={"one": init, "two": lambda key: jax.tree.map(lambda x: x / 2, init(key))},
        loss=pure_error,
        data=examples(),
        optimizer=optax.sgd(0.01),
        runs=2,
        epochs=2,
    )
    results = sweep(task, tmp_path)
    assert [condition.name for condition in results.conditions] == ["one", "two"]
    assert "learning_rate" not in results.columns


def test_a_model_takes_hyperparameters_of_its_own(tmp_path):
    def scaled(key, scale):
        return jax.tree.map(lambda x: scale * x, init(key))

    task = ModelTask(
        init=scaled,
        loss=pure_error,
        data=examples(),
        optimizer=lambda learning_rate, clip: optax.chain(optax.clip_by_global_norm(clip), optax.sgd(learning_rate)),
        search=grid(scale=(0.5, 2.0), clip=(1e-3,), learning_rate=(0.1,)),
        runs=2,
        epochs=1,
    )
    results = sweep(task, tmp_path)
    assert [condition.name for condition in results.conditions] == [
        f"model-scale={scale}-clip=0.001-learning_rate=0.1" for scale in (0.5, 2.0)
    ]
    for condition, result in results.conditions.items():
        scale = dict(condition.hyperparameters)["scale"]
        best = int(np.argmin(result.error))
        start = scaled(jax.random.fold_in(jax.random.key(0), best), scale)
        moved = optax.tree.norm(optax.tree.sub(results.trained(condition), start))
        np.testing.assert_allclose(moved, 0.1 * 1e-3, rtol=1e-2)  # clipped


def test_the_optimiser_is_told_the_loss(tmp_path):
    # A plateau of the loss, which never falls by the half, lowers the rate to zero: nothing moves from then on.
    frozen = optax.contrib.reduce_on_plateau(factor=1e-6, patience=1, rtol=0.5)
    task = ModelTask(
        init=init,
        loss=pure_error,
        data=examples(),
        optimizer=lambda learning_rate: optax.chain(optax.sgd(learning_rate), frozen),
        search=grid(learning_rate=(1e-5,)),
        runs=2,
        epochs=20,
    )
    (result,) = sweep(task, tmp_path).conditions.values()
    assert (np.diff(result.curve[-10:], axis=0) == 0).all()
    assert (np.diff(result.curve[:2], axis=0) != 0).all()


def test_a_state_goes_from_one_update_to_the_next(tmp_path):
    # A sequence cut into pieces: the hidden state of a piece is where the next one begins.
    x = np.sin(np.arange(24, dtype=np.float32)).reshape(6, 4)

    def piecewise(params, batch, carry):
        def step(h, x):
            h = jnp.tanh(params["w"] * h + x)
            return h, h

        last, outputs = jax.lax.scan(step, carry, batch[0])
        return jnp.square(outputs).mean(), last

    task = ModelTask(
        init=lambda key: {"w": jax.random.normal(key)},
        loss=piecewise,
        error=lambda params, data: piecewise(params, data, jnp.float32(0))[0],
        data=x,
        optimizer=optax.sgd(0.0),
        begin_carry=lambda: jnp.float32(0),
        batch_size=1,
        shuffle=False,
        runs=2,
        epochs=2,
    )
    (result,) = sweep(task, tmp_path).conditions.values()
    for run in range(2):
        w = {"w": jax.random.normal(jax.random.fold_in(jax.random.key(0), run))}
        carry, means = jnp.float32(0), []
        for _ in range(2):
            losses = []
            for piece in x:
                loss, carry = piecewise(w, piece[None], carry)
                losses.append(loss)
            means.append(np.mean(losses))
        np.testing.assert_allclose(result.curve[:2, run], means, rtol=1e-5)


def test_runs_stop_where_the_validation_error_no_longer_falls(tmp_path):
    x, y = examples()
    task = task_of("pure", data=(x[:8], y[:8]), validation=(x[8:16], y[8:16]), test=(x[16:], y[16:]), patience=2)
    task.epochs = 60
    results = sweep(task, tmp_path)
    stopped = np.concatenate([result.epochs for result in results.conditions.values()])
    assert (stopped < 60).any()
    for result in results.conditions.values():
        for run in np.flatnonzero(result.epochs < 60):
            errors = result.curve[: result.epochs[run] + 1, run]
            assert errors.argmin() == result.epochs[run] - 2  # two epochs without improvement, then no more


def test_outputs_of_the_best_runs_are_kept(tmp_path):
    task = task_of("pure", outputs=lambda params, data: {"prediction": apply(params, data[0])}, kept_outputs=2)
    results = sweep(task, tmp_path)
    for condition, result in results.conditions.items():
        assert result.kept.tolist() == sorted(np.argsort(result.error)[:2].tolist())
        assert set(result.outputs) == {"prediction"}
        best = result.kept.tolist().index(int(np.argmin(result.error)))
        wanted = apply(results.trained(condition), examples()[0])
        np.testing.assert_allclose(result.outputs["prediction"][best], wanted, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(
        [r._asdict() for r in open_results(tmp_path).conditions.values()],
        [r._asdict() for r in results.conditions.values()],
    )


def test_data_are_arguments_of_the_program_and_not_constants():
    from clockwork.training.placement import Placement
    from clockwork.training.program import program
    from clockwork.training.train_state import Trainer

    task = task_of("pure", data=examples(count=4096))
    conditions = task.conditions()
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("runs",))
    trainer, placement = Trainer(task, conditions[0]), Placement(task, conditions, mesh)
    functions = program(trainer, placement.layout, mesh)
    state = jax.eval_shape(functions.begin, placement.runs)
    traced = functions.segment.trace(state, placement.runs, jnp.int32(0))
    constants = sum(np.size(constant) for constant in traced.jaxpr.consts)
    assert constants < 100


def test_the_tracker_is_told_what_happens(tmp_path):
    class Tracker:
        def __init__(self):
            self.said = []

        def init(self, *, config):
            self.said.append(("init", config["runs"]))

        def log(self, metrics, *, step):
            self.said.append((step, metrics))

        def finish(self):
            self.said.append(("finish",))

    tracker = Tracker()
    results = sweep(task_of("pure"), tmp_path, callback=tracker)
    assert tracker.said[0] == ("init", RUNS)
    assert tracker.said[-1] == ("finish",)
    step, metrics = tracker.said[-2]
    assert step == EPOCHS
    names = [condition.name for condition in results.conditions]
    assert set(metrics) == {f"{name}/{what}" for name in names for what in ("error", "diverged", "training")}
    first = results.conditions[next(iter(results.conditions))]
    assert metrics[f"{names[0]}/error"] == pytest.approx(float(np.median(first.curve[EPOCHS - 1])))


def test_an_error_in_a_tracker_loses_nothing(tmp_path):
    class Broken:
        def init(self, *, config):
            pass

        def log(self, metrics, *, step):
            raise ConnectionError("no network")

        def finish(self):
            pass

    with pytest.raises(ConnectionError):
        sweep(task_of("pure"), tmp_path, callback=Broken())
    assert list((tmp_path / "partial").iterdir())


def test_tensorboard_writers_fit(tmp_path):
    class Writer:
        def __init__(self):
            self.said, self.closed = [], False

        def add_scalar(self, tag, value, step):
            self.said.append((tag, step))

        def close(self):
            self.closed = True

    writer = Writer()
    sweep(task_of("pure"), tmp_path, callback=TensorBoard(writer))
    assert len(writer.said) == 9
    assert writer.closed


OWN = """
import sys
import jax, jax.numpy as jnp
from clockwork.training import ModelTask, grid, sweep

x = jnp.linspace(-1, 1, 64)
task = ModelTask(
    init=lambda key: {"w": jax.random.normal(key, (6,))},
    loss=lambda params, batch: jnp.square(jnp.polyval(params["w"], batch) - jnp.sin(batch)).mean(),
    data=x, search=grid(learning_rate=(1e-3, 1e-2)), batch_size=1, runs=4, epochs=400,
)
sys.modules["clockwork.training.group"].SAVE_EVERY = 0.0
sweep(task, sys.argv[1])
"""


def test_a_killed_sweep_of_ones_own_model_goes_on(tmp_path):
    program, partial = tmp_path / "own.py", tmp_path / "cut" / "partial"
    program.write_text(OWN)
    killed = subprocess.Popen([sys.executable, program, "cut"], cwd=tmp_path)
    while killed.poll() is None and not list(partial.glob("*.npz")):
        time.sleep(0.02)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    for folder in ("cut", "whole"):
        subprocess.run([sys.executable, program, folder], cwd=tmp_path, check=True)
    assert (tmp_path / "cut" / "runs.csv").read_text() == (tmp_path / "whole" / "runs.csv").read_text()
    assert not list(partial.iterdir())


def test_curves_of_stopped_runs_do_not_depend_on_the_others(tmp_path):
    curves = []
    for runs in (2, 20):
        task = task_of("pure", data=examples(), patience=1, runs=runs, search=grid(learning_rate=0.3, noise=1.0))
        task.epochs = 40
        (result,) = sweep(task, tmp_path / str(runs)).conditions.values()
        curves.append((result.curve_epochs, result.curve[:, :2], result.epochs[:2]))
    (few, short, stopped), (many, long, same) = curves
    np.testing.assert_array_equal(stopped, same)
    assert stopped.max() < 40
    length = min(len(few), len(many)) - 1
    np.testing.assert_allclose(short[:length], long[:length], rtol=1e-4)
    for run, epoch in enumerate(stopped):
        assert (long[epoch:, run] == long[epoch, run]).all()


def test_one_error_that_is_no_number_does_not_end_early_stopping():
    class Counting(Task):
        patience, epochs = 3, 99

        def data(self, condition):
            return np.asarray([5, np.nan, 4, 3, 2, 9, 9, 9, 9], np.float32)

        def model(self, name, size, rngs, hyperparameters):
            return {"at": jnp.zeros(())}

        def optimizer(self, hyperparameters):
            return optax.sgd(1.0)

        def loss(self, model, data, step):
            return Loss(-model["at"])  # one more at every update

        def watch(self, model, data):
            return data[jnp.int32(model["at"])]

    trainer = Trainer(Counting(), Condition("a", 0, "", ()))
    data = trainer.task.data(Condition("a", 0, "", ()))
    state = trainer.begin(jax.random.key(0), {}, data)
    epochs = []
    for number in range(9):
        state, (_, active) = trainer.epoch(state, jax.random.key(0), {}, data, number)
        epochs.append(bool(active))
    assert float(state.lowest) == 2
    assert int(state.epoch) == 7  # 5, nan, 4, 3, 2 and two that are no better; the third stops it
    assert epochs == [True] * 8 + [False]


def test_outputs_and_errors_are_those_of_a_model_that_does_not_train(tmp_path):
    options = {"search": grid(learning_rate=1e-2), "runs": 2}
    with_outputs = task_of("nnx", outputs=lambda model, data: model(data[0]), **options)
    (result,) = (results := sweep(with_outputs, tmp_path / "with")).conditions.values()
    (without,) = sweep(task_of("nnx", **options), tmp_path / "without").conditions.values()
    np.testing.assert_array_equal(result.error, without.error)
    model = results.trained(next(iter(results.conditions)))
    np.testing.assert_allclose(result.outputs[0], model(examples()[0]), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_stored_is_refused_before_the_training(tmp_path):
    for error, outputs, message in (
        (lambda params, data: pure_error(params, data)[None], None, "must be one number, got an array of shape"),
        (pure_error, lambda params, data: {"a": {"b": params["out"]}}, "an array, or arrays by name, got"),
        (pure_error, lambda params, data: (params["out"],), "an array, or arrays by name, got"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(task_of("pure", error=error, outputs=outputs), tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_single_array_of_any_precision_is_a_model(tmp_path, dtype):
    task = ModelTask(
        init=lambda key: jax.random.normal(key, (2,), dtype),
        loss=lambda w, batch: jnp.square(batch[0].mean(1).astype(dtype) @ w - batch[1].astype(dtype)).mean(),
        data=examples(),
        search=grid(learning_rate=0.1),
        runs=2,
        epochs=2,
    )
    results = sweep(task, tmp_path)
    again = Results(task, open_results(tmp_path).conditions)
    (condition,) = results.conditions
    chex.assert_trees_all_equal(again.trained(condition), results.trained(condition))
    assert again.trained(condition).dtype == dtype


def test_a_class_of_ones_own_is_a_task(tmp_path):
    results = sweep(Quadratic(), tmp_path)
    assert [condition.name for condition in results.conditions] == ["point-0.1"]
    np.testing.assert_allclose(next(iter(results.conditions.values())).error, 0, atol=1e-3)
    assert list(open_results(tmp_path).conditions) == list(results.conditions)


class Quadratic(Task):
    """The least that a task is."""

    name, runs, epochs = "quadratic", 2, 50

    def conditions(self):
        from clockwork.training import Condition

        return [Condition("point", 0, "", (("learning_rate", 0.1),))]

    def settings(self):
        return {"runs": self.runs}

    @classmethod
    def from_settings(cls, settings):
        return cls()

    def data(self, condition):
        return np.zeros(3, np.float32)

    def model(self, name, size, rngs, hyperparameters):
        return {"at": jax.random.normal(rngs.params(), (3,))}

    def optimizer(self, hyperparameters):
        return optax.sgd(hyperparameters["learning_rate"])

    def loss(self, model, data, step):
        return Loss(jnp.square(model["at"] - data).sum(), jnp.square(model["at"] - data).sum())

    def result(self, model, data):
        return jnp.square(model["at"] - data).sum(), model["at"]

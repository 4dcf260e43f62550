"""Training: what a run is, that a sweep is its runs, and that no accident changes a figure."""

import dataclasses
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from clockwork.cli import main
from clockwork.report import write_report
from clockwork.tasks import Generation
from clockwork.training import Step, Store, open_results, sweep
from clockwork.training.arrays import read_arrays, write_arrays
from clockwork.training.progress import Progress
from clockwork.training.train_state import Trainer

SMALL = Generation(runs=3, sizes=(100,), clips=("choir", "tabla"), epochs=12)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, sweep(SMALL, folder)


def test_a_sweep_is_its_runs_one_by_one(finished):
    # Each run again, on its own, as a researcher would write it: key, network, optax, a Python loop.
    _, results = finished
    for condition in (SMALL.conditions()[1], SMALL.conditions()[4]):
        target = SMALL.data(condition)
        network = SMALL.network(
            condition.network, condition.size, nnx.Rngs(params=jax.random.fold_in(jax.random.key(0), 2))
        )
        optimizer = nnx.Optimizer(network, SMALL.training.optimizer(condition.learning_rate), wrt=nnx.Param)

        @nnx.jit
        def update(network, optimizer, target=target):
            def loss(network):
                return 0.5 * jnp.square(network(steps=320)[:, 0] - target).sum()

            optimizer.update(network, nnx.grad(loss)(network))

        for _ in range(12):
            update(network, optimizer)
        outputs = network(steps=320)[:, 0]
        error = jnp.square(outputs - target).mean() / target.var()
        np.testing.assert_allclose(results.conditions[condition].error[2], error, rtol=1e-3)
        np.testing.assert_allclose(results.conditions[condition].outputs[2], outputs, atol=1e-3)


def test_runs_differ_and_curves_fall(finished):
    _, results = finished
    assert list(results.conditions) == SMALL.conditions()
    for condition, result in results.conditions.items():
        assert len(set(result.error.tolist())) == SMALL.runs
        assert (result.epochs == 12).all()
        assert not result.diverged.any()
        np.testing.assert_array_equal(result.curve_epochs, [0, 10, 12])
        np.testing.assert_array_equal(result.curve[-1], result.error)
        assert np.median(result.curve[-1]) < np.median(result.curve[0])
        np.testing.assert_array_equal(result.data["target"], SMALL.data(condition))


def test_runs_csv_has_a_row_for_each_network(finished):
    folder, results = finished
    lines = (folder / "runs.csv").read_text().splitlines()
    assert lines[0] == "task,network,size,parameters,clip,run,seed,learning_rate,epochs,nmse,diverged"
    assert len(lines) == 1 + 3 * 2 * 3
    task, network, size, parameters, clip, run, seed, rate, epochs, nmse, diverged = lines[-1].split(",")
    assert (task, network, size, parameters, clip) == ("generation", "cwrnn", "100", "100", "tabla")
    assert (run, seed, rate, epochs, diverged) == ("2", "0", "0.0003", "12", "0")
    assert float(nmse) == pytest.approx(float(results.conditions[SMALL.conditions()[-1]].error[2]), rel=1e-6)


def test_a_run_does_not_depend_on_how_many_there_are(finished, tmp_path):
    _, results = finished
    more = sweep(dataclasses.replace(SMALL, runs=5, networks=("cwrnn",)), tmp_path)
    for condition, result in more.conditions.items():
        np.testing.assert_allclose(result.error[:3], results.conditions[condition].error, rtol=1e-3)


def test_a_run_does_not_depend_on_the_devices(finished, tmp_path):
    _, results = finished
    assert len(jax.devices()) == 2
    alone = sweep(dataclasses.replace(SMALL, networks=("cwrnn",)), tmp_path, devices=jax.devices()[:1])
    for condition, result in alone.conditions.items():
        np.testing.assert_allclose(result.error, results.conditions[condition].error, rtol=1e-3)


def test_what_is_stored_is_not_trained_again(finished):
    folder, results = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "conditions").iterdir()}
    again = sweep(SMALL, folder)
    assert {path: path.stat().st_mtime_ns for path in (folder / "conditions").iterdir()} == before
    jax.tree.map(np.testing.assert_array_equal, list(again.conditions.values()), list(results.conditions.values()))


def test_a_damaged_condition_is_named_and_trained_again_alone(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    wanted = (copy / "runs.csv").read_text()
    cut, flipped, kept = (copy / "conditions" / f"{condition.name}.npz" for condition in SMALL.conditions()[:3])
    cut.write_bytes(cut.read_bytes()[:-300])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    stamp = kept.stat().st_mtime_ns
    with pytest.warns(UserWarning, match="is damaged .* and counts as not there") as named:
        sweep(SMALL, copy)
    assert {str(cut), str(flipped)} <= {str(w.message).split(" is ")[0] for w in named}
    assert (copy / "runs.csv").read_text() == wanted
    assert kept.stat().st_mtime_ns == stamp


class Interrupt(Progress):
    """Ctrl-C after so many segments."""

    def __init__(self, after):
        self.left = after

    def advance(self, epochs, diverged=0):
        if epochs:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt


def test_an_interrupted_sweep_goes_on_to_the_same_numbers(tmp_path):
    task = dataclasses.replace(SMALL, networks=("cwrnn", "srn"), epochs=170)
    sweep(task, tmp_path / "whole")
    for after in (0, 1, 5):
        with pytest.raises(KeyboardInterrupt):
            sweep(task, tmp_path / "cut", progress=Interrupt(after))
    assert list((tmp_path / "cut" / "partial").iterdir())
    sweep(task, tmp_path / "cut")
    assert (tmp_path / "cut" / "runs.csv").read_text() == (tmp_path / "whole" / "runs.csv").read_text()
    assert not list((tmp_path / "cut" / "partial").iterdir())


def test_a_damaged_partial_result_is_named_and_begun_again(tmp_path):
    task = dataclasses.replace(SMALL, networks=("cwrnn",), epochs=120)
    with pytest.raises(KeyboardInterrupt):
        sweep(task, tmp_path, progress=Interrupt(1))
    (partial,) = (tmp_path / "partial").iterdir()
    partial.write_bytes(b"no archive")
    with pytest.warns(UserWarning, match=r"cwrnn-100\.npz is damaged"):
        results = sweep(task, tmp_path)
    assert len(results.conditions) == 2


# The command line, but with runs in training stored after every segment.
EAGER = """
import importlib, sys
importlib.import_module("clockwork.training.group").SAVE_EVERY = 0
from clockwork.cli import main
sys.exit(main(sys.argv[1:]))
"""
LONG = [
    "generation",
    "--runs",
    "2",
    "--networks",
    "cwrnn",
    "srn",
    "--sizes",
    "100",
    "--clips",
    "choir",
    "--epochs",
    "9000",
    "--out",
]


def start(folder):
    command = [sys.executable, "-c", EAGER, *LONG, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "out"
    process = start(folder)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return (folder / "runs.csv").read_text()


def wait_for(folder, pattern, process):
    while not list(folder.glob(pattern)) and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.slow
def test_a_sweep_killed_at_five_random_moments_goes_on_to_the_same_numbers(tmp_path, left_alone):
    moments = [("*", 0.0), ("partial", 0.0)]  # as soon as its folder is there, and as soon as that is laid out
    rng = np.random.default_rng()
    moments += [("partial/*-100.npz", rng.uniform(0, 1.5)) for _ in range(3)]  # and some time into training
    folder, partials = tmp_path / "out", 0
    for pattern, delay in moments:
        process = start(folder)
        wait_for(folder, pattern, process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        partials += len(list(folder.glob("partial/*-100.npz")))
    assert partials
    process = start(folder)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert (folder / "runs.csv").read_text() == left_alone


@pytest.mark.parametrize(
    ("ask", "status"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGINT, 130)]
)
def test_a_stopped_sweep_says_how_to_go_on(tmp_path, left_alone, ask, status):
    folder = tmp_path / "my results"
    process = start(folder)
    wait_for(folder, "partial/*-100.npz", process)
    process.send_signal(ask)
    _, said = process.communicate()
    assert process.returncode == status
    line = said.strip().splitlines()[-1]
    assert f"What is done is safe in {folder}; to go on: clockwork generation --runs 2" in line
    command = shlex.split(line.split("to go on: clockwork ")[1])
    assert main(command) == 0
    assert (folder / "runs.csv").read_text() == left_alone


def test_diverged_runs_are_frozen_flagged_and_counted(tmp_path):
    task = dataclasses.replace(
        SMALL, networks=("cwrnn",), protocol="paper", learning_rates=(3e-4, 1.0), epochs=60, clips=("choir",)
    )
    results = sweep(task, tmp_path)
    calm, wild = results.conditions.values()
    assert not calm.diverged.any()
    assert wild.diverged.all()
    assert np.isnan(wild.error).all()
    assert (wild.epochs < 60).all()
    alone = sweep(dataclasses.replace(task, learning_rates=(3e-4,)), tmp_path / "alone")
    np.testing.assert_allclose(calm.error, next(iter(alone.conditions.values())).error, rtol=1e-3)
    rows = [line.split(",") for line in (tmp_path / "runs.csv").read_text().splitlines()[4:]]
    assert [row[-2:] for row in rows] == [["nan", "1"]] * 3


def one_run(**changes):
    """How one run of an SRN trains, its first state, and all else that an epoch takes."""
    condition = next(c for c in SMALL.conditions() if c.network == "srn")
    trainer, data, rate = Trainer(SMALL, condition), SMALL.data(condition), {"learning_rate": jnp.float32(1e-3)}
    state = trainer.begin(jax.random.key(0), rate, data)._replace(**changes)
    return trainer, state, (jax.random.key(0), rate, data)


def test_a_diverged_run_keeps_the_parameters_it_had():
    trainer, state, arguments = one_run()
    broken = state._replace(params=jax.tree.map(lambda x: x.at[...].set(jnp.inf), state.params))
    after, (error, _) = trainer.epoch(broken, *arguments, 0)
    assert after.diverged
    assert after.epoch == 0
    assert not jnp.isfinite(error)
    chex.assert_trees_all_equal(after.params, broken.params)
    # and it stays frozen even if its loss were finite again
    later, _ = trainer.epoch(after._replace(params=state.params), *arguments, 1)
    chex.assert_trees_all_equal(later.params, state.params)


def test_a_run_whose_last_update_blows_up_has_diverged(tmp_path):
    task = Generation(runs=2, networks=("srn",), sizes=(100,), clips=("choir",), epochs=1, learning_rates=(1e38,))
    (result,) = sweep(dataclasses.replace(task, clip_norm=float("inf")), tmp_path / "out").conditions.values()
    assert result.diverged.all()
    assert np.isnan(result.error).all()
    write_report(open_results(tmp_path / "out"), tmp_path / "out")  # says so and draws no box
    assert "| none " in (tmp_path / "out" / "table.md").read_text()


def test_a_finished_run_no_longer_changes():
    trainer, state, arguments = one_run(epoch=jnp.asarray(SMALL.epochs, jnp.int32))
    after, _ = trainer.epoch(state, *arguments, 0)
    chex.assert_trees_all_equal(after, state)


def test_nesterov_is_sutskevers_at_the_look_ahead_point():
    # Sutskever et al. 2013: v' = mu v - lr grad(p + mu v), p' = p + v'. optax stores q = p + mu v.
    rate, momentum = 0.1, 0.95
    optimizer = Generation(protocol="paper").training.optimizer(rate)
    gradient = jax.grad(lambda q: 0.5 * (q[0] - 1) ** 2 + 0.1 * (q[1] + 2) ** 4)
    p, v, q = jnp.zeros(2), jnp.zeros(2), jnp.zeros(2)
    state = optimizer.init(q)
    for _ in range(20):
        v = momentum * v - rate * gradient(p + momentum * v)
        p = p + v
        updates, state = optimizer.update(gradient(q), state, q)
        q = optax.apply_updates(q, updates)
        np.testing.assert_allclose(np.asarray(q), np.asarray(p + momentum * v), rtol=1e-4)


def test_the_stable_protocol_clips_and_the_papers_does_not():
    gradient = {"w": jnp.full(4, 100.0)}
    for protocol, norm in (("stable", 30.0), ("paper", 200.0)):
        optimizer = Generation(protocol=protocol).training.optimizer(1.0)
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        assert float(optax.tree.norm(updates)) == pytest.approx(norm * 1.95, rel=1e-5)
    optimizer = Generation(clip_norm=float("inf")).training.optimizer(1.0)
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert float(optax.tree.norm(updates)) == pytest.approx(390, rel=1e-5)


def test_the_loss_is_half_the_sum_of_squares_and_the_error_its_normalised_mean():
    target = jnp.asarray([1.0, -1.0, 0.5])
    network = lambda inputs=None, *, steps=0: jnp.zeros((steps, 1))  # noqa: E731
    step = Step(None, jax.random.key(0), jnp.int32(0), {}, ())
    loss = Generation().loss(network, target, step)  # pyright: ignore[reportArgumentType]
    assert float(loss.value) == pytest.approx(0.5 * 2.25)
    assert float(loss.errors) == pytest.approx(2.25 / 3 / np.var([1, -1, 0.5]))


def test_another_configuration_is_refused_and_nothing_is_lost(finished):
    folder, results = finished
    with pytest.raises(ValueError, match=r"another configuration \(runs is 3 there, 4 here\)"):
        sweep(dataclasses.replace(SMALL, runs=4), folder)
    with pytest.raises(ValueError, match="another configuration"):
        Store(folder, dataclasses.replace(SMALL, seed=1))
    assert len(open_results(folder).conditions) == len(results.conditions)


def test_folders_that_are_something_else_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"is not empty and holds no config\.json"):
        sweep(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        sweep(SMALL, tmp_path)
    with pytest.raises(ValueError, match="holds no results"):
        open_results(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"runs": 0}, "runs must be an integer from 1 to 4294967296, got 0"),
        ({"epochs": 0}, "epochs must be an integer from 1 to 2147483647, got 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 4294967295, got -1"),
        ({"networks": ("gru",)}, "unknown network 'gru'; choose of srn, lstm, cwrnn, cwlstm"),
        ({"networks": ()}, "at least one network must be chosen"),
        ({"networks": ("srn", "srn")}, "each network can be chosen once, got srn, srn"),
        ({"sizes": (200,)}, "unknown size 200; choose of 100, 250, 500, 1000"),
        ({"clips": ("piano",)}, "unknown clip 'piano'; choose of guitar, choir, mika, safari, tabla or a number"),
        ({"clips": ("6",)}, "unknown clip '6'"),
        ({"clips": ("1", "guitar")}, "each clip can be chosen once"),
        ({"protocol": "wild"}, "unknown protocol 'wild'"),
        ({"learning_rates": (0.0,)}, "learning_rates must be finite and above 0, got 0"),
        ({"learning_rates": (float("nan"),)}, "got nan"),
        ({"clip_norm": -1.0}, "clip_norm must be finite and above 0, got -1"),
        ({"samples": 100}, "none is given"),
    ],
)
def test_impossible_tasks_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Generation(**arguments)


def test_settings_bring_the_task_back():
    task = Generation(runs=2, clips=("1", "tabla"), learning_rates=(1e-4, 3e-4))
    assert task.clips == ("guitar", "tabla")
    assert Generation.from_settings(task.settings()) == task


def test_numbers_of_numpy_read_like_pythons():
    rates, sizes = np.asarray([1e-4, 3e-4]), [np.int64(100)]
    task = Generation(runs=np.int64(2), sizes=sizes, learning_rates=rates, networks=["srn"])  # pyright: ignore
    assert task == Generation(runs=2, sizes=(100,), learning_rates=(1e-4, 3e-4), networks=("srn",))
    assert task.conditions()[0].name == "srn-100-guitar-0.0001"


def test_another_machine_is_told_of_and_recorded(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["environment"]["jax"] = "0.0.1"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"was begun with jax 0\.0\.1 \(now .*the last digits"):
        sweep(SMALL, copy)
    config = json.loads((copy / "config.json").read_text())
    assert config["environment"]["jax"] == "0.0.1"
    assert config["continued_in"][0]["jax"] == jax.__version__
    sweep(SMALL, copy)  # told once


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", np.arange(3).tobytes()])
def test_whatever_is_in_a_damaged_file_it_counts_as_not_there(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.warns(UserWarning, match=r"x\.npz is damaged"):
        assert read_arrays(tmp_path / "x.npz") is None


def test_no_flipped_bit_goes_unseen(tmp_path):
    path = tmp_path / "x.npz"
    write_arrays(path, {"a": np.arange(3)})
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = read_arrays(path)
        assert found is None or (found.keys() == {"a"} and (found["a"] == np.arange(3)).all())
        assert (found is None) == bool(told)

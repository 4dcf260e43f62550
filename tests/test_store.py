"""Stored results: whatever is in the files, right ones are read, and wrong ones named."""

import dataclasses
import itertools
import json
import os
import re
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clockwork.report import write_report
from clockwork.tasks import Generation
from clockwork.training import ConditionResult, Store, open_results, sweep
from clockwork.training.arrays import read_arrays, write_arrays
from clockwork.training.config import place_of
from clockwork.training.group import _restored
from clockwork.training.model import named
from clockwork.training.train_state import Trainer

TASK = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir", "tabla"), epochs=12)
R, T = 2, 320


def result(task, condition):
    """A made-up result of the right shapes."""
    network = task.network(condition.network, condition.size, nnx.Rngs(0))
    return ConditionResult(
        error=np.array([0.5, np.nan], np.float32),
        epochs=np.array([12, 3], np.int32),
        diverged=np.array([False, True]),
        curve=np.linspace(1, 0.5, 3 * R, dtype=np.float32).reshape(3, R),
        curve_epochs=np.array([0, 10, 12]),
        kept=np.arange(R),
        outputs=np.zeros((R, T), np.float32),
        num_parameters=np.asarray(100),
        data=task.record(condition),
        best=named(nnx.state(network, nnx.Param)),
        state={},
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    store = Store(folder, TASK)
    for condition in TASK.conditions():
        store.save(condition, result(TASK, condition))
    return folder


@pytest.fixture
def copy(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "copy")


def path_of(folder, condition):
    return folder / "conditions" / f"{condition.name}.npz"


def test_what_is_stored_is_read(stored):
    assert list(open_results(stored).conditions) == list(Store(stored, TASK).results().conditions) == TASK.conditions()


def test_a_cell_under_anothers_name_counts_as_damaged(copy):
    first, second = TASK.conditions()
    shutil.copy(path_of(copy, first), path_of(copy, second))
    with pytest.warns(UserWarning, match=f"{second.name}.npz is damaged .*digest"):
        assert list(open_results(copy).conditions) == [first]


def test_a_cell_of_a_sweep_with_another_seed_counts_as_damaged(copy, tmp_path):
    other = dataclasses.replace(TASK, seed=1)
    store, condition = Store(tmp_path / "other", other), TASK.conditions()[0]
    store.save(condition, result(other, condition))
    shutil.copy(path_of(store.folder, condition), path_of(copy, condition))
    with pytest.warns(UserWarning, match=f"{condition.name}.npz is damaged"):
        assert list(open_results(copy).conditions) == TASK.conditions()[1:]


def test_runs_in_training_are_bound_to_their_name_and_settings(tmp_path):
    arrays = {"errors": np.zeros((1, 2), np.float32)}
    here, there = Store(tmp_path / "here", TASK), Store(tmp_path / "there", dataclasses.replace(TASK, epochs=13))
    here.states.save("cwrnn-100", arrays)
    assert here.states.load("cwrnn-100") is not None
    for store, name in ((here, "srn-100"), (there, "cwrnn-100")):
        shutil.copy(here.states.path("cwrnn-100"), store.states.path(name))
        with pytest.warns(UserWarning, match=f"{name}.npz is damaged"):
            assert store.states.load(name) is None


def test_a_moved_sound_file_loses_no_results(tmp_path):
    import soundfile

    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.sin(np.arange(T)), 8000)
    task = dataclasses.replace(TASK, clips=Generation.clips, audio=str(sound))
    (condition,) = task.conditions()
    Store(tmp_path / "out", task).save(condition, result(task, condition))
    (tmp_path / "b").mkdir()
    moved = sound.rename(tmp_path / "b" / "a.wav")
    assert list(Store(tmp_path / "out", dataclasses.replace(task, audio=str(moved))).results().conditions) == [
        condition
    ]
    assert list(open_results(tmp_path / "out").conditions) == [condition]


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def changed(name, change):
    return lambda arrays: {**arrays, name: change(arrays[name])}


CHANGES = {
    "of strings": [changed(n, lambda x: x.astype(str)) for n in ("error", "epochs", "diverged", "curve", "outputs")],
    "of integers": [
        changed(n, lambda x: np.zeros(x.shape, int)) for n in ("error", "diverged", "curve", "data/target")
    ],
    "of complex": [
        changed(n, lambda x: x.astype(complex)) for n in ("error", "curve_epochs", "outputs", "num_parameters")
    ],
    "of dates": [changed(n, lambda x: np.zeros(x.shape, "M8[s]")) for n in ("error", "epochs", "data/rate")],
    "of floats": [changed(n, lambda x: x.astype(float)) for n in ("epochs", "diverged", "curve_epochs", "data/rate")],
    "one short": [changed(n, lambda x: x[:-1]) for n in ("error", "epochs", "diverged", "curve", "curve_epochs")],
    "none": [changed(n, lambda x: x[:0]) for n in ("error", "curve", "curve_epochs", "outputs", "data/target")],
    "an axis more": [
        changed(n, lambda x: x[None]) for n in ("error", "epochs", "curve", "num_parameters", "data/target")
    ],
    "no axis": [changed(n, lambda x: np.ravel(x)[0]) for n in ("error", "epochs", "diverged", "curve", "outputs")],
    "turned": [changed(n, np.transpose) for n in ("curve", "outputs")],
    "missing": [
        without(n) for n in (*set(ConditionResult._fields) - {"data", "best", "state"}, "data/target", "data/rate")
    ],
    "unknown": [lambda a: {**a, "thesis": np.zeros(3)}, lambda a: {**a, "error/x": np.zeros(3)}],
    "no parameters": [lambda arrays: {k: v for k, v in arrays.items() if not k.startswith("best/")}],
    "parameters of strings": [lambda a: {k: v.astype(str) if k.startswith("best/") else v for k, v in a.items()}],
    "other moments": [changed("curve_epochs", lambda x: x + 1), changed("curve_epochs", lambda x: x[::-1])],
    "infinite": [changed("error", lambda x: x * np.inf), changed("error", lambda x: x * np.nan)],
    "other epochs": [changed("epochs", lambda x: -x), changed("epochs", lambda x: x + 1000)],
}
VARIANTS = [pytest.param(f, id=f"{name} {i}") for name, changes in CHANGES.items() for i, f in enumerate(changes)]


@pytest.mark.parametrize("change", VARIANTS)
def test_a_right_digest_of_wrong_contents_counts_as_not_there(copy, change):
    first, second = TASK.conditions()
    config = json.loads((copy / "config.json").read_text())
    place = place_of(config["settings"], f"conditions/{first.name}")
    arrays = read_arrays(path_of(copy, first), place)
    assert arrays is not None
    write_arrays(path_of(copy, first), change(arrays), place)
    with pytest.warns(UserWarning, match=f"{first.name}.npz is not a result of this task .* and counts as not there"):
        assert list(open_results(copy).conditions) == [second]


def begun_run():
    """The state of a run before its first update."""
    condition = TASK.conditions()[0]
    return Trainer(TASK, condition).begin(jax.random.key(0), {"learning_rate": jnp.float32(0)}, TASK.data(condition))


PARTIALS = {
    "whole": lambda arrays: arrays,
    "a state of strings": changed("state0", lambda x: x.astype(str)),
    "a state of one run more": changed("state0", lambda x: np.concatenate([x, x[:1]])),
    "a state with an axis more": changed("state0", lambda x: x[..., None]),
    "a state missing": without("state3"),
    "errors of integers": changed("errors", lambda x: x.astype(int)),
    "errors of one run more": changed("errors", lambda x: np.concatenate([x, x[:, :1]], 1)),
    "no errors": changed("errors", lambda x: x[:0]),
    "errors of more epochs than there are": changed("errors", lambda x: np.repeat(x, 20, 0)),
    "none in training": changed("training", np.zeros_like),
    "numbers in training": changed("training", lambda x: x.astype(int)),
}


@pytest.mark.parametrize(("name", "change"), PARTIALS.items(), ids=PARTIALS)
def test_runs_in_training_of_wrong_contents_count_as_not_there(tmp_path, name, change):
    store = Store(tmp_path, TASK)
    begun = jax.tree.map(lambda x: np.stack([x, x]), begun_run())
    leaves = {f"state{i}": leaf for i, leaf in enumerate(jax.tree.leaves(begun))}
    arrays = {**leaves, "errors": np.ones((3, R), np.float32), "training": np.ones(R, bool)}
    store.states.save("cwrnn-100", change(arrays))
    if name == "whole":
        found = _restored(store.states, "cwrnn-100", TASK, begun)
        assert found is not None
        jax.tree.map(np.testing.assert_array_equal, found[0], begun)
    else:
        with pytest.warns(UserWarning, match=r"cwrnn-100\.npz is not of this sweep .* counts as not there"):
            assert _restored(store.states, "cwrnn-100", TASK, begun) is None


WRONG = ["three", {}, {"a": 1}, [{}], [[]], [None], True, [True], -1.5, "", b"".hex()]
UNSURE = [None, 3, 1e400, float("nan"), "3", [], [3], ["srn"], 10**30, 10**400]  # for some settings right
SETTINGS = ["runs", "networks", "sizes", "epochs", "learning_rates", "seed", "clips", "protocol", "clip_norm"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_configuration_of_wrong_types_is_one_sentence(copy, name):
    config = json.loads((copy / "config.json").read_text())
    for value in WRONG + UNSURE:
        settings = {**config["settings"], name: value}
        (copy / "config.json").write_text(json.dumps({**config, "settings": settings}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the conditions are of other settings
            try:
                open_results(copy)
                assert value not in WRONG, value
            except ValueError as error:
                assert "config.json is not the configuration of a results folder: " in str(error)  # noqa: PT017
        if json.dumps(value) != json.dumps(config["settings"][name]):
            with pytest.raises(ValueError, match="another configuration"):
                Store(copy, TASK)


DOCUMENTS = {
    "a list": "[]",
    "a number": "3",
    "nothing": "",
    "null": "null",
    "not JSON": "{",
    "not UTF-8": b"\xff\xfe",
    "deep lists": "[" * 100_000,
    "deep lists that end": "[" * 500 + "]" * 500,
    "deep settings": '{"settings": {"task": "generation", "runs": ' + "[" * 300 + "]" * 300 + "}}",
    "a long number": '{"settings": {"task": "generation", "runs": ' + "1" * 5000 + "}}",
    "no settings": "{}",
    "settings that are a list": '{"settings": []}',
    "no task": '{"settings": {}}',
    "an unknown task": '{"settings": {"task": "cooking"}}',
    "a task that is a list": '{"settings": {"task": ["generation"]}}',
    "a task that is an object": '{"settings": {"task": {}}}',
    "a task that is a number": '{"settings": {"task": 3}}',
    "environments that are a number": '{"settings": {"task": "generation"}, "continued_in": 3}',
    "environments of numbers": '{"settings": {"task": "generation"}, "continued_in": [3]}',
    "an environment that is a list": '{"settings": {"task": "generation"}, "environment": []}',
}


@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS)
def test_whatever_config_json_holds_it_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    for use in (open_results, lambda folder: Store(folder, TASK)):
        with pytest.raises(ValueError, match=r"^\S.*$") as raised:
            use(tmp_path)
        assert len(str(raised.value)) < 600


def test_pipes_and_folders_in_a_results_folder_are_refused_before_anything_is_trained(copy, tmp_path):
    condition = path_of(copy, TASK.conditions()[0])
    places = [condition, copy / "config.json", copy / "runs.csv", copy / "table.md", copy / "partial" / "cwrnn-100.npz"]
    for path, make in itertools.product(places, (os.mkfifo, os.mkdir)):
        before = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        make(path)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is a (pipe|folder)"):
            sweep(TASK, copy)
        if path.name != "config.json":  # what is there can still be read
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert open_results(copy).conditions
        path.unlink() if make is os.mkfifo else path.rmdir()
        if before is not None:
            path.write_bytes(before)
    for name in ("conditions", "partial"):
        shutil.move(copy / name, tmp_path / name)
        (copy / name).write_text("")
        with pytest.raises(ValueError, match=f"{name} is not a folder"):
            sweep(TASK, copy)
        (copy / name).unlink()
        shutil.move(tmp_path / name, copy / name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe cannot be written: it is not a folder"):
        sweep(TASK, tmp_path / "pipe")


def test_a_finished_folder_is_reported_though_a_sweep_holds_it(copy):
    from clockwork.training.store import claim

    with claim(copy, TASK):
        with pytest.raises(ValueError, match="in use by another sweep"):
            sweep(TASK, copy)
        assert list(open_results(copy).conditions) == TASK.conditions()
    assert sweep(TASK, copy).conditions


def test_a_folder_that_does_not_fit_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        sweep(TASK, tmp_path)
    with pytest.raises(ValueError, match=r"runs must be fewer: .* need at least .* of memory, and there are "):
        sweep(dataclasses.replace(TASK, runs=2**32), tmp_path / "new")
    for devices in ([], [1], jax.devices()[:1] * 2, 3):
        with pytest.raises(ValueError, match="devices must be "):
            sweep(TASK, tmp_path / "new", devices=devices)  # pyright: ignore[reportArgumentType]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_seed_that_no_key_holds_is_refused_for_any_task(tmp_path):
    class Other(Generation):
        def __post_init__(self):
            pass

    for name, value in (("seed", 2**32), ("seed", -1), ("runs", 2**33), ("runs", 0), ("epochs", 2**31)):
        with pytest.raises(ValueError, match=f"{name} must be an integer from "):
            sweep(Other(**{"runs": 1, "clips": ("choir",), name: value}), tmp_path / "out")  # pyright: ignore
    assert not (tmp_path / "out").exists()


def test_what_is_accepted_can_be_reported(copy):
    assert write_report(open_results(copy), copy)

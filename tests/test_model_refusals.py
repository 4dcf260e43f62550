"""What a sweep of any model refuses, and how it tells other functions, data and classes apart."""

import functools
import inspect
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from models import Recurrent, examples, init, pure_error, square, task_of

import clockwork as cw
from clockwork.nn import Clockwork
from clockwork.training import (
    Condition,
    ModelTask,
    Results,
    grid,
    linen_model,
    open_results,
    random,
    sweep,
)
from clockwork.training.fingerprint import fingerprint


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


def test_results_of_another_loss_or_other_data_are_refused(swept):
    folder, _ = swept("pure")
    x, y = examples()
    with pytest.raises(ValueError, match="another configuration"):
        sweep(task_of("pure", data=(x, 2 * y)), folder)
    with pytest.raises(ValueError, match="another configuration"):
        sweep(task_of("pure", error=lambda params, data: pure_error(params, data) / 2), folder)


def test_stored_results_can_be_read_without_the_model(swept):
    folder, results = swept("nnx")
    assert json.loads((folder / "config.json").read_text())["class"] == "clockwork.training.model_task:ModelTask"
    again = open_results(folder)
    assert list(again.conditions) == list(results.conditions)
    with pytest.raises(ValueError, match="make it again from its functions"):
        again.trained(next(iter(again.conditions)))
    assert Results(results.task, again.conditions).trained(next(iter(again.conditions)))(examples()[0]).shape == (24,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": grid(noise=0.1, learning_rate=(0.1,), width=3)}, "hyper-parameter .width., which no function"),
        ({"search": ({},)}, "must give learning_rate, which the optimiser needs"),
        ({"search": grid(learning_rate=(0.1,))}, "must give noise, which the loss needs"),
        ({"search": grid(learning_rate=(0.1, 0.1), noise=0.1)}, "each point once"),
        ({"search": {"learning_rate": 0.1}}, "one or more points"),
        ({"search": grid(learning_rate=0.1, noise=0.1, run=(1, 2))}, "hyper-parameter named 'run'"),
        ({"name": ""}, "name must be a string"),
        ({"search": []}, "one or more points"),
        ({"data": (np.zeros(3), np.zeros(4))}, "common first axis of examples, got shapes"),
        ({"data": ()}, "common first axis of examples, got shapes"),
        ({"batch_size": 25}, "batch_size must be an integer from 1 to 24"),
        ({"runs": 0}, "runs must be an integer"),
        ({"patience": 0}, "patience must be an integer"),
        ({"kept_outputs": 9}, "kept_outputs must be an integer from 1 to 3"),
        ({"loss": 3}, "loss must be a function, got 3"),
        ({"init": {"a/b": init}}, "name of a network must be letters"),
        ({"model": lambda rngs: Recurrent(rngs)}, "either model or init, got both"),
        ({"error": None}, "error must be given, since the loss takes key, noise"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        task_of("pure", **options) if "init" not in options else ModelTask(
            loss=pure_error, data=examples(), optimizer=optax.sgd(0.1), **options
        )


def test_a_model_that_is_no_model_is_named(tmp_path):
    task = ModelTask(init=lambda key: {"n": 3}, loss=pure_error, data=examples(), optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"nnx.Module or a tree of arrays of floating point numbers, got 3 at"):
        sweep(task, tmp_path)


def test_grid_and_random_points():
    assert grid(a=(1, 2), b=3) == [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 3.0}]
    points = random(200, seed=1, rate=(1e-4, 1.0), noise=lambda draw: draw.uniform(2, 3))
    assert points == random(200, seed=1, rate=(1e-4, 1.0), noise=lambda draw: draw.uniform(2, 3))
    rates = np.log10([point["rate"] for point in points])
    assert -4 <= rates.min() < -3.5
    assert -0.5 < rates.max() <= 0
    assert abs(np.mean(rates) + 2) < 0.35  # uniform in the logarithm: the mean has sd 0.08
    assert all(2 <= point["noise"] <= 3 for point in points)
    for bad in ((1.0, 0.1), (0.0, 1.0), 3, "ab"):
        with pytest.raises(ValueError, match="pair of bounds"):
            random(1, rate=bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one value"):
        grid(rate=())


class Narrow(linen.Module):
    """A module with a field."""

    width: int = 1

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.width)(x)


def helped(factor):
    def helper(x):
        return factor * x

    return lambda params, batch: helper(params)


def test_a_fingerprint_reads_each_function_once_however_many_refer_to_it():
    function = abs
    for _ in range(60):  # each refers to the one before twice: 2^60 paths
        function = functools.partial(lambda a, b: (a, b), function, function)
    assert fingerprint(function) == fingerprint(function)


def test_a_fingerprint_does_not_read_the_sources_of_this_library(monkeypatch):
    read = []
    monkeypatch.setattr(inspect, "getsource", lambda thing: read.append(thing) or "")

    def model(rngs):
        return Clockwork(cw.Clock.exponential(8, 2), 1, rngs=rngs)

    fingerprint(model)
    assert read == [model]


def test_a_folder_beside_this_library_whose_name_begins_like_its_own_is_the_users(monkeypatch):
    digests = []
    for source in ("return 1", "return 2"):
        monkeypatch.setattr(inspect, "getfile", lambda thing: f"{Path(cw.__file__).parent}_experiments/models.py")
        monkeypatch.setattr(inspect, "getsource", lambda thing, source=source: source)
        digests.append(fingerprint(helped))
    assert digests[0] != digests[1]


def test_fingerprints_tell_functions_apart_and_are_the_same_in_every_process():
    x = np.ones((1, 2), np.float32)
    pairs = [
        (linen_model(Narrow(1), x), linen_model(Narrow(1), x), linen_model(Narrow(2), x)),
        (optax.adam(1e-3), optax.adam(1e-3), optax.adam(1e-1)),
        (optax.adam, optax.adam, optax.sgd),
        (helped(2), helped(2), helped(3)),
        (jax.jit(helped(2)), jax.jit(helped(2)), jax.jit(helped(3))),
        (functools.partial(square, batch=1), functools.partial(square, batch=1), functools.partial(square, batch=2)),
        (lambda m: Recurrent(m), lambda m: Recurrent(m), lambda m: Narrow(m)),
        (optax.chain(optax.clip(1.0), optax.sgd(0.1)), optax.chain(optax.clip(1.0), optax.sgd(0.1)), optax.sgd(0.1)),
    ]
    for one, same, other in pairs[:6] + pairs[7:]:
        assert fingerprint(one) == fingerprint(same)
        assert fingerprint(one) != fingerprint(other)
    code = (
        "import optax, functools, jax.numpy as jnp\n"
        "from clockwork.training.fingerprint import fingerprint\n"
        "f = lambda params, batch: jnp.square(params - batch).mean()\n"
        "print(fingerprint(f), fingerprint(functools.partial(optax.adam, b1=0.5)), fingerprint({'a', 'b', 'c'}))"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(said) == 1


def test_a_module_class_is_a_model_and_its_own_options_are_checked(tmp_path):
    class Line(nnx.Module):
        def __init__(self, *, rngs, scale=1.0):
            self.w = nnx.Param(scale * jax.random.normal(rngs.params(), ()))

        def __call__(self, x):
            return self.w * x[..., 0].mean(1)

    options = {"loss": square, "data": examples(), "runs": 2, "epochs": 2}
    task = ModelTask(model=Line, search=grid(learning_rate=0.1, scale=(1, 2)), **options)
    assert len(sweep(task, tmp_path).conditions) == 2
    with pytest.raises(ValueError, match=r"'nosuch', which no function takes; they take .*'scale'"):
        ModelTask(model=Line, search=grid(learning_rate=0.1, nosuch=1), **options)


def test_a_module_that_keeps_a_hyperparameter_is_named(tmp_path):
    class Kept(nnx.Module):
        def __init__(self, rngs, scale):
            self.w, self.scale = nnx.Param(jnp.ones(())), scale

    task = ModelTask(
        model=Kept, loss=lambda m, b: m.w[...] * m.scale, data=examples(), search=grid(learning_rate=0.1, scale=2)
    )
    with pytest.raises(
        ValueError, match=r"Kept keeps a hyper-parameter as attribute 'scale': hold it in an nnx\.Variable"
    ):
        sweep(task, tmp_path)


def test_names_of_many_hyperparameters_are_cut():
    long = Condition("gru", 0, "", tuple((f"hyperparameter_{i}", 0.1 + i) for i in range(20)))
    other = Condition("gru", 0, "", (*long.hyperparameters[:-1], ("hyperparameter_19", 7.0)))
    assert len(long.name) < 150
    assert long.name != other.name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("this:s", "import 'this' first"),
        ("json:loads", "a task that is not there"),
        ("clockwork.training:Task", "not the configuration"),
        ("clockwork.training:sweep", "a task that is not there"),
        ("clockwork.nowhere:Task", "import 'clockwork.nowhere' first"),
    ],
)
def test_no_foreign_module_is_imported_to_read_results(swept, tmp_path, name, message, capsys):
    folder, _ = swept("pure")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "class": name}))
    with pytest.raises(ValueError, match=message):
        open_results(tmp_path)
    assert not capsys.readouterr().out


def test_results_of_another_class_are_refused(swept):
    class Other(ModelTask):
        pass

    folder, _ = swept("pure")
    task = task_of("pure")
    task.__class__ = Other
    with pytest.raises(ValueError, match="another configuration"):
        sweep(task, folder)

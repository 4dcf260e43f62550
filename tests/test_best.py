"""The parameters of the best epoch: when a run stops, and what it is then tested with."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clockwork.tasks.pascanu import halved_on_plateau
from clockwork.training import Condition, Loss, Task, sweep

# What is watched after 0, 1, 2, ... epochs: nothing is learnt at first, then the error falls, rises, and falls again.
WATCHED = np.asarray([9.0, 9.0, 9.0, 9.0, 3.0, 2.0, 4.0, 4.0, 4.0, 4.0, 1.0, 5.0, 5.0, 5.0, 5.0], np.float32)


class Counting(Task):
    """A model that counts its epochs; its error is looked up at the count."""

    name, runs, epochs = "counting", 2, len(WATCHED) - 1

    def __init__(self, watched=WATCHED, **attributes):
        self.table = watched
        self.__dict__.update(attributes)

    def conditions(self):
        return [Condition("counter", 0, "", (("learning_rate", 1.0),))]

    def settings(self):
        return {"table": self.table.tolist()}

    @classmethod
    def from_settings(cls, settings):
        return cls(np.asarray(settings["table"], np.float32))

    def data(self, condition):
        return self.table

    def model(self, name, size, rngs, hyperparameters):
        return {"count": jnp.zeros(())}

    def optimizer(self, hyperparameters):
        return optax.sgd(hyperparameters["learning_rate"])

    def loss(self, model, data, step):
        return Loss(-model["count"])

    def watch(self, model, data):
        return jnp.asarray(data)[model["count"].astype(jnp.int32)]

    def result(self, model, data):
        return self.watch(model, data), model["count"]


def trained(folder, **attributes):
    (result,) = sweep(Counting(**attributes), folder).conditions.values()
    assert (result.error[0], result.epochs[0]) == (result.error[1], result.epochs[1])
    return float(result.error[0]), int(result.epochs[0]), float(result.best["count"])


@pytest.mark.parametrize(
    ("attributes", "error", "epochs", "count"),
    [
        ({}, 5, 14, 14),  # the last parameters
        ({"restore_best": True}, 1, 14, 10),
        ({"patience": 3}, 9, 3, 3),  # before anything was learnt
        ({"patience": 3, "patience_below": 9}, 4, 8, 8),
        ({"patience": 3, "patience_below": 9, "restore_best": True}, 2, 8, 5),
        ({"patience": 6, "patience_below": 9, "restore_best": True}, 1, 14, 10),
    ],
)
def test_a_run_stops_and_is_tested_as_the_task_says(tmp_path, attributes, error, epochs, count):
    assert trained(tmp_path / "out", **attributes) == (error, epochs, count)


def test_the_parameters_after_the_last_epoch_can_be_the_best(tmp_path):
    falling = np.arange(len(WATCHED), 0, -1, dtype=np.float32)
    assert trained(tmp_path / "out", watched=falling, restore_best=True) == (1, 14, 14)


def test_the_curve_ends_with_the_error_of_the_restored_parameters(tmp_path):
    (result,) = sweep(Counting(restore_best=True), tmp_path / "out").conditions.values()
    np.testing.assert_array_equal(result.curve[:, 0], [*WATCHED[:-1], 1])


def test_a_run_that_diverges_keeps_the_best_it_had_and_counts_as_diverged(tmp_path):
    class Exploding(Counting):
        def loss(self, model, data, step):
            return Loss(jnp.where(model["count"] > 6, jnp.nan, -model["count"]))

    (result,) = sweep(Exploding(restore_best=True), tmp_path / "out").conditions.values()
    assert result.diverged.all()
    assert np.isnan(result.error).all()
    assert float(result.best["count"]) == 5


class Halving(Counting):
    """Its updates are 1 at first, and halved after every two epochs without a lower error."""

    name, runs, epochs, patience = "halving", 1, 9, 100

    def optimizer(self, hyperparameters):
        return optax.chain(super().optimizer(hyperparameters), halved_on_plateau(2))


@pytest.mark.parametrize(
    ("watched", "steps"),
    [
        ([3.0] * 9, [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 16]),
        ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [1] * 9),
        ([9.0, 8.0, 9.0, 9.0, 7.0, 9.0, 9.0, 9.0, 9.0], [1, 1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8]),
    ],
)
def test_a_rate_is_halved_when_the_error_has_stopped_falling(tmp_path, watched, steps):
    before = np.concatenate([[0], np.cumsum(steps)]).astype(np.float32)  # each epoch: how far the model has gone

    class Seen(Halving):
        def watch(self, model, data):
            return jnp.asarray([*watched, 0], jnp.float32)[jnp.searchsorted(jnp.asarray(before), model["count"])]

    (result,) = sweep(Seen(), tmp_path / "out").conditions.values()
    assert float(result.best["count"]) == before[-1]

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The tasks of Pascanu et al. (2013): windows, truncated back-propagation, protocols, and both commands whole."""

import csv
import dataclasses
import functools
import json
import math
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from clockwork.cli import main
from clockwork.data.piano_rolls import embedded_pieces
from clockwork.tasks import Music, TextPrediction
from clockwork.tasks.pascanu import LABELS, Prediction, network, units_for, weights_of
from clockwork.tasks.text import generate
from clockwork.tasks.windows import cut, shuffled, total_loss, windows_of, windows_of_text
from clockwork.training import Step, Terminated, open_results, sweep
from clockwork.training.progress import Progress

RESULTS = Path(__file__).parent.parent / "docs/results.md"
SMALL = {"runs": 2, "sizes": (1500,), "epochs": 2, "batch": 8, "window": 16}


@pytest.fixture(scope="module")
def set_of_pieces(tmp_path_factory):
    """A set of few pieces, as JSON."""
    rolls = embedded_pieces()
    parts = {"train": rolls.train[:12], "valid": rolls.valid[:4], "test": rolls.test[:4]}
    content = {part: [[(np.flatnonzero(step) + 21).tolist() for step in piece] for piece in pieces]
               for part, pieces in parts.items()}  # fmt: skip
    path = tmp_path_factory.mktemp("music") / "set.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("It is not down in any map; true places never are. " * 40)
    return str(path)


@pytest.fixture
def as_users_have_it():
    """Adam of optax mixes dtypes itself."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def check_documented(out, name, other):
    """Whether docs/results.md names every array and setting of a folder, and no other but those of the other task."""
    part = RESULTS.read_text(encoding="utf-8").split("## Music and text\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|(?:.*\|)? ([^|]*) \|$", part, re.MULTILINE)
    own = {key for key, meaning in rows if not meaning.startswith(f"{other}:")}
    (archive,) = (out / "conditions").glob("*.npz")
    with np.load(archive) as stored:
        keys = {key for key in stored if key.startswith(("outputs/", "data/"))} | {"curve"}
    settings = set(json.loads((out / "config.json").read_text())["settings"])
    assert own == keys | settings, (name, own ^ (keys | settings))


def visited(windows, length):
    """What a loop over the updates predicts: for each sequence its targets in their order."""
    found = {}
    for number in range(len(windows.fresh)):
        x, y, there = (np.asarray(a) for a in cut(windows, jnp.int32(number), length))
        for lane in range(x.shape[0]):
            for step in np.flatnonzero(there[lane]):
                assert y[lane, step] == x[lane, step] + 1
                found.setdefault(int(windows.sequence[number, lane]), []).append(int(y[lane, step]))
    return found


@pytest.mark.parametrize(("batch", "length"), [(1, 4), (2, 1), (3, 4), (9, 100)])
def test_every_step_but_the_first_is_predicted_once_in_order(batch, length):
    sizes = [9, 1, 5, 2, 14]
    sequences = [100 * i + np.arange(n) for i, n in enumerate(sizes)]
    windows = windows_of(sequences, batch, length)
    want = {i: list(sequence[1:]) for i, sequence in enumerate(sequences) if len(sequence) > 1}
    assert visited(windows, length) == want
    assert windows.predicted == sum(sizes) - len(sizes)
    order = np.asarray(shuffled(windows, jax.random.key(1)))
    assert sorted(order) == list(range(len(windows.fresh)))
    group = np.cumsum(windows.fresh) - 1
    for number in set(group):
        assert list(order[group[order] == number]) == list(np.flatnonzero(group == number))
        assert windows.fresh[order[group[order] == number][0]]


@pytest.mark.parametrize(("batch", "length"), [(1, 4), (3, 4), (4, 100), (50, 3)])
def test_a_text_is_read_once_in_columns(batch, length):
    windows = windows_of_text(np.arange(41), batch, length)
    assert sorted(visited(windows, length)[0]) == list(range(1, 41))
    assert windows.begin.shape[1] == max(1, min(batch, 40 // length))


@pytest.mark.parametrize("kind", LABELS)
def test_the_count_of_weights_is_that_of_the_network_and_the_nearest_is_found(kind):
    task = Music(networks=(kind,), modules=3)
    for size in (1_000, 20_000):
        units = units_for(kind, size, 88, 3)
        made = nnx.eval_shape(lambda size=size: task.model(kind, size, nnx.Rngs(0), {}))
        assert made.num_weights == weights_of(kind, units, 88, 3)
        others = [abs(weights_of(kind, max(n, 3), 88, 3) - size) for n in (units - 1, units + 1)]
        assert abs(made.num_weights - size) <= min(others)


def whole(task, model, piece):
    """The loss of a whole sequence at once."""
    rows = jnp.asarray(piece)[None]
    scores = model(task.encode(rows[:, :-1]))
    return task.losses(scores, rows[:, 1:]).mean()


@pytest.mark.parametrize("kind", ["srnn", "cwdts"])
def test_windows_that_carry_the_state_on_are_the_whole_sequence(kind):
    """With a learning rate of 0; and the gradient is the whole one where nothing is cut."""
    task = Music(networks=(kind,), sizes=(2000,), window=16, batch=2)
    (condition,) = task.conditions()
    pieces = [piece[:40] for piece in embedded_pieces().train[:2]]
    model = task.model(kind, 2000, nnx.Rngs(0), {})
    windows, zero = windows_of(pieces, 2, 16), task.zeros(condition, 2)
    sums, counts = jax.jit(lambda: total_loss(functools.partial(task.run, model), task.losses, windows, zero, 16))()
    want = [float(whole(task, model, piece)) * (len(piece) - 1) for piece in pieces]
    np.testing.assert_allclose(sums[:2], want, rtol=1e-4)
    assert counts[:2].tolist() == [39, 39]
    uncut = dataclasses.replace(task, window=64, batch=1)
    data = uncut.with_zeros(condition, (windows_of(pieces[:1], 1, 64),) * 3, pieces[0])

    def loss(model):
        step = Step(jnp.int32(0), jax.random.key(0), jnp.int32(0), {}, uncut.begin_carry(data))
        return uncut.loss(model, data, step).value

    got, want = (jax.jit(nnx.value_and_grad(f))(model) for f in (loss, lambda m: whole(task, m, pieces[0])))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_gradient_ends_at_the_window_and_the_state_does_not():
    task = Music(networks=("rnn",), sizes=(1000,), window=8, batch=1)
    (condition,) = task.conditions()
    piece = embedded_pieces().train[0][:17]
    data = task.with_zeros(condition, (windows_of([piece], 1, 8),) * 3, piece)
    model = task.model("rnn", 1000, nnx.Rngs(0), {})

    def second(carry):
        return task.loss(model, data, Step(jnp.int32(1), jax.random.key(0), jnp.int32(1), {}, carry))

    first = task.loss(model, data, Step(jnp.int32(0), jax.random.key(0), jnp.int32(0), {}, task.begin_carry(data)))
    rows = jnp.asarray(piece)[None]
    scores = model(task.encode(rows[:, :-1]))
    np.testing.assert_allclose(second(first.carry).value, task.losses(scores, rows[:, 1:])[0, 8:].mean(), rtol=1e-5)
    assert second(first.carry).value != second(task.begin_carry(data)).value


def test_the_rate_falls_and_the_step_is_clipped_after_the_momentum():
    task = Music(networks=("rnn",), protocol="paper", clip_norm=0.5, decay_start=2.0, decay=3.0)
    optimizer = task.optimizer({"learning_rate": jnp.float32(0.1)})
    params = {"w": jnp.zeros(4)}
    state, gradient = optimizer.init(params), {"w": jnp.full(4, 10.0)}
    sizes = []
    for _ in range(8 * task.updates + 1):
        step, state = optimizer.update(gradient, state, params)
        sizes.append(float(optax.tree.norm(step)))
    np.testing.assert_allclose(sizes[0], 0.05, rtol=1e-5)
    np.testing.assert_allclose(sizes[5 * task.updates], 0.025, rtol=1e-4)
    np.testing.assert_allclose(sizes[8 * task.updates], 0.05 / 3, rtol=1e-4)


def test_weights_are_noisy_in_training_alone():
    task = Music(networks=("rnn",), sizes=(1000,), weight_noise=0.1)
    (condition,) = task.conditions()
    data, model = task.data(condition), task.model("rnn", 1000, nnx.Rngs(0), {})
    losses = [
        float(
            task.loss(
                model, data, Step(jnp.int32(0), jax.random.key(k), jnp.int32(0), {}, task.begin_carry(data))
            ).value
        )
        for k in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert task.watch(model, data) == dataclasses.replace(task, weight_noise=None).watch(model, data)


@pytest.mark.usefixtures("as_users_have_it")
def test_the_music_command_writes_tables_pieces_and_sounds(tmp_path, set_of_pieces, capsys):
    command = ["music", "--data", set_of_pieces, "--runs", "2", "--networks", "cwdts", "--modules", "2"]
    command += ["--sizes", "1500", "--epochs", "2", "--batch", "8", "--window", "16", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Data: set (12 pieces of " in said
    assert "CW-DT(S)" in said
    out = tmp_path / "out"
    assert {"errors.png", "curves.png", "rolls.png", "report.html", "runs.csv"} <= {path.name for path in out.iterdir()}
    names = {path.name for path in (out / "best").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("piece", "cwdts") for kind in ("mid", "wav")}
    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert [row["network"] for row in rows] == ["cwdts", "cwdts"]
    results = open_results(out)
    ((condition, result),), task = results.conditions.items(), results.task
    check_documented(out, "music", "text")
    # The stored figure is that of the stored network.
    model, data = results.trained(condition), task.data(condition)
    error, outputs = task.result(model, data)
    np.testing.assert_allclose(error, np.nanmin(result.error), rtol=1e-4)
    assert outputs["continuation"].shape == (64, 88)
    by_piece = [float(whole(task, model, piece)) for piece in task.rolls.test]
    weights = [len(piece) - 1 for piece in task.rolls.test]
    np.testing.assert_allclose(error, np.average(by_piece, weights=weights), rtol=1e-4)
    np.testing.assert_allclose(outputs["per_piece"], np.mean(by_piece), rtol=1e-4)


@pytest.mark.usefixtures("as_users_have_it")
def test_the_text_command_learns_and_writes(tmp_path, book, capsys):
    out = tmp_path / "out"
    command = ["text", "--data", book, "--runs", "2", "--networks", "dots", "--sizes", "6000", "--epochs", "60"]
    command += ["--batch", "4", "--window", "16", "--stop-after", "60", "--dynamic-rate", "0.1", "--out", str(out)]
    assert main(command) == 0
    assert "bits per character" in capsys.readouterr().out
    results = open_results(out)
    (result,) = results.conditions.values()
    assert result.error.max() < 1.0  # a repeated sentence is learnt by heart; a guess of frequencies has 4 bits
    assert (result.outputs["dynamic"] < result.error[result.kept] + 0.2).all()
    check_documented(out, "text", "music")
    assert main(["text", "--generate", "It is not down ", "true places ", "--out", str(out)]) == 0
    written = capsys.readouterr().out
    assert written.startswith("It is not down in any map")
    assert "true places never are" in written
    assert generate(results, "It is not down ", symbols=10, temperature=0) == "in any map"
    with pytest.raises(ValueError, match="these are results of music, not of text"):
        generate(results._replace(task=Music()), "It is")
    with pytest.raises(ValueError, match="no trained network is stored there yet"):
        generate(results._replace(conditions={}), "It is")
    with pytest.raises(SystemExit, match="2"):
        main(["text", "--generate", "Zürich", "--out", str(out)])
    assert "only the symbols that were learnt, got 'Z'" in capsys.readouterr().err


@pytest.mark.usefixtures("as_users_have_it")
def test_words_are_measured_by_perplexity(tmp_path, book):
    task = TextPrediction(data_folder=book, unit="words", networks=("rnn",), **SMALL)
    (result,) = sweep(task, tmp_path).conditions.values()
    (condition,) = task.conditions()
    model, data = open_results(tmp_path).trained(condition), task.data(condition)
    sums, counts = jax.jit(lambda: task.likelihood(model, data.test, data.zero[2]))()
    np.testing.assert_allclose(np.nanmin(result.error), math.exp(sums.sum() / counts.sum()), rtol=1e-3)


class _Ends(Progress):
    """Ends the sweep after some epochs, as SIGTERM does."""

    def __init__(self, at):
        self.left = at

    def advance(self, epochs, diverged=0):
        self.left -= epochs
        if self.left <= 0:
            raise Terminated


def test_a_sweep_that_was_ended_goes_on_to_the_same_numbers(tmp_path, set_of_pieces):
    task = Music(data_folder=set_of_pieces, networks=("rnn",), protocol="paper", **{**SMALL, "epochs": 6})
    (alone,) = sweep(task, tmp_path / "alone").conditions.values()
    with pytest.raises(Terminated):
        sweep(task, tmp_path / "ended", progress=_Ends(2))
    assert list((tmp_path / "ended" / "partial").glob("*.npz"))
    (resumed,) = sweep(task, tmp_path / "ended").conditions.values()
    np.testing.assert_array_equal(resumed.error, alone.error)
    np.testing.assert_array_equal(resumed.curve, alone.curve)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Music(networks=("srn",)), "unknown network 'srn'; choose of rnn, dt, dts, dots, srnn, lstm"),
        (lambda: Music(networks=("cwrnn",), modules=4, window=12), "multiple of the slowest period .*, 8, got 12"),
        (lambda: Music(paper_sizes=True), "paper_sizes are there for JSB Chorales, Nottingham, MuseData, got embedded"),
        (lambda: TextPrediction(paper_sizes=True), "paper_sizes are there for the Penn Treebank, got Moby-Dick"),
        (lambda: Music(sizes=(5,)), "sizes must be an integer, 100 or more, got 5"),
        (lambda: Music(protocol="adam"), "unknown protocol 'adam'; choose of stable, paper"),
        (lambda: TextPrediction(unit="letters"), "unknown unit 'letters'"),
        (lambda: Music(weight_noise=-1.0), "weight_noise must be"),
    ],
)
def test_mistakes_get_one_sentence(make, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_the_paper_gives_the_sizes_of_its_table_1(tmp_path):
    (tmp_path / "x").mkdir()
    task = TextPrediction(networks=("rnn", "dots"))
    assert task.table_1 == {}
    assert isinstance(task, Prediction)
    made = network("dots", task.sizes_of("dots", 20_000), 74, 3, task.preset, nnx.Rngs(0))
    np.testing.assert_allclose(made.predict.last.bias[...], -0.5)
    assert ((np.asarray(made.layers[0].cell.recurrent[...]) != 0).sum(1) == 2 * 20).all()

"""The spoken word task: training as protocol.md has it, held to a plain Python loop."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from clockwork.cli import main
from clockwork.data import Corpus
from clockwork.tasks import Words
from clockwork.tasks.words.classify import classify, describe
from clockwork.training import Progress, Step, open_results, sweep
from clockwork.training.placement import Placement
from clockwork.training.train_state import TRAINING

WORDS, SPEAKERS = ("go", "stop", "wait"), tuple("abcdefg")


def made_up(padding=0.0, sigma=0.5):
    """Three words that differ in which channel they rise in, by seven speakers."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([5, 8, 11], 21).astype(np.int32)
    labels = np.repeat(np.arange(3), 7).astype(np.int32)
    features = np.full((21, 11, 13), padding, np.float32)
    for i, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        features[i, :length] = sigma * rng.normal(size=(length, 13))
        features[i, :length, label] += 2
    return Corpus("made up", features, lengths, labels, WORDS, SPEAKERS * 3, SPEAKERS * 3, 16000, ("made up",), False)


class Small(Words):
    """A task with a made-up corpus."""

    corpus = made_up()  # pyright: ignore[reportAssignmentType]


class Padded(Words):
    """The same with what would spoil everything, if it were read."""

    corpus = made_up(padding=np.nan)  # pyright: ignore[reportAssignmentType]


OPTIONS = {"runs": 3, "networks": ("srn",), "sizes": (500,), "epochs": 12, "stop_after": 1, "learning_rates": (0.02,)}
TASK = Small(**OPTIONS)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    return folder, sweep(TASK, folder)


@functools.lru_cache
def functions(task):
    """The answer for one unpadded sequence by the reference kernel, and the gradient of its loss."""
    (condition,) = task.conditions()
    network = task.network(condition.network, condition.size, nnx.Rngs(0))
    network.method = "masked"
    graph = nnx.split(network)[0]

    def scores(params, frames):
        outputs = jax.nn.log_softmax(nnx.merge(graph, params)(frames))
        return outputs[-1] if task.loss_at == "last" else outputs.mean(0)

    return jax.jit(scores), jax.jit(jax.grad(lambda params, frames, label: -scores(params, frames)[label]))


def plain_loop(task, number):
    """One run as one would write it: sequence by sequence, unpadded, without any of the sweep."""
    (condition,) = task.conditions()
    data, corpus = task.data(condition), task.corpus
    scores, gradient = functions(task)
    key = jax.random.fold_in(jax.random.key(task.seed), number)
    params = nnx.state(task.network(condition.network, condition.size, nnx.Rngs(params=key)), nnx.Param)
    optimizer = optax.sgd(condition.learning_rate, momentum=0.9, nesterov=True)
    state = optimizer.init(params)
    frames = [
        (x[:n] - data.mean) / data.scale for x, n in zip(corpus.features, corpus.lengths, strict=True)
    ]  # unpadded

    lowest, since, errors = math.inf, 0, []
    for epoch in range(task.epochs):
        answers = [np.asarray(scores(params, x)) for x in frames]
        wrong = np.array([answer.argmax() != label for answer, label in zip(answers, corpus.labels, strict=True)])
        losses = np.array([-answer[label] for answer, label in zip(answers, corpus.labels, strict=True)])
        errors.append([wrong[data.train].mean(), wrong[data.test].mean(), losses[data.train].mean()])
        watched = errors[-1][0 if task.stop_on == "error" else 2]
        since = 0 if watched < lowest else since + 1
        lowest = min(lowest, watched)
        if since >= task.stop_after:
            return epoch, np.array(errors)
        own = jax.random.fold_in(jax.random.fold_in(key, TRAINING), epoch)
        for position, (sequence,) in enumerate(np.asarray(task.batches(data, jnp.int32(epoch), own))):
            limit = int(task.limits[np.searchsorted(task.limits, corpus.lengths[sequence])])
            noise = jax.random.normal(jax.random.fold_in(own, position), (1, limit, 13))[0, : corpus.lengths[sequence]]
            noisy = frames[sequence] + task.noise * np.asarray(noise)
            updates, state = optimizer.update(gradient(params, noisy, corpus.labels[sequence]), state, params)
            params = optax.apply_updates(params, updates)
    return task.epochs, np.array(errors)


def test_each_run_is_that_of_a_plain_loop_and_stops_when_it_does(swept):
    _, results = swept
    (result,) = results.conditions.values()
    for number in range(TASK.runs):
        epochs, errors = plain_loop(TASK, number)
        assert result.epochs[number] == epochs
        np.testing.assert_allclose(result.curve[: len(errors), number, :3], errors, rtol=2e-3, atol=2e-4)
        # once it has stopped, nothing changes, and the error is that of the stopped network
        after = result.curve[epochs:, number]
        np.testing.assert_array_equal(after[:-1], np.broadcast_to(after[0], after[:-1].shape))
        np.testing.assert_allclose(result.error[number], after[0, 1], atol=1e-6)
    assert len(set(result.epochs.tolist())) > 1  # stragglers there are
    assert result.epochs.min() < TASK.epochs


@pytest.mark.parametrize("changed", [{"loss_at": "every"}, {"stop_on": "error"}])
def test_the_other_losses_and_stops_are_a_plain_loops_too(changed, tmp_path):
    task = Small(**{**OPTIONS, "runs": 1, "epochs": 3, **changed})
    (result,) = sweep(task, tmp_path).conditions.values()
    epochs, errors = plain_loop(task, 0)
    assert result.epochs[0] == epochs
    np.testing.assert_allclose(result.curve[: len(errors), 0, :3], errors, rtol=2e-3, atol=2e-4)


def test_padding_is_not_read(swept, tmp_path):
    _, results = swept
    (wanted,) = results.conditions.values()
    (found,) = sweep(Padded(**OPTIONS), tmp_path).conditions.values()
    np.testing.assert_array_equal(found.curve, wanted.curve)
    np.testing.assert_array_equal(found.outputs, wanted.outputs)


def test_stragglers_go_on_without_the_others_to_the_same_end(swept, tmp_path, monkeypatch):
    _, results = swept
    (wanted,) = results.conditions.values()
    monkeypatch.setattr("clockwork.training.placement.MIN_ACTIVE", 0.8)
    entered, enter = [], Placement.to_devices

    def note(self, whole):
        entered.append((len(set(self.numbers.tolist())), self.width))
        return enter(self, whole)

    monkeypatch.setattr(Placement, "to_devices", note)
    (result,) = sweep(dataclasses.replace(TASK, runs=40), tmp_path).conditions.values()
    assert any(0 < chosen <= width < 40 for chosen, width in entered)
    assert entered[-1][0] == 40  # all are evaluated
    np.testing.assert_array_equal(result.epochs[:3], wanted.epochs)
    np.testing.assert_allclose(result.error[:3], wanted.error, atol=1e-6)


@pytest.mark.slow
def test_cut_after_stragglers_went_on_alone_it_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("clockwork.training.placement.MIN_ACTIVE", 0.8)
    task = dataclasses.replace(TASK, runs=70)

    class Cut(Progress):
        """Ctrl-C once some runs have stopped and the others have gone on for an epoch or more."""

        def __init__(self, at):
            self.done, self.at = 0, at

        def advance(self, epochs, diverged=0):
            self.done += epochs
            if self.done >= self.at:
                self.at = math.inf
                raise KeyboardInterrupt

    (whole,) = sweep(task, tmp_path / "whole").conditions.values()
    for at in (6, 9):
        with pytest.raises(KeyboardInterrupt):
            sweep(task, tmp_path / str(at), progress=Cut(at))
        (cut,) = sweep(task, tmp_path / str(at)).conditions.values()
        np.testing.assert_array_equal(cut.curve, whole.curve)
        np.testing.assert_array_equal(cut.epochs, whole.epochs)


def test_a_batch_has_each_sequence_once_and_nothing_twice():
    task = dataclasses.replace(TASK, batch=4)
    data = task.data(task.conditions()[0])
    batches = np.asarray(task.batches(data, jnp.int32(3), jax.random.key(0)))
    assert batches.shape == (task.updates, 4) == (4, 4)
    assert sorted(batches[batches >= 0]) == sorted(data.train)
    assert not np.array_equal(batches, task.batches(data, jnp.int32(4), jax.random.key(0)))
    network = task.network("srn", 500, nnx.Rngs(0))
    last, quiet = jnp.array([batches[0, 0], -1, -1, -1]), dataclasses.replace(task, noise=0.0)
    step = Step(last, jax.random.key(1), jnp.int32(0), {}, ())
    alone = quiet.loss(network, data, step._replace(batch=last[:1]))
    np.testing.assert_allclose(alone.value, quiet.loss(network, data, step).value, rtol=1e-5)


def test_normalisation_is_of_the_training_set_alone():
    data = TASK.data(TASK.conditions()[0])
    frames = np.concatenate([TASK.corpus.features[i, : TASK.corpus.lengths[i]] for i in data.train])
    np.testing.assert_allclose(data.mean, frames.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(data.scale, frames.std(0), rtol=1e-4)


def test_features_that_overflow_when_normalised_are_named():
    corpus = made_up()
    features, (_, test) = corpus.features.copy(), TASK.sides["split0"]
    features[..., 12] = 1e-6 * features[..., 11]
    features[test[0], 0, 12] = 1e36
    task = dataclasses.replace(TASK)
    sources = tuple(f"{i}.wav" for i in range(21))
    object.__setattr__(task, "corpus", corpus._replace(features=features, sources=sources))
    with pytest.raises(ValueError, match=rf"the features of {test[0]}\.wav are not finite when normalised"):
        task.data(task.conditions()[0])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"noise": -1.0}, "noise must be finite and at least 0, got -1.0"),
        ({"loss_at": "first"}, "unknown loss_at 'first'; choose of last, every"),
        ({"stop_on": "never"}, "unknown stop_on 'never'"),
        ({"splits": ()}, "at least one split must be chosen"),
        ({"splits": (-1,)}, "a split's number must be an integer, 0 or more, got -1"),
        ({"batch": 0}, "batch must be an integer, 1 or more, got 0"),
        ({"sizes": (1,)}, "unknown size 1; choose of 500, 1000"),
        ({"word_list": ("a",)}, "word_list chooses words of recordings, and none are given"),
        ({"test_per_word": 0}, "test_per_word must be an integer, 1 or more, got 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Words(**arguments)


def test_the_command_trains_reports_and_classifies(tmp_path, capsys):
    out = tmp_path / "out"
    tiny = ["words", "--runs", "2", "--networks", "srn", "--sizes", "500", "--epochs", "2", "--out", str(out)]
    assert main(tiny) == 0
    said = capsys.readouterr().out
    assert said.startswith("Data: the embedded words (25 words, 5 speakers, 175 tokens).\nSplit 0: 125 tokens for")
    assert "synthetic" in said
    assert {"runs.csv", "table.md", "figure4.png", "curves.png", "confusion.png"} <= {p.name for p in out.iterdir()}
    assert "synthetic" in (out / "table.md").read_text()
    assert (out / "runs.csv").read_text().splitlines()[0].endswith("learning_rate,epochs,test_error,diverged")
    recording = "tests/data/making_fl_rms.wav"
    assert main(["words", "--classify", recording, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "says srn-500-split0" in said
    assert "from 0.025 s" in said
    assert "synthetic" in said
    assert main(["words", "--classify", "tests/data/*.wav", recording, "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("making_fl_rms.wav") == 1
    results = open_results(out)
    answer = classify(results, recording)
    np.testing.assert_allclose(answer.probabilities.sum(1), 1, rtol=1e-5)
    assert answer.words[int(answer.probabilities[-1].argmax())] in describe(answer).splitlines()[0]
    # the same as the sweep had for this very sequence
    (condition,) = results.conditions
    result = results.conditions[condition]
    row = result.data["sources"].tolist().index("fl_rms/making.wav")
    best = int(np.nanargmin(result.error))
    np.testing.assert_allclose(np.log(answer.probabilities[-1]), result.outputs[best, row], atol=2e-3)
    with pytest.raises(SystemExit) as stopped:
        main(["words", "--classify", str(tmp_path / "none.wav"), "--out", str(out)])
    assert stopped.value.code == 2
    assert "does not exist" in capsys.readouterr().err

"""Words named by a stored network: which one answers, what is quoted of it, and what is said of odd recordings."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from flax import nnx

from clockwork.data import mfcc
from clockwork.data.recording import resample
from clockwork.tasks import Generation, Words
from clockwork.tasks.words import classify as classify_one
from clockwork.tasks.words import classify_all, describe, describe_all
from clockwork.tasks.words.classify import MOMENTS, SHORTEST
from clockwork.training import Condition, ConditionResult, Results

module = importlib.import_module("clockwork.tasks.words.classify")

SPEECH = Path(__file__).parent / "data" / "making_fl_rms.wav"
TASK = Words(runs=3, networks=("srn", "cwrnn"), sizes=(500,), learning_rates=(1e-4, 3e-4))
ERROR = {"srn": (0.2, 0.9, np.nan), "cwrnn": (0.6, 0.7, 0.8)}  # on the test set
LOSS = {1e-4: 3.0, 3e-4: 2.0}


def result(condition: Condition, loss: float) -> ConditionResult:
    """As a sweep stores it, of a network with fresh weights."""
    network = TASK.network(condition.network, condition.size, nnx.Rngs(5))
    params = nnx.to_flat_state(nnx.state(network, nnx.Param))
    error = np.asarray(ERROR[condition.network], np.float32)
    curve = np.zeros((2, 3, 4), np.float32)
    curve[:, :, 2] = loss
    return ConditionResult(
        error=error,
        epochs=np.asarray([2, 2, 2]),
        diverged=np.isnan(error),
        curve=curve,
        curve_epochs=np.arange(2),
        outputs=np.zeros((3, 50, 25), np.float32),
        kept=np.arange(3),
        num_parameters=np.asarray(500),
        data=TASK.record(condition),
        best={".".join(map(str, place)): np.asarray(leaf[...]) for place, leaf in params},
        state={},
    )


@pytest.fixture(scope="module")
def results():
    """The CW-RNN at 3e-4 learnt best; a run of the SRN has the lowest error on the test set."""
    losses = {
        condition: LOSS[condition.learning_rate] + (condition.network == "srn") for condition in TASK.conditions()
    }
    return Results(TASK, {condition: result(condition, loss) for condition, loss in losses.items()})


def test_the_network_is_chosen_by_its_training_and_quoted_by_its_mean(results):
    answer = classify_one(results, SPEECH)
    assert answer.condition == Condition("cwrnn", 500, "split0", (("learning_rate", 3e-4),))
    assert (answer.error, answer.sd, answer.runs) == (pytest.approx(0.7), pytest.approx(0.1), 3)
    assert answer.warnings == ()
    said = describe(answer).splitlines()[0]
    assert said.startswith("making_fl_rms.wav: ")
    assert said.endswith("says cwrnn-500-split0-0.0003 (test error of its 3 runs: 70.0 ± 10.0 %)")
    only = {
        condition: r
        for condition, r in results.conditions.items()
        if condition == Condition("srn", 500, "split0", (("learning_rate", 1e-4),))
    }
    answer = classify_one(results._replace(conditions=only), SPEECH)
    assert (answer.error, answer.runs) == (pytest.approx(0.55), 2)  # without the run that diverged


@pytest.mark.parametrize("loss_at", ["last", "every"])
def test_answers_are_those_of_the_unpadded_recording(results, loss_at):
    task = Words(**{**{name: getattr(TASK, name) for name in ("runs", "networks", "sizes")}, "loss_at": loss_at})
    condition = Condition("cwrnn", 500, "split0", (("learning_rate", 3e-4),))
    answer = classify_one(Results(task, {condition: results.conditions[condition]}), SPEECH)
    network = TASK.network("cwrnn", 500, nnx.Rngs(5))
    samples, rate = soundfile.read(SPEECH)
    data = results.conditions[condition].data
    scores = np.asarray(network((mfcc(samples, rate) - data["mean"]) / data["scale"]), np.float64)
    scores -= np.log(np.exp(scores).sum(1, keepdims=True))
    if loss_at == "every":
        scores = np.cumsum(scores, 0) / np.arange(1, len(scores) + 1)[:, None]
        scores -= np.log(np.exp(scores).sum(1, keepdims=True))
    np.testing.assert_allclose(answer.probabilities, np.exp(scores), atol=1e-5)


def test_recordings_of_any_length_share_a_program(results, tmp_path, monkeypatch):
    samples, rate = soundfile.read(SPEECH)
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.wav")
        soundfile.write(paths[-1], samples[: len(samples) - 250 * i], rate)
    lengths, network = [], module._network

    def noted(*arguments):
        scores = network(*arguments)
        return lambda frames: lengths.append(len(frames)) or scores(frames)

    monkeypatch.setattr(module, "_network", noted)
    answers = classify_all(results, paths)
    assert len({len(answer.probabilities) for answer in answers}) > 3
    assert lengths == [SHORTEST] * 6
    lines = describe_all(answers).splitlines()
    assert [line.split()[0] for line in lines[2:8]] == [f"{i}.wav" for i in range(6)]
    assert "synthetic" in lines[-2]


def test_silence_and_what_is_far_longer_than_a_word_get_a_line(results, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 16000)
    soundfile.write(tmp_path / "soft.wav", 1e-4 * rng.normal(size=8000), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", 0.3 * np.tile(rng.normal(size=32000), 20).clip(-3, 3), 16000)
    silence, soft, long = classify_all(results, [tmp_path / f"{name}.wav" for name in ("silence", "soft", "long")])
    assert silence.warnings == ("silence.wav is silent",)
    assert soft.warnings == ("soft.wav is silent or far softer than what was learnt",)
    (warning,) = long.warnings
    assert warning.startswith("long.wav lasts 40.0 s, and the longest word learnt ")
    assert len(long.probabilities) == 3998
    flips = np.tile(np.eye(25, dtype=np.float32)[[3, 4]], (1999, 1))
    said = describe(long._replace(probabilities=flips)).splitlines()
    assert sum(line.startswith("  from ") for line in said) == MOMENTS
    assert f"  and {3998 - MOMENTS} more changes" in said
    assert said[1] == f"Warning: {warning}."


def test_another_rate_is_resampled(results, tmp_path):
    samples, rate = soundfile.read(SPEECH)
    assert rate == 16000
    for other in (8000, 44100):
        soundfile.write(tmp_path / f"{other}.wav", resample(samples, rate, other), other, subtype="FLOAT")
    at_8000, at_44100 = classify_all(results, [tmp_path / "8000.wav", tmp_path / "44100.wav"])
    wanted = classify_one(results, SPEECH).probabilities[-1]
    np.testing.assert_allclose(at_44100.probabilities[-1], wanted, atol=0.05)
    assert at_44100.warnings == ()
    assert at_8000.warnings == (
        "8000.wav has 8000 samples per second and what was learnt 16000: its treble is missing",
    )


def test_what_cannot_be_used_is_one_sentence(results, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "loud.wav", 1e30 * np.ones(8000), 16000, subtype="DOUBLE")
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    soundfile.write(tmp_path / "hour.flac", np.zeros(70 * 8000), 8000)
    for name, sentence in {
        "none.wav": "does not exist",
        "pipe.wav": "is a pipe or a device",
        "": "is a folder",
        "loud.wav": "cannot be used: samples must be about in",
        "short.wav": "cannot be used: samples must be at least 400",
        "hour.flac": "lasts 70 s; at most 60 s can be used",
    }.items():
        with pytest.raises(ValueError, match=f"audio file .*{name}.* {sentence}"):
            classify_all(results, [SPEECH, tmp_path / name])
    with pytest.raises(ValueError, match="no trained network is stored there yet"):
        classify_one(results._replace(conditions={}), SPEECH)
    with pytest.raises(ValueError, match="these are results of generation"):
        classify_one(Results(Generation(), {}), SPEECH)

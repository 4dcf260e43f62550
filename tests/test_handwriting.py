"""The handwriting experiment: data, networks, loss, errors, and the whole command."""

import csv
import functools
import itertools
import json
import re
import shutil
import tempfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clockwork import ctc
from clockwork.cli import main
from clockwork.data import embedded_lines, read_iam_ondb, write_iam_ondb
from clockwork.data.strokes import points, standardised
from clockwork.report import table
from clockwork.tasks import Handwriting
from clockwork.tasks.handwriting import data as buckets
from clockwork.tasks.handwriting.data import limits_of, prepare, text_of
from clockwork.tasks.handwriting.network import UNITS, Transcriber, _parameters, kind_of, units_of
from clockwork.tasks.handwriting.reading import error_of, read
from clockwork.tasks.handwriting.report import stuck, word_error
from clockwork.training import Step, open_results, sweep
from clockwork.training.branches import switch
from clockwork.training.model import split

EPOCHS = 3


@pytest.fixture(scope="module", autouse=True)
def _few_buckets():
    """Each bucket is a program to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "BUCKETS", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of IAM-OnDB's form with 80, 12 and 12 lines."""
    root = tmp_path_factory.mktemp("lines") / "set"
    write_iam_ondb(embedded_lines(lines_each=2), root)
    return str(root)


@pytest.fixture(scope="module")
def task(folder):
    return Handwriting(runs=2, networks=("srn", "cwrnn"), modules=(3,), epochs=EPOCHS, data_folder=folder, batch=8)


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "handwriting"
    return out, sweep(task, out)


def test_limits_waste_the_least(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKETS", 3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = rng.integers(1, 12, 9)
        sizes = np.unique(lengths)

        def cost(limits, lengths=lengths):
            return sum(min(limit for limit in limits if limit >= length) for length in lengths)

        every = [
            sorted({*chosen, int(sizes[-1])})
            for chosen in ([], *([a] for a in sizes), *([a, b] for a in sizes for b in sizes))
        ]
        assert cost(limits_of(lengths).tolist()) == min(map(cost, every))


def test_every_line_is_in_a_bucket_with_its_text(task):
    lines, prepared = task.lines, task.prepared
    for name in ("training", "validation", "test"):
        members, order, place = getattr(lines, name), prepared.order[name], 0
        assert sorted(order.tolist()) == list(range(len(members)))
        for bucket in getattr(prepared.data, name):
            assert sorted(row for row in bucket.chunks.reshape(-1).tolist() if row >= 0) == list(
                range(len(bucket.lengths))
            )
            for inputs, length, labels, count in zip(*bucket[:4], strict=True):
                line = members[order[place]]
                assert text_of(labels, lines.characters) == line.text
                assert count == len(line.text)
                np.testing.assert_array_equal(inputs[:length], standardised(points(line), prepared.scale))
                assert not inputs[length:].any()
                place += 1
    frames = np.concatenate([b.inputs[i, :n] for b in prepared.data.training for i, n in enumerate(b.lengths)])
    np.testing.assert_allclose(frames[:, :3].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(frames[:, :3].std(0), 1, atol=1e-5)


def test_training_lines_too_short_for_their_text_are_left_out_and_said(task):
    lines = task.lines
    short = lines.training[0]._replace(text="ll" * 200, source="short.xml")
    prepared = prepare(lines._replace(training=(short, *lines.training[1:]), test=(short, *lines.test)))
    assert prepared.notes == ("1 training line with fewer frames than their text needs are left out: short.xml",)
    assert 0 not in prepared.order["training"]
    assert 0 in prepared.order["test"]  # what is tested is not chosen
    with pytest.raises(ValueError, match=r"no training line of .* has as many frames as its text needs"):
        prepare(lines._replace(training=(short,)))
    with pytest.raises(ValueError, match="has no lines for validation"):
        prepare(lines._replace(validation=()))


COUNTS = {"srn": (10242, 50418, 100722), "lstm": (10332, 50064, 101082), "cwrnn": (10180, 50192, 99586)}


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_the_papers_parameters(name):
    counts = [
        nnx.eval_shape(lambda n=units: Transcriber(name, n, 4, 82, modules=9, rngs=nnx.Rngs(0))).num_parameters
        for units in (UNITS[size][name] for size in UNITS)
    ]
    assert tuple(counts) == COUNTS[name]


@pytest.mark.parametrize("name", ["srn", "lstm", "cwrnn3", "cwlstm", "cwlstm3"])
def test_parameters_are_counted_without_a_network(name):
    kind, modules = kind_of(name)
    made = nnx.eval_shape(lambda: Transcriber(kind, 25, 4, 82, modules=modules, rngs=nnx.Rngs(0)))
    assert _parameters(name, 25) == made.num_parameters


@pytest.mark.parametrize("name", ["cwrnn3", "cwrnn5", "cwlstm"])
def test_other_clockworks_have_as_many(name):
    task = Handwriting()
    network = nnx.eval_shape(lambda: task.network_of(name, units_of(name, 10000), 82, nnx.Rngs(0)))
    assert abs(network.num_parameters - 10200) < 250


@pytest.mark.parametrize("kind", ["srn", "lstm", "cwrnn", "cwlstm"])
def test_a_line_is_read_alike_however_far_it_is_padded(kind):
    network = Transcriber(kind, 9, 4, 5, modules=3, stddev=0.5, rngs=nnx.Rngs(0))
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(3, 11, 4)), jnp.float32)
    lengths = jnp.asarray([11, 4, 7])
    scores = network(inputs.at[1, 4:].set(jnp.nan), lengths)
    for line, length, found in zip(inputs, lengths, scores, strict=True):
        alone = network(line[None, :length], length[None])[0]
        np.testing.assert_allclose(found[:length], alone, rtol=1e-5, atol=1e-6)


def test_the_backward_layer_starts_its_clock_at_the_last_frame():
    network = Transcriber("cwrnn", 6, 4, 5, modules=3, stddev=0.5, rngs=nnx.Rngs(0))
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(1, 7, 4)), jnp.float32)
    hidden = jnp.asarray(network.layer(jnp.moveaxis(inputs, 1, 0), seq_lengths=jnp.asarray([6])))[:6, 0, 6:]
    alone = jnp.asarray(
        network.layer.backward_rnn(inputs[0, 5::-1])
    )  # a layer that runs forwards over the line from its end
    np.testing.assert_allclose(hidden[::-1], alone, rtol=1e-5, atol=1e-6)
    slowest = np.asarray(alone[:, 4:])
    assert (slowest[1:4] == slowest[0]).all()
    assert (slowest[4] != slowest[0]).any()


def test_an_epoch_has_every_line_once_in_an_order_that_runs_share(task):
    data = task.data(task.conditions()[0])
    orders = []
    for epoch, key in ((0, 1), (0, 2), (1, 1)):
        numbers, lines = task.batches(data, jnp.int32(epoch), jax.random.key(key))
        assert numbers.shape == (task.updates,)
        found = sorted((int(n), int(i)) for n, row in zip(numbers, lines, strict=True) for i in row if i >= 0)
        assert found == [(n, i) for n, bucket in enumerate(data.training) for i in range(len(bucket.lengths))]
        assert (np.asarray(lines)[:, 0] >= 0).all()
        orders.append(np.asarray(lines).tolist())
    assert orders[0] == orders[1] != orders[2]


def model_and_step(task, lines):
    condition = task.conditions()[0]
    model = task.network(condition.network, condition.size, nnx.Rngs(0))
    step = Step((jnp.int32(1), jnp.asarray(lines)), jax.random.key(0), jnp.int32(0), {}, ())
    return model, task.data(condition), step


def test_the_loss_is_the_mean_over_the_lines_that_are_there(task):
    model, data, step = model_and_step(task, [2, 0, -1])
    bucket = data.training[1]

    def alone(model):
        logits = model(jnp.asarray(bucket.inputs[[2, 0]]), jnp.asarray(bucket.lengths[[2, 0]]))
        return jnp.mean(
            jax.vmap(ctc.loss)(
                logits, *(jnp.asarray(x[[2, 0]]) for x in (bucket.labels, bucket.lengths, bucket.label_lengths))
            )
        )

    found, slopes = nnx.jit(nnx.value_and_grad(lambda model: task.loss(model, data, step).value))(model)
    wanted, expected = nnx.jit(nnx.value_and_grad(alone))(model)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    chex.assert_trees_all_close(slopes, expected, rtol=1e-3, atol=1e-4)


def test_errors_are_all_edits_by_all_characters(task):
    model, data, _ = model_and_step(task, [0])
    wrong, characters = 0, 0
    for bucket in data.validation:
        labels, edits = read(model, bucket)
        scores = model(jnp.asarray(bucket.inputs), jnp.asarray(bucket.lengths))
        for i, (length, count) in enumerate(zip(bucket.lengths, bucket.label_lengths, strict=True)):
            path = np.asarray(scores[i, :length].argmax(1))
            path = [label for label, _ in itertools.groupby(path.tolist()) if label]
            assert [label for label in labels[i].tolist() if label >= 0] == path
            assert edits[i] == ctc.edits(jnp.asarray([*path, 0]), len(path), jnp.asarray(bucket.labels[i]), count)
            wrong, characters = wrong + int(edits[i]), characters + int(count)
    np.testing.assert_allclose(task.watch(model, data), min(1, wrong / characters), rtol=1e-6)
    np.testing.assert_allclose(
        error_of([jnp.asarray([3])], [data.test[0]]), 3 / data.test[0].label_lengths.sum(), rtol=1e-6
    )


def test_the_switch_is_that_of_lax_under_vmap_and_grad():
    losses = [lambda m: (m["a"] ** 2).sum(), lambda m: jnp.sin(m["a"]).sum() * m["b"]]
    model = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.asarray([2.0, 3.0])}
    for i in range(2):
        ours = jax.vmap(jax.value_and_grad(lambda m, i=i: 3 * switch(jnp.int32(i), losses, m)))(model)
        plain = jax.vmap(jax.value_and_grad(lambda m, i=i: 3 * losses[i](m)))(model)
        chex.assert_trees_all_close(ours, plain, rtol=1e-6)


def test_the_switch_leaves_modules_whole():
    linear = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    x = jnp.ones((2, 3))
    losses = [lambda model, k=k: k * jnp.square(model(x)).sum() for k in (1.0, 2.0)]
    ours = nnx.grad(functools.partial(switch, jnp.int32(1), losses))(linear)
    chex.assert_trees_all_close(ours, nnx.grad(losses[1])(linear), rtol=1e-6)


def test_a_sweep_stores_what_the_report_needs(task, finished):
    out, results = finished
    assert [condition.network for condition in results.conditions] == ["srn", "cwrnn3"]
    for condition, result in results.conditions.items():
        assert result.outputs["labels"].shape[:2] == (2, 12)
        best = results.trained(condition)
        run = int(np.argmin(result.error))
        edits, characters, place = 0, 0, 0
        for bucket in task.prepared.data.test:
            labels, wrong = read(best, bucket)
            stored = result.outputs["labels"][run, place : place + len(labels), : labels.shape[1]]
            np.testing.assert_array_equal(stored, labels)
            edits, characters, place = (
                edits + int(wrong.sum()),
                characters + int(bucket.label_lengths.sum()),
                place + len(labels),
            )
        np.testing.assert_allclose(result.error[run], edits / characters, rtol=1e-6)
        assert result.curve.shape == (EPOCHS + 1, 2)
        np.testing.assert_allclose(result.curve[-1], result.curve.min(0))  # the best epoch's parameters
        assert [text_of(row, str(result.data["characters"])) for row in task.prepared.data.test[0].labels] == list(
            result.data["texts"][: len(task.prepared.data.test[0].labels)]
        )
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == ["srn"] * 2 + ["cwrnn3"] * 2
    assert set(rows[0]) >= {"cer", "learning_rate", "clip_norm", "epochs", "diverged"}


def test_the_table_says_what_was_read(finished):
    out, _ = finished
    text = table(open_results(out))
    assert "80 lines for training, 12 for validation, 12 for test" in text
    assert re.search(r"\| CW-RNN, 3 modules \| 10000 \|\s+43 \|", text)
    assert "| WER % |" in text.replace("  ", " ")
    assert "paper %" not in text  # these are not the paper's lines
    assert "Mean CER at size 10000, lowest first:" in text


def test_figures_are_drawn_and_a_line_is_transcribed(finished, folder, capsys, tmp_path):
    out, results = finished
    assert main(["report", str(out)]) == 0
    assert {path.name for path in out.glob("*.png")} == {"errors.png", "curves.png", "transcript.png"}
    line = next(iter(sorted((tmp_path.__class__(folder) / "lineStrokes").glob("*/*/*.xml"))))
    (tmp_path / "two.json").write_text(
        json.dumps([{"strokes": [[[0, 0], [1, 5], [3, 2]], [[4, 4]]], "text": "hm"}] * 2)
    )
    capsys.readouterr()
    assert main(["handwriting", "--transcribe", str(line), str(tmp_path / "*.json"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{line.name}: " in said
    assert "two.json, line 2: " in said
    assert "(the file says: hm)" in said
    assert "times, to the height of the lines learnt)" in said
    assert "character error rate" in said
    best = min(results.conditions, key=lambda condition: results.conditions[condition].curve[-1].mean())
    assert f"Read by {best.name}, " in said


def test_a_stopped_sweep_goes_on_to_the_same_numbers(task, finished, tmp_path):
    from test_sweep import Interrupt

    _, results = finished
    with pytest.raises(KeyboardInterrupt):
        sweep(task, tmp_path / "out", progress=Interrupt(1))
    again = sweep(task, tmp_path / "out")
    for condition, result in again.conditions.items():
        np.testing.assert_array_equal(result.error, results.conditions[condition].error)
        np.testing.assert_array_equal(result.curve, results.conditions[condition].curve)


def test_several_rates_and_clips_are_a_search_in_one_program(folder):
    task = Handwriting(
        networks=("lstm",), learning_rates=(0.01, 0.1), clip_norms=(5.0, float("inf")), data_folder=folder
    )
    conditions = task.conditions()
    assert len({task.group(condition) for condition in conditions}) == 1
    assert conditions[1].hyperparameters == (("learning_rate", 0.01), ("clip_norm", float("inf")))
    assert Handwriting.from_settings(json.loads(json.dumps(task.settings()))).conditions() == conditions


def test_the_papers_protocol_is_one_line_an_update_at_the_published_rates():
    task = Handwriting(protocol="paper", networks=("srn", "lstm", "cwrnn"), modules=(9,))
    assert [dict(condition.hyperparameters) for condition in task.conditions()] == [
        {"learning_rate": rate, "clip_norm": float("inf")} for rate in (3e-4, 3e-3, 3e-4)
    ]
    assert task.batch_size == 1
    batches = Handwriting(protocol="paper", networks=("lstm",), batch=4).conditions()
    assert batches[0].learning_rate == 4 * 3e-3  # the mean of as many lines


def test_clipping_is_by_the_norm_of_the_condition(task):
    parameters = {"w": jnp.zeros(2)}
    for clip, moved in ((1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (float("inf"), [3.0, 4.0])):
        optimizer = task.optimizer({"learning_rate": jnp.float32(1), "clip_norm": jnp.float32(clip)})
        updates, _ = optimizer.update({"w": jnp.asarray([3.0, 4.0])}, optimizer.init(parameters))
        np.testing.assert_allclose(updates["w"], -1.9 * np.asarray(moved), rtol=1e-6)  # Nesterov: 1 + 0.9 of the first


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"networks": ("gru",)}, "unknown network 'gru'; choose of srn, lstm, cwrnn, cwlstm"),
        ({"sizes": (500,)}, "unknown size 500; choose of 10000, 50000, 100000"),
        ({"modules": ()}, "at least one number of modules must be given, got none"),
        ({"modules": (0,)}, "modules must be an integer from 1 to 16, got 0"),
        ({"modules": (3, 3)}, "each number of modules can be chosen once"),
        ({"protocol": "best"}, "unknown protocol 'best'; choose of stable, paper"),
        ({"clip_norms": (0.0,)}, "clip_norms must be"),
        ({"clip_norms": (5.0, 5.0)}, "each clip_norm can be chosen once"),
        ({"batch": 0}, "batch must be an integer, 1 or more, got 0"),
        ({"stop_after": 0}, "stop_after must be an integer, 1 or more, got 0"),
    ],
)
def test_impossible_tasks_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Handwriting(**arguments)


def test_the_command_writes_a_set_that_it_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "clockwork.tasks.handwriting.task.embedded_lines", functools.partial(embedded_lines, lines_each=1)
    )
    target = tmp_path / "set"
    assert main(["handwriting", "--write-set", str(target)]) == 0
    said = capsys.readouterr().out
    assert "40 lines for training, 6 for validation, 6 for test" in said
    assert [line.text for line in read_iam_ondb(target).test] == [
        line.text for line in embedded_lines(lines_each=1).test
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["handwriting", "--write-set", str(target)])
    assert stopped.value.code == 2
    assert "exists: choose a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "none"], "none has no folder lineStrokes"),
        (["--clip-norm", "-1"], "--clip-norm must be"),
        (["--modules", "40"], "modules must be an integer from 1 to 16, got 40"),
        (["--transcribe", "none.xml"], "holds no results"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_sentence(options, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["handwriting", *options, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cut_stroke_file_is_named_and_can_be_skipped(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "set")
    path = next(iter(sorted((tmp_path / "set" / "lineStrokes").glob("*/*/*.xml"))))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SystemExit):
        main(["handwriting", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "out")])
    assert f"{path} cannot be used: it is truncated or not XML" in capsys.readouterr().err
    remarks = Handwriting(data_folder=str(tmp_path / "set"), skip_bad=True).remarks()
    assert "(79 lines for training" in remarks[0]
    assert "left out: " in remarks[1]


def test_runs_in_a_bad_optimum_are_stuck():
    assert stuck(np.asarray([0.2, 0.34, 0.36, np.nan])).tolist() == [False, False, True, False]
    assert stuck(np.asarray([0.85, 0.95])).tolist() == [False, True]
    assert stuck(np.asarray([np.nan])).tolist() == [False]


def test_word_errors_count_words():
    assert word_error(["a b c", "x"], ["a c", ""]) == 2 / 2
    assert word_error([""], ["one two"]) == 1.0


@pytest.mark.slow
def test_networks_learn_to_read_other_writers():
    # Three runs had 23 to 25 % after 20 epochs, and 16 to 17 % after 100.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "BUCKETS", 5)
        task = Handwriting(runs=3, networks=("srn",), epochs=30)
        with tempfile.TemporaryDirectory() as out:
            (result,) = sweep(task, out).conditions.values()
    assert not result.diverged.any()
    assert (result.error < 0.5).all()


def test_models_of_the_task_can_be_split(task):
    model, _, _ = model_and_step(task, [0])
    structure, params, rest = split(model)
    assert structure.merge(params, rest).num_parameters == model.num_parameters

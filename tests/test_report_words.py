"""The report of the spoken words: the figures in the table are NumPy's, and nothing that can happen makes it fail."""

import dataclasses
import struct

import numpy as np
import pytest
from figures import kept, within_and_apart

from clockwork.data.speech import PAPER_WORDS
from clockwork.report import figures, table, write_report
from clockwork.report.aggregate import best_rows, rows
from clockwork.tasks import Words
from clockwork.tasks.words import confusion
from clockwork.training import Condition, ConditionResult, Results
from clockwork.training.task import Task

TASK = Words(runs=6, sizes=(1000, 10000), splits=(0, 3), learning_rates=(3e-4,))
MISSING = Condition("lstm", 1000, "split3", (("learning_rate", 3e-4),))
NOTES = ("this is synthetic speech, not TIMIT", "its error rates cannot be compared")
LEVEL = {"srn": 0.65, "lstm": 0.35, "cwrnn": 0.18, "cwlstm": 0.25}
FILES = ["table.md", "report.html", "figure4.png", "curves.png", "confusion.png"]


def made_up(condition, runs, rng, words=PAPER_WORDS, notes=NOTES, lost=(), **data):
    """A result as a sweep stores it, of random numbers; every condition has its own number of epochs."""
    count = len(words)
    labels = np.tile(np.arange(count), 2)
    neighbours = (labels // 5 * 5 + (labels + 1) % 5) % count
    scores = rng.normal(size=(runs, len(labels), count))
    wrong = rng.random((runs, len(labels))) < LEVEL[condition.network] * (1.3 if condition.size < 5000 else 1)
    answers = np.where(wrong, np.where(rng.random(wrong.shape) < 0.5, neighbours, rng.integers(count)), labels)
    np.put_along_axis(scores, answers[..., None], 9.0, 2)
    diverged = np.isin(np.arange(runs), lost)
    error = np.where(diverged, np.nan, (answers != labels).mean(1))
    moments = 30 + rng.integers(30)
    epochs = rng.integers(20, moments, runs)
    fall = 0.96 * np.exp(-np.arange(moments)[:, None] / 12)
    test = np.maximum(fall, 0) + error * (1 - fall)
    curve = np.stack([0.6 * test, test, 3 * test, 4 * test], -1)
    return ConditionResult(
        error=error.astype(np.float32),
        epochs=epochs.astype(np.int32),
        diverged=diverged,
        curve=curve.astype(np.float32),
        curve_epochs=np.arange(moments),
        outputs=scores.astype(np.float32),
        kept=np.arange(runs),
        num_parameters=np.asarray(condition.size + 7),
        data={
            "labels": labels,
            "sources": np.asarray([f"{i}.wav" for i in labels]),
            "words": np.asarray(words),
            "notes": np.asarray(notes),
            "mean": np.zeros(13, np.float32),
            "scale": np.ones(13, np.float32),
            **data,
        },
        best={"readout.bias": np.zeros(count, np.float32)},
        state={},
    )


def made_up_results(task: Task = TASK, **kwargs):
    rng = np.random.default_rng(0)
    lost = {("srn", 10000): (0, 4), ("cwrnn", 1000): (2,)}
    conditions = {
        condition: made_up(condition, task.runs, rng, **{"lost": lost.get(condition[:2], ()), **kwargs})
        for condition in task.conditions()
        if condition != MISSING
    }
    return Results(task, conditions)


@pytest.fixture(autouse=True)
def no_corpus(monkeypatch):
    """What a report says is stored with the conditions: the recordings may be gone."""

    def refused(task):
        raise AssertionError("the corpus was loaded")

    monkeypatch.setattr(Words, "corpus", property(refused))


def cells_of(line):
    return [part.strip() for part in line.strip("|").split("|")]


def line_of(text, *start):
    return next(found for found in map(cells_of, text.splitlines()) if found[: len(start)] == list(start))


@pytest.mark.parametrize("network", ["srn", "lstm", "cwrnn"])
@pytest.mark.parametrize("size", TASK.sizes)
def test_the_tables_figures_are_numpys(network, size):
    results = made_up_results()
    ours = [r for condition, r in results.conditions.items() if (condition.network, condition.size) == (network, size)]
    error = 100 * np.concatenate([r.error for r in ours]).astype(np.float64)
    ok = error[~np.isnan(error)]
    stopped = np.concatenate([r.epochs for r in ours])[~np.isnan(error)]
    trained = 100 * np.concatenate([r.curve[-1, :, 0] for r in ours])[~np.isnan(error)].astype(np.float64)
    label = {"srn": "SRN", "lstm": "LSTM", "cwrnn": "CW-RNN"}[network]
    paper = {"srn": "66.8 ± 4.7", "lstm": "34.2 ± 5.6", "cwrnn": "16.8 ± 3.5"}[network] if size == 10000 else ""
    assert line_of(table(results), label, str(size)) == [
        label,
        str(size),
        str(TASK.units[size][network]),
        str(size + 7),
        "0.0003",
        f"{ok.mean():.1f} ± {ok.std(ddof=1):.1f}",
        f"{np.median(ok):.1f}",
        f"{ok.min():.1f}",
        f"{trained.mean():.1f}",
        f"{np.median(stopped):g}",
        f"{(stopped == TASK.epochs).sum()} of {len(error)}",
        f"{len(error) - len(ok)} of {len(error)}",
        paper,
    ]


def test_the_table_says_how_where_and_on_what():
    results = made_up_results()
    text = table(results)
    said = text.splitlines()
    assert said[2] == (
        "66 of 72 training runs are finished: 6 runs of each network, size and split; at most 300 epochs, "
        "batch size 1, input noise of sd 0.6, loss on the last frame, early stopping after 5 epochs without a lower "
        "training loss, seed 0."
    )
    assert said[4] == (
        "Each network tells 25 words of the embedded synthetic set apart. Test set: 50 tokens. "
        "Chance level: always answering the commonest test word gives a test error of 96.0 %."
    )
    assert said[6] == "This is synthetic speech, not TIMIT. Its error rates cannot be compared."
    by_split = text[text.index("Mean test error % by split:") :]
    first = results.conditions[Condition("cwrnn", 10000, "split0", (("learning_rate", 3e-4),))].error.astype(np.float64)
    assert line_of(by_split, "CW-RNN", "10000", "0.0003")[3] == f"{100 * first.mean():.1f}"
    assert line_of(by_split, "LSTM", "1000", "0.0003")[4] == ""
    means = {row.network: 100 * row.converged.mean() for row in rows(results) if row.size == 10000}
    assert (
        f"Mean test error at size 10000, lowest first: CW-RNN {means['cwrnn']:.1f} %, LSTM {means['lstm']:.1f} %, "
        f"SRN {means['srn']:.1f} % (paper: CW-RNN 16.8 %, LSTM 34.2 %, SRN 66.8 %)." in text
    )


def test_the_table_counts_the_runs_that_the_limit_of_epochs_cut():
    results = made_up_results()
    condition = Condition("cwrnn", 1000, "split0", (("learning_rate", 3e-4),))  # its run 2 diverged
    epochs = np.array([300, 300, 300, 20, 299, 300], np.int32)
    results.conditions[condition] = results.conditions[condition]._replace(epochs=epochs)
    header, line = (line_of(table(results), *start) for start in (["network", "size", "units"], ["CW-RNN", "1000"]))
    assert line[header.index("cut at limit")] == "3 of 12"
    assert "Cut at limit: runs that the limit of\nepochs ended before early stopping did" in table(results)


def test_the_table_says_how_many_tokens_and_speakers_where_that_is_stored():
    of_people = {
        "train_labels": np.zeros(125, np.int32),
        "train_speakers": np.array(["ann", "bob", "cid"] * 5),
        "speakers": np.array(["dan"] * 50),
    }
    assert "Test set: 50 tokens by 1 speaker. Training set: 125 tokens by 3 speakers. Chance" in table(
        made_up_results(**of_people)
    )


def test_chance_is_the_commonest_word_of_each_test_set():
    results = made_up_results(words=("yes", "no"))
    first, second = [condition for condition in results.conditions if condition[:2] == ("srn", 1000)]
    results = results._replace(conditions={condition: results.conditions[condition] for condition in (first, second)})
    results.conditions[first].data["labels"] = np.array([0, 0, 0, 1])
    assert "a test error of 25.0 to 50.0 %." in table(results)


@pytest.mark.parametrize("stored", [{"paper_data": np.array(True)}, {"paper_data": np.array(False)}, {}])
def test_the_papers_figures_stand_beside_the_papers_data_alone(stored):
    task = dataclasses.replace(TASK, data_folder="/recordings/of`\nmine")
    text = table(made_up_results(task, notes=(), **stored))
    assert "Each network tells 25 words of the recordings in `/recordings/of??mine` apart." in text
    beside = bool(stored.get("paper_data", False))
    assert (" paper %" in text, "(paper: " in text, "The paper's" in text) == (beside,) * 3


def test_all_files_are_written(tmp_path):
    written = write_report(made_up_results(), tmp_path)
    assert [path.name for path in written] == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for path in written[2:]:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_curves_of_runs_that_stopped_earlier_go_on_with_their_last_errors():
    row = best_rows(made_up_results())["cwrnn", 1000]
    epochs, curves = row.curves()
    first, second = row.conditions.values()
    assert len(first.curve) != len(second.curve)
    np.testing.assert_array_equal(epochs, np.arange(max(len(first.curve), len(second.curve))))
    assert curves.shape == (len(epochs), 10, 4)  # one of the six diverged on either split
    np.testing.assert_array_equal(curves[: len(first.curve), 0], first.curve[:, 0])
    np.testing.assert_array_equal(curves[-1, :5], first.curve[-1, ~first.diverged])
    np.testing.assert_array_equal(curves[-1, 5:], second.curve[-1, ~second.diverged])


def test_the_matrix_counts_the_answers():
    row = best_rows(made_up_results())["srn", 10000]
    shares = confusion._shares(row, 25)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(1 - np.trace(shares) / 25, row.converged.mean(), rtol=1e-6)
    said = [(r.outputs[~r.diverged].argmax(-1)[:, r.data["labels"] == 3] == 4).ravel() for r in row.conditions.values()]
    assert shares[3, 4] == pytest.approx(np.concatenate(said).mean())


@pytest.mark.parametrize(
    "words", [("yes",), [f"sentence_{i}_as_it_was_said_by_many_people" for i in range(50)], list("abc")]
)
def test_every_word_of_the_matrix_is_within_the_figure(words, tmp_path, monkeypatch):
    figures = kept(monkeypatch, confusion)
    lacking = [f"ann lacks {', '.join(words)}"]
    confusion.draw_confusion(made_up_results(words=words, notes=lacking), tmp_path / "confusion.png")
    within_and_apart(figures[0])
    assert len({text.get_text() for text in figures[0].axes[0].get_xticklabels()}) == len(words)


def test_a_matrix_of_many_words_is_of_a_size_that_can_be_written(tmp_path):
    words = [f"word{i}" for i in range(350)]
    task = Words(runs=1, networks=("srn",), sizes=(500,))
    confusion.draw_confusion(made_up_results(task, words=words), tmp_path / "confusion.png")
    width, height = struct.unpack(">II", (tmp_path / "confusion.png").read_bytes()[16:24])
    assert max(width, height) < 4000


def test_only_the_papers_words_are_grouped():
    assert list(confusion._groups(["hallway", "making", "looking"])) == ["ing", "way"]
    assert confusion._groups(["making", "yes"]) == {}


@pytest.mark.parametrize("lost", [range(6), range(5)])
def test_runs_that_all_diverged_but_one_or_none(tmp_path, lost):
    assert len(write_report(made_up_results(lost=lost), tmp_path)) == len(FILES)
    text = (tmp_path / "table.md").read_text()
    assert ("| none " in text) == (len(lost) == 6)
    assert ("lowest first" in text) == (len(lost) < 6)


def test_one_network_one_size_one_run_other_words_no_notes(tmp_path):
    task = Words(runs=1, networks=("cwlstm",), sizes=(500,))
    results = made_up_results(task, words=("yes", "no", "cost_$x$_$y$"), notes=())
    write_report(results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert " ± – " in text
    assert "by split" not in text
    assert "lowest first" not in text


def test_a_search_names_its_choice():
    task = dataclasses.replace(TASK, learning_rates=(1e-4, 3e-4))
    results = made_up_results(task)
    assert "use the learning rate with the lowest mean training loss" in table(results)
    for key, row in best_rows(results).items():
        losses = {
            other.learning_rate: np.mean(
                [result.curve[-1, ~result.diverged, 2].mean() for result in other.conditions.values()]
            )
            for other in rows(results)
            if (other.network, other.size) == key
        }
        assert row.learning_rate == min(losses, key=losses.__getitem__)


def test_a_search_is_drawn_too(tmp_path, monkeypatch):
    drawn = kept(monkeypatch, figures)
    written = write_report(made_up_results(dataclasses.replace(TASK, learning_rates=(1e-4, 3e-4))), tmp_path)
    assert [path.name for path in written] == [*FILES, "search.png"]
    within_and_apart(drawn[-1])
    above, below = drawn[-1].axes[:2], drawn[-1].axes[2:]
    assert [axes.get_title() for axes in above] == ["1000 parameters", "10000 parameters"]
    assert [axes.get_ylabel() for axes in drawn[-1].axes] == ["test error (%)", "", "diverged", ""]
    counts = {line.get_color(): line.get_ydata() for line in below[1].lines}
    np.testing.assert_array_equal(counts["C0"], [4, 4])  # two of the SRN's runs on each of two splits

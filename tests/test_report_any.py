"""The report of any task, and what a task of one's own takes: one folder, and one line in the list of tasks."""

import json
import textwrap
from typing import Any

import numpy as np
import pytest
from figures import kept, within_and_apart

from clockwork import options
from clockwork.cli import main
from clockwork.report import FORMATS, Column, describe, draw_search, figures, table, write_report
from clockwork.report.aggregate import best_rows
from clockwork.tasks import TASKS, Generation
from clockwork.training import Condition, ConditionResult, Results, Task, open_results

RATES, NOISES = (1e-4, 1e-3, 1e-2), (0.0, 0.5)


class Adding(Task):
    """No report, no title, no sizes, no data: conditions differ in network and hyper-parameters alone."""

    name, runs, epochs = "adding_problem", 8, 30

    def __init__(self, networks=("gru", "lstm"), sizes=(0,), data=("",), rates=RATES, noises=NOISES, **more):
        self.axes = networks, sizes, data, rates, noises
        self.patience = more.get("patience")

    def conditions(self):
        networks, sizes, data, rates, noises = self.axes
        return [
            Condition(network, size, piece, (("learning_rate", rate), ("noise", noise)))
            for network in networks
            for size in sizes
            for rate in rates
            for noise in noises
            for piece in data
        ]

    def watched(self, errors):
        return errors[1]


def made_up(task, lost=()):
    """Results as a sweep stores them: the errors of a condition are about a level that its hyper-parameters give."""
    conditions, rng, moments = {}, np.random.default_rng(0), np.arange(task.epochs)
    for condition in task.conditions():
        values = dict(condition.hyperparameters)
        level = np.exp((np.log10(values["learning_rate"]) + 3) ** 2) * (1 + values["noise"])
        diverged = np.isin(np.arange(task.runs), lost) & (values["learning_rate"] == max(RATES))
        error = np.where(diverged, np.nan, level * rng.lognormal(0, 0.2, task.runs)).astype(np.float32)
        curve = error * (1 + 9 * np.exp(-moments / 5))[:, None]
        conditions[condition] = ConditionResult(
            error=error,
            epochs=np.full(task.runs, task.epochs, np.int32),
            diverged=diverged,
            curve=np.stack([np.ones_like(curve), curve], -1).astype(np.float32),
            curve_epochs=moments,
            kept=np.arange(2),
            outputs={"scores": np.zeros((2, 3), np.float32)},
            num_parameters=np.asarray(1234),
            data={},
            best={"w": np.zeros(3, np.float32)},
            state={},
        )
    return Results(task, conditions)


def cells_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_a_column_for_each_hyperparameter_and_none_for_what_is_not_there():
    results = made_up(Adding(), lost=(0, 5))
    text = table(results)
    header, _, *body = cells_of(text)
    assert header == [
        "network", "parameters", "learning_rate", "noise", "error mean ± sd", "median", "best", "diverged",
    ]  # fmt: skip
    assert len(body) == 2 * len(RATES) * len(NOISES)
    condition = Condition("lstm", 0, "", (("learning_rate", 0.01), ("noise", 0.5)))
    error = results.conditions[condition].error.astype(np.float64)
    error = error[~np.isnan(error)]
    wanted = [f"{error.mean():.2f} ± {error.std(ddof=1):.2f}", f"{np.median(error):.2f}", f"{error.min():.2f}"]
    assert body[-1] == ["lstm", "1234", "0.01", "0.5", *wanted, "2 of 8"]
    assert text.splitlines()[0] == "# Adding problem"
    assert "96 of 96 training runs are finished: 8 runs of each network, learning rate and noise; 30 epochs" in text
    assert "For each network, the figures use the learning rate and noise with the lowest mean watched error." in text
    assert "A run counts as diverged" in text


def test_sizes_data_and_early_stopping_have_their_columns_where_there_are_any():
    results = made_up(Adding(sizes=(10, 20), data=("hot", "cold"), rates=(1e-3,), noises=(0.0,), patience=5))
    text = table(results)
    header = cells_of(text)[0]
    assert header[:3] == ["network", "size", "parameters"]
    assert header[-3:] == ["epochs", "cut at limit", "diverged"]
    assert cells_of(text)[2][-3:] == ["30", "16 of 16", "0 of 16"]
    assert "8 runs of each network, size and data; at most 30 epochs, early stopping after 5 epochs without" in text
    assert "The networks were trained on hot, cold." in text
    assert "Mean error by data:" in text
    assert "the figures use" not in text  # nothing was searched


CASES = {
    "search": (Adding(), (0, 5)),
    "all lost": (Adding(rates=(1e-2,)), range(8)),
    "sizes": (Adding(sizes=(10, 20), data=("hot", "cold")), ()),
    "long names": (Adding(networks=[f"a_network_with_a_long_name_{i}" for i in range(7)]), (0,)),
    "many rates": (Adding(rates=tuple(np.geomspace(1e-5, 1, 26).tolist()), noises=(0.1,)), ()),
    "one condition": (Adding(networks=("gru",), rates=(1e-3,), noises=(0.0,)), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_of_a_figure_is_cut_or_lies_on_another(case, tmp_path, monkeypatch, caplog):
    task, lost = CASES[case]
    drawn = kept(monkeypatch, figures)
    written = write_report(made_up(task, lost), tmp_path)
    names = ["table.md", "report.html", "errors.png", "curves.png", *["search.png"] * (case != "one condition")]
    assert [path.name for path in written] == names
    for figure in drawn:
        within_and_apart(figure)
    assert not caplog.records


def test_a_search_shows_medians_quartiles_and_how_many_diverged(tmp_path, monkeypatch):
    drawn, results = kept(monkeypatch, figures), made_up(Adding(), lost=(0, 5))
    draw_search(results, tmp_path / "search.png")
    rates, lost_of_rates, noises, _ = drawn[0].axes
    assert (rates.get_xscale(), noises.get_xscale(), rates.get_yscale()) == ("log", "linear", "linear")
    assert [text.get_text() for text in lost_of_rates.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    rows = [results.conditions[Condition("gru", 0, "", (("learning_rate", r), ("noise", 0.0)))] for r in RATES]
    errors = [row.error[~row.diverged].astype(np.float64) for row in rows]  # without noise they are the lowest
    (bars,) = [c for c in rates.containers if c.lines[0].get_color() == "C0"]
    line, _, (whiskers,) = bars.lines
    np.testing.assert_allclose(line.get_ydata(), [np.median(error) for error in errors])
    ends = [segment[:, 1] for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, [np.quantile(error, [0.25, 0.75]) for error in errors])
    (counts,) = [line for line in lost_of_rates.lines if line.get_color() == "C0"]
    np.testing.assert_array_equal(counts.get_ydata(), [0, 0, 2])
    with pytest.raises(ValueError, match="there is no search to draw"):
        draw_search(made_up(Adding(rates=(1e-3,), noises=(0.0,))), tmp_path / "none.png")


@pytest.mark.parametrize("finished", [1, 3])
def test_a_search_is_drawn_while_it_is_under_way(finished, tmp_path, monkeypatch):
    drawn, results = kept(monkeypatch, figures), made_up(Adding())
    some = dict(list(results.conditions.items())[:finished])
    write_report(results._replace(conditions=some), tmp_path)
    within_and_apart(drawn[-1])
    (line, *_) = drawn[-1].axes[0].lines
    assert len(line.get_xdata()) == -(-finished // len(NOISES))


def test_a_hyperparameter_of_which_nothing_is_finished_is_no_trouble(tmp_path):
    class Mixed(Adding):
        def conditions(self):
            decays = [Condition("rnn", 0, "", (("decay", value),)) for value in (0.1, 0.2)]
            return [*super().conditions(), *decays]

    results = made_up(Adding())._replace(task=Mixed())
    assert write_report(results, tmp_path)[-1].name == "search.png"
    assert cells_of(table(results))[2][2:5] == ["0.0001", "0", ""]


def test_the_best_of_a_search_is_that_of_the_watched_error():
    results = made_up(Adding())
    (gru, _) = best_rows(results).values()
    assert gru.hyperparameters == (("learning_rate", 1e-3), ("noise", 0.0))


FOLDER = {
    "__init__.py": """
        from lines.task import Lines
    """,
    "report.py": """
        from clockwork.report import Column, draw_errors, describe

        def write_slopes(results, folder):
            path = folder / "slopes.txt"
            path.write_text("".join(f"{r.best['w']:.3g}" for r in results.conditions.values()))
            return [path]

        def description(task, results):
            return describe(results)._replace(
                learnt=f"Each network learns a line of slope {task.slope:g}.",
                columns=[Column("slope", lambda row: f"{task.slope:g}", after="error")],
                figures={"boxes": draw_errors},
                files=write_slopes,
            )
    """,
    "task.py": '''
        import dataclasses
        import jax
        import jax.numpy as jnp
        import optax
        from clockwork.training import Condition, Loss, Task

        @dataclasses.dataclass(frozen=True)
        class Lines(Task):
            """Lines: a slope is learnt.

            Args:
                slope: slope of the line to learn.
                rates: learning rates; several make a search.
                halves: whether half the slope is learnt.
            """

            slope: float = 2.0
            rates: tuple[float, ...] = dataclasses.field(default=(0.1,), metadata={"option": "learning-rate"})
            runs: int = 2
            epochs: int = 3
            halves: bool = False
            name = "lines"
            actions = ("draw",)
            runs_axis = 0

            @staticmethod
            def draw(results, files):
                """Name files and how many conditions are finished."""
                return f"{len(results.conditions)} conditions, {len(files)} files"

            def report(self, results):
                from lines.report import description
                return description(self, results)

            def conditions(self):
                return [Condition("line", 0, "", (("learning_rate", rate),)) for rate in self.rates]

            def settings(self):
                return dataclasses.asdict(self)

            @classmethod
            def from_settings(cls, settings):
                known = {field.name: settings[field.name] for field in dataclasses.fields(cls)}
                return cls(**{**known, "rates": tuple(known["rates"])})  # JSON has lists

            def data(self, condition):
                return jnp.linspace(-1.0, 1.0, 8)

            def model(self, name, size, rngs, hyperparameters):
                return {"w": jax.random.normal(rngs.params())}

            def optimizer(self, hyperparameters):
                return optax.sgd(hyperparameters["learning_rate"])

            def error(self, model, data):
                return jnp.square((model["w"] - self.slope) * data).mean()

            def loss(self, model, data, step):
                error = self.error(model, data)
                return Loss(error, error)

            def result(self, model, data):
                return self.error(model, data), model["w"] * data
    ''',
}


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """A task in a folder of its own, and the line that makes it known."""
    (tmp_path / "lines").mkdir()
    for name, text in FOLDER.items():
        (tmp_path / "lines" / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    kind: Any = __import__("lines").Lines
    monkeypatch.setitem(TASKS, "lines", kind)
    return kind


def test_a_new_task_is_one_folder_and_one_line(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["lines", "--slope", "3", "--learning-rate", "0.1", "0.5", "--runs", "3", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "Each network learns a line of slope 3." in said
    assert "Written: " in said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "runs.csv", "table.md", "boxes.png", "search.png", "slopes.txt"} <= written
    assert json.loads((tmp_path / "out/config.json").read_text())["class"] == "lines.task:Lines"
    results = open_results("out")
    assert results.task == lines(slope=3.0, rates=(0.1, 0.5), runs=3)
    header, _, first, second = cells_of(table(results))
    assert header[:3] == ["network", "parameters", "learning_rate"]
    assert header[-2:] == ["slope", "diverged"]
    assert (first[2], second[2], first[-2]) == ("0.1", "0.5", "3")
    files = write_report(results, tmp_path / "out", FORMATS)
    assert len(files) == 2 + 2 * 3 + 1
    assert main(["report", "out"]) == 0
    assert main(["info"]) == 0
    capsys.readouterr()
    assert main(["lines", "--draw", "any.wav", "--out", "out"]) == 0
    assert capsys.readouterr().out == "2 conditions, 1 files\n"
    with pytest.raises(SystemExit):
        main(["lines", "--slope", "4", "--out", "out"])
    assert "another configuration" in capsys.readouterr().err


def test_the_help_of_a_new_task_is_made_of_its_docstring(lines, capsys):
    for arguments, sentences in (
        (
            ["lines", "--help"],
            ["Lines: a slope is learnt.", "--learning-rate", "Slope of the line to learn.", "--draw"],
        ),
        (["--help"], ["Lines: a slope is learnt.", "Spoken words:"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        said = capsys.readouterr().out
        for sentence in sentences:
            assert sentence in said


OPTIONS = {
    "generation": "runs networks sizes clips epochs protocol learning-rate clip-norm audio start samples seed",
    "words": "runs networks sizes epochs data word-list per-word test-per-word splits batch noise loss-at stop-on "
    "stop-after learning-rate seed classify",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_there_and_explained(name):
    kind = TASKS[name]
    assert set(options.option_names(kind).values()) == {f"--{option}" for option in OPTIONS[name].split()}
    described = options._described(kind)
    for field in options.option_names(kind):
        assert field in described or field in getattr(kind, "actions", ())
    assert "``" not in options.help_of(kind)


def test_a_column_has_one_of_three_places():
    class Wrong(Adding):
        def report(self, results):
            return describe(results)._replace(columns=[Column("slope", lambda row: "1", after="median")])

    with pytest.raises(ValueError, match="unknown place of a column 'median'; choose of size, error, diverged"):
        table(made_up(Wrong()))


def test_the_generic_description_serves_the_papers_tasks_too():
    said = describe(Results(Generation(), {}))
    assert (said.title, said.measure.name, said.piece) == ("Sequence generation", "nmse", "clip")

"""The report of the sequence generation: what the table says, what every figure shows, the same bytes each time."""

import struct
from xml.etree import ElementTree

import numpy as np
import pytest
from figures import kept, within_and_apart

from clockwork.report import FORMATS, figures, table, write_report
from clockwork.report.fonts import FONT, _letters, families, legible, names
from clockwork.tasks import Generation
from clockwork.tasks.generation import draw_outputs, outputs
from clockwork.training import ConditionResult, Results

LEVEL = {"srn": 0.9, "lstm": 0.2, "cwrnn": 0.006, "cwlstm": 0.05}
ALL = tuple(LEVEL)
LATIN, LONG = ("choir", "tabla"), ("take_two_of_the_long_interview_of_may", "take_two_of_the_long_interview_of_june")
FOREIGN = ("録音_一回目", "Ελλάδα $x$_$y$", "ዓለም", "🎻🎻", "tab\there")


def made_up(task, levels, lost=(), exploded=0, rate=8000):
    """Results as a sweep stores them, of random numbers about a level for each network."""
    rng, conditions = np.random.default_rng(0), {}
    moments = np.arange(30)
    for condition in task.conditions():
        diverged = np.isin(np.arange(task.runs), lost)
        error = levels[condition.network] * rng.lognormal(0, 0.3, task.runs)
        error[:exploded] *= 1e7
        error[diverged] = np.nan
        target = np.interp(np.arange(50), np.arange(0, 60, 10), rng.uniform(-1, 1, 6))
        conditions[condition] = ConditionResult(
            error=error.astype(np.float32),
            epochs=np.full(task.runs, task.epochs, np.int32),
            diverged=diverged,
            curve=(error * (1 + 9 * np.exp(-moments / 5))[:, None]).astype(np.float32),
            curve_epochs=moments,
            outputs=(target + 0.1 * rng.normal(size=(task.runs, 50))).astype(np.float32),
            kept=np.arange(task.runs),
            num_parameters=np.asarray(condition.size),
            data={"target": target.astype(np.float32), "rate": np.asarray(rate)},
            best={},
            state={},
        )
    return Results(task, conditions)


class Own(Generation):
    """Clips of any name, as of a user's own files."""

    named = LATIN

    def pieces(self):
        return self.named


def own(named, **arguments):
    task = Own(**{"runs": 3, "sizes": (100, 1000), **arguments})
    object.__setattr__(task, "named", tuple(named))
    return task


def test_the_table_says_which_clips_and_how_much_of_them():
    text = table(made_up(Generation(runs=2, sizes=(1000,), clips=LATIN), LEVEL, rate=44100))
    assert "12 of 12 training runs are finished: 2 runs of each network, size and clip; 2000 epochs" in text
    assert (
        "Each network learns one embedded clip, none of which is the paper's: choir, tabla "
        "(each 50 samples at 44100 Hz: 1.13 ms)."
    ) in text
    assert "0.007 ± 0.004" in text
    assert "(paper: 65.7)" in text
    assert "The paper's figures" in text
    assert "cut at limit" not in text  # nothing stops early


@pytest.mark.parametrize("audio", ["sounds/tone.wav", ("sounds/tone.wav",), ("a.wav", "b`.wav", "c.wav")])
def test_the_table_names_file_start_rate_and_length_and_leaves_the_paper_out(audio):
    pieces = ("tone",) if len(audio) != 3 else ("a", "b", "c")
    task = own(pieces, audio="sounds/tone.wav", audio_start=0.5, sizes=(1000,))
    object.__setattr__(task, "audio", audio)
    results = made_up(task, LEVEL)
    if len(pieces) == 3:  # one is not finished yet
        results = results._replace(
            conditions={condition: r for condition, r in results.conditions.items() if condition.data != "c"}
        )
    said = "`sounds/tone.wav` (50 samples at 8000 Hz from 0.5 s: 6.25 ms)."
    if len(pieces) == 3:
        said = "`a.wav`, `b?.wav` (each 50 samples at 8000 Hz from 0.5 s: 6.25 ms); `c.wav`."
    text = table(results)
    assert f"Each network learns a part of one sound file: {said}" in text
    assert "paper" not in text
    assert "as a multiple of the CW-RNN's: SRN " in text


def test_a_search_says_so_before_and_after_its_table():
    text = table(made_up(Generation(runs=1, sizes=(100,), learning_rates=(1e-4, 1e-3)), LEVEL))
    assert "1 run of each network, size, clip and learning rate;" in text
    assert (
        "For each network and size, the figures and the comparison use the learning rate with the lowest mean training "
        "NMSE."
    ) in text


CASES = {
    "all networks": (own(LATIN, networks=ALL, sizes=(100, 250, 500, 1000)), LEVEL, {}),
    "one run": (own(LATIN[:1], runs=1, networks=("cwrnn",), sizes=(100,)), LEVEL, {}),
    "one clip": (own(LATIN[:1]), LEVEL, {}),
    "one decade": (own(LATIN), {"srn": 0.9, "lstm": 0.5, "cwrnn": 0.3}, {"lost": [1]}),
    "errors of zero": (own(LATIN), dict.fromkeys(LEVEL, 0.0), {}),
    "some exploded": (own(LATIN, runs=20, sizes=(100, 250, 500, 1000)), LEVEL, {"lost": [9], "exploded": 2}),
    "all exploded": (own(LATIN, sizes=(100, 250, 500, 1000)), LEVEL, {"exploded": 3}),
    "all diverged": (own(LATIN), LEVEL, {"lost": range(3)}),
    "many clips": (own([f"bird{i:02}" for i in range(45)], networks=("srn",), sizes=(100,)), LEVEL, {}),
    "long names": (own(LONG, networks=ALL), LEVEL, {}),
    "names in other letters": (own(FOREIGN), LEVEL, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_of_a_figure_is_cut_or_lies_on_another(case, tmp_path, monkeypatch, caplog):
    task, levels, arguments = CASES[case]
    drawn = kept(monkeypatch, figures, outputs)
    write_report(made_up(task, levels, **arguments), tmp_path)
    assert len(drawn) == 3
    for figure in drawn:
        within_and_apart(figure)
    for axes in drawn[1].axes:
        assert not axes.texts  # over the curves
    assert not caplog.records  # matplotlib logs what it cannot find


def test_a_figure_of_one_clip_is_no_strip(tmp_path):
    for networks in (("cwrnn",), ALL):
        draw_outputs(made_up(own(LATIN[:1], networks=networks), LEVEL), tmp_path / "figure5.png")
        width, height = struct.unpack(">II", (tmp_path / "figure5.png").read_bytes()[16:24])
        assert height > 400
        assert width > 700


def errors_drawn(monkeypatch, tmp_path, *arguments, **others):
    drawn = kept(monkeypatch, figures)
    figures.draw_errors(made_up(*arguments, **others), tmp_path / "figure3.png")
    return drawn[0]


@pytest.mark.parametrize("cwrnn", [0.006, 0.5])
def test_the_scale_is_one_and_logarithmic_where_errors_span_decades(cwrnn, tmp_path, monkeypatch):
    figure = errors_drawn(monkeypatch, tmp_path, own(LATIN), {**LEVEL, "lstm": 0.4, "cwrnn": cwrnn})
    log = cwrnn < 0.1
    assert {axes.get_yscale() for axes in figure.axes} == {"log" if log else "linear"}
    assert figure.axes[0].get_ylabel() == ("NMSE (log scale)" if log else "NMSE")
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_the_line_is_the_median_the_mark_the_mean_and_the_legend_says_so(tmp_path, monkeypatch):
    task = own(LATIN[:1], runs=9, networks=("srn",), sizes=(100,))
    figure = errors_drawn(monkeypatch, tmp_path, task, LEVEL)
    (error,) = (result.error.astype(float) for result in made_up(task, LEVEL).conditions.values())
    drawn = {line.get_color(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(drawn["tab:orange"], np.median(error))
    (mean,) = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    np.testing.assert_allclose(mean.get_ydata(), error.mean())
    (legend,) = figure.legends
    shown = zip(legend.get_texts(), legend.legend_handles, strict=True)
    marks = {text.get_text(): (handle.get_color(), handle.get_marker()) for text, handle in shown}
    assert marks["median"][0] == "tab:orange"
    assert marks["mean"][1] == "D"


def test_runs_beyond_the_axis_are_counted_and_a_mean_there_is_given(tmp_path, monkeypatch):
    task = own(LATIN[:1], runs=10, networks=("srn", "cwrnn"), sizes=(100,))
    figure = errors_drawn(monkeypatch, tmp_path, task, LEVEL, exploded=2, lost=[5])
    (label,) = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert label.startswith("100\n1 diverged\n2 above 2\nmean ")
    assert figure.axes[0].get_ylim()[1] <= 2


def test_a_box_above_two_is_drawn_all_the_same(tmp_path, monkeypatch):
    figure = errors_drawn(monkeypatch, tmp_path, own(LATIN), LEVEL, exploded=3)
    highest = max(line.get_ydata().max() for axes in figure.axes for line in axes.lines if len(line.get_ydata()))
    assert figure.axes[0].get_ylim()[1] > 0.5 * highest


def test_the_figures_are_written_in_each_format_and_always_the_same(tmp_path):
    results = made_up(own((*FOREIGN[:2], "two--dashes"), networks=("cwrnn",), sizes=(100,)), LEVEL)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        written = write_report(results, folder, FORMATS)
        drawn = [f"{name}.{form}" for name in ("figure3", "figure5", "curves") for form in ("png", "pdf", "svg")]
        assert [path.name for path in written if path.suffix != ".wav"] == ["table.md", "report.html", *drawn]
    begins = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for name in drawn:
        first = (tmp_path / "one" / name).read_bytes()
        assert first.startswith(begins[name.split(".")[1]])
        assert first == (tmp_path / "two" / name).read_bytes(), name
        if name.endswith("svg"):
            ElementTree.fromstring(first)


@pytest.mark.parametrize(
    ("formats", "sentence"),
    [
        (("png", "jpg"), "unknown format 'jpg'; choose of png, pdf, svg"),
        ((), "at least one format must be chosen, of png, pdf, svg"),
        (("png", "png"), "each format can be chosen once, got png, png"),
    ],
)
def test_other_formats_are_refused_before_anything_is_written(formats, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        write_report(made_up(own(LATIN), LEVEL), tmp_path, formats)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["figure", "figure.xyz"])
def test_a_file_of_no_format_is_refused_and_nothing_left(name, tmp_path):
    with pytest.raises(ValueError, match="is not supported"):
        draw_outputs(made_up(own(LATIN[:1]), LEVEL), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_infinite_errors_in_a_curve_are_no_trouble(tmp_path):
    results = made_up(own(LATIN), LEVEL)
    for condition, result in results.conditions.items():
        curve = result.curve.copy()
        curve[:3, 1:] = np.inf
        results.conditions[condition] = result._replace(curve=curve)
    figures.draw_curves(results, tmp_path / "curves.png")


def test_letters_that_matplotlibs_font_lacks_are_taken_from_another():
    (letter, *_) = sorted(_letters("STIXGeneral") - _letters(FONT))  # both come with matplotlib
    assert len(families([chr(letter)])) == 2
    assert legible(chr(letter)) == chr(letter)


def test_names_stay_apart_and_keep_their_ends():
    assert names(["a" * 30, "a" * 29 + "b", "short"], 9) == ["aaaa…aaaa", "aaaa…aaab", "short"]
    assert names(["aaaaa1aaaaa", "aaaaa2aaaaa"], 5) == ["aa…aa (1)", "aa…aa (2)"]
    assert names(["x" * 5], 5) == ["x" * 5]

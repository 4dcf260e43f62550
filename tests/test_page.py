"""``report.html``: all of it is on the page, nothing else is loaded, and nothing that is shown is obeyed."""

import json
import os
import re
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from clockwork.cli import main
from clockwork.report import Listing, Sound, describe, html, table, write_html, write_report
from clockwork.report.watch import server
from clockwork.tasks import Generation
from clockwork.training import Condition, ConditionResult, Results, Task, open_results, sweep

HOSTILE = "</script><script>alert(1)</script>"
OWN = "the report of made-up runs"


class Made(Task):
    """A task of one's own, with a name that would end a script and data that are not finite."""

    name, runs, epochs, seed = "made", 12, 5, 0
    networks: ClassVar = ("gru", HOSTILE)

    def __init__(self, runs=12, moments=5):
        self.runs, self.moments = runs, moments

    def conditions(self):
        return [Condition(network, 10, "", (("rate", rate),)) for network in self.networks for rate in (0.1, 1.0)]

    def results(self):
        found = {}
        for number, condition in enumerate(self.conditions()):
            rng = np.random.default_rng(number)
            error = rng.random(self.runs).astype(np.float32)
            curve = np.tile(error, (self.moments, 1))
            curve[0, 0] = np.inf
            error[1] = np.nan
            found[condition] = ConditionResult(
                error=error, epochs=np.full(self.runs, 5), diverged=np.isnan(error), curve=curve,
                curve_epochs=np.arange(self.moments), kept=np.arange(0), outputs=np.zeros(0),
                num_parameters=np.asarray(3), data={}, best={}, state={},
            )  # fmt: skip
        return Results(self, found)

    def report(self, results):
        sound = Sound("a tone", "gru", "", np.array([0.0, 1.0, np.nan, -2.0]), 8000)
        listing = Listing(HOSTILE, ("a", "b"), [(HOSTILE, "<b>")] * 300)
        return describe(results)._replace(title=OWN, sounds=lambda _: [sound], listings=lambda _: [listing])


class Page(HTMLParser):
    """The tags of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.open = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data):
        if self.open == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.open = ""

    @property
    def data(self):
        (place,) = [
            i for i, (tag, has) in enumerate(t for t in self.tags if t[0] == "script") if has.get("id") == "data"
        ]
        return json.loads(self.scripts[place])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "out"
    sweep(Generation(runs=2, networks=("cwrnn", "srn"), sizes=(100,), clips=("choir",), epochs=3), folder)
    return folder


def test_all_of_it_is_on_the_page(tmp_path):
    results = Made().results()
    path = write_html(results, tmp_path, command="clockwork <made>")
    page = Page(text := path.read_text(encoding="utf-8"))
    assert path.name == "report.html"
    assert OWN in text
    assert "clockwork &lt;made&gt;" in text
    data = page.data
    assert [one["shown"] for one in data["conditions"]] == [list(range(12))] * 4
    for one, result in zip(data["conditions"], results.conditions.values(), strict=True):
        np.testing.assert_allclose([np.nan if e is None else e for e in one["error"]], result.error, rtol=1e-3)
        assert one["diverged"] == [0, 1] + [0] * 10
        assert one["curve"]["values"][0][0][0] is None  # it was infinite
    assert data["sounds"][0]["rate"] == 8000
    assert len([tag for tag, _ in page.tags if tag == "tr"]) > html.LISTED
    assert "100 more rows are left out" in text


def test_nothing_that_is_shown_is_obeyed_and_nothing_else_is_loaded(tmp_path):
    page = Page(write_html(Made().results(), tmp_path).read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "<" not in page.scripts[0]  # the data: what could end them early is escaped
    assert page.data["labels"][HOSTILE] == HOSTILE
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "b")
        assert "src" not in attributes
        assert "href" not in attributes
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_it_stays_below_its_limit_and_says_what_it_leaves_out(tmp_path):
    path = write_html(Made(runs=30_000, moments=400).results(), tmp_path)
    assert path.stat().st_size <= html.LIMIT
    data = Page(path.read_text(encoding="utf-8")).data
    assert re.match(r"\d+ of 30000 runs of each condition are shown\.", data["notes"][0])
    assert len(data["conditions"][0]["curve"]["epochs"]) == html.POINTS


def test_sounds_that_there_is_no_space_for_are_left_out_and_counted(tmp_path, monkeypatch):
    results = Made().results()
    count = len(Page(write_html(results, tmp_path).read_text(encoding="utf-8")).data["sounds"])
    monkeypatch.setattr(html, "SOUNDS", 10)
    data = Page(write_html(results, tmp_path).read_text(encoding="utf-8")).data
    assert data["sounds"] == []
    assert f"{count} of {count} sounds are left out: the page would be too large." in data["notes"]


def test_a_sweep_of_the_command_writes_it_with_the_command(swept, capsys):
    assert main(["report", str(swept), "--html"]) == 0
    assert capsys.readouterr().out == f"Written: {swept / 'report.html'}\n"
    text = (swept / "report.html").read_text(encoding="utf-8")
    (command,) = re.findall(r"<pre><code>(.*)</code></pre>", text)
    assert command.startswith("clockwork generation --runs 2 ")
    for option in ("--networks cwrnn srn", "--sizes 100", "--clips choir", "--epochs 3", f"--out {swept}"):
        assert option in command
    assert [s["name"].split(",")[0] for s in Page(text).data["sounds"]] == ["choir"] * 3
    assert text.count("<td") >= table(open_results(swept)).count("\n| ") * 5
    assert write_report(open_results(swept), swept)[1] == swept / "report.html"


def test_it_is_served_to_this_machine_alone_and_says_when_it_would_differ(swept):
    def get(path, host=None):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host} if host else {})
        with urllib.request.urlopen(asked) as answer:
            return answer.read().decode()

    with server(swept, 0) as serving:
        port = serving.server_address[1]
        assert serving.server_address[0] == "127.0.0.1"
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        before = get("/stamp")
        assert Page(get("/")).data["live"] == before
        for path in (Path(swept) / "conditions").glob("srn*"):
            path.touch()
        assert get("/stamp") != before
        for path, host, status in (("/", "example.org", 403), ("/../config.json", None, 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(path, host)
            assert refused.value.code == status
            refused.value.close()
        serving.shutdown()


def test_a_folder_whose_name_is_not_utf8_is_served(swept):
    folder = swept.rename(os.fsdecode(os.fsencode(swept.parent) + b"/r\xff"))
    try:
        with server(folder, 0) as serving:
            threading.Thread(target=serving.serve_forever, daemon=True).start()
            with urllib.request.urlopen(f"http://127.0.0.1:{serving.server_address[1]}/") as answer:
                assert "r\\udcff</title>" in answer.read().decode()
            serving.shutdown()
    finally:
        folder.rename(swept)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "holds no results"),
        (["FOLDER", "--port", "70000"], "--port must be from 0 to 65535, got 70000"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_a_sentence(swept, arguments, why, capsys):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(["watch", *(str(swept) if a == "FOLDER" else a for a in arguments)]))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_refused_in_a_sentence(swept, capsys):
    with server(swept, 0) as serving:
        port = str(serving.server_address[1])
        with pytest.raises(SystemExit) as ended:
            raise SystemExit(main(["watch", str(swept), "--port", port]))
    assert ended.value.code == 2
    assert f"--port {port} cannot be listened on" in capsys.readouterr().err

"""What a sweep tells: on terminals of any width, in logs, after a resume."""

import io
import itertools
import re

import pytest
from rich.console import Console

from clockwork.training import progress as module
from clockwork.training.progress import Bar, Lines


@pytest.fixture
def clock(monkeypatch):
    """The time, which passes as the test says."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Notes(Lines):
    def __init__(self, every=30.0):
        super().__init__(every)
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def seconds(text):
    parts = [int(part) for part in re.findall(r"([\d:]+) left", text)[-1].split(":")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def train(progress, clock, epochs, segment=50, speed=50.0):
    progress.phase("training")
    for _ in range(0, epochs, segment):
        clock.sleep(segment / speed)
        progress.advance(segment)


def test_time_left_is_of_this_sessions_own_work(clock):
    progress = Notes(every=0.0)
    progress.plan(networks=20, stored=0, epochs=4000)
    progress.group("lstm-100", 10)
    progress.phase("compiling")
    clock.sleep(60)
    progress.advance(1500)  # that were stored: in no time, or in 3 s, they say nothing of the speed
    clock.sleep(3)
    train(progress, clock, 100)
    assert seconds(progress.lines[-1]) == (4000 - 1600) / 50
    train(progress, clock, 400)
    progress.phase("evaluating")
    clock.sleep(7)
    progress.group("srn-100", 10)
    progress.phase("compiling")
    clock.sleep(70)
    train(progress, clock, 1000)
    assert seconds(progress.lines[-1]) == 1000 / 50  # nothing is left to be compiled


def test_the_bar_never_jumps_where_runs_stop_early(clock):
    progress = Notes()
    progress.plan(networks=4, stored=0, epochs=600)
    progress.group("srn-500", 4)
    progress.phase("training")
    seen = []
    for epoch in range(1, 101):
        clock.sleep(1)
        progress.advance(1)
        active = 1 - min(3, epoch // 30) / 4
        progress.spare(int((300 - epoch) * (1 - active)))
        seen.append(progress.done)
    progress.phase("evaluating")
    progress.advance(300 - 100)
    seen.append(progress.done)
    assert seen[-1] == 300
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert min(steps) >= 0
    assert max(steps) <= 300 / 4  # what one run of four is spared


def test_a_log_does_not_repeat_itself_and_takes_its_time(clock):
    progress = Notes(every=30.0)
    progress.plan(networks=40, stored=0, epochs=4 * 1000)
    told = []
    for group in range(4):
        progress.group(f"srn-{group}", 1)
        for phase in ("compiling", "training", "compiling", "training"):
            progress.phase(phase)
        train(progress, clock, 1000, speed=5)
        told.append(len(progress.lines))
        progress.phase("evaluating")
    progress.end()
    progress.end()
    assert len(set(progress.lines)) == len(progress.lines)
    assert len(progress.lines) <= 2 + 1 + 4 * 200 / 30
    assert progress.lines[0] == "40 networks to train"
    assert progress.lines[1] == "srn-0 compiling: 1 run, 0 of 4000 epochs"
    assert progress.lines[-1] == "4000 epochs done in 13:20"


def test_one_is_singular(clock):
    progress = Notes()
    progress.plan(networks=1, stored=0, epochs=1)
    progress.group("srn-100", 1)
    progress.phase("compiling")
    progress.phase("evaluating")
    progress.advance(1)
    progress.end()
    assert progress.lines == ["1 network to train", "srn-100 compiling: 1 run, 0 of 1 epoch", "1 epoch done in 0:00"]


def rendered(bar, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="standard")
    bar.console = console
    with console.capture() as captured:
        console.print(bar.line())
    return re.sub(r"\x1b\[[\d;]*m", "", captured.get()).rstrip("\n")


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
def test_the_bar_fits_on_one_line(clock, width):
    bar = Bar(Console(width=width, file=io.StringIO(), force_terminal=True))
    bar.plan(networks=300, stored=3, epochs=3 * 20000)
    bar.group("cwlstm-10000", 100)
    bar.phase("compiling")
    clock.sleep(42)
    line = rendered(bar, width)
    assert "\n" not in line
    assert len(line) <= width
    assert "cwlstm-10000 compiling 0:42" in line
    bar.phase("training")
    clock.sleep(7000)
    bar.advance(12345, diverged=3)
    line = rendered(bar, width)
    assert "\n" not in line
    assert len(line) <= width
    assert "cwlstm-10000 training 1:56:40" in line
    assert re.search(r" 20 % +\d+:\d\d:\d\d left", line)
    assert len(re.findall("[━╸╺]", line)) >= module.NARROWEST
    assert (width < 120) or "100 runs, 3 diverged, 12345 of 60000 epochs" in line
    bar.end()


def test_the_bar_lives_while_nothing_happens(clock):
    bar = Bar(Console(width=80, file=io.StringIO(), force_terminal=True))
    bar.plan(networks=1, stored=0, epochs=10)
    bar.group("srn-100", 1)
    bar.phase("compiling")
    seen = set()
    for _ in range(20):
        clock.sleep(0.13)
        seen.add(rendered(bar, 80))
    assert len({line[0] for line in seen}) >= 3  # the spinner
    assert {"0:00", "0:01", "0:02", "0:03"} == {re.findall(r"\d:\d\d", line)[0] for line in seen}
    bar.end()

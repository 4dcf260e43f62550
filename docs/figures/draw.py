"""Draw the figures of the clock: ``python docs/figures/draw.py`` writes SVG files beside this one."""

from pathlib import Path

import numpy as np

import clockwork as cw
from clockwork.optional import require

HERE = Path(__file__).parent
CLOCK = cw.Clock.exponential(width=12, modules=4)
COLOURS = ("#4477aa", "#66bbcc", "#ee8866", "#aa3377")  # of the modules, fastest first
STEPS = 17


def figure(width: float, height: float):
    """An empty figure on white, readable on a dark page too."""
    drawn = require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return drawn, drawn.subplots()


def ticks(path: Path) -> None:
    """Which modules update at which steps, and that slow ones feed fast ones."""
    drawn, axes = figure(8, 2.4)
    for module, (period, colour) in enumerate(zip(CLOCK.periods, COLOURS, strict=True)):
        for begin in range(0, STEPS, period):
            length = min(period, STEPS - begin)
            axes.barh(module, length - 0.08, left=begin - 0.46, height=0.72, color=colour, alpha=0.3, linewidth=0)
            axes.barh(module, 0.92, left=begin - 0.46, height=0.72, color=colour, linewidth=0)
    for module in range(1, CLOCK.modules):
        axes.annotate(
            "",
            xy=(STEPS + 0.1, module - 1.25),
            xytext=(STEPS + 0.1, module + 0.25),
            arrowprops={"arrowstyle": "-|>", "color": "#444444"},
            annotation_clip=False,
        )
    axes.text(STEPS + 0.4, 1.5, "feeds", va="center", color="#444444")
    axes.set_yticks(range(CLOCK.modules), [f"module {i + 1}, period {p}" for i, p in enumerate(CLOCK.periods)])
    axes.set_xticks(range(STEPS))
    axes.set(xlabel="step t (dark: the module updates; light: it keeps its value)", xlim=(-0.6, STEPS + 1.6))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    save(drawn, path)


def matrix(path: Path) -> None:
    """The recurrent weights: module i receives from itself and from slower modules; the rest is never stored."""
    drawn, axes = figure(4.2, 3.8)
    owner = np.repeat(np.arange(CLOCK.modules), CLOCK.sizes)
    for row in range(CLOCK.width):
        for column in range(CLOCK.width):
            if owner[column] >= owner[row]:
                axes.barh(row, 0.94, left=column - 0.47, height=0.94, color=COLOURS[owner[column]], linewidth=0)
    middles = [start + (size - 1) / 2 for start, size in zip(CLOCK.starts, CLOCK.sizes, strict=True)]
    names = [f"period {period}" for period in CLOCK.periods]
    axes.set_xticks(middles, names)
    axes.set_yticks(middles, names)
    axes.set(xlabel="from module", ylabel="to module", xlim=(-0.6, CLOCK.width - 0.4), ylim=(CLOCK.width - 0.4, -0.6))
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    save(drawn, path)


def save(drawn, path: Path) -> None:
    """Write the figure, the same bytes each time."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "clockwork", "svg.fonttype": "path"}):
        drawn.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    ticks(HERE / "clock.svg")
    matrix(HERE / "matrix.svg")

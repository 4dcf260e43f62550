"""Figure 5: what the networks generate."""

from pathlib import Path
from typing import Any

from clockwork.report.aggregate import best_run, networks
from clockwork.report.drawing import PANEL_WIDTH, canvas, legend, save
from clockwork.report.fonts import names as drawn_names
from clockwork.tasks.paper import LABELS
from clockwork.training import Results

CLIPS_DRAWN = 40  # at most: a figure has a height
LINE = 16  # letters of a clip's name that fit beside its row
TARGET: dict[str, Any] = {"linestyle": ":", "color": "tab:blue", "linewidth": 1.4}
OUTPUT: dict[str, Any] = {"linestyle": "-", "color": "tab:green", "linewidth": 1}


def draw_outputs(results: Results, path: str | Path) -> None:
    """Figure 5: the best output of each network (column) on each clip (row), over its target.

    The best is the run with the lowest NMSE of all sizes and learning rates; its NMSE and size stand above it. Of many
    clips the first 40 are drawn.

    Args:
        results: of a sweep of `clockwork.tasks.Generation`; at least one finished condition.
        path: as in `clockwork.report.draw_errors`, whose errors are raised here too.

    Example:
        >>> from clockwork.training import open_results
        >>> draw_outputs(open_results("results/generation"), "figure5.png")
    """
    names = networks(results, LABELS)
    targets = {condition.data: result.data["target"] for condition, result in results.conditions.items()}
    clips = list(targets)
    shown = clips[:CLIPS_DRAWN]
    labels = drawn_names(shown, 2 * LINE)
    figure, axes = canvas(len(shown), len(names), PANEL_WIDTH, max(1.7, 3.6 / len(shown)), sharex=True, sharey=True)
    for column, name in enumerate(names):
        axes[0][column].set_title(LABELS[name], loc="left", pad=3)
        axes[-1][column].set_xlabel("sample")
        for row, clip in enumerate(shown):
            axis, best = axes[row][column], best_run(results, name, clip)
            axis.set_ylim(-1.15, 1.15)
            axis.plot(targets[clip], **TARGET)
            if best is not None:
                condition, output, error = best
                axis.plot(output, **OUTPUT)
                said = f"NMSE {error:.2g}, {condition.size} parameters"
            else:
                trained = any((condition.network, condition.data) == (name, clip) for condition in results.conditions)
                said = "all runs diverged" if trained else "not trained yet"
            axis.set_title(said, loc="right", fontsize=7, pad=3)
    for row, label in enumerate(labels):
        axes[row][0].set_ylabel("\n".join(label[i : i + LINE] for i in range(0, len(label), LINE)), fontsize=9)
    legend(figure, [(TARGET, "target"), (OUTPUT, "output")])
    save(figure, results, path, [f"The first {len(shown)} of {len(clips)} clips."] * (len(shown) < len(clips)))

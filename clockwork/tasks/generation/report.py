"""What the report of the sequence generation says and draws in its own words."""

from pathlib import Path

from clockwork.checks import counted, listed
from clockwork.report import Description, Line, Measure, draw_curves, draw_errors
from clockwork.report.fonts import code
from clockwork.tasks.generation.outputs import draw_outputs
from clockwork.tasks.generation.sounds import best_sounds, write_sounds
from clockwork.tasks.generation.task import Generation
from clockwork.tasks.paper import LABELS
from clockwork.tasks.published import compared, paper_column, papers_data, units_column
from clockwork.training import Results

NOTES = """\
NMSE is the mean squared error divided by the variance of the target, both over all samples: a network that outputs only
the target's mean scores 1. A run counts as diverged if its loss or gradient norm ever became non-finite; mean, sd,
median and best are over the other runs. A run whose error exploded but stayed finite is among them and dominates the
mean: compare the medians then.
"""

PAPER = """\
The paper's figures are those of its Table 2: mean and sd over 100 runs, on other clips. The paper does not define its
NMSE. By the definition above, an SRN with an NMSE of 0.46 would be far better than the mean; the SRN in the paper's
Figure 5 outputs little more than the mean. So the paper's NMSE was normalised in another way.
"""

# Twice the variance of the target: figures count the runs with larger errors.
TOP = 2.0


def description(task: Generation, results: Results) -> Description:
    """The description of the results of a task."""
    paper = papers_data(results, task.audio)
    return Description(
        title=f"Sequence generation, protocol `{task.protocol}`",
        training=f"{counted(task.epochs, 'epoch')}, {task.training.clipping}",
        measure=Measure("NMSE", top=TOP, lines=(Line(number=0),), log=True),
        learnt=_learnt(task, results),
        piece="clip",
        labels=LABELS,
        hyperparameters={"learning_rate": "rate"},
        columns=[units_column(task), *[paper_column(task, "paper", "{} ± {}")] * paper],
        watched="training NMSE",
        uses="the figures and the comparison use",
        comparison=_ratios(results, paper),
        notes="\n".join([NOTES] + [PAPER] * paper),
        figures={"figure3": draw_errors, "figure5": draw_outputs, "curves": draw_curves},
        files=lambda results, folder: write_sounds(results, folder / "best"),
        sounds=best_sounds,
    )


def _learnt(task: Generation, results: Results) -> str:
    """The clips, those of one length and rate together; what no finished condition has stored is left out."""
    pieces = {condition.data: result for condition, result in results.conditions.items()}
    if task.audio:
        audio = (task.audio,) if isinstance(task.audio, (str, Path)) else task.audio
        names = [code(str(file)) for file in audio]
        what, start = "a part of one sound file", f" from {task.audio_start:g} s"
    else:
        names, what, start = list(task.pieces()), "one embedded clip, none of which is the paper's", ""
    groups: dict[str, list[str]] = {}
    for piece, name in zip(task.pieces(), names, strict=False):
        extent = ""
        if piece in pieces:
            samples, rate = len(pieces[piece].data["target"]), int(pieces[piece].data["rate"])
            extent = f"{samples} samples at {rate} Hz{start}: {1000 * samples / rate:.3g} ms"
        groups.setdefault(extent, []).append(name)
    parts = [
        listed(members) + (f" ({'each ' * (len(members) > 1)}{extent})" if extent else "")
        for extent, members in groups.items()
    ]
    return f"Each network learns {what}: {'; '.join(parts)}."


def _ratios(results: Results, paper: bool) -> str:
    """The mean errors of the others as multiples of the CW-RNN's, at the largest size that has all."""
    size, errors = compared(results, needed="cwrnn")
    own = errors.pop("cwrnn").mean() if errors else 0
    if not own:
        return ""
    published = Generation.published if paper and size == max(Generation.units) else {}
    parts = [
        f"{LABELS[name]} {others.mean() / own:.3g} times"
        + (f" (paper: {published[name][0] / published['cwrnn'][0]:.1f})" if name in published else "")
        for name, others in errors.items()
    ]
    return f"Mean NMSE at size {size} as a multiple of the CW-RNN's: {', '.join(parts)}."

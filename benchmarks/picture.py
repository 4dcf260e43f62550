"""Speed against the number of modules."""

from itertools import groupby
from pathlib import Path

from clockwork.optional import require


def draw(rows: list[dict], cores: int, path: Path) -> None:
    """Times as fast as the masked scan, with the paper's bound g / 4 and the limit by counting operations."""
    figure = require("matplotlib.figure").Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    rows = sorted(rows, key=lambda row: (row["what"], row["g"]))
    for marker, (what, group) in zip("os^", groupby(rows, key=lambda row: row["what"]), strict=False):
        group = list(group)
        counts, ratios = [row["g"] for row in group], [row["ratio"] for row in group]
        errors = [
            [row["ratio"] - row["quartiles"][0] for row in group],
            [row["quartiles"][1] - row["ratio"] for row in group],
        ]
        axes.errorbar(counts, ratios, yerr=errors, marker=marker, capsize=2, label=f"measured: {what}")
        if marker == "o":
            limits = [row["limit"] for row in group]
            axes.plot(
                counts,
                limits,
                "--",
                color="gray",
                label=f"limit at {what.split(',')[0]}: dense multiply-adds by the cascade's",
            )
            axes.plot(counts, [g / 4 for g in counts], ":", color="black", label="the paper's bound, g / 4")
    axes.axhline(1, color="lightgray", linewidth=0.8, zorder=0)
    axes.set_xticks(sorted({row["g"] for row in rows}))
    axes.set(xlabel="modules g", ylabel="times as fast as the masked scan", yscale="log")
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    axes.set_title(f"Loss and gradient, {cores} cores")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)

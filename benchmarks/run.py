"""How fast it is, against what one would write oneself: a table, a JSON file and a picture.

``python benchmarks/run.py`` times every row in this one process, all its ways in turn, takes
medians, and writes ``benchmarks/results/cpu.json``, the tables of ``docs/speed.md``, and ``docs/speed.png``;
``--report`` writes the latter two again from stored results. PyTorch's rows need PyTorch (``pip install torch``).
"""

import argparse
import datetime
import importlib
import json
import platform
import sys
import time
from pathlib import Path

import jax
import numpy as np
from picture import draw
from timing import compiled, measure
from works import Size, Work, by_modules, library_sweep, scalings, works

from clockwork.tasks import Generation
from clockwork.training import use_all_cores
from clockwork.training.config import environment

HERE = Path(__file__).parent
QUICK = Size(
    runs=8, clockwork=11, simple=9, lstm=4, nominal=100, wide=64, wide_modules=3, wide_steps=32, batch=4, features=4,
    layers=((16, 3, 64, 2),), gated=((8, 16, 2),), long=2048, streamed=10,
)  # fmt: skip

FRONT = {
    "sweep epoch, CW-RNN": "masked scan, vmap",
    "training step, N = 512": "masked scan",
    "training step of a Flax layer, N = 128": "nnx.RNN(SimpleCell)",
    "training step of a Flax layer, N = 64": "nnx.RNN(SimpleCell)",
    "one step, streaming, N = 40": "masked step by hand",
}  # the beginning of each work's name, and the way it is held against
TABLES = "<!-- tables: python benchmarks/run.py writes what follows -->"


def machine() -> dict:
    """What it ran on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        **environment(),
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(jax.devices()) if jax.default_backend() == "cpu" else None,
        "date": datetime.date.today().isoformat(),
    }


def peak() -> float:
    """Multiply-adds per second of a large float32 matrix product: the most this machine can do."""
    n = 2048
    timed = compiled(lambda a, b: a @ b, np.ones((n, n), np.float32), np.ones((n, n), np.float32))
    return n**3 / (1e-3 * min(measure({"product": timed}, 10, 5)["product"]["quartiles"]))


def slope(values: list[int], milliseconds: list[float]) -> float:
    """The power of the size that the cost grows with: 1 is linear."""
    return float(np.polyfit(np.log(values), np.log(milliseconds), 1)[0])


def timed(work: Work, peak: float, repeats: int, seconds: float) -> dict:
    """One piece of work by all ways."""
    say(work.name)
    rows = measure({name: build() for name, build in work.ways.items() if build}, repeats, seconds)
    first = rows[next(iter(rows))]
    if work.multiply_adds:
        first["of_peak"] = work.multiply_adds / (1e-3 * first["ms"]) / peak
    jax.clear_caches()
    return {"name": work.name, "rows": rows}


def run(size: Size, quick: bool, repeats: int, torch: object) -> dict:
    """All measurements."""
    seconds = 0.0 if quick else 6.0
    results: dict = {
        "machine": machine(),
        "size": size._asdict(),
        "peak": peak(),
        "works": [],
        "scaling": [],
        "modules": [],
    }
    library_sweep(Generation, "cwrnn", QUICK)  # the first compilation of all takes longer
    chosen = works(size, torch)
    for work in (*chosen[:2], *chosen[-2:]) if quick else chosen:
        results["works"].append(timed(work, results["peak"], repeats, seconds))
    for scaling in scalings(size, quick)[:: 4 if quick else 1]:
        say(f"scaling with {scaling.name}")
        cost = [measure({"ours": scaling.build(v)}, repeats, seconds / 3)["ours"]["ms"] for v in scaling.values]
        found = {"name": scaling.name, "what": scaling.what, "values": scaling.values, "ms": cost}
        results["scaling"].append({**found, "slope": slope(list(scaling.values), cost)})
        jax.clear_caches()
    for what, g, clock, build in by_modules(size, quick):
        say(f"{what}, {g} modules")
        ratio = measure({"ours": build(True), "masked": build(False)}, repeats, seconds / 6)["masked"]
        limit = clock.multiply_adds(method="masked") / clock.multiply_adds()
        results["modules"].append(
            {"what": what, "g": g, "ratio": ratio["ratio"], "quartiles": ratio["ratio_quartiles"], "limit": limit}
        )
        jax.clear_caches()
    return results


def anew(results: dict, text: str, repeats: int, torch: object, parser: argparse.ArgumentParser) -> None:
    """Measure the works whose name has `text` again, in the order of all works."""
    chosen = works(Size(), torch)
    if not any(text in work.name for work in chosen):
        parser.error(f"--only {text!r} names no work; there are: " + "; ".join(work.name for work in chosen))
    known = {work["name"]: work for work in results["works"]}
    library_sweep(Generation, "cwrnn", QUICK)
    known |= {work.name: timed(work, results["peak"], repeats, 6.0) for work in chosen if text in work.name}
    results["works"] = [known[work.name] for work in chosen if work.name in known]


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def front(results: dict) -> str:
    """The table of the README: five works, each against one way, and what it costs to compile."""
    lines = [
        "| work | ours, ms | instead of | times as fast | compiling, s: ours, theirs |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for start, way in FRONT.items():
        (work,) = (work for work in results["works"] if work["name"].startswith(start))
        ours, theirs = next(iter(work["rows"].values())), work["rows"][way]
        compiling = "" if ours["compiling"] is None else f"{ours['compiling']:.1f}, {theirs['compiling']:.1f}"
        lines.append(f"| {work['name']} | {ours['ms']:.3g} | {way} | **{theirs['ratio']:.1f}** | {compiling} |")
    return "\n".join(lines)


def summary(results: dict) -> str:
    """Each work's time, and how many times as long each other way takes."""
    on = results["machine"]
    lines = [
        f"{on['processor']}, {on['cores']} cores, jax {on['jax']}, {on['date']}:",
        "",
        "| work | ours, ms | times as fast as |",
        "| --- | ---: | --- |",
    ]
    for work in results["works"]:
        (_, ours), *others = work["rows"].items()
        others = "; ".join(f"{way}: **{row['ratio']:.1f}**" for way, row in others)
        lines.append(f"| {work['name']} | {ours['ms']:.3g} | {others} |")
    return "\n".join(lines)


def report(results: dict) -> str:
    """All of it, in Markdown."""
    lines = [
        summary(results),
        "",
        "## In full",
        "",
        f"The most this machine can do, in a large matrix product: {results['peak'] / 1e9:.0f} thousand million "
        "multiply-adds a second.",
        "",
        "| work | way | ms (quartiles) | times ours (quartiles) | compiling, s | temporary, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for work in results["works"]:
        name = work["name"]
        for way, row in work["rows"].items():
            low, high = row["quartiles"]
            ratio = "1"
            if "ratio" in row:
                ratio = "**{:.1f}** ({:.1f} to {:.1f})".format(row["ratio"], *row["ratio_quartiles"])
            elif "of_peak" in row:
                ratio = f"1; {100 * row['of_peak']:.1f} % of the most"
            compiling = "" if row["compiling"] is None else f"{row['compiling']:.1f}"
            memory = "" if row["temporary"] is None else f"{row['temporary'] / 1e6:.1f}"
            lines.append(
                f"| {name} | {way} | {row['ms']:.3g} ({low:.3g} to {high:.3g}) | {ratio} | {compiling} | {memory} |"
            )
            name = ""
    lines += [
        "",
        "Loss and gradient as one size grows. The slope is the fitted power of it in the time: 1 is linear.",
        "",
        "| size | of | ms | slope |",
        "| --- | --- | --- | ---: |",
    ]
    for row in results["scaling"]:
        costs = ", ".join(f"{v}: {ms:.3g}" for v, ms in zip(row["values"], row["ms"], strict=True))
        lines.append(f"| {row['name']} | {row['what']} | {costs} | {row['slope']:.2f} |")
    lines += [
        "",
        "| modules | of | times as fast as the masked scan (quartiles) | by operations |",
        "| ---: | --- | ---: | ---: |",
    ]
    for row in sorted(results["modules"], key=lambda row: (row["what"], row["g"])):
        low, high = row["quartiles"]
        lines.append(
            f"| {row['g']} | {row['what']} | {row['ratio']:.1f} ({low:.1f} to {high:.1f}) | {row['limit']:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", action="store_true", help="measure nothing, write of stored results")
    parser.add_argument(
        "--quick", action="store_true", help="some of it, tiny, three repeats: only to see that it runs"
    )
    parser.add_argument("--only", metavar="TEXT", help="measure the works of this name anew, keep all other results")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "cpu.json")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="where to write speed.md and speed.png")
    options = parser.parse_args()
    if options.repeats < 3:
        parser.error(f"--repeats must be at least 3, got {options.repeats}")
    if options.only and (options.quick or options.report):
        parser.error("--only goes with neither --quick nor --report")
    if (options.report or options.only) and not options.results.exists():
        parser.error(f"there are no results in {options.results}; run without --report first")
    if not options.report:
        use_all_cores()
        try:
            torch = importlib.import_module("torch")
        except ImportError:
            torch = None
            print("PyTorch is not installed (pip install torch): its rows are left out", file=sys.stderr)
        size = QUICK if options.quick else Size()
        if options.only:
            results = json.loads(options.results.read_text())
            anew(results, options.only, options.repeats, torch, parser)
        else:
            results = run(size, options.quick, 3 if options.quick else options.repeats, torch)
        if torch is not None:
            results["machine"]["torch"] = torch.__version__
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(options.results.read_text())
    options.docs.mkdir(parents=True, exist_ok=True)
    draw(results["modules"], results["machine"]["cores"], options.docs / "speed.png")
    page = options.docs / "speed.md"
    said = page.read_text(encoding="utf-8").split(TABLES)[0] if page.exists() else ""
    page.write_text(f"{said}{TABLES}\n\n{report(results)}\n", encoding="utf-8")
    print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

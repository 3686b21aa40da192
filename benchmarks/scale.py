"""Time and memory of every step on generated catalogues of growing size.

    python benchmarks/scale.py [--sizes 10000 100000 1000000] [--profile quick] [--work FOLDER]
                               [--until STEP]

A catalogue of size N has N labels, N training documents and 10,000 test documents
(``synthetic.py``). Both modules train one epoch; negatives are mined for it, which a longer run
would do from the second epoch on. Each step runs in a process of its own. A finished step is kept
in ``--work`` and not repeated, so a long measurement can be made in parts with ``--until``.

Writes ``results/scale.json`` and ``results/scale.svg`` beside this file and prints a table. Growth
is computed from processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from profiles import STEPS, WRITTEN_BY
from synthetic import Synthetic

RESULTS = Path(__file__).parent / "results"
SETTINGS = ("module_one.epochs=1", "module_two.epochs=1", "module_two.mine_from_epoch=0")
MODULES = {
    "train_encoder": ("module_one", "ModuleOne"),
    "train_classifier": ("module_two", "ModuleTwo"),
}
SAMPLE_S = 0.2


def measure(size: int, profile: str, work: Path, until: str | None) -> dict[str, Any]:
    """Run the steps on the catalogue of a size: step -> figures."""
    folder = work / f"{size}"
    catalogue = folder / "catalogue"
    if not catalogue.is_dir():
        partial = folder / "partial"
        Synthetic(labels=size, documents=size).write(partial)
        partial.rename(catalogue)
    figures: dict[str, Any] = {}
    for step, needed in STEPS.items():
        done = folder / f"{step}.json"
        if not done.is_file():
            inputs = {role: folder / WRITTEN_BY[role] for role in needed}
            task = {
                "step": step,
                "profile": profile,
                "inputs": {k: str(v) for k, v in (inputs or {"catalogue": catalogue}).items()},
                "output": str(folder / step),
                "figures": str(done),
            }
            environment = os.environ | {"XCFLOW_HOME": str(folder / "home")}
            # Torch is imported before the step can say how its threads wait.
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
            # What an interrupted measurement left would make the step look cheaper.
            shutil.rmtree(folder / "home" / "checkpoints", ignore_errors=True)
            command = [sys.executable, __file__, "--task", json.dumps(task)]
            subprocess.run(command, check=True, env=environment)
        figures[step] = json.loads(done.read_text(encoding="utf-8"))
        if step == until:
            break
    return figures


def run_task(task: dict[str, Any]) -> None:
    """Run one step in this process and write its figures."""
    from xcflow.config import Config
    from xcflow.steps import run_step

    start, steps = time.monotonic(), timed_steps(task["step"])
    anonymous = Peak()
    config = Config.load(task["profile"], SETTINGS)
    inputs = {role: Path(path) for role, path in task["inputs"].items()}
    run_step(task["step"], config, inputs, Path(task["output"]))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
        "peak_anonymous_mb": round(anonymous.stop()),
    }
    if steps:
        wall, processor = map(statistics.median, zip(*steps, strict=True))
        figures |= {"step_ms": round(1000 * wall, 1), "step_cpu_ms": round(1000 * processor, 1)}
    Path(task["figures"]).write_text(json.dumps(figures) + "\n", encoding="utf-8")


def timed_steps(name: str) -> list[tuple[float, float]]:
    """A list that gets wall and processor seconds of each training step of this process."""
    seconds: list[tuple[float, float]] = []
    if name in MODULES:
        from importlib import import_module

        module, kind = MODULES[name]
        trainee = getattr(import_module(f"xcflow.training.{module}"), kind)
        trainee.step = timed(trainee.step, seconds)
    return seconds


def timed(step: Callable[..., float], seconds: list[tuple[float, float]]) -> Callable[..., float]:
    def measured(*arguments: Any) -> float:
        start = time.perf_counter(), time.process_time()
        loss = step(*arguments)
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        return loss

    return measured


class Peak:
    """Watches how much memory this process has that is no mapped file.

    Mapped files count as resident too, but the system takes their pages back when it needs them.
    """

    def __init__(self) -> None:
        self._megabytes = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Megabytes at the peak."""
        self._ended.set()
        self._thread.join()
        return self._megabytes

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self._megabytes = max(self._megabytes, kilobytes / 1024)


def growth(small: float, large: float, sizes: tuple[int, int]) -> float:
    """The exponent b of time ~ size ** b between two sizes."""
    return math.log(large / small) / math.log(sizes[1] / sizes[0])


def table(runs: dict[int, dict[str, Any]]) -> str:
    """One line for each step: processor seconds and gigabytes by size, and how the former grow."""
    sizes = sorted(runs)
    header = ["", *(f"{size:,}: CPU s" for size in sizes), *(f"{size:,}: GB" for size in sizes)]
    header += [f"growth {a:,} to {b:,}" for a, b in pairwise(sizes)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for step in STEPS:
        found = [runs[size].get(step) for size in sizes]
        cells = [f"{f['cpu_seconds']:.0f}" if f else "" for f in found]
        cells += [f"{f['peak_memory_mb'] / 1024:.1f}" if f else "" for f in found]
        for i in range(len(sizes) - 1):
            a, b = found[i : i + 2]
            pair = (sizes[i], sizes[i + 1])
            cells.append(
                f"{growth(a['cpu_seconds'], b['cpu_seconds'], pair):.2f}" if a and b else ""
            )
        lines.append([step, *cells])
    for step in MODULES:
        found = [runs[size].get(step) for size in sizes]
        cells = [f"{f['step_cpu_ms']:.0f} ms" if f else "" for f in found]
        lines.append([f"a step of {step}", *cells, *[""] * (len(header) - 1 - len(cells))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(runs: dict[int, dict[str, Any]], path: Path) -> None:
    """Processor time and gigabytes of each step, and processor time of a training step, by size."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "xcflow", "svg.fonttype": "none"})
    sizes = sorted(runs)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = (
        ("processor seconds of a step", "cpu_seconds", 1.0, STEPS),
        ("peak memory of a step, GB", "peak_memory_mb", 1 / 1024, STEPS),
        ("processor milliseconds of a training step", "step_cpu_ms", 1.0, MODULES),
    )
    for axes, (title, key, factor, steps) in zip(figure.subplots(1, 3), panels, strict=True):
        for step in steps:
            points = [(s, factor * runs[s][step][key]) for s in sizes if step in runs[s]]
            colour = f"C{list(STEPS).index(step)}"
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=step)
        axes.set(title=title, xlabel="labels = training documents", xscale="log")
        axes.grid(alpha=0.3)
        axes.set_ylim(*((None, None) if key == "cpu_seconds" else (0, None)))
    figure.axes[0].set_yscale("log")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--work", type=Path, default=Path("benchmark-runs/scale"))
    parser.add_argument("--until", choices=list(STEPS))
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        run_task(args.task)
        return
    runs = {size: measure(size, args.profile, args.work, args.until) for size in args.sizes}
    RESULTS.mkdir(exist_ok=True)
    record = {"profile": args.profile, "settings": SETTINGS, "cores": os.cpu_count()}
    record |= {"processor": platform.processor() or platform.machine(), "sizes": runs}
    (RESULTS / "scale.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plot(runs, RESULTS / "scale.svg")
    print(table(runs))


if __name__ == "__main__":
    main()

"""Train profiles on a catalogue step by step: time, memory and test metrics of each run.

    python benchmarks/profiles.py CATALOGUE [--profile NAME ...] [--clusters K ...] [--seeds S ...]
                                  [--set SECTION.KEY=VALUE ...] [--work FOLDER] [--name NAME]

Each step runs in a process of its own, as in the pipeline, so its wall time and peak memory are its
own. With ``--clusters`` and ``--seeds`` every combination is trained: the gain of auxiliary vectors
against ``K = 0`` (NGAME) is then shown with its spread over the seeds. A finished run is kept in
``--work`` and not repeated.

Writes ``results/<name>-<catalogue>.json`` beside this file and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("P@1", "P@5", "PSP@1", "PSP@5", "R@10", "R@100")
MODELS = ("encoder", "classifier", "neighbours", "fused")
STEPS: dict[str, tuple[str, ...]] = {
    "validate_data": (),
    "cluster_labels": ("dataset",),
    "train_encoder": ("dataset", "clusters"),
    "export_embeddings": ("dataset", "encoder"),
    "train_classifier": ("dataset", "embeddings"),
    "build_index": ("dataset", "encoder", "embeddings", "classifier"),
    "evaluate_model": ("dataset", "bundle"),
}
WRITTEN_BY = {
    "dataset": "validate_data",
    "clusters": "cluster_labels",
    "encoder": "train_encoder",
    "embeddings": "export_embeddings",
    "classifier": "train_classifier",
    "bundle": "build_index",
}


def run_steps(catalogue: Path, profile: str, settings: list[str], folder: Path) -> dict[str, Any]:
    """Run all steps into ``folder``: seconds and peak megabytes of each, and the metrics.

    A run that was cut off goes on with the first step that is not finished.
    """
    done = folder / "result.json"
    if done.is_file():
        return dict(json.loads(done.read_text()))
    finished = folder / "steps.json"
    steps = json.loads(finished.read_text()) if finished.is_file() else {}
    for name, needed in STEPS.items():
        if name in steps:
            continue
        inputs = {role: folder / WRITTEN_BY[role] for role in needed} or {"catalogue": catalogue}
        command = [sys.executable, "-m", "xcflow_pipelines", "step", name]
        command += ["--profile", profile, "--output", str(folder / name)]
        command += ["--home", str(folder / "home")]
        command += [f"--input={role}={path}" for role, path in inputs.items()]
        command += [f"--set={setting}" for setting in settings]
        steps[name] = timed(command)
        finished.write_text(json.dumps(steps))
    metrics = json.loads((folder / "evaluate_model" / "metrics.json").read_text())
    result = {
        "profile": profile,
        "settings": settings,
        "steps": steps,
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "peak_memory_mb": max(step["peak_memory_mb"] for step in steps.values()),
        "metrics": {
            name: {c: values[c] for c in COLUMNS} for name, values in metrics["models"].items()
        },
    }
    done.write_text(json.dumps(result, indent=1) + "\n")
    return result


def timed(command: list[str]) -> dict[str, float]:
    """Run a command; its wall seconds and the peak memory of its process."""
    start = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
    }


def table(runs: list[dict[str, Any]]) -> str:
    """One line for each profile, number of clusters and model: mean and spread over the seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["profile"], run["clusters"]), []).append(run)
    lines = ["| profile | K | model | " + " | ".join(COLUMNS) + " | seconds | MB |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 5))
    for (profile, clusters), members in groups.items():
        seconds = statistics.mean(run["seconds"] for run in members)
        memory = max(run["peak_memory_mb"] for run in members)
        for model in MODELS:
            cells = [spread([100 * run["metrics"][model][c] for run in members]) for c in COLUMNS]
            start = f"| {profile} | {clusters} | {model} | " + " | ".join(cells)
            lines.append(start + f" | {seconds:.0f} | {memory} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """The mean, with the standard deviation where there are several values."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--profile", nargs="+", default=["quick"])
    parser.add_argument("--clusters", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--set", nargs="+", default=[])
    parser.add_argument("--work", type=Path, default=Path("benchmark-runs"))
    parser.add_argument("--name", default="profiles")
    args = parser.parse_args()
    runs = []
    for profile in args.profile:
        for clusters in args.clusters or [None]:
            for seed in args.seeds:
                settings = [*args.set, f"run.seed={seed}"]
                if clusters is not None:
                    settings.append(f"clustering.clusters={clusters}")
                if clusters == 0:
                    settings.append("clustering.private_labels=0")
                label = "default" if clusters is None else str(clusters)
                folder = args.work / f"{args.catalogue.name}-{profile}-{label}-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                result = run_steps(args.catalogue, profile, settings, folder)
                runs.append({**result, "clusters": label, "seed": seed})
    RESULTS.mkdir(exist_ok=True)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    record = {"catalogue": args.catalogue.name, "xcflow": version("xcflow"), "machine": machine}
    path = RESULTS / f"{args.name}-{args.catalogue.name}.json"
    path.write_text(json.dumps({**record, "runs": runs}, indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()

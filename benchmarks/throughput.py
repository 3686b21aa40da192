"""Documents a second in training and encoding, beside sentence-transformers and plain PyTorch.

    python benchmarks/throughput.py CATALOGUE [--only bag minilm-3 minilm-6] [--tasks train encode]

Contenders train on the same pairs of texts or encode the same texts, with as many threads, each in
a process of its own. They take turns, in an order that is reversed each time, and rest while
another one's window is timed. Shown are medians over the windows; the first one is not counted.

- training, xcflow: Module I at its default settings. The time of a clustered order, once an epoch,
  is added in proportion to the documents of a window.
- training, sentence-transformers: SentenceTransformerTrainer with MultipleNegativesRankingLoss, at
  its default settings; StaticEmbedding with the same table stands beside the bag of embeddings.
- training, plain PyTorch: as the reference papers describe it (`contenders.train_plainly`).
- encoding: texts in, unit vectors out, tokenisation included; "stored tokens" is what the export of
  the pipeline does, for which the data set was tokenised once.

Writes ``results/throughput-<catalogue>.json`` beside this file (models and tasks that are not asked
for stay as they were measured before) and prints a table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contenders import Job, run

from xcflow.config import Config
from xcflow.steps import run_step

RESULTS = Path(__file__).parent / "results"
LAYERS = {"bag": 0, "minilm-3": 3, "minilm-6": 6}
PACKAGES = ("xcflow", "torch", "transformers", "sentence-transformers", "accelerate")


class Lane:
    """A contender in a process of its own, at rest unless a window is asked for."""

    def __init__(self, name: str, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(name, job, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def window(self, units: int) -> dict[str, Any]:
        """Time and peak memory of so many units of work."""
        self._pipe.send(units)
        return dict(self._pipe.recv())

    def end(self) -> None:
        """Let the process go."""
        self._pipe.send(0)
        self._process.join()


def race(names: list[str], job: Job, windows: int, seconds: float) -> dict[str, Any]:
    """Medians of all contenders, by turns; ``seconds`` is the aimed at length of a window."""
    lanes = {name: Lane(name, job) for name in names}
    lengths = {
        name: max(1, round(seconds / lane.window(1)["seconds"])) for name, lane in lanes.items()
    }
    documents = job.batch_size if names[0].startswith("train") else job.texts
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(windows):
        for name in names if turn % 2 == 0 else reversed(names):
            found[name].append(lanes[name].window(lengths[name]))
    for lane in lanes.values():
        lane.end()
    return {name: summary(found[name], lengths[name] * documents) for name in names}


def summary(windows: list[dict[str, Any]], documents: int) -> dict[str, Any]:
    """Documents a second of each window and their median, and what else was noted."""
    notes = windows[-1]
    share = documents / notes.get("epoch_documents", documents)
    order, order_cpu = (
        share * notes.get(f"order_{kind}", 0.0) for kind in ("seconds", "cpu_seconds")
    )
    rates = [documents / (window["seconds"] + order) for window in windows]
    cpu = [window["cpu_seconds"] + order_cpu for window in windows]
    result = {
        "documents_per_second": statistics.median(rates),
        "windows": rates,
        "cpu_ms_per_document": 1000.0 * statistics.median(cpu) / documents,
        "documents_per_window": documents,
    }
    return result | {k: v for k, v in notes.items() if k not in ("seconds", "cpu_seconds")}


def contenders(task: str, layers: int) -> list[str]:
    """Who takes part; the first is what the others are compared with."""
    if task == "train":
        return ["train: xcflow", "train: sentence-transformers", "train: plain PyTorch"]
    names = ["encode: xcflow", "encode: xcflow, stored tokens", "encode: sentence-transformers"]
    return [*names, "encode: xcflow, no catalogue words"] if layers else names


def table(results: dict[str, Any]) -> str:
    """Medians as a Markdown table, and how many times xcflow's median is theirs."""
    lines = ["| model | | documents/s | xcflow is | CPU ms/document | MB |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for model, tasks in results["models"].items():
        for task, medians in tasks.items():
            own = medians[f"{task}: xcflow"]["documents_per_second"]
            for name, found in medians.items():
                rate = found["documents_per_second"]
                cells = (
                    f"{rate:,.0f}",
                    f"{own / rate:.2f} x",
                    f"{found['cpu_ms_per_document']:.3f}",
                    f"{found['peak_memory_mb']:,}",
                )
                lines.append(f"| {model} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((s.partition(":")[2].strip() for s in lines if s.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--tasks", nargs="+", choices=["train", "encode"])
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a window, about")
    parser.add_argument("--batch", type=int, default=1024, help="documents in a step of the bag")
    parser.add_argument("--batch-minilm", type=int, default=128, help="and of a transformer")
    parser.add_argument("--texts", type=int, default=20_000, help="encoded by the bag")
    parser.add_argument("--texts-minilm", type=int, default=1024, help="and by a transformer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    # Read by numeric libraries when the contenders' processes start.
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    name = args.catalogue.resolve().name
    path = RESULTS / f"throughput-{name}.json"
    results = json.loads(path.read_text()) if path.is_file() else {"catalogue": name, "models": {}}
    results["machine"] = {"processor": processor(), "threads": args.threads}
    results["versions"] = {package: version(package) for package in PACKAGES}
    with tempfile.TemporaryDirectory() as folder:
        dataset, clusters = Path(folder) / "dataset", Path(folder) / "clusters"
        run_step("validate_data", Config(), {"catalogue": args.catalogue}, dataset)
        run_step("cluster_labels", Config(), {"dataset": dataset}, clusters)
        for model in args.only:
            layers = LAYERS[model]
            batch = args.batch_minilm if layers else args.batch
            texts = args.texts_minilm if layers else args.texts
            job = Job(dataset, clusters, layers, batch, texts, args.threads)
            for task in args.tasks or ["train", "encode"]:
                found = race(contenders(task, layers), job, args.windows, args.seconds)
                results["models"].setdefault(model, {})[task] = found
                if task == "train":
                    for medians in found.values():
                        medians["batch_size"] = batch
                path.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()

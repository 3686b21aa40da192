"""Documents a second of two ranks beside one, each rank pinned to a core of its own.

    python benchmarks/distributed.py CATALOGUE [--only bag minilm classifiers] [--ranks 2]
                                               [--work DIR]

One rank and several train on the same global batches: Module I with a bag of embeddings (the
profile ``quick``) and with MiniLM, and Module II. Each rank has one thread on one core. The two
groups take turns, in an order that is reversed each time, and one rests while the other's window is
timed; the first window is not counted. Shown are the median of the windows' rates, the median of
the ratios of neighbouring windows, and the CPU time that the busiest rank takes for a document of
the batch: where nothing else runs the two agree, but for the time that ranks wait for each other.

Of Module II it also tells the bytes of classifiers and their state that a rank holds, and of every
group the largest resident memory of a rank.

Writes ``results/distributed.json`` beside this file (models that are not asked for stay as they
were measured before) and prints a table. ``--work`` keeps the data set and the embeddings between
runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from throughput import processor

from xcflow.config import Config
from xcflow.distributed.world import World, joined
from xcflow.steps import run_step

RESULTS = Path(__file__).parent / "results" / "distributed.json"
BATCH = {"bag": 1024, "minilm": 128, "classifiers": 1024}
SEED = 1


@dataclass(frozen=True)
class Prepared:
    """Folders that all ranks read."""

    dataset: Path
    clusters: Path
    embeddings: Path

    @classmethod
    def of(cls, catalogue: Path, work: Path) -> Prepared:
        """What the steps before training make of a catalogue, with an untrained encoder."""
        config = Config.load("quick", ["module_one.epochs=0"])
        folders = {"catalogue": catalogue}
        for step, inputs, output in (
            ("validate_data", ["catalogue"], "dataset"),
            ("cluster_labels", ["dataset"], "clusters"),
            ("train_encoder", ["dataset", "clusters"], "encoder"),
            ("export_embeddings", ["dataset", "encoder"], "embeddings"),
        ):
            folders[output] = work / output
            if not folders[output].exists():
                run_step(step, config, {name: folders[name] for name in inputs}, folders[output])
        return cls(folders["dataset"], folders["clusters"], folders["embeddings"])


def module_one(prepared: Prepared, kind: str, world: World) -> Any:
    """Module I as the step `train_encoder` makes it."""
    import numpy as np
    import torch

    from xcflow.catalogue.dataset import Dataset
    from xcflow.encoders.build import initial_encoder
    from xcflow.labels.auxiliary import AuxiliaryVectors
    from xcflow.training.data import Splits
    from xcflow.training.module_one import ModuleOne

    config = Config.load("quick")
    dataset = Dataset.open(prepared.dataset)
    encoder_config = replace(config.encoder, kind=kind, bf16="off")
    encoder = initial_encoder(encoder_config, dataset)
    row_of_label = np.load(prepared.clusters / "row_of_label.npy")
    auxiliary = AuxiliaryVectors(
        row_of_label,
        int(row_of_label.max()) + 1,
        encoder.parts,
        on_unit=True,
        norm=config.module_one.auxiliary_norm,
        generator=torch.Generator().manual_seed(SEED),
    )
    splits, tokens = Splits.of(dataset), dataset.labels.tokens
    return ModuleOne(encoder, auxiliary, splits, tokens, config.module_one, SEED, world)


def module_two(prepared: Prepared, world: World) -> Any:
    """Module II as the step `train_classifier` makes it."""
    import numpy as np

    from xcflow.catalogue.dataset import Dataset
    from xcflow.training.data import Splits
    from xcflow.training.module_two import ModuleTwo
    from xcflow.vectors import ShardedVectors

    config, dataset = Config.load("quick"), Dataset.open(prepared.dataset)
    vectors = [ShardedVectors.open(prepared.embeddings / name) for name in ("documents", "labels")]
    used = np.flatnonzero(dataset.label_counts(dataset.fit_rows))
    splits = Splits.of(dataset)
    return ModuleTwo(*vectors, used, splits, config.module_two, config.retrieval, SEED, world)


MODULES: dict[str, Callable[[Prepared, World], Any]] = {
    "bag": lambda prepared, world: module_one(prepared, "bag_of_embeddings", world),
    "minilm": lambda prepared, world: module_one(prepared, "transformer", world),
    "classifiers": module_two,
}


def work(
    rank: int, size: int, port: int, core: int, model: str, prepared: Prepared, pipe: Connection
) -> None:
    """A rank: learns from as many batches as it is told, and says how long that took."""
    os.sched_setaffinity(0, {core})
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if size > 1:
        os.environ.update(place, RANK=str(rank), WORLD_SIZE=str(size))
    import numpy as np
    import torch

    torch.set_num_threads(1)
    batch = BATCH[model]
    with joined() as world:
        module = MODULES[model](prepared, world)
        # Module II mines in the first epoch for which that is due, so that batches are whole.
        order = module.order(1 if model == "classifiers" else 0)
        steps, number = len(order) // batch, 0
        while count := pipe.recv():
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                at = number % steps * batch
                rng = np.random.default_rng([SEED, number])
                torch.manual_seed(int(rng.integers(2**62)))
                module.step(order[at : at + batch], 0.5, rng)
                number += 1
            seconds = time.perf_counter() - start
            said = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu}
            pipe.send(said | {"peak_memory_mb": peak_memory_mb()} | held(module))


def held(module: Any) -> dict[str, int]:
    """Bytes of classifiers and their state that this rank holds."""
    if not hasattr(module, "classifiers"):
        return {}
    tensors = module.table.tensors("classifier").values()
    return {"classifier_bytes": sum(tensor.nbytes for tensor in tensors)}


def peak_memory_mb() -> int:
    """The largest resident memory of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


class Group:
    """One or more ranks, at rest unless a window is asked for."""

    def __init__(self, size: int, model: str, prepared: Prepared) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = int(server.getsockname()[1])
        cores = sorted(os.sched_getaffinity(0))
        self._pipes, self._processes = [], []
        for rank in range(size):
            mine, theirs = context.Pipe()
            arguments = (rank, size, port, cores[rank % len(cores)], model, prepared, theirs)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def window(self, steps: int) -> list[dict[str, Any]]:
        """What each rank has to say of so many steps."""
        for pipe in self._pipes:
            pipe.send(steps)
        return [pipe.recv() for pipe in self._pipes]

    def end(self) -> None:
        """Let the processes go."""
        for pipe in self._pipes:
            pipe.send(0)
        for process in self._processes:
            process.join()


def race(
    model: str, sizes: tuple[int, int], prepared: Prepared, windows: int, seconds: float
) -> dict[str, Any]:
    """Rates of both groups by turns, and how they compare."""
    groups = {size: Group(size, model, prepared) for size in sizes}
    first = {size: group.window(2)[0]["seconds"] / 2 for size, group in groups.items()}
    steps = max(2, round(seconds / max(first.values())))
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    cpu: dict[int, list[float]] = {size: [] for size in sizes}
    said: dict[int, list[dict[str, Any]]] = {}
    for turn in range(windows):
        for size in sizes if turn % 2 == 0 else reversed(sizes):
            said[size] = groups[size].window(steps)
            slowest = max(each["seconds"] for each in said[size])
            rates[size].append(steps * BATCH[model] / slowest)
            busiest = max(each["cpu_seconds"] for each in said[size])
            cpu[size].append(1000.0 * busiest / (steps * BATCH[model]))
    for group in groups.values():
        group.end()
    pairs = zip(*(rates[size] for size in sizes), strict=True)
    return {
        "batch_size": BATCH[model],
        "steps_in_a_window": steps,
        "speed_up": statistics.median(many / one for one, many in pairs),
        "groups": {
            size: {
                "documents_per_second": statistics.median(rates[size]),
                "windows": rates[size],
                "cpu_ms_per_document": statistics.median(cpu[size]),
                "peak_memory_mb": max(each["peak_memory_mb"] for each in said[size]),
                "classifier_bytes": [each.get("classifier_bytes", 0) for each in said[size]],
            }
            for size in sizes
        },
    }


def table(results: dict[str, Any]) -> str:
    """The rates as a Markdown table."""
    heads = ("training of", "ranks", "documents/s", "x", "CPU ms/document", "MB a rank")
    lines = [f"| {' | '.join(heads)} | MB of classifiers a rank |"]
    lines.append("| --- |" + 6 * " ---: |")
    for model, found in results["models"].items():
        for size, group in found["groups"].items():
            ratio = 1.0 if str(size) == "1" else found["speed_up"]
            cells = (
                f"{size}",
                f"{group['documents_per_second']:,.0f}",
                f"{ratio:.2f}",
                f"{group['cpu_ms_per_document']:.3f}",
                f"{group['peak_memory_mb']:,}",
                f"{max(group['classifier_bytes']) / 2**20:,.1f}",
            )
            lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a window, about")
    parser.add_argument("--work", type=Path, help="keeps the data set and the embeddings")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"models": {}}
    results["catalogue"] = args.catalogue.resolve().name
    results["machine"] = {"processor": processor(), "cores": len(os.sched_getaffinity(0))}
    results["versions"] = {package: version(package) for package in ("xcflow", "torch")}
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Prepared.of(args.catalogue, args.work or Path(scratch))
        for model in args.only:
            found = race(model, (1, args.ranks), prepared, args.windows, args.seconds)
            results["models"][model] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()

"""How well a refreshed champion finds labels that it was never trained on.

    python benchmarks/refresh.py [--work FOLDER] [--share 0.2] [--seed 1]

Of the bundled catalogue's labels a fifth is held back, drawn evenly over their frequencies. The
champion is trained on the catalogue without them (and without documents that have no other label),
then refreshed with the whole one: with and without inherited auxiliary vectors, and with and
without the training documents of the new labels. Beside it stand the same profile trained on the
whole catalogue, the champion's plain encoder, the encoder before training, and words. All answer
the same test documents with all labels to choose from. Steps that are finished are not repeated.

Writes ``results/refresh.json`` beside this file and prints a table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from profiles import RESULTS, STEPS, WRITTEN_BY, timed

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EncoderConfig
from xcflow.evaluation.baselines import baseline_rankers
from xcflow.evaluation.metrics import contains, drop_filtered
from xcflow.evaluation.protocol import blocks, measured_rows
from xcflow.evaluation.rankers import Queries
from xcflow.serving.predictor import Predictor
from xcflow.topk import TopK

Row = dict[str, Any]
FILES = {"labels": "labels", "train": "trn", "test": "tst", "test_filter": "tst_filter"}
WHOLE, BEFORE, UNDOCUMENTED = "whole", "before", "undocumented"
# Name -> the catalogue that the champion takes in, and how.
REFRESHES = {
    "refreshed": (WHOLE, ()),
    "refreshed, nothing inherited": (WHOLE, ("refresh.nearest=0",)),
    "refreshed, documents only vote": (WHOLE, ("refresh.documents_weight=0",)),
    "refreshed, no documents": (UNDOCUMENTED, ()),
    "refreshed, no documents, nothing inherited": (UNDOCUMENTED, ("refresh.nearest=0",)),
}
DEPTH = 10
BLOCK = 1_000


def read(name: str) -> list[Row]:
    """A file of the bundled catalogue."""
    path = files("xcflow") / "data" / "debian-related" / f"{name}.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def held_back(labels: list[Row], train: list[Row], share: float, seed: int) -> set[str]:
    """Ids of the labels to hold back: one of each few that are about equally frequent."""
    counts = Counter(label for row in train for label in row["labels"])
    ids = sorted((row["id"] for row in labels), key=lambda label: (-counts[label], label))
    rng, few = np.random.default_rng(seed), round(1 / share)
    groups = (ids[start : start + few] for start in range(0, len(ids), few))
    return {group[int(rng.integers(len(group)))] for group in groups}


def write_catalogues(work: Path, new: set[str], rows: Mapping[str, list[Row]]) -> None:
    """The whole catalogue, that before its new labels, and that with new labels alone."""

    def known(some: list[Row], *, empty: bool = False) -> list[Row]:
        left = ({**r, "labels": [x for x in r["labels"] if x not in new]} for r in some)
        return [row for row in left if row["labels"] or empty]

    train, test = known(rows["train"]), known(rows["test"])
    ids = {row["id"] for row in test}
    filtered = [r for r in known(rows["test_filter"], empty=True) if r["id"] in ids]
    old = [row for row in rows["labels"] if row["id"] not in new]
    _write(work / WHOLE, rows)
    _write(work / BEFORE, {"labels": old, "train": train, "test": test, "test_filter": filtered})
    _write(work / UNDOCUMENTED, {**rows, "train": train})


def _write(folder: Path, rows: Mapping[str, Iterable[Row]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in rows.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def step(name: str, folder: Path, inputs: Mapping[str, Path], *settings: str) -> float:
    """Run a step in a process of its own where it is not finished; its wall seconds."""
    clock = folder.with_name(f"{folder.name}.seconds.json")
    if not clock.is_file():
        command = [sys.executable, "-m", "xcflow_pipelines", "step", name, "--profile", "quick"]
        command += ["--output", str(folder), "--home", str(folder.parent / "home")]
        command += [f"--input={role}={path}" for role, path in inputs.items()]
        command += [f"--set={setting}" for setting in settings]
        clock.write_text(json.dumps(timed(command)["seconds"]))
    return float(json.loads(clock.read_text()))


def train(catalogue: Path, folder: Path) -> dict[str, float]:
    """Train a model; wall seconds of each step."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for name, needed in STEPS.items():
        if name != "evaluate_model":
            inputs = {role: folder / WRITTEN_BY[role] for role in needed}
            seconds[name] = step(name, folder / name, inputs or {"catalogue": catalogue})
    return seconds


def recalls(
    answers: Callable[[Queries, int], Mapping[str, TopK]], dataset: Dataset, new: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Name of a voice -> R@10 of the new and of the old labels, and P@1.

    R@10 is the mean over the documents that have such a label of the share of these labels among
    the first ten answers, which are of all labels.

    Args:
        answers: Gives the best labels of documents by each voice, as rows of the data set.
        dataset: The whole catalogue.
        new: [L] which labels are new.
    """
    wide = DEPTH + int(dataset.test_filter.lengths.max(initial=0))
    sums: dict[str, list[NDArray[np.float64]]] = {}
    for block in blocks(dataset, measured_rows(dataset, BLOCK), BLOCK):
        for voice, top in answers(block.queries, wide).items():
            best = drop_filtered(top, block.filtered, len(new), DEPTH).labels
            parts = []
            for marked in (new, ~new):
                truth = block.truth.keep(marked[block.truth.data])
                hits = contains(truth, best, len(new)).sum(axis=1)
                have = truth.lengths > 0
                parts.append([(hits[have] / truth.lengths[have]).sum(), have.sum()])
            first = contains(block.truth, best[:, :1], len(new)).sum()
            parts.append([first, len(best)])
            sums.setdefault(voice, []).append(np.array(parts, np.float64))
    found = {}
    for voice, several in sums.items():
        hits, size = np.sum(several, axis=0).T
        values = (100 * hits / size).round(2).tolist()
        found[voice] = dict(zip(("R@10 new", "R@10 old", "P@1"), values, strict=True))
    return found


def of_bundle(folder: Path, dataset: Dataset) -> Callable[[Queries, int], Mapping[str, TopK]]:
    """The voices of a bundle, with the rows that its labels have in the data set."""
    predictor = Predictor.load(folder)
    predictor.hear_without_auxiliary()
    rows = np.append(dataset.labels.ids.find(predictor.label_ids.to_list()), -1).astype(np.int32)

    def answers(queries: Queries, k: int) -> dict[str, TopK]:
        tops = predictor.top_k_voices(queries.texts, k)
        return {voice: TopK(rows[top.labels], top.scores) for voice, top in tops.items()}

    return answers


def of_baselines(dataset: Dataset) -> Callable[[Queries, int], Mapping[str, TopK]]:
    """Words, and the encoder before training."""
    rankers = [make() for make in baseline_rankers(dataset, EncoderConfig())]

    def answers(queries: Queries, k: int) -> dict[str, TopK]:
        return {name: top for rank in rankers for name, top in rank(queries, k).items()}

    return answers


def table(models: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The fused answers of each model, then what its parts find."""
    columns = ("R@10 new", "R@10 old", "P@1")
    lines = ["| | | " + " | ".join(columns) + " |", "| --- | --- |" + " ---: |" * len(columns)]
    for model, voices in models.items():
        for voice, figures in voices.items():
            cells = " | ".join(f"{figures[column]:.1f}" for column in columns)
            lines.append(f"| {model} | {voice} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Train, refresh, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("benchmark-runs/refresh"))
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    work: Path = args.work
    rows = {role: read(name) for role, name in FILES.items()}
    new_ids = held_back(rows["labels"], rows["train"], args.share, args.seed)
    write_catalogues(work, new_ids, rows)
    trained = {name: train(work / name, work / f"trained-{name}") for name in (BEFORE, WHOLE)}
    datasets = {WHOLE: work / f"trained-{WHOLE}" / "validate_data"}
    datasets[UNDOCUMENTED] = work / f"dataset-{UNDOCUMENTED}"
    step("validate_data", datasets[UNDOCUMENTED], {"catalogue": work / UNDOCUMENTED})
    champion = work / f"trained-{BEFORE}" / "build_index"
    bundles, seconds = {"champion": champion}, {}
    for name, (catalogue, settings) in REFRESHES.items():
        bundles[name] = work / f"refreshed-{name.replace(' ', '-').replace(',', '')}"
        inputs = {"dataset": datasets[catalogue], "champion": champion}
        seconds[name] = step("refresh_model", bundles[name], inputs, *settings)
    bundles["trained on all"] = work / f"trained-{WHOLE}" / "build_index"
    dataset = Dataset.open(datasets[WHOLE])
    new = np.isin(np.array(dataset.labels.ids.to_list()), sorted(new_ids))
    models = {
        name: recalls(of_bundle(path, dataset), dataset, new) for name, path in bundles.items()
    }
    models["baselines"] = recalls(of_baselines(dataset), dataset, new)
    record = {
        "catalogue": "debian-related",
        "seed": args.seed,
        "labels": {"new": int(new.sum()), "old": int((~new).sum())},
        "test_pairs_of_new_labels": int(new[dataset.test.labels.data].sum()),
        "xcflow": version("xcflow"),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seconds": {"training": trained, "refresh": seconds},
        "models": models,
    }
    (RESULTS / "refresh.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(models))


if __name__ == "__main__":
    main()

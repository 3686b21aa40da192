"""How often the gate promotes a candidate whose quality is known.

    python tools/gate_power.py [--documents N] [--trials T] [--lifts POINTS ...] [--name NAME]

Models are simulated, the gate is the real one with its shipped thresholds, of which only the
number of resamples is lower. Test documents are drawn with replacement from the bundled
catalogue's test split. Each of their true pairs gets a rank whose logarithm is normal: the sum of
what makes the document and the pair hard, which two models share, and of a part of its own for
each model. Writes ``benchmarks/results/NAME.json``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.config import EvaluationConfig, GateConfig, default_gate
from xcflow.evaluation.gate import decide
from xcflow.evaluation.metrics import Measure, RankingPart, TruthPart
from xcflow.evaluation.ratios import MetricName, Ratio, ratio, slices_present
from xcflow.evaluation.result import BASELINES, CANDIDATE, CHAMPION, Evaluation
from xcflow.evaluation.slices import SLICES
from xcflow.ragged import Ragged

# ln(rank) of a true pair is normal. These give about the figures of `quick` on the bundled data
# (P@1 49, P@5 24, R@10 55, R@100 78), and two models that agree on 4 of 5 documents at rank 1.
MEDIAN_LOG_RANK = (0.3, 0.9, 1.6, 2.0)  # head, torso, tail, cold
LOG_RANK_BY_LOG_LABELS = 1.3  # documents with many labels have less of them found
LOG_RANK_DEVIATION = 3.0
SHARED = 0.79
BASELINE_SHIFT = 4.0


@dataclass(frozen=True, eq=False)
class Population:
    """The documents that test splits are drawn from.

    Attributes:
        truth: [N] rows of true labels.
        measure: Slices and inverse propensities of the labels.
    """

    truth: Ragged
    measure: Measure

    @classmethod
    def bundled(cls) -> Population:
        """The test split of the bundled catalogue."""
        folder = Path(str(resources.files("xcflow") / "data" / "debian-related"))
        row = {label["id"]: i for i, label in enumerate(_rows(folder / "labels.jsonl.gz"))}
        train = [document["labels"] for document in _rows(folder / "trn.jsonl.gz")]
        counts = np.zeros(len(row), np.int64)
        for label, count in Counter(label for labels in train for label in labels).items():
            counts[row[label]] = count
        filtered = {r["id"]: set(r["labels"]) for r in _rows(folder / "tst_filter.jsonl.gz")}
        test = (
            [row[x] for x in document["labels"] if x not in filtered.get(document["id"], ())]
            for document in _rows(folder / "tst.jsonl.gz")
        )
        truth = Ragged.from_rows([labels for labels in test if labels])
        return cls(truth, Measure.of_training(counts, len(train), EvaluationConfig()))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


@dataclass(frozen=True, eq=False)
class SimulatedEvaluation(Evaluation):
    """An evaluation whose terms are in memory.

    Attributes:
        truth_part: The truth's terms.
        rankings: Name of a model -> its terms.
    """

    truth_part: TruthPart
    rankings: Mapping[str, RankingPart]

    def ratio(self, model: str, metric: str) -> Ratio:
        """As in ``Evaluation``."""
        return ratio(self.truth_part, self.rankings[model], MetricName.parse(metric), self.ks)


def simulate(
    population: Population,
    documents: int,
    shift: Sequence[float],
    random: np.random.Generator,
) -> SimulatedEvaluation:
    """Draw a test split and let a champion, a candidate and weak baselines rank it.

    Args:
        population: Where the documents come from.
        documents: How many to draw.
        shift: By how much the candidate's ln(rank) is lower in each of ``SLICES``.
        random: Draws everything.
    """
    truth = population.truth.take(random.integers(len(population.truth), size=documents))
    slice_of = population.measure.slice_of[truth.data]
    hard = math.sqrt(SHARED / 2) * (
        np.repeat(random.standard_normal(documents), truth.lengths)
        + random.standard_normal(len(truth.data))
    )
    crowd = LOG_RANK_BY_LOG_LABELS * np.repeat(np.log(truth.lengths), truth.lengths)
    median = np.asarray(MEDIAN_LOG_RANK)
    lower = {CHAMPION: np.zeros(len(SLICES)), CANDIDATE: np.asarray(shift)}
    lower |= {name: np.full(len(SLICES), -BASELINE_SHIFT) for name in BASELINES}
    rankings = {}
    for model, by in lower.items():
        own = math.sqrt(1.0 - SHARED) * random.standard_normal(len(truth.data))
        logs = crowd + (median - by)[slice_of] + LOG_RANK_DEVIATION * (hard + own)
        rankings[model] = terms_of(truth, ranks_of(truth, logs), slice_of, population.measure)
    part = population.measure.truth(truth)
    return SimulatedEvaluation(Path(), "", _facts(part, documents), _TIMINGS, part, rankings)


def ranks_of(truth: Ragged, logs: NDArray[np.float64]) -> NDArray[np.int64]:
    """[T] the rank of each true pair, from 0: no two pairs of a document have the same one."""
    order = np.lexsort((logs, truth.row_ids()))
    wanted = np.floor(np.exp(np.clip(logs[order], 0.0, 20.0))).astype(np.int64) - 1
    place = np.arange(len(logs)) - np.repeat(truth.offsets[:-1], truth.lengths)
    # rank_j = max(wanted_j, rank_(j-1) + 1) is a running maximum of wanted_j - j, row by row.
    row = truth.row_ids() << 40
    ranks = np.empty(len(logs), np.int64)
    ranks[order] = np.maximum.accumulate(wanted - place + row) - row + place
    return ranks


def terms_of(
    truth: Ragged, ranks: NDArray[np.int64], slice_of: NDArray[np.int8], measure: Measure
) -> RankingPart:
    """What ``Measure.ranking`` gives for these ranks, without the lists of labels."""
    documents, row = len(truth), truth.row_ids()
    cells, size = row * len(SLICES) + slice_of, documents * len(SLICES)
    discounts = 1.0 / np.log2(ranks + 2.0)
    ideal = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(measure.depth) + 2.0))))
    hits, gains, ndcg = [], [], []
    for k in measure.ks:
        found = ranks < k
        hits.append(np.bincount(cells, found, size))
        gains.append(np.bincount(cells, found * measure.gains[truth.data], size))
        best = ideal[np.minimum(truth.lengths, k)]
        ndcg.append(np.bincount(row, found * discounts, documents) / best)
    shape = (documents, len(SLICES), len(measure.ks))
    return RankingPart(
        np.stack(hits, axis=1).reshape(shape).astype(np.int16),
        np.stack(gains, axis=1).reshape(shape).astype(np.float32),
        np.stack(ndcg, axis=1).astype(np.float32),
    )


_TIMINGS: dict[str, Any] = {
    "peak_memory_mb": 1.0,
    "latency_ms": {CANDIDATE: {"p50": 1.0, "p99": 1.0}, CHAMPION: {"p50": 1.0, "p99": 1.0}},
}


def _facts(truth: TruthPart, documents: int) -> dict[str, Any]:
    return {
        "ks": EvaluationConfig().ks,
        "models": [CANDIDATE, CHAMPION, *BASELINES],
        "slices": {CANDIDATE: slices_present(truth)},
        "counts": {"documents": documents},
        "candidate": {"bundle": "candidate", "bytes": 1, "index_recall": {}},
        "champion": {"bundle": "champion"},
        "shared": None,
        "data_report": {"status": "passed", "findings": []},
        "dataset": "",
        "catalogue": "",
        "test_split": "",
    }


def shift_for(population: Population, lift: float, documents: int = 60_000) -> float:
    """By how much ln(rank) must fall for P@1 to rise by ``lift``: bisection on the same draws."""

    def rise(shift: float) -> float:
        random = np.random.default_rng(0)
        drawn = simulate(population, documents, [shift] * len(SLICES), random)
        return drawn.ratio(CANDIDATE, "P@1").value - drawn.ratio(CHAMPION, "P@1").value

    low, high, by_chance = 0.0, 1.0, rise(0.0)
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if rise(middle) - by_chance < lift else (low, middle)
    return high


def verdicts(
    population: Population,
    documents: int,
    shift: Sequence[float],
    gate: GateConfig,
    trials: int,
    seed: int = 0,
) -> Counter[str]:
    """How often each verdict comes out, and ``rises``: how often the primary question is a yes."""
    random = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(trials):
        judgement = decide(simulate(population, documents, shift, random), gate)
        found[judgement.verdict] += 1
        found["rises"] += any(
            c.question == "rises" and c.against == CHAMPION and c.outcome == "yes"
            for c in judgement.checks
        )
    return found


def agreement(evaluation: Evaluation) -> float:
    """Share of documents on which candidate and champion are both right at rank 1 or both wrong."""
    hits = [evaluation.ratio(model, "P@1").numerator for model in (CANDIDATE, CHAMPION)]
    return float((hits[0] == hits[1]).mean())


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=8_735)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--resamples", type=int, default=500, help="of each bootstrap")
    parser.add_argument("--lifts", type=float, nargs="+", default=[0.0, 1.0, 1.5, 2.0])
    parser.add_argument("--name", default="gate-power")
    args = parser.parse_args()
    population, gate = Population.bundled(), replace(default_gate(), resamples=args.resamples)
    large = simulate(population, 200_000, [0.0] * len(SLICES), np.random.default_rng(1))
    figures = {m: large.ratio(CHAMPION, m).value for m in ("P@1", "P@5", "PSP@5", "R@10", "R@100")}
    result: dict[str, Any] = {
        "documents": args.documents,
        "trials": args.trials,
        "resamples": args.resamples,
        "agreement": round(agreement(large), 3),
        "champion": {name: round(value, 3) for name, value in figures.items()},
        "verdicts": {},
    }
    print(json.dumps(result))
    for lift in args.lifts:
        shift = shift_for(population, lift / 100) if lift else 0.0
        found = verdicts(population, args.documents, [shift] * len(SLICES), gate, args.trials)
        shares = {
            name: round(found[name] / args.trials, 3)
            for name in ("rises", "PROMOTE", "HOLD", "REJECT")
        }
        result["verdicts"][f"{lift:g}"] = shares
        print(f"P@1 + {lift:g} points: {shares}", flush=True)
    path = Path(__file__).parents[1] / "benchmarks" / "results" / f"{args.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

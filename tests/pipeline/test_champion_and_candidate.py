"""Two models that were really trained meet at the gate, in both orders.

The older one learned from a smaller catalogue with fewer documents and labels, so this also covers
a champion whose labels are not those of the data set.
"""

import gzip
import json
from importlib import resources
from pathlib import Path

import pytest

from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.evaluation.comparison import compare
from xcflow.evaluation.result import Evaluation
from xcflow.evaluation.verdict import Judgement
from xcflow.steps import STEPS, run_step

pytestmark = pytest.mark.slow

TRAINING = (
    "validate_data",
    "cluster_labels",
    "train_encoder",
    "export_embeddings",
    "train_classifier",
    "build_index",
)
CONFIG = {
    "module_one": {"epochs": 2, "batch_size": 256},
    "module_two": {"epochs": 1},
    "clustering": {"clusters": 64},
    "data": {"validation_fraction": 0.2},
    "fusion": {"steps": 40},
    "evaluation": {"latency_texts": 5},
    # Models trained for seconds need not beat the baselines in everything.
    # On the few labels that the older one knows it need not be beaten in every slice either.
    "gate": {"secondary": ["P@5", "R@100"], "margin": 0.01, "slice_metric": ""},
}


def rows(name: str) -> list[dict]:
    path = resources.files("xcflow") / "data" / "debian-related" / name
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def write_catalogue(folder: Path, every: int) -> Path:
    """Each ``every``-th training document with its labels, and test documents with these labels."""
    train = rows("trn.jsonl.gz")[::every]
    known = {label for document in train for label in document["labels"]}
    test = rows("tst.jsonl.gz")[::8]
    filtered = {row["id"]: row["labels"] for row in rows("tst_filter.jsonl.gz")}
    folder.mkdir()
    files = {
        "labels": [row for row in rows("labels.jsonl.gz") if row["id"] in known],
        "train": train,
        "test": [row | {"labels": [x for x in row["labels"] if x in known]} for row in test],
        "test_filter": [
            {"id": row["id"], "labels": [x for x in filtered[row["id"]] if x in known]}
            for row in test
        ],
    }
    for name, content in files.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in content)
    return folder


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.from_dict(CONFIG)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config) -> dict[str, dict[str, Path]]:
    """Folders of the training steps, for the small and the larger catalogue."""
    models = {}
    for name, every in (("small", 64), ("large", 16)):
        home = tmp_path_factory.mktemp(name)
        folders = {"catalogue": write_catalogue(home / "catalogue", every)}
        for step in TRAINING:
            inputs = {key: folders[key] for key in STEPS[step].inputs}
            folders[STEPS[step].produces] = home / step
            run_step(step, config, inputs, home / step)
        models[name] = folders
    return models


@pytest.fixture(scope="module")
def judged(trained, config, tmp_path_factory):
    """Evaluate and judge a candidate against a champion on the larger data set."""
    done: dict[tuple[str, str], Path] = {}

    def judge(candidate: str, champion: str) -> tuple[Evaluation, Judgement]:
        if (candidate, champion) not in done:
            home = tmp_path_factory.mktemp("judged")
            inputs = {
                "dataset": trained["large"]["dataset"],
                "bundle": trained[candidate]["bundle"],
            }
            if champion:
                inputs["champion"] = trained[champion]["bundle"]
            run_step("evaluate_model", config, inputs, home / "evaluation")
            run_step("gate_model", config, {"evaluation": home / "evaluation"}, home / "verdict")
            done[candidate, champion] = home
        home = done[candidate, champion]
        return Evaluation.open(home / "evaluation"), Judgement.open(home / "verdict")

    return judge


def test_the_better_candidate_is_promoted(judged, trained):
    evaluation, judgement = judged("large", "small")
    assert judgement.verdict == "PROMOTE", judgement.reasons
    assert judgement.candidate == read_manifest(trained["large"]["bundle"]).digest
    assert judgement.champion == read_manifest(trained["small"]["bundle"]).digest
    champion = evaluation.metrics["champion"]
    assert champion["unknown_labels"] == 0
    assert champion["missing_labels"] > 0
    shared = evaluation.metrics["shared"]
    assert shared["labels"] == evaluation.metrics["counts"]["labels"] - champion["missing_labels"]
    assert shared["alone"]["fused"]["labels"] == champion["missing_labels"]
    assert shared["alone"]["champion"] == {"labels": 0, "test_pairs": 0, "found": 0, "depth": 10}
    # The champion is no worse than on all labels, of which it lacks some.
    assert shared["models"]["champion"]["P@1"] > evaluation.metrics["models"]["champion"]["P@1"]
    assert any("on the" in note and "both know" in note for note in judgement.notes)
    assert {f"index of {x}" for x in champion["index_recall"]} == {
        " ".join(check.words.split()[1:4])
        for check in judgement.checks
        if check.question == "index finds enough"
    }


def test_the_worse_candidate_is_rejected(judged):
    _, judgement = judged("small", "large")
    assert judgement.verdict == "REJECT", judgement.reasons
    assert any("below the champion" in reason for reason in judgement.reasons)


def test_the_champion_itself_is_held(judged):
    _, judgement = judged("large", "large")
    assert judgement.verdict == "HOLD"
    assert judgement.reasons == ("The candidate is the champion already.",)


def test_both_orders_tell_of_the_same_difference(judged):
    """What a model scores does not depend on the side from which it enters the gate."""
    one, _ = judged("large", "small")
    other, _ = judged("small", "large")
    assert one.metrics["models"]["fused"] == other.metrics["models"]["champion"]
    assert one.metrics["models"]["champion"] == other.metrics["models"]["fused"]
    there, back = compare(one, other), compare(other, one)
    for metric, difference in there.differences.items():
        assert difference.difference == -back.differences[metric].difference


def test_every_voice_and_baseline_is_measured(judged):
    evaluation, _ = judged("large", "small")
    assert set(evaluation.models) == {
        *("fused", "encoder", "classifier", "neighbours", "champion"),
        "encoder_without_auxiliary",
        *("baseline_tfidf", "baseline_untrained"),
    }
    page = (evaluation.path / "report.html").read_text()
    assert "Untrained encoder" in page
    assert evaluation.timings["latency_ms"]["champion"]["texts"] == 5

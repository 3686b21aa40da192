"""Siblings in the place of true labels, counted by hand and by a loop."""

import numpy as np
import pytest

from xcflow.evaluation import confusion
from xcflow.evaluation.confusion import SIBLINGS, confusion_facts

# Siblings by script: the rows above and below.
LABELS = ["a", "b", "c", "d", "e"]
TEST = [[0], [0], [1, 4], [2]]
ANSWERS = {
    "text of test0": ["b", "e"],  # b for a
    "text of test1": ["b"],  # b for a
    "text of test2": ["a", "b"],  # e is missing, and what stands there is far from it
    "text of test3": ["c", "d"],  # right; d takes nothing away
}


@pytest.fixture
def near(monkeypatch):
    """A label has two siblings."""
    monkeypatch.setattr(confusion, "SIBLINGS", 2)


def test_pairs_by_hand(near, make_dataset, scripted, evaluated):
    evaluation = evaluated(make_dataset(LABELS, [[0]], TEST), scripted(LABELS, ANSWERS))
    facts = evaluation.metrics["confusion"]
    assert facts["models"]["fused"] == {"missing": 3, "confused": 2}
    assert facts["pairs"] == [
        {
            "true": "a",
            "true_text": "label a",
            "instead": "b",
            "instead_text": "label b",
            "documents": 2,
            "asked": 2,
        }
    ]


def test_all_models_are_counted_over_blocks_as_by_a_loop(
    near, large_dataset, noisy, evaluated, monkeypatch
):
    models = {name: noisy(large_dataset, share, 3) for name, share in (("x", 0.3), ("y", 0.7))}
    evaluation = evaluated(large_dataset, models["x"], baselines={"y": models["y"]}, ks=(1, 5, 10))
    nearest = models["x"].nearest_labels
    monkeypatch.setattr(confusion, "_BLOCK_DOCUMENTS", 7)
    facts = confusion_facts(evaluation.path, ["fused", "y"], nearest, depth=3)
    for name in ("fused", "y"):
        missing, confused, pairs = 0, 0, {}
        for row, true in enumerate(large_dataset.test.labels[i] for i in range(600)):
            said = set(evaluation.predictions(name).labels[row, :3].tolist())
            for label in set(true.tolist()) - said:
                missing += 1
                stands = set(nearest(np.array([label]), 2)[0].tolist()) & said - set(true.tolist())
                stands -= {-1}
                confused += bool(stands)
                for other in stands:
                    pairs[label, other] = pairs.get((label, other), 0) + 1
        assert facts["models"][name] == {"missing": missing, "confused": confused}
        if name == "fused":
            counts = sorted(pairs.values(), reverse=True)[: confusion.PAIRS]
            assert [pair["documents"] for pair in facts["pairs"]] == counts
            for pair in facts["pairs"]:
                key = tuple(int(pair[side][1:]) for side in ("true", "instead"))
                assert pairs[key] == pair["documents"]


def test_a_model_that_is_always_right_confuses_nothing(make_dataset, scripted, evaluated):
    model = scripted(
        LABELS, {f"text of test{i}": [LABELS[y] for y in t] for i, t in enumerate(TEST)}
    )
    facts = evaluated(make_dataset(LABELS, [[0]], TEST), model).metrics["confusion"]
    assert facts == {
        "depth": 5,
        "siblings": SIBLINGS,
        "models": {"fused": {"missing": 0, "confused": 0}},
        "pairs": [],
    }


def test_labels_that_the_model_lacks_have_no_siblings(near, make_dataset, scripted, evaluated):
    """The bundle knows b and c in other rows, and z, which the data set lacks."""
    model = scripted(["z", "c", "b"], {"text of test0": ["b"], "text of test1": ["c", "z"]})
    dataset = make_dataset(["a", "b", "c"], [[0]], [[0], [1]])
    facts = evaluated(dataset, model).metrics["confusion"]
    assert facts["models"]["fused"] == {"missing": 2, "confused": 1}
    assert [(p["true"], p["instead"]) for p in facts["pairs"]] == [("b", "c")]

"""Candidate and champion on the labels that both know, worked out by hand."""

import json

import numpy as np
import pytest

from xcflow.artifact import read_manifest
from xcflow.evaluation.report import evaluation_page
from xcflow.evaluation.result import SHARED

LABELS = ["a", "b", "c", "new", "lost"]
TRAIN = [[0], [0, 1], [2], [3, 4]]
# The candidate alone knows "new", the champion alone knows "lost".
TEST = [[0, 3], [1], [3], [2, 4]]
NEW = {
    "text of test0": ["new", "a"],
    "text of test1": ["new", "c", "b"],
    "text of test2": ["new"],
    "text of test3": ["c"],
}
OLD = {
    "text of test0": ["b", "a"],
    "text of test1": ["b"],
    "text of test2": ["a"],
    "text of test3": ["lost", "gone", "c"],
}


@pytest.fixture
def evaluation(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, TEST)
    new = scripted(["a", "b", "c", "new"], NEW)
    old = scripted(["gone", "c", "b", "a", "lost"], OLD)
    return evaluated(dataset, new, old, ks=(1, 2), block=3)


def test_other_labels_leave_truth_and_predictions_and_the_rest_is_ranked_anew(evaluation):
    whole = evaluation.metrics["models"]
    assert whole["fused"]["P@1"] == 3 / 4
    assert whole["champion"]["P@1"] == 2 / 4
    shared = evaluation.metrics["shared"]
    assert shared["labels"] == 3
    # test2 has no label that both know; of the others "new" and "lost" are gone.
    assert shared["counts"] == {"documents": 3, "test_pairs": 3}
    assert shared["models"]["fused"]["P@1"] == pytest.approx(2 / 3)
    assert shared["models"]["champion"]["P@1"] == pytest.approx(2 / 3)
    assert shared["models"]["fused"]["R@2"] == shared["models"]["champion"]["R@2"] == 1.0


def test_what_one_alone_knows_is_reported_apart(evaluation):
    assert evaluation.metrics["shared"]["alone"] == {
        "fused": {"labels": 1, "test_pairs": 2, "found": 2, "depth": 2},
        "champion": {"labels": 1, "test_pairs": 1, "found": 1, "depth": 2},
    }


def test_the_view_on_shared_labels_computes_the_figures_that_are_written(evaluation):
    view = evaluation.shared()
    assert view.documents == 3
    for model in ("fused", "champion"):
        for metric in view.metric_names():
            found = view.ratio(model, metric).value
            assert found == view.metrics["models"][model][metric], metric
    written = evaluation.path / SHARED / "per_document" / "fused" / "labels.npy"
    assert np.load(written)[:, :2].tolist() == [[0, -1], [2, 1], [-1, -1], [2, -1]]


def test_the_page_shows_these_figures_where_labels_differ(
    evaluation, make_dataset, scripted, evaluated
):
    title = "The same on the labels that both know"
    _, found, section = evaluation_page(evaluation).partition(title)
    assert found
    assert "66.7" in section.partition("</table>")[0]
    model = scripted(LABELS, {text: ["a"] for text in NEW})
    alike = evaluated(make_dataset(LABELS, TRAIN, TEST), model, model, ks=(1, 2))
    assert title not in evaluation_page(alike)


def test_blocks_do_not_change_the_figures(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, TEST)
    new = scripted(["a", "b", "c", "new"], NEW)
    old = scripted(["gone", "c", "b", "a", "lost"], OLD)
    one, other = (evaluated(dataset, new, old, ks=(1, 2), block=size) for size in (1, 100))
    files = [read_manifest(evaluation.path, verify=True).files for evaluation in (one, other)]
    for name in files[0]:
        if name not in ("timings.json",):
            assert files[0][name] == files[1][name], name


@pytest.mark.parametrize("champion", [["a", "b", "c", "new", "lost", "gone"], None])
def test_where_both_know_the_same_labels_there_is_nothing_to_tell_apart(
    make_dataset, scripted, evaluated, champion
):
    dataset = make_dataset(LABELS, TRAIN, TEST)
    answers = {text: ["a"] for text in NEW}
    old = champion and scripted(champion, answers)
    evaluation = evaluated(dataset, scripted(LABELS, answers), old, ks=(1, 2))
    assert evaluation.metrics["shared"] is None
    assert evaluation.shared() is evaluation
    assert not (evaluation.path / SHARED).exists()


def test_no_label_in_common_is_strict_json_too(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, TEST)
    new = scripted(["a", "b"], {text: ["a"] for text in NEW})
    old = scripted(["c"], {text: ["c"] for text in NEW})
    evaluation = evaluated(dataset, new, old, ks=(1, 2))

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((evaluation.path / "metrics.json").read_text(), parse_constant=refuse)
    assert evaluation.shared().documents == 0
    assert "The same on the labels that both know" not in evaluation_page(evaluation)

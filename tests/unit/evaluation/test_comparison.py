"""Comparing two evaluations: paired differences, and what cannot be compared."""

import pytest

from xcflow.errors import ArtifactError
from xcflow.evaluation.comparison import compare


def test_two_evaluations_are_compared_document_by_document(large_dataset, noisy, evaluated):
    better = evaluated(large_dataset, noisy(large_dataset, 0.6, 1))
    worse = evaluated(large_dataset, noisy(large_dataset, 0.4, 2))
    found = compare(better, worse)
    assert found.documents == 600
    assert found.confidence == 0.95
    assert set(found.differences) == set(better.metrics["models"]["fused"])
    p1 = found.differences["P@1"]
    assert p1.a == better.metrics["models"]["fused"]["P@1"]
    assert p1.b == worse.metrics["models"]["fused"]["P@1"]
    assert 0 < p1.low < p1.difference < p1.high
    assert found.left_out == {}


def test_two_models_of_one_evaluation_and_slices(large_dataset, noisy, evaluated):
    champion = noisy(large_dataset, 0.4, 2)
    evaluation = evaluated(large_dataset, noisy(large_dataset, 0.6, 1), champion)
    found = compare(evaluation, evaluation, b="champion", metrics=["R@5/tail", "PSP@5"])
    assert list(found.differences) == ["R@5/tail", "PSP@5"]
    assert found.differences["R@5/tail"].low > 0


def test_only_common_depths_are_compared(large_dataset, noisy, evaluated):
    model = noisy(large_dataset, 0.5, 1)
    found = compare(
        evaluated(large_dataset, model, ks=(1, 3)), evaluated(large_dataset, model, ks=(1, 5))
    )
    assert set(found.differences) == {"P@1", "nDCG@1", "PSP@1", "R@1"}


def test_other_test_documents_are_refused(make_dataset, scripted, evaluated):
    labels = ["a", "b"]
    evaluations = [
        evaluated(
            make_dataset(labels, [[0]], test),
            scripted(labels, {f"text of test{i}": ["a"] for i in range(3)}),
        )
        for test in ([[0], [1]], [[0], [0]])
    ]
    with pytest.raises(ArtifactError, match="different test splits"):
        compare(*evaluations)


def test_other_training_documents_leave_out_what_depends_on_them(make_dataset, scripted, evaluated):
    labels = ["a", "b"]
    model = scripted(labels, {f"text of test{i}": ["a"] for i in range(3)})
    one, other = (
        evaluated(make_dataset(labels, train, [[0], [1]]), model, ks=(1,))
        for train in ([[0], [1], [1]], [[0], [1], [0], [0], [0], [0]])
    )
    found = compare(one, other)
    assert set(found.differences) == {"P@1", "nDCG@1", "R@1"}
    assert "propensities differ" in found.left_out["PSP@1"]
    assert "slices differ" in compare(one, other, metrics=["R@1/head"]).left_out["R@1/head"]

"""A whole evaluation on small data sets: filter, skipped documents, blocks, foreign labels."""

import json

import numpy as np
import pytest

from xcflow.artifact import read_manifest
from xcflow.errors import ArtifactError, DataError
from xcflow.evaluation.protocol import label_counts_digest, split_digest
from xcflow.evaluation.result import Evaluation

LABELS = ["a", "b", "c", "d"]
TRAIN = [[0], [0, 1], [0, 2]]


def test_filtered_pairs_make_room_and_documents_without_truth_are_skipped(
    make_dataset, scripted, evaluated
):
    dataset = make_dataset(LABELS, TRAIN, [[1, 2], [3], []], [[0], [3], []])
    answers = {"text of test0": ["a", "b", "d", "c"], "text of test1": ["d"], "text of test2": []}
    evaluation = evaluated(dataset, scripted(LABELS, answers), ks=(1, 2, 3))

    figures = evaluation.metrics["models"]["fused"]
    assert figures["P@1"] == 1.0
    assert figures["P@2"] == 0.5
    assert figures["R@3"] == 1.0
    counts = evaluation.metrics["counts"]
    assert (counts["documents"], counts["skipped_documents"]) == (1, 2)
    assert (counts["test_pairs"], counts["filtered_pairs"]) == (2, 2)
    assert evaluation.document_ids().to_list() == ["test0"]
    assert evaluation.excerpts().to_list() == ["text of test0"]
    assert evaluation.truth()[0].tolist() == [1, 2]
    assert evaluation.predictions("fused").labels[0, :4].tolist() == [1, 3, 2, -1]
    assert evaluation.label_ids().to_list() == LABELS


def test_nothing_to_evaluate_is_one_clear_line(make_dataset, scripted, evaluated, tmp_path):
    dataset = make_dataset(LABELS, TRAIN, [[0], []], [[0], []])
    with pytest.raises(DataError, match="no test document has a label left"):
        evaluated(dataset, scripted(LABELS, {}))
    assert list(tmp_path.iterdir()) == []


def test_blocks_do_not_change_a_figure(large_dataset, noisy, evaluated):
    model = noisy(large_dataset, 0.5, seed=1)
    whole = evaluated(large_dataset, model)
    blocks = evaluated(large_dataset, model, block=7)
    assert whole.metrics == blocks.metrics
    assert (
        read_manifest(whole.path, verify=True).files["per_document/fused/psp.npy"]
        == (read_manifest(blocks.path).files["per_document/fused/psp.npy"])
    )


def test_a_champion_with_other_labels_is_matched_by_id(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, [[0], [3]])
    texts = ["text of test0", "text of test1"]
    new = scripted(LABELS, {texts[0]: ["a"], texts[1]: ["d"]})
    old = scripted(["gone", "c", "a"], {texts[0]: ["gone", "a"], texts[1]: ["gone", "c", "a"]})
    evaluation = evaluated(dataset, new, old, ks=(1, 2))

    facts = evaluation.metrics["champion"]
    assert facts["bundle"] == "digest of champion"
    assert (facts["unknown_labels"], facts["missing_labels"]) == (1, 2)
    assert evaluation.metrics["candidate"]["missing_labels"] == 0
    top = evaluation.predictions("champion").labels
    assert top[:, :3].tolist() == [[0, -1, -1], [2, 0, -1]]
    assert evaluation.metrics["models"]["champion"]["P@1"] == 0.5


def test_slices_and_counts_come_from_the_whole_training_split(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, [[0], [3]])
    answers = {"text of test0": ["a"], "text of test1": ["a", "d"]}
    evaluation = evaluated(dataset, scripted(LABELS, answers), ks=(1, 2))
    metrics = evaluation.metrics
    assert metrics["label_slices"]["cold"] == {
        "labels": 1,
        "train_positives": 0,
        "min_count": 0,
        "max_count": 0,
        "test_positives": 1,
    }
    assert set(metrics["slices"]["fused"]) == {"head", "cold"}
    assert metrics["slices"]["fused"]["cold"]["R@1"] == 0.0
    assert metrics["slices"]["fused"]["cold"]["R@2"] == 1.0
    assert metrics["counts"]["cold_labels"] == 1
    assert metrics["propensity"]["train_documents"] == 3


def test_metrics_are_strict_json_without_timings(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, [[0], [3]])
    answers = {"text of test0": ["a"], "text of test1": []}
    evaluation = evaluated(dataset, scripted(LABELS, answers))

    def refuse(constant):
        raise AssertionError(constant)

    for name in ("metrics.json", "timings.json"):
        json.loads((evaluation.path / name).read_text(), parse_constant=refuse)
    latency = evaluation.timings["latency_ms"]["fused"]
    assert latency["texts"] == 2
    assert 0 < latency["p50"] <= latency["p99"]


def test_digests_do_not_depend_on_the_labels_rows_nor_on_new_labels(make_dataset):
    one = make_dataset(["a", "b", "c"], [[0], [0, 1]], [[0, 1], [2]], [[2], []])
    other = make_dataset(["new", "c", "b", "a"], [[3], [2, 3]], [[2, 3], [1]], [[1], []])
    assert split_digest(one) == split_digest(other)
    assert label_counts_digest(one) == label_counts_digest(other)


@pytest.mark.parametrize(
    ("test", "filtered"),
    [([[0, 1], [1]], [[2], []]), ([[0, 1], [2]], [[], []]), ([[0], [1, 2]], [[2], []])],
)
def test_digests_change_with_truth_and_filter(make_dataset, test, filtered):
    one = make_dataset(["a", "b", "c"], [[0]], [[0, 1], [2]], [[2], []])
    assert split_digest(one) != split_digest(make_dataset(["a", "b", "c"], [[0]], test, filtered))


def test_an_unknown_model_or_depth_names_the_known_ones(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, TRAIN, [[0]])
    evaluation = evaluated(dataset, scripted(LABELS, {"text of test0": ["a"]}), ks=(1, 2))
    with pytest.raises(ArtifactError, match="k 7 was not measured, only 1, 2"):
        evaluation.ratio("fused", "P@7")
    with pytest.raises(ArtifactError, match="model encoder was not measured, only fused"):
        evaluation.ratio("encoder", "P@1")


def test_figures_are_the_ratios_of_the_kept_terms(large_dataset, noisy, evaluated):
    evaluation = evaluated(large_dataset, noisy(large_dataset, 0.5, seed=1))
    reopened = Evaluation.open(evaluation.path)
    for name, value in reopened.metrics["models"]["fused"].items():
        assert reopened.ratio("fused", name).value == value
    for part, figures in reopened.metrics["slices"]["fused"].items():
        for name, value in figures.items():
            assert reopened.ratio("fused", f"{name}/{part}").value == value
    assert np.isfinite(list(reopened.metrics["models"]["fused"].values())).all()

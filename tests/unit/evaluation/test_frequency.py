"""Recall by label frequency: groups by hand, and the same whatever rows the labels have."""

import numpy as np
import pytest

from xcflow.evaluation.frequency import NO_GROUP, FrequencyGroups

# Training documents: a 3, b 2, c 2, d 1, e 0; f is never asked for.
LABELS = ["a", "b", "c", "d", "e", "f"]
TRAIN = [[0, 1], [0, 1, 2], [0, 2, 3], [5]]
TEST = [[0, 1], [2, 4], [0, 3]]
ANSWERS = {"text of test0": ["a", "c"], "text of test1": ["b", "c"], "text of test2": ["e", "d"]}


def values(ratios):
    return [ratio.value for ratio in ratios]


def test_groups_are_ranges_of_frequency_with_like_shares_of_the_test_pairs(
    make_dataset, scripted, evaluated
):
    evaluation = evaluated(make_dataset(LABELS, TRAIN, TEST), scripted(LABELS, ANSWERS), ks=(1, 2))
    found = FrequencyGroups.of(evaluation, 10)
    facts = [(g.name, g.labels, g.test_positives) for g in found.groups]
    assert facts == [("3", 1, 2), ("2", 2, 2), ("1", 1, 1)]
    assert found.group_of.tolist() == [0, 1, 1, 2, NO_GROUP, NO_GROUP]
    assert [g.name for g in FrequencyGroups.of(evaluation, 2).groups] == ["3", "1-2"]


def test_recall_counts_each_true_pair_once(make_dataset, scripted, evaluated):
    evaluation = evaluated(make_dataset(LABELS, TRAIN, TEST), scripted(LABELS, ANSWERS), ks=(1, 2))
    found = FrequencyGroups.of(evaluation)
    assert values(found.recall(evaluation, "fused", 2)) == [0.5, 0.5, 1.0]
    assert values(found.recall(evaluation, "fused", 1)) == [0.5, 0.0, 0.0]


def test_recall_of_all_groups_together_is_that_of_all_pairs(large_dataset, noisy, evaluated):
    evaluation = evaluated(large_dataset, noisy(large_dataset, 0.5, 1))
    found = FrequencyGroups.of(evaluation)
    assert 8 <= len(found.groups) <= 10
    shares = np.array([g.test_positives for g in found.groups]) / evaluation.truth().offsets[-1]
    assert shares.sum() == pytest.approx(1)
    assert shares.max() < 0.2
    ratios = found.recall(evaluation, "fused", 5)
    hits = sum(r.numerator.sum() for r in ratios)
    assert hits == pytest.approx(5 * evaluation.ratio("fused", "P@5").numerator.sum())


def test_other_rows_of_the_same_labels_give_the_same_groups(make_dataset, scripted, evaluated):
    order = [3, 5, 0, 4, 2, 1]
    names = [LABELS[i] for i in order]
    row = {label: i for i, label in enumerate(order)}

    def moved(rows):
        return [sorted(row[label] for label in labels) for labels in rows]

    one = evaluated(make_dataset(LABELS, TRAIN, TEST), scripted(LABELS, ANSWERS), ks=(1, 2))
    other = evaluated(
        make_dataset(names, moved(TRAIN), moved(TEST)), scripted(names, ANSWERS), ks=(1, 2)
    )
    groups = [FrequencyGroups.of(e) for e in (one, other)]
    assert groups[0].groups == groups[1].groups
    recalls = [values(g.recall(e, "fused", 2)) for g, e in zip(groups, (one, other), strict=True)]
    assert recalls[0] == recalls[1]

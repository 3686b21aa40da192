"""The gate on champions that took in other labels: what may not fall, what must be found."""

import dataclasses

import numpy as np
import pytest

from xcflow.config import GateConfig
from xcflow.evaluation.gate import decide
from xcflow.evaluation.refreshed import FINDS, TAKES_IN, refresh_of
from xcflow.evaluation.report import gate_page
from xcflow.evaluation.shared import recall_alone

GATE = GateConfig(secondary=("P@5", "R@100"), margin=0.02)
OLD, NEW = [f"old{i}" for i in range(9)], ["new"]
FACTS = {
    "from": "digest of champion",
    "since_training": 1,
    "labels_added": 1,
    "labels_removed": 2,
    "labels_renamed": 0,
    "documents_read": 0,
}
VOICES = {"fused": "fused", "encoder": "encoder"}


@pytest.fixture(scope="module")
def dataset(make_dataset):
    """400 test documents with an old label, of which each fourth has the new one too."""
    rows = [[i % 9, 9] if i % 4 == 0 else [i % 9] for i in range(400)]
    return make_dataset([*OLD, *NEW], [[i] for i in range(10)], rows)


@pytest.fixture
def refreshed(dataset, scripted, evaluated):
    """The evaluation of a refresh that answers as it is told, beside a champion right at first."""

    def make(answer, plain=lambda i: ["new"], known=(*OLD, *NEW), **facts):
        def script(one):
            texts = dataset.test.texts.to_list()
            return {text: [x for x in one(i) if x in known] for i, text in enumerate(texts)}

        candidate = scripted(known, script(answer), script(plain))
        champion = scripted(
            OLD, {t: [OLD[i % 9]] for i, t in enumerate(dataset.test.texts.to_list())}
        )
        nothing = scripted([*OLD, *NEW], {t: [] for t in dataset.test.texts.to_list()})
        weak = {"baseline_tfidf": nothing, "baseline_untrained": nothing}
        more = {"refresh": FACTS | facts}
        return evaluated(dataset, candidate, champion, weak, facts=more, voices=VOICES)

    return make


def good(i):
    return [OLD[i % 9], "new"]


def outcome(judgement, question):
    return next(check.outcome for check in judgement.checks if check.question == question)


def test_a_refresh_that_loses_nothing_and_finds_its_labels_is_promoted(refreshed):
    judgement = decide(refreshed(good), GATE)
    assert judgement.verdict == "PROMOTE"
    assert judgement.reasons[0] == "Refreshed without training, labels: 1 new, 2 gone."
    assert judgement.reasons[1].startswith("R@10 of new labels is 100.0, at least the threshold")
    assert not any(c.question == "rises" and c.against == "champion" for c in judgement.checks)


def test_the_same_figures_without_a_refresh_are_held(refreshed):
    """A candidate like any other: equal to the champion on the labels that both know."""
    beside_another = refreshed(good, **{"from": "digest of an earlier champion"})
    assert refresh_of(beside_another) is None
    judgement = decide(beside_another, GATE)
    assert judgement.verdict == "HOLD"
    assert "too close to call" in judgement.reasons[0]


def test_a_loss_on_old_labels_is_rejected(refreshed):
    judgement = decide(refreshed(lambda i: [OLD[(i + (i % 5 == 0)) % 9], "new"]), GATE)
    assert judgement.verdict == "REJECT"
    assert any(
        reason.startswith("P@1 is 80.0, 20.0 below the champion") for reason in judgement.reasons
    )


def test_new_labels_that_push_old_ones_away_are_rejected(refreshed):
    """On the labels that both know nothing is lost; among all of them much is."""
    judgement = decide(refreshed(lambda i: ["new", OLD[i % 9]]), GATE)
    shared = next(c for c in judgement.checks if c.metric == "P@1" and c.against == "champion")
    assert shared.outcome == "yes"
    assert judgement.verdict == "REJECT"
    assert judgement.reasons[0].startswith("P@1 among all labels is 25.0, 75.0 below the champion")


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (0, "REJECT", "is 0.0, less than the threshold of 10.0"),
        (4, "REJECT", "is 4.0, less than the threshold"),
        (10, "HOLD", "is 10.0, perhaps less than the threshold"),
        (40, "PROMOTE", "is 40.0, at least the threshold"),
    ],
)
def test_new_labels_must_be_found(refreshed, found, verdict, words):
    """Of the 100 documents with the new label so many get it; by texts alone none does."""

    def answer(i):
        return [OLD[i % 9], *(["new"] if i % 4 or i // 4 < found else [])]

    judgement = decide(refreshed(answer, plain=lambda i: []), GATE)
    assert judgement.verdict == verdict
    assert any(words in check.words for check in judgement.checks if check.question == FINDS)


def test_new_labels_must_be_found_as_by_their_texts(refreshed):
    def half(i):
        return [OLD[i % 9], *(["new"] if i % 8 else [])]

    judgement = decide(refreshed(half), GATE)
    assert outcome(judgement, FINDS) == "yes"
    assert judgement.verdict == "REJECT"
    (reason,) = judgement.reasons
    assert reason.startswith("R@10 of new labels is 50.0, 50.0 below its encoder alone (100.0)")


def test_too_few_documents_with_new_labels_hold(refreshed):
    strict = dataclasses.replace(GATE, new_label_documents=101)
    judgement = decide(refreshed(good), strict)
    assert judgement.verdict == "HOLD"
    (reason,) = judgement.reasons
    assert reason.startswith("Of the 1 new labels 100 test documents have one; with fewer than 101")
    assert decide(refreshed(good), dataclasses.replace(GATE, new_label_documents=100)).verdict == (
        "PROMOTE"
    )


def test_a_refresh_without_a_new_label_need_find_none(refreshed):
    evaluation = refreshed(lambda i: [OLD[i % 9]], known=OLD, labels_added=0, labels_removed=1)
    assert recall_alone(evaluation, "fused").denominator.sum() == 0
    judgement = decide(evaluation, GATE)
    assert judgement.verdict == "PROMOTE"
    assert judgement.reasons[0] == "Refreshed without training, labels: 1 gone."


def test_a_refresh_that_changes_nothing_is_held(refreshed):
    nothing = dict.fromkeys(("labels_added", "labels_removed", "labels_renamed"), 0)
    judgement = decide(refreshed(lambda i: [OLD[i % 9]], known=OLD, **nothing), GATE)
    assert judgement.verdict == "HOLD"
    assert outcome(judgement, TAKES_IN) == "cannot tell"
    assert judgement.reasons == (
        "The catalogue has the champion's labels with the same texts: nothing to take in.",
    )


def test_many_refreshes_in_a_row_are_told(refreshed):
    assert not any("since" in note for note in decide(refreshed(good), GATE).notes)
    notes = decide(refreshed(good, since_training=4), GATE).notes
    assert "It is the refresh number 4 since the last training." in notes


def test_recall_of_new_labels_counts_their_documents_alone(refreshed):
    found = recall_alone(refreshed(lambda i: ["new"] if i % 8 == 0 else []), "fused")
    assert found.denominator.sum() == 100
    np.testing.assert_array_equal(np.flatnonzero(found.numerator), np.arange(0, 400, 8))


def test_the_page_says_what_a_refresh_is_asked(refreshed, read_page):
    for evaluation, is_refresh in (
        (refreshed(good), True),
        (refreshed(good, **{"from": "x"}), False),
    ):
        page = gate_page(decide(evaluation, GATE))
        read_page(page)
        assert ("need not rise above itself" in page) == is_refresh
        assert ("among all labels" in page) == is_refresh
        assert ("Against its encoder alone" in page) == is_refresh

"""The choice among the fitted fusion and simpler ones."""

import numpy as np
import pytest

from xcflow.config import EvaluationConfig, FusionConfig
from xcflow.evaluation.metrics import Measure
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import FEATURES, Fusion
from xcflow.training import fusing
from xcflow.training.fusing import Look, choose_fusion
from xcflow.training.ranking_network import fit_fusion

CONFIG = FusionConfig(hidden=8, steps=150)
LABELS, PROPOSED = 30, 10


class Lists:
    """Documents with 10 proposals each, of which two are true."""

    def __init__(self, documents: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows = [np.sort(rng.choice(LABELS, PROPOSED, replace=False)) for _ in range(documents)]
        self.proposals = Ragged.from_rows(rows)
        self.truth = Ragged.from_rows([np.sort(rng.choice(row, 2, False)) for row in rows])
        self.true = self.proposals.also_in(self.truth)
        features = rng.uniform(0, 1, (len(self.true), len(FEATURES)))
        self.features = features.astype(np.float32)

    def choose(self) -> Fusion:
        measure = Measure.of_training(np.ones(LABELS, np.int64), 100, EvaluationConfig())
        return choose_fusion([self.look], self.truth, measure, CONFIG, 1).fusion

    @property
    def look(self) -> Look:
        return Look(self.features, self.proposals)


def test_a_lone_voice_that_is_right_is_taken(capsys: pytest.CaptureFixture[str]):
    for number, name in enumerate(("encoder", "classifier", "vote")):
        lists = Lists(10)
        lists.features[:, number] += lists.true
        fusion = lists.choose()
        assert f"taking {name}" in capsys.readouterr().err
        order = np.argsort(fusion.score(lists.features))
        np.testing.assert_array_equal(order, np.argsort(lists.features[:, number]))


def test_voices_that_complement_each_other_are_taken_together(
    capsys: pytest.CaptureFixture[str],
):
    lists = Lists(15)
    lists.features[:, :3] += 0.5 * lists.true[:, None]
    lists.choose()
    assert "taking equal" in capsys.readouterr().err


def test_the_network_is_taken_where_it_generalises(capsys: pytest.CaptureFixture[str]):
    lists = Lists(80)
    frequent = lists.features[:, 4] > 0.5
    lists.features[:, 0] += 0.9 * (lists.true & ~frequent) + 0.9 * (~lists.true & frequent)
    lists.features[:, 1] += 0.9 * (lists.true & frequent) + 0.9 * (~lists.true & ~frequent)
    fusion = lists.choose()
    assert "taking network" in capsys.readouterr().err
    gains = Measure.of_training(np.ones(LABELS, np.int64), 100, EvaluationConfig()).gains
    whole = fit_fusion(lists.features, lists.proposals, lists.truth, gains, CONFIG, 1)
    np.testing.assert_array_equal(fusion.score(lists.features), whole.score(lists.features))


def test_few_documents_teach_no_network(capsys: pytest.CaptureFixture[str]):
    Lists(19).choose()
    assert "network" not in capsys.readouterr().err
    Lists(20).choose()
    assert "network" in capsys.readouterr().err


def test_what_is_measured_was_not_learned_from():
    lists, other = Lists(40), Lists(40)
    measure = Measure.of_training(np.ones(LABELS, np.int64), 100, EvaluationConfig())
    half = np.random.default_rng(1).permutation(40) % 2 == 0
    # Other truth for one half changes what the other half is scored by, and nothing else.
    rows = [other.proposals[i][:2] if half[i] else other.truth[i] for i in range(40)]
    other.truth = Ragged.from_rows(rows)
    found = [
        fusing._cross_fitted([x.look, x.look], x.truth, measure, CONFIG, 1) for x in (lists, other)
    ]
    for look in zip(*found, strict=True):
        scores = [values.reshape(40, -1) for values in look]
        np.testing.assert_array_equal(scores[0][half], scores[1][half])
        assert (scores[0][~half] != scores[1][~half]).all()


def test_a_second_look_teaches_what_the_first_cannot():
    """As they are, the votes tell all; in the second look they are silent and the encoder tells."""
    first, second = Lists(60), Lists(60)
    first.features[:, 2] += 2.0 * first.true
    second.features[:, 2:4] = 0.0
    second.features[:, 0] += 0.6 * second.true
    measure = Measure.of_training(np.ones(LABELS, np.int64), 100, EvaluationConfig())

    def quality(looks: list[Look]) -> float:
        fusion = fusing._fitted(looks, first.truth, measure, CONFIG, 1)
        best = np.argmax(fusion.score(second.features).reshape(60, PROPOSED), axis=1)
        return float(second.true.reshape(60, PROPOSED)[np.arange(60), best].mean())

    assert quality([first.look, second.look]) > quality([first.look]) + 0.1


def test_nothing_to_learn_from():
    nothing = Ragged.from_rows([[]])
    measure = Measure.of_training(np.ones(LABELS, np.int64), 100, EvaluationConfig())
    features = np.empty((0, len(FEATURES)), np.float32)
    truth = Ragged.from_rows([[1]])
    fusion = choose_fusion([Look(features, nothing)], truth, measure, CONFIG, 1).fusion
    assert np.isfinite(fusion.score(np.eye(len(FEATURES), dtype=np.float32))).all()

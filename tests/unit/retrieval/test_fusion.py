"""The fusion learns whom to trust, and only from what it is shown."""

import json

import numpy as np
import pytest
import torch

from xcflow.config import FusionConfig
from xcflow.errors import ArtifactError
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import FEATURES, VOICES, Fusion
from xcflow.training.ranking_network import _list_loss, _Lists, fit_fusion

CONFIG = FusionConfig(hidden=8, steps=150)
LABELS = 30


class Lists:
    """Documents with 10 proposals each, of which the two true ones stand out in one feature."""

    def __init__(self, telling: int, seed: int = 0, documents: int = 80) -> None:
        rng = np.random.default_rng(seed)
        rows = [np.sort(rng.choice(LABELS, 10, replace=False)).tolist() for _ in range(documents)]
        self.proposals = Ragged.from_rows(rows)
        self.truth = Ragged.from_rows([sorted(rng.choice(row, 2, False)) for row in rows])
        self.true = self.proposals.also_in(self.truth)
        features = rng.uniform(0, 1, (len(self.true), len(FEATURES)))
        features[:, telling] += 0.8 * self.true
        self.features = features.astype(np.float32)

    def fit(self, seed: int = 1, config: FusionConfig = CONFIG) -> Fusion:
        gains = np.ones(LABELS)
        return fit_fusion(self.features, self.proposals, self.truth, gains, config, seed)

    def precision(self, fusion: Fusion) -> float:
        scores = fusion.score(self.features).reshape(len(self.proposals), -1)
        best = np.argsort(-scores, axis=1)[:, :2]
        return float(np.take_along_axis(self.true.reshape(scores.shape), best, 1).mean())


@pytest.mark.parametrize("telling", range(len(FEATURES)))
def test_it_finds_the_feature_that_tells(telling: int):
    fusion = Lists(telling).fit()
    assert Lists(telling, seed=1).precision(fusion) > 0.75
    assert Lists((telling + 1) % len(FEATURES), seed=1).precision(fusion) < 0.6


def test_it_learns_that_trust_depends_on_frequency():
    # The classifier is right about labels with many documents, the encoder about the others.
    lists = Lists(telling=3)
    frequent = lists.features[:, 4] > 0.5
    lists.features[:, 3] = 0.5
    lists.features[:, 0] += 0.8 * (lists.true & ~frequent)
    lists.features[:, 1] += 0.8 * (lists.true & frequent)
    assert lists.precision(lists.fit()) > 0.8


def test_the_same_lists_and_seed_give_the_same_weights():
    first, second = Lists(1).fit(), Lists(1).fit()
    for name, value in first.__dict__.items():
        np.testing.assert_array_equal(value, second.__dict__[name])
    assert (Lists(1).fit(seed=2).hidden != first.hidden).any()


def test_it_survives_json():
    fusion = Lists(0).fit()
    loaded = Fusion.from_dict(json.loads(json.dumps(fusion.to_dict(), allow_nan=False)))
    features = Lists(0, seed=3).features
    np.testing.assert_array_equal(loaded.score(features), fusion.score(features))
    assert fusion.to_dict()["features"] == list(FEATURES)


def test_features_of_another_version_are_refused():
    values = Lists(0).fit().to_dict() | {"features": ["encoder", "tarot"]}
    with pytest.raises(ArtifactError, match="fusion weighs encoder, tarot, this version of xcflow"):
        Fusion.from_dict(values)


def test_where_nothing_can_be_learned_the_voices_count_alike():
    lists = Lists(0)
    lists.truth = Ragged.from_rows([[]] * 80)
    x = lists.features
    expected = ((x - x.mean(0)) / x.std(0))[:, : len(VOICES)].sum(1)
    np.testing.assert_allclose(lists.fit().score(x), expected, atol=1e-4)


def test_no_proposals_at_all():
    nothing = Ragged.from_rows([[]])
    fusion = fit_fusion(
        np.empty((0, len(FEATURES)), np.float32),
        nothing,
        Ragged.from_rows([[1]]),
        np.ones(2),
        CONFIG,
        1,
    )
    assert np.isfinite(fusion.score(np.eye(len(FEATURES), dtype=np.float32))).all()


@pytest.mark.parametrize("constant", [4, 5, 6])
def test_what_never_varied_in_validation_decides_nothing(constant: int):
    lists = Lists(telling=(constant + 1) % len(FEATURES))
    lists.features[:, constant] = 0.25
    fusion = lists.fit()
    assert lists.precision(fusion) > 0.8
    # In use the feature takes other values: a cold label proposed for the first time.
    before = lists.precision(fusion)
    lists.features[:, constant] = np.random.default_rng(0).random(len(lists.true)) < 0.5
    assert lists.precision(fusion) == before


@pytest.mark.parametrize("constant", [0, 1, 2])
def test_a_voice_that_was_silent_in_validation_is_not_shouting_later(constant: int):
    lists = Lists(telling=(constant + 1) % 3)
    lists.features[:, constant] = 0.0
    fusion = lists.fit()
    lists.features[:, constant] = 0.1 * np.random.default_rng(0).random(len(lists.true))
    assert lists.precision(fusion) > 0.8


def test_gains_weigh_the_true_labels():
    # One proposal of two is true, and all that is known of it is its label's frequency.
    rows = Ragged.from_rows([[0, 1]] * 60)
    truth = Ragged.from_rows([[0] if i % 3 else [1] for i in range(60)])
    features = np.zeros((120, len(FEATURES)), np.float32)
    features[:, 4] = np.tile([1.0, 0.0], 60)

    def prefers_rare(weight: float) -> bool:
        config = FusionConfig(hidden=4, steps=100, tail_weight=weight)
        gains = np.array([1.0, 4.0])
        scores = fit_fusion(features, rows, truth, gains, config, 1).score(features)
        return bool(scores[1::2].mean() > scores[0::2].mean())

    assert not prefers_rare(0.0)
    assert prefers_rare(1.0)


def test_a_true_label_competes_with_the_false_ones_of_its_document():
    rng = np.random.default_rng(0)
    rows = np.sort(np.append(rng.integers(0, 6, 34), np.arange(6)))
    true = rng.random(40) < 0.3
    true[np.searchsorted(rows, np.arange(6))] = True
    true[rows == 3] = True  # nothing to confuse it with
    scores, weight = 4.0 * rng.standard_normal(40), rng.uniform(1, 3, 40)
    losses = []
    for i in range(6):
        own, false = scores[(rows == i) & true], scores[(rows == i) & ~true]
        against = np.exp(false).sum()
        loss = -np.log(np.exp(own) / (np.exp(own) + against)) * weight[(rows == i) & true]
        losses.append(loss.mean())
    lists = _Lists(*(torch.from_numpy(a) for a in (rng.random(40), rows, true, weight)))
    found = _list_loss(torch.from_numpy(scores).float(), lists)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-3)


def test_batches_show_all_documents_before_one_comes_again():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 11)
    rows = torch.from_numpy(np.repeat(np.arange(11), sizes))
    lists = _Lists(rows[:, None].float(), rows, rows % 2 == 0, 2.0 * rows)
    batches = lists.batches(4, rng)
    for _ in range(3):
        seen = []
        for _, batch in zip(range(3), batches, strict=False):
            documents = batch.x[:, 0].long()
            assert torch.equal(batch.true, documents % 2 == 0)
            assert torch.equal(batch.weight, 2.0 * documents)
            # Each document whole, numbered by its place in the batch.
            assert torch.equal(
                torch.unique_consecutive(documents, return_inverse=True)[1], batch.rows
            )
            seen += documents.tolist()
        assert sorted(seen) == rows.tolist()


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_any_size_of_a_batch_learns(batch: int):
    lists = Lists(1)
    config = FusionConfig(hidden=8, steps=300, batch_documents=batch)
    assert lists.precision(lists.fit(config=config)) > 0.7


@pytest.mark.parametrize("contenders", [0, 1, 1000])
def test_only_contenders_are_looked_at(contenders: int):
    config = FusionConfig(hidden=8, steps=60, contenders=contenders)
    lists = Lists(1)
    assert lists.precision(lists.fit(config=config)) > 0.7


def test_documents_without_proposals_do_no_harm():
    lists = Lists(2)
    rows = [lists.proposals[i].tolist() for i in range(80)]
    padded = Ragged.from_rows([[], *rows[:20], [], *rows[20:], []])
    true = [lists.truth[i].tolist() for i in range(80)]
    truth = Ragged.from_rows([[3], *true[:20], [], *true[20:], [5]])
    fusion = fit_fusion(lists.features, padded, truth, np.ones(LABELS), CONFIG, 1)
    np.testing.assert_allclose(
        fusion.score(lists.features), lists.fit().score(lists.features), atol=1e-3
    )


def test_documents_with_nothing_to_find_do_no_harm():
    lists = Lists(2)
    rows = [lists.proposals[i].tolist() for i in range(80)]
    true = [lists.truth[i].tolist() for i in range(80)]
    # The same features again, so that their moments stay as they are.
    features = np.concatenate([lists.features, lists.features])
    proposals, truth = Ragged.from_rows(rows * 2), Ragged.from_rows(true + [[]] * 80)
    fusion = fit_fusion(features, proposals, truth, np.ones(LABELS), CONFIG, 1)
    np.testing.assert_allclose(
        fusion.score(lists.features), lists.fit().score(lists.features), atol=1e-3
    )

"""What the two modules and their validation do with a tiny data set."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from xcflow.catalogue.dataset import Dataset, Documents, Labels
from xcflow.catalogue.string_table import StringTable
from xcflow.config import EvaluationConfig
from xcflow.evaluation.metrics import without
from xcflow.labels.clustering import balanced_clusters
from xcflow.negatives.batches import Curriculum, document_order
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL
from xcflow.training.data import Splits
from xcflow.training.module_one import ModuleOne, draw_one
from xcflow.training.module_two import ModuleTwo
from xcflow.training.validation import Validation

RNG = np.random.default_rng


def test_one_label_of_each_document_is_drawn_evenly():
    truth = Ragged.from_rows([[4], [0, 2, 9], [1, 7]])
    drawn = np.array([draw_one(truth, RNG(seed)) for seed in range(600)])
    assert set(drawn[:, 0]) == {4}
    for column, labels in ((1, [0, 2, 9]), (2, [1, 7])):
        values, counts = np.unique(drawn[:, column], return_counts=True)
        assert values.tolist() == labels
        assert counts.min() > 0.8 * 600 / len(labels)


def test_splits_hold_the_documents_of_their_rows(themed: Dataset):
    splits = Splits.of(themed)
    for examples, rows in (
        (splits.fit, themed.fit_rows),
        (splits.validation, themed.validation_rows),
    ):
        assert len(examples) == len(rows)
        assert examples.label_count == 12
        chosen = np.array([5, 0, 2])
        tokens = examples.tokens(chosen)
        for i, row in enumerate(rows[chosen]):
            assert tokens[i].tolist() == themed.train.tokens[row].tolist()
            assert examples.labels[chosen[i]].tolist() == themed.train.labels[row].tolist()
        assert examples.tokens().data.tolist() == themed.train.tokens.take(rows).data.tolist()
    assert splits.excludes_itself is False
    # No item is a label here; all that is left out is what no document is left to learn from.
    assert set(splits.left_out.data.tolist()).isdisjoint(splits.fit.labels.data.tolist())


def items_dataset() -> Dataset:
    """30 items that are documents and labels at once; item i relates to i + 1 and i + 2."""
    names = [f"item {i}" for i in range(30)]
    table = StringTable.from_list(names)
    tokens = Ragged.from_rows([[i] for i in range(30)])
    related = Ragged.from_rows([sorted({(i + 1) % 30, (i + 2) % 30}) for i in range(30)])
    documents = Documents(table, table, tokens, related)
    return Dataset(
        path=None,  # type: ignore[arg-type]
        manifest=None,  # type: ignore[arg-type]
        labels=Labels(table, table, tokens),
        train=documents,
        test=documents,
        test_filter=related,
        fit_rows=np.arange(25),
        validation_rows=np.arange(25, 30),
        tokenizer_file=None,  # type: ignore[arg-type]
    )


def test_related_items_are_validated_without_what_is_known_of_them():
    splits = Splits.of(items_dataset())
    assert splits.excludes_itself is True
    assert splits.validation.same_item.tolist() == [25, 26, 27, 28, 29]
    # 23 and 24 relate to 25, 24 to 26; nobody that is learned from relates to the others. No test
    # pair is left, so nothing tells how many pairs of cold labels there should be.
    left_out = [splits.left_out[i].tolist() for i in range(5)]
    assert left_out == [[23, 24, 25], [24, 26], [27], [28], [29]]


@pytest.mark.parametrize(("cold", "shares"), [(0, 0.0), (1, 0.25), (3, 0.5), (None, 0.5)])
def test_validation_has_as_many_pairs_of_cold_labels_as_the_test_split(cold, shares):
    """``cold``: of 3 test pairs on a label that has documents, so many more on ones without."""
    names = StringTable.from_list([f"text {i}" for i in range(12)])
    nothing = Ragged.from_rows([[]] * 12)
    labels = StringTable.from_list([f"label {i}" for i in range(12)])
    # Rows 6 to 11 are held out: each has label 0 and one that no other document has.
    rows = [[0, 1]] * 6 + [[0, 2 + i] for i in range(6)]
    train = Documents(names, names, nothing, Ragged.from_rows(rows))
    pairs = [[]] if cold is None else [[0]] * 3 + [[11]] * cold
    some = StringTable.from_list(["t"] * len(pairs))
    test = Documents(some, some, Ragged.from_rows([[]] * len(pairs)), Ragged.from_rows(pairs))
    dataset = replace(
        items_dataset(),
        labels=Labels(labels, labels, nothing),
        train=train,
        test=test,
        test_filter=Ragged.from_rows([[]] * len(pairs)),
        fit_rows=np.arange(6),
        validation_rows=np.arange(6, 12),
    )
    splits = Splits.of(dataset)
    truth = without(splits.validation.labels, splits.left_out)
    assert (truth.data == 0).sum() == 6
    assert (truth.data != 0).mean() == pytest.approx(shares)


def test_validation_counts_hits_among_what_is_not_left_out():
    splits = Splits.of(items_dataset())
    validation = Validation(splits)
    rng = RNG(0)
    documents = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((5, 4))), dim=1)
    labels = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((30, 4))), dim=1)
    found = validation.of_vectors(documents.float(), [labels[:11].float(), labels[11:].float()])
    scores = (documents @ labels.T).numpy()
    hits, recall = [], []
    for i in range(5):
        out = set(splits.left_out[i].tolist())
        true = set(splits.validation.labels[i].tolist()) - out
        ranked = [label for label in np.argsort(-scores[i]) if label not in out]
        hits.append(ranked[0] in true)
        recall.append(len(true & set(ranked[:10])) / len(true))
    assert found["P@1"] == pytest.approx(np.mean(hits))
    assert found["R@10"] == pytest.approx(np.mean(recall))
    assert found["R@100"] == 1.0
    assert set(found) == {"P@1", "P@5", "nDCG@5", "R@10", "R@100"}
    assert max(EvaluationConfig().ks) <= validation.depth


def run_epoch(module: ModuleOne | ModuleTwo, epoch: int) -> None:
    for number, rows in enumerate(np.array_split(module.order(epoch), 4)):
        torch.manual_seed(number)
        module.step(rows, 1.0, RNG([epoch, number]))


def test_batches_are_clustered_by_what_the_encoder_said_last(
    make_module_one: Callable[..., ModuleOne],
):
    module = make_module_one(cluster_from_epoch=1, cluster_size=4, double_every=0)
    curriculum = Curriculum(1, 4, 0)
    np.testing.assert_array_equal(module.order(0), document_order(0, None, 36, curriculum, 3))
    run_epoch(module, 0)
    memory = module._memory.vectors.clone()
    torch.testing.assert_close(memory.norm(dim=1), torch.ones(36))
    np.testing.assert_array_equal(module.order(1), document_order(1, memory, 36, curriculum, 3))
    run_epoch(module, 1)
    assert (module._memory.vectors != memory).any(1).all()
    by_old = document_order(2, memory, 36, curriculum, 3)
    assert (module.order(2) != by_old).any()


def test_a_step_changes_what_the_batch_uses_and_nothing_else(
    make_module_one: Callable[..., ModuleOne], themed: Dataset
):
    module = make_module_one(two_way=False)
    before = {k: v.clone() for k, v in module.state(training=False).items()}
    rows = np.array([4, 9])
    module.step(rows, 1.0, RNG(0))
    after = module.state(training=False)
    units = module._encoder.phrases.added_to
    documents = units(module._fit.tokens(rows)).data
    changed = (after["encoder.table.weight"] != before["encoder.table.weight"]).any(1)
    changed = set(torch.nonzero(changed).ravel().tolist())
    labels = set(units(themed.labels.tokens).data.tolist())
    assert set(documents.tolist()) <= changed <= set(documents.tolist()) | labels
    auxiliary = (after["auxiliary.weight"] != before["auxiliary.weight"]).any(1)
    assert 1 <= int(auxiliary.sum()) <= 2


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
@pytest.mark.parametrize("two_way", [True, False])
def test_a_batch_of_one_document_has_no_negatives(
    make_module_one: Callable[..., ModuleOne], loss: str, two_way: bool
):
    module = make_module_one(loss=loss, two_way=two_way)
    before = {k: v.clone() for k, v in module.state(training=False).items()}
    assert module.step(np.array([2]), 1.0, RNG(0)) == 0.0
    for name, tensor in module.state(training=False).items():
        assert torch.equal(tensor, before[name])


def test_classifiers_start_at_the_label_vectors(
    make_module_two: Callable[..., ModuleTwo], themed: Dataset
):
    module = make_module_two()
    used = np.flatnonzero(themed.label_counts(themed.fit_rows))
    assert 11 not in used  # it has no document
    vectors = torch.from_numpy(module._labels.take(used))
    torch.testing.assert_close(module.classifiers(), vectors, atol=1e-3, rtol=0)
    everything = torch.from_numpy(module._labels.all())
    expected = module._validation.of_vectors(module._held_out, [everything])
    assert module.validate() == expected


def test_a_step_changes_the_classifiers_of_its_candidates(
    make_module_two: Callable[..., ModuleTwo], themed: Dataset
):
    module = make_module_two(mined=0, dropout=0.0)
    before = module.table.weight.clone()
    rows = np.array([0, 1, 2])
    module.step(rows, 1.0, RNG(0))
    changed = torch.nonzero((module.table.weight != before).any(1)).ravel().numpy()
    labels = set(themed.train.labels.take(themed.fit_rows[rows]).data.tolist())
    assert set(module._used[changed].tolist()) <= labels
    assert len(changed) >= 2


def test_documents_are_clustered_once_and_shuffled_every_epoch(
    make_module_two: Callable[..., ModuleTwo], monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def clustered(vectors: torch.Tensor, clusters: int, **settings: float) -> np.ndarray:
        calls.append(clusters)
        return balanced_clusters(vectors, clusters, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("xcflow.training.module_two.balanced_clusters", clustered)
    module = make_module_two(cluster_size=6, mined=0)
    orders = [module.order(epoch) for epoch in range(3)]
    assert calls == [6]
    assert (orders[0] != orders[1]).any()
    blocks = module._clusters[np.array(orders)].reshape(3, 6, 6)
    assert (blocks == blocks[:, :, :1]).all()
    for order in orders:
        assert sorted(order.tolist()) == list(range(36))


@pytest.mark.parametrize("cluster_size", [1, 19, 1000])
def test_with_clusters_of_one_the_order_is_random(
    make_module_two: Callable[..., ModuleTwo], cluster_size: int
):
    module = make_module_two(cluster_size=cluster_size, mined=0)
    orders = [module.order(epoch) for epoch in range(2)]
    assert (orders[0] != orders[1]).any()
    for order in orders:
        assert sorted(order.tolist()) == list(range(36))


def test_mined_negatives_are_the_nearest_classifiers(
    make_module_two: Callable[..., ModuleTwo], themed: Dataset
):
    module = make_module_two(mine_from_epoch=1, mine_every=2, mined=3)
    assert module._draw_mined(np.arange(5), RNG(0)).size == 0
    module.order(0)
    assert not module._mined.size
    module.order(1)
    documents = module._documents.take(themed.fit_rows)
    expected = np.argsort(-(documents @ module.classifiers().numpy().T), axis=1)[:, :3]
    np.testing.assert_array_equal(module._mined, expected)
    before = module._mined
    run_epoch(module, 2)
    assert module._mined is before
    module.order(3)
    assert module._mined is not before


def test_mined_negatives_are_thinned_to_what_a_batch_takes(
    make_module_two: Callable[..., ModuleTwo],
):
    module = make_module_two(mined_per_batch=20)
    module._mined = np.tile(np.array([[1, 2, NO_LABEL]], np.int32), (36, 1))
    drawn = [module._draw_mined(np.arange(36), RNG(seed)) for seed in range(50)]
    assert {x for row in drawn for x in row.tolist()} == {1, 2}
    assert 17 < np.mean([len(row) for row in drawn]) < 23
    assert len(module._draw_mined(np.arange(4), RNG(0))) == 8  # fewer than may join: all of them


def test_labels_that_are_the_document_are_no_negatives_of_it(
    embeddings, make_module_two: Callable[..., ModuleTwo]
):
    module = make_module_two()
    dataset = items_dataset()
    splits = Splits.of(dataset)
    used = np.flatnonzero(dataset.label_counts(dataset.fit_rows))
    vectors = torch.nn.functional.normalize(torch.randn(30, 4), dim=1).numpy()

    class Vectors:
        def take(self, rows: np.ndarray) -> np.ndarray:
            return vectors[rows]

    other = ModuleTwo(
        Vectors(),
        Vectors(),
        used,
        splits,
        module._config,
        module._retrieval,
        1,  # type: ignore[arg-type]
    )
    # 0 relates to 1 and 2 but nothing relates to 0: it has no classifier.
    assert used.tolist() == list(range(1, 27))
    assert other._same_item.tolist() == [-1, *range(24)]
    assert [other._truth[i].tolist() for i in (0, 5)] == [[0, 1], [5, 6]]

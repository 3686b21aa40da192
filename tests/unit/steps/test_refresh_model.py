"""The champion takes in another catalogue without training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcflow.artifact import MANIFEST, read_manifest
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.errors import ArtifactError, DataError
from xcflow.ragged import Ragged
from xcflow.serving.filtering import Filter
from xcflow.serving.predictor import Predictor
from xcflow.steps import STEPS, run_step
from xcflow.topk import NO_LABEL

Row = dict[str, Any]
TEXTS = ["amber goat w", "koala", "", "ebony ibis y x", "no such words", "zebra", "black heron"]


def rows_of(catalogue: Path, name: str) -> list[Row]:
    lines = (catalogue / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def refresh(
    model: Any,
    catalogue: Path,
    write_catalogue: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Refresh the model of colours and animals with its catalogue after some changes."""

    def run(
        labels: Callable[[list[Row]], list[Row]] = lambda rows: rows,
        train: Callable[[list[Row]], list[Row]] = lambda rows: rows,
        test: Callable[[list[Row]], list[Row]] = lambda rows: rows,
        champion: Path | None = None,
        nearest: int = 10,
    ) -> Path:
        folder = tmp_path_factory.mktemp("refresh")
        kept = labels(rows_of(catalogue, "labels"))
        ids = {row["id"] for row in kept}
        documents = [
            [{**row, "labels": [x for x in row["labels"] if x in ids]} for row in rows]
            for rows in (train(rows_of(catalogue, "train")), test(rows_of(catalogue, "test")))
        ]
        changed = write_catalogue(folder / "catalogue", kept, *documents)
        config = Config.from_dict({**model.config.to_dict(), "refresh": {"nearest": nearest}})
        run_step("validate_data", config, {"catalogue": changed}, folder / "dataset")
        inputs = {"dataset": folder / "dataset", "champion": champion or model.bundle}
        sections = STEPS["refresh_model"].sections
        only = Config.from_json(config.to_json(sections))
        run_step("refresh_model", only, inputs, folder / "bundle")
        return folder / "bundle"

    return run


def without(*ids: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row["id"] not in ids]


def renamed(name: str, text: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [{**row, "text": text} if row["id"] == name else row for row in rows]


def also(*new: Row) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [*rows, *new]


def answers(bundle: Path, texts: list[str], voice: str = "fused") -> list[dict[str, float]]:
    """Label id -> score of each text."""
    predictor = Predictor.load(bundle)
    ids, top = (
        predictor.label_ids.to_list(),
        predictor.top_k(texts, len(predictor.label_ids), voice),
    )
    return [
        {ids[i]: float(s) for i, s in zip(*pair, strict=True) if i != NO_LABEL}
        for pair in zip(top.labels, top.scores, strict=True)
    ]


def facts(bundle: Path) -> dict[str, Any]:
    return dict(read_manifest(bundle).meta["refresh"])


def test_an_unchanged_catalogue_changes_no_answer(model: Any, refresh: Callable[..., Path]):
    bundle = refresh()
    was, now = model.manifest("bundle"), read_manifest(bundle, "bundle", verify=True)
    same = {name for name in was.files if now.files[name] == was.files[name]}
    # What differs says how the bundle was made; all else is the same to the byte.
    assert set(was.files) - same == {"config.json"}
    assert set(now.files) == set(was.files)
    old, new = model.predictor(), Predictor.load(bundle)
    texts = TEXTS + Dataset.open(model.dataset).train.texts.to_list()
    for voice, top in old.top_k_voices(texts, 12).items():
        again = new.top_k(texts, 12, voice)
        np.testing.assert_array_equal(again.labels, top.labels)
        np.testing.assert_array_equal(again.scores, top.scores)
    assert facts(bundle) == {
        "from": was.digest,
        "since_training": 1,
        "labels_added": 0,
        "labels_removed": 0,
        "labels_renamed": 0,
        "documents_read": 0,
    }


def test_the_order_of_labels_does_not_matter(refresh: Callable[..., Path]):
    in_order, turned = refresh(), refresh(lambda rows: rows[::-1])
    assert Predictor.load(turned).label_ids[0] == "l11"
    for voice in ("fused", "encoder", "classifier", "neighbours"):
        for was, now in zip(
            answers(in_order, TEXTS, voice), answers(turned, TEXTS, voice), strict=True
        ):
            assert now == pytest.approx(was, abs=1e-5)


def test_a_removed_label_is_nowhere(model: Any, refresh: Callable[..., Path]):
    bundle = refresh(without("l7"))
    assert facts(bundle)["labels_removed"] == 1
    for row in answers(bundle, TEXTS):
        assert "l7" not in row
    gone = Predictor.load(bundle).label_ids.find(["l7"])
    assert gone.tolist() == [-1]
    count = len(Predictor.load(bundle).label_ids)
    assert Ragged.load(bundle / "document_labels").data.max() < count == 11
    for name in ("label_vectors.npy", "label_counts.npy", "row_of_label.npy"):
        assert len(np.load(bundle / name)) == count
    assert np.load(bundle / "labels_in_use.npy").max() < count
    texts = np.load(bundle / "labels" / "texts.data.npy").tobytes()
    words = np.load(bundle / "words" / "vocabulary.data.npy").tobytes()
    assert b"heron" not in texts + words
    assert b"heron" in np.load(model.bundle / "words" / "vocabulary.data.npy").tobytes()


def test_other_labels_answer_as_before(model: Any, refresh: Callable[..., Path]):
    """Their vectors and classifiers, that is; votes and fusion see who else is there."""
    bundle = refresh(lambda rows: without("l7")([*also({"id": "x", "text": "red"})(rows)]))
    for voice in ("encoder", "classifier"):
        for was, now in zip(
            answers(model.bundle, TEXTS, voice), answers(bundle, TEXTS, voice), strict=True
        ):
            shared = was.keys() & now.keys()
            assert len(shared) >= 10
            assert {k: now[k] for k in shared} == {k: was[k] for k in shared}


def test_a_new_label_inherits_from_its_nearest(model: Any, refresh: Callable[..., Path]):
    bundle = refresh(also({"id": "new", "text": "ibis ibis"}))
    predictor, known = Predictor.load(bundle), np.load(model.bundle / "row_of_label.npy")
    rows = np.load(bundle / "row_of_label.npy")
    np.testing.assert_array_equal(rows[:12], known)
    plain = predictor.embedder.plain_labels(predictor.label_texts).astype(np.float32)
    trained = np.load(model.bundle / "label_counts.npy") > 0
    votes: dict[int, float] = {}
    cosines = plain[:12] @ plain[12]
    for label in [i for i in np.argsort(-cosines) if trained[i]][:10]:
        votes[known[label]] = votes.get(known[label], 0.0) + max(cosines[label], 0.0)
    assert rows[12] == max(votes, key=votes.__getitem__)
    table = np.load(bundle / "auxiliary.npy").astype(np.float32)
    z = plain[12] + table[rows[12]]
    vectors = np.load(bundle / "label_vectors.npy")
    np.testing.assert_allclose(vectors[12], z / np.linalg.norm(z), atol=2e-3)
    in_use = np.load(bundle / "labels_in_use.npy")
    assert in_use[-1] == 12
    np.testing.assert_allclose(np.load(bundle / "classifiers.npy")[-1], vectors[12], atol=1e-3)


def test_without_inheritance_a_new_label_stands_at_its_text(refresh: Callable[..., Path]):
    bundle = refresh(also({"id": "new", "text": "ibis ibis"}), nearest=0)
    predictor = Predictor.load(bundle)
    plain = predictor.embedder.plain_labels(predictor.label_texts)
    np.testing.assert_allclose(np.load(bundle / "label_vectors.npy")[12], plain[12], atol=2e-3)
    assert np.load(bundle / "row_of_label.npy")[12] == -1


def test_a_new_label_is_found_by_new_documents(refresh: Callable[..., Path]):
    documents = [{"id": f"n{i}", "text": f"wwww {i}", "labels": ["new"]} for i in range(6)]
    label = {"id": "new", "text": "quite another word"}
    bundle = refresh(also(label), also(*documents))
    assert facts(bundle)["documents_read"] == 6
    (votes,) = answers(bundle, ["wwww 9"], "neighbours")
    assert max(votes, key=votes.__getitem__) == "new"
    predictor = Predictor.load(bundle)
    (found,) = predictor.explain("wwww 9", predictor.label_ids.find(["new"]))
    assert found.documents == 6
    assert found.evidence[0][0].startswith("wwww")
    top = predictor.top_k_among(["amber"], 1, [Filter(only=np.array([12]))])
    assert top.labels.tolist() == [[12]]


def test_documents_draw_a_new_classifier_nearer(refresh: Callable[..., Path]):
    documents = [{"id": f"n{i}", "text": f"wwww {i}", "labels": ["new"]} for i in range(6)]
    bundle = refresh(also({"id": "new", "text": "quite another word"}), also(*documents))
    predictor = Predictor.load(bundle)
    z = np.load(bundle / "label_vectors.npy")[12]
    mean = predictor.embed([row["text"] for row in documents]).sum(axis=0)
    start = z + 0.5 * mean / np.linalg.norm(mean)
    found = np.load(bundle / "classifiers.npy")[-1]
    np.testing.assert_allclose(found, start / np.linalg.norm(start), atol=2e-3)
    assert np.load(bundle / "label_counts.npy")[12] == 6


def test_a_removed_document_no_longer_votes(model: Any, refresh: Callable[..., Path]):
    bundle = refresh(train=lambda rows: rows[1:])
    before, after = (len(np.load(b / "document_hashes.npy")) for b in (model.bundle, bundle))
    assert after == before - 1
    assert len(np.load(bundle / "documents.npy")) == after


def test_a_renamed_label_is_read_anew(model: Any, refresh: Callable[..., Path]):
    bundle = refresh(renamed("l3", "violet"))
    assert facts(bundle)["labels_renamed"] == 1
    was, now = (Predictor.load(b) for b in (model.bundle, bundle))
    assert now.label_texts[3] == "violet"
    vectors = [np.load(b / "label_vectors.npy") for b in (model.bundle, bundle)]
    differ = (vectors[0] != vectors[1]).any(axis=1)
    assert differ.tolist() == [i == 3 for i in range(12)]
    rows = [np.load(b / "row_of_label.npy") for b in (model.bundle, bundle)]
    np.testing.assert_array_equal(*rows)
    # What its documents taught the classifier still holds.
    classifiers = [np.load(b / "classifiers.npy") for b in (model.bundle, bundle)]
    np.testing.assert_array_equal(*classifiers)
    assert was.label_texts[3] == "denim"


def test_a_refreshed_model_is_refreshed_again(model: Any, refresh: Callable[..., Path]):
    once = refresh(also({"id": "new", "text": "ibis ibis"}))
    twice = refresh(also({"id": "newer", "text": "goat goat"}), champion=once)
    assert facts(twice)["from"] == read_manifest(once).digest
    assert facts(twice)["since_training"] == 2
    assert facts(twice)["labels_removed"] == facts(twice)["labels_added"] == 1
    # Both ways the labels that were there in training are what they were.
    direct = refresh(also({"id": "newer", "text": "goat goat"}))
    for name in ("label_vectors.npy", "classifiers.npy", "row_of_label.npy"):
        np.testing.assert_array_equal(np.load(twice / name), np.load(direct / name))


@pytest.mark.parametrize(
    "sections",
    [
        {"clustering": {"clusters": 0}},
        {"encoder": {"kind": "transformer", "layers": 1}},
        {"encoder": {"bags": 2}},
        {"module_one": {"auxiliary_on": "raw"}},
        {"retrieval": {"index": "scan"}},
        {"retrieval": {"index": "ivf"}},
    ],
    ids=str,
)
def test_every_kind_of_model_can_be_refreshed(
    sections: dict[str, dict[str, Any]],
    catalogue: Path,
    configure: Callable[..., Config],
    train_model: Callable[..., Any],
    refresh: Callable[..., Path],
):
    short = {"epochs": 1}
    merged = {"module_one": short, "module_two": short} | sections
    merged["module_one"] = short | sections.get("module_one", {})
    trained = train_model(catalogue, configure(**merged))
    same = refresh(champion=trained.bundle)
    was, now = trained.manifest("bundle").files, read_manifest(same, verify=True).files
    assert {name for name in was if was[name] != now[name]} == {"config.json"}
    bundle = refresh(also({"id": "new", "text": "ibis ibis"}), champion=trained.bundle)
    assert all("new" in found for found in answers(bundle, TEXTS))


def test_another_catalogue_is_refused(refresh: Callable[..., Path]):
    def others(rows: list[Row]) -> list[Row]:
        return [{**row, "id": f"other-{row['id']}"} for row in rows]

    def of_others(rows: list[Row]) -> list[Row]:
        return [{**row, "labels": [f"other-{x}" for x in row["labels"]]} for row in rows]

    with pytest.raises(DataError, match=r"only 0 of its 12 labels .* train a model of it"):
        refresh(others, of_others, of_others)


def test_a_catalogue_read_for_another_encoder_is_refused(
    model: Any, refresh: Callable[..., Path], tmp_path: Path
):
    bundle = altered(model.bundle, tmp_path, "config.json", '"model": "', '"model": "/another')
    with pytest.raises(
        DataError, match=r"was read for the encoder .*, but the champion's is /anoth"
    ):
        refresh(champion=bundle)


@pytest.mark.parametrize("lacking", ["auxiliary.npy", "document_hashes.npy"])
def test_a_bundle_of_an_earlier_version_is_refused(
    lacking: str, model: Any, refresh: Callable[..., Path], tmp_path: Path
):
    bundle = shutil.copytree(model.bundle, tmp_path / "old")
    (bundle / lacking).unlink()
    tree = json.loads((bundle / MANIFEST).read_text())
    del tree["files"][lacking]
    (bundle / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(ArtifactError, match=rf"lacks {lacking}, another version .*train a model"):
        refresh(champion=bundle)


def test_an_altered_bundle_is_refused(model: Any, refresh: Callable[..., Path], tmp_path: Path):
    bundle = shutil.copytree(model.bundle, tmp_path / "altered")
    np.save(bundle / "row_of_label.npy", np.zeros(12, np.int32))
    with pytest.raises(ArtifactError, match="was altered"):
        refresh(champion=bundle)


def altered(bundle: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """A copy of a bundle with another text in one file, and a manifest that agrees."""
    from xcflow.artifact import sha256_file

    copy = shutil.copytree(bundle, folder / "altered")
    path = copy / name
    path.write_text(path.read_text().replace(old, new))
    tree = json.loads((copy / MANIFEST).read_text())
    tree["files"][name] = sha256_file(path)
    (copy / MANIFEST).write_text(json.dumps(tree))
    return copy

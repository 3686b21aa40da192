"""The predictor on a bundle that the steps made."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from xcflow.artifact import MANIFEST
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.string_table import StringTable
from xcflow.encoders.build import load_encoder
from xcflow.errors import ArtifactError, DataError
from xcflow.ragged import Ragged
from xcflow.retrieval.exact import search
from xcflow.serving import predictor as module
from xcflow.serving.predictor import VOICES, WITHOUT_AUXILIARY, Predictor
from xcflow.topk import NO_LABEL

TEXTS = ["amber goat w", "koala", "", "ebony ibis y x", "no such words", "zebra 斑马", "black"]


@pytest.fixture(scope="module")
def predictor(model: Any) -> Predictor:
    return model.predictor()


@pytest.mark.parametrize("voice", VOICES)
def test_answers_do_not_depend_on_the_company(predictor: Predictor, voice: str):
    together = predictor.top_k(TEXTS, 4, voice)
    for i, text in enumerate(TEXTS):
        alone = predictor.top_k([text], 4, voice)
        np.testing.assert_array_equal(together.labels[i], alone.labels[0])
        np.testing.assert_allclose(together.scores[i], alone.scores[0], atol=1e-5)
    turned = predictor.top_k(TEXTS[::-1], 4, voice)
    np.testing.assert_array_equal(together.labels, turned.labels[::-1])


def test_all_voices_at_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch):
    answers = predictor.top_k_voices(TEXTS, 5)
    assert tuple(answers) == VOICES
    for block in (512, 2):
        monkeypatch.setattr(module, "_BLOCK", block)
        for voice, top in answers.items():
            alone = predictor.top_k(TEXTS, 5, voice)
            np.testing.assert_array_equal(alone.labels, top.labels)


def test_a_restricted_predictor_ranks_what_is_left_as_before(predictor: Predictor):
    everything = len(predictor.label_ids)
    only = np.arange(everything) % 2 == 0
    for voice in VOICES:
        was = predictor.top_k(TEXTS, everything, voice)
        found = predictor.restricted_to(only).top_k(TEXTS, everything, voice)
        expected = was.keep((was.labels != NO_LABEL) & only[was.labels], everything)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_the_encoder_answers_without_auxiliary_vectors_where_it_has_some(
    model: Any, catalogue: Path, configure: Any, train_model: Any
):
    heard = model.predictor()
    before = heard.top_k_voices(TEXTS, 5)
    heard.hear_without_auxiliary()
    answers = heard.top_k_voices(TEXTS, 5)
    assert tuple(answers) == heard.voices == (*VOICES, WITHOUT_AUXILIARY)
    for voice, top in before.items():
        np.testing.assert_array_equal(top.labels, answers[voice].labels)
    dataset = Dataset.open(model.dataset)
    plain = load_encoder(model.bundle)[0].encode(dataset.labels.tokens).numpy()
    expected = search(heard.embed(TEXTS), plain, 5)
    np.testing.assert_array_equal(answers[WITHOUT_AUXILIARY].labels, expected.labels)
    assert (expected.labels != before["encoder"].labels).any()
    without = train_model(catalogue, configure(clustering={"clusters": 0})).predictor()
    without.hear_without_auxiliary()
    assert without.voices == VOICES


def test_the_labels_nearest_to_a_label(predictor: Predictor, model: Any):
    vectors = np.asarray(np.load(model.bundle / "label_vectors.npy"), np.float32)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -2.0)
    found = predictor.nearest_labels(np.array([3, 11]), 4)
    np.testing.assert_array_equal(found, np.argsort(-similar, axis=1)[[3, 11], :4])
    assert (predictor.nearest_labels(np.array([0]), 20)[0, 11:] == NO_LABEL).all()


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("k", [12, 13, 500])
def test_more_labels_than_there_are(predictor: Predictor, voice: str, k: int):
    top = predictor.top_k(["amber goat"], k, voice)
    assert top.labels.shape == (1, k)
    found = top.labels[0][top.labels[0] != NO_LABEL].tolist()
    assert len(found) == len(set(found)) <= 12
    assert (top.labels[0, 12:] == NO_LABEL).all()
    if voice in ("encoder", "fused"):
        assert sorted(found) == list(range(12))
    if voice == "classifier":
        assert 11 not in found  # the label without a document has no classifier


def test_fewer_labels_are_the_first_of_more(predictor: Predictor):
    for voice in VOICES:
        more = predictor.top_k(TEXTS, 10, voice).labels
        np.testing.assert_array_equal(predictor.top_k(TEXTS, 2, voice).labels, more[:, :2])


def test_no_texts(predictor: Predictor):
    for top in predictor.top_k_voices([], 3).values():
        assert top.labels.shape == top.scores.shape == (0, 3)
    assert predictor.embed([]).shape == (0, 16)


@pytest.mark.parametrize("text", ["", "   ", "\n", "\x00", "☃", "x" * 100_000, "🦓" * 50])
def test_odd_texts(predictor: Predictor, text: str):
    top = predictor.top_k([text, "koala"], 3)
    assert (top.labels[0] != NO_LABEL).all()
    assert np.isfinite(top.scores).all()
    np.testing.assert_array_equal(top.labels[1], predictor.top_k(["koala"], 3).labels[0])


def test_a_text_without_tokens_reads_as_the_unknown_one(predictor: Predictor, model: Any):
    encoder, _ = load_encoder(model.bundle)
    tokenizer = Tokenizer.from_file(str(model.bundle / "tokenizer.json"))
    unknown = Ragged.from_rows([[tokenizer.token_to_id("[UNK]")]])
    np.testing.assert_allclose(predictor.embed([" "]), encoder.encode(unknown), atol=1e-6)


def test_case_and_white_space_are_the_tokenizers_matter(predictor: Predictor):
    top = predictor.top_k(["amber  GOAT", "amber goat"], 3)
    np.testing.assert_array_equal(top.labels[0], top.labels[1])


def test_what_is_asked_wrongly(predictor: Predictor):
    with pytest.raises(ValueError, match="no voice named 'oracle': known are fused, encoder, "):
        predictor.top_k(["a"], 3, "oracle")
    with pytest.raises(ValueError, match="k must be at least 1, it is 0"):
        predictor.top_k(["a"], 0)


@pytest.mark.parametrize("text", ["\ud83e", None, 7])
def test_what_is_no_text_gets_one_line(predictor: Predictor, text: Any):
    with pytest.raises(DataError, match="a text to answer is no valid Unicode"):
        predictor.top_k(["koala", text], 3)


def test_a_catalogue_of_items_leaves_out_the_item_itself(model: Any, tmp_path: Path):
    bundle = shutil.copytree(model.bundle, tmp_path / "bundle")
    settings = json.loads((bundle / "bundle.json").read_text())
    assert settings["excludes_itself"] is False
    (bundle / "bundle.json").write_text(json.dumps(settings | {"excludes_itself": True}))
    items = Predictor.load(bundle, verify=False)
    usual, answers = model.predictor(), items.top_k_voices(["koala", "koala x"], 12)
    for voice, top in answers.items():
        before = usual.top_k(["koala", "koala x"], 12, voice).labels
        koala = 10
        kept = [label for label in before[0].tolist() if label != koala]
        assert top.labels[0].tolist() == [*kept, *[NO_LABEL] * (12 - len(kept))]
        np.testing.assert_array_equal(top.labels[1], before[1])
        assert koala in before[0]


def test_an_altered_bundle_is_refused(model: Any, tmp_path: Path):
    bundle = shutil.copytree(model.bundle, tmp_path / "bundle")
    vectors = np.load(bundle / "label_vectors.npy")
    np.save(bundle / "label_vectors.npy", -vectors)
    with pytest.raises(ArtifactError, match=r"label_vectors\.npy: was altered"):
        Predictor.load(bundle)
    (bundle / "fusion").mkdir()
    (bundle / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="not a complete bundle"):
        Predictor.load(bundle)


def test_another_label_map_is_refused(model: Any, tmp_path: Path):
    bundle = shutil.copytree(model.bundle, tmp_path / "bundle")
    ids = StringTable.load(bundle / "labels" / "ids").to_list()
    StringTable.from_list(ids[::-1]).save(bundle / "labels" / "ids")
    with pytest.raises(ArtifactError, match="its labels are not those that it was trained with"):
        Predictor.load(bundle, verify=False)


def test_another_folder_is_refused(model: Any):
    with pytest.raises(ArtifactError, match="holds a dataset, not a bundle"):
        Predictor.load(model.dataset)


def test_it_answers_in_a_process_without_pipeline_and_tracking(model: Any, tmp_path: Path):
    # The bundle alone, away from everything that it was made from.
    bundle = shutil.copytree(model.bundle, tmp_path / "elsewhere")
    program = """
import json, sys
for name in ("kfp", "mlflow", "great_expectations", "sklearn"):
    sys.modules[name] = None  # an import of it fails
from pathlib import Path
from xcflow.serving.predictor import Predictor
predictor = Predictor.load(Path(sys.argv[1]))
top = predictor.top_k(json.loads(sys.argv[2]), 3)
print(json.dumps({
    "answers": [predictor.label_ids.take(row[row >= 0]) for row in top.labels],
    "modules": sorted({name.partition(".")[0] for name in sys.modules if sys.modules[name]}),
}))
"""
    command = [sys.executable, "-c", program, str(bundle), json.dumps(TEXTS)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    expected = model.predictor().top_k(TEXTS, 3).labels
    assert said["answers"] == [[f"l{x}" for x in row if x >= 0] for row in expected.tolist()]
    assert not {"kfp", "mlflow", "kubernetes", "great_expectations", "pandas"} & set(
        said["modules"]
    )


def test_a_bundle_of_another_version_is_named(model: Any, tmp_path: Path):
    bundle = tmp_path / "bundle"
    shutil.copytree(model.bundle, bundle)
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"]["row_of_label.npy"]
    (bundle / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (bundle / "row_of_label.npy").unlink()
    with pytest.raises(ArtifactError, match=r"lacks row_of_label\.npy, another version"):
        Predictor.load(bundle, verify=False)

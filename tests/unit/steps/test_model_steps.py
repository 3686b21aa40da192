"""The steps from a catalogue to a bundle, on usual and on odd catalogues."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.drift import Comparison
from xcflow.catalogue.profile import Profile
from xcflow.config import Config, EncoderConfig
from xcflow.encoders.build import load_encoder
from xcflow.errors import ConfigError, DataError, XcflowError
from xcflow.serving.predictor import Predictor
from xcflow.steps import STEPS, export_embeddings, run_step
from xcflow.steps.evaluate_model import _require_tokens_of
from xcflow.storage import publish
from xcflow.topk import NO_LABEL
from xcflow.vectors import ShardedVectors

Row = dict[str, Any]


def assert_answers(predictor: Predictor, texts: list[str], k: int) -> None:
    """All voices answer, with labels that exist, each once, best first."""
    for voice, top in predictor.top_k_voices(texts, k).items():
        assert top.labels.shape == (len(texts), k), voice
        for labels, scores in zip(top.labels, top.scores, strict=True):
            found = labels[labels != NO_LABEL]
            assert len(set(found.tolist())) == len(found)
            assert ((found >= 0) & (found < len(predictor.label_ids))).all()
            assert np.isfinite(scores[: len(found)]).all()
            assert (np.diff(scores[: len(found)]) <= 0).all()
            assert (labels[len(found) :] == NO_LABEL).all()
            assert (scores[len(found) :] == -np.inf).all()


def test_labels_are_found_in_texts(model: Any):
    predictor = model.predictor()
    names = predictor.label_texts.to_list()
    top = predictor.top_k(names, 1)
    right = top.labels[:, 0] == np.arange(len(names))
    assert right[:11].all()


def test_the_same_seed_gives_the_same_bytes(
    model: Any, catalogue: Path, train_model: Callable[..., Any]
):
    again = train_model(catalogue, model.config, anew=True)
    assert again.bundle != model.bundle
    for name in ("dataset", "clusters", "encoder", "embeddings", "classifier", "bundle"):
        first, second = model.manifest(name), again.manifest(name)
        assert first.files == second.files, name
        assert first.digest == second.digest, name


def test_every_file_may_be_read_by_whom_the_umask_lets(model: Any, tmp_path: Path):
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    publish(model.bundle, tmp_path / "published")
    names = ("dataset", "clusters", "encoder", "embeddings", "classifier", "bundle")
    for folder in [*(getattr(model, name) for name in names), tmp_path / "published"]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert {path: path.stat().st_mode for path in files} == dict.fromkeys(files, usual)


def test_another_seed_gives_another_model(
    catalogue: Path, configure: Callable[..., Config], train_model: Callable[..., Any]
):
    short = {"epochs": 1}
    models = [
        train_model(
            catalogue,
            configure(run={"threads": 1, "seed": seed}, module_one=short, module_two=short),
        )
        for seed in (1, 2)
    ]
    first, second = (m.manifest("encoder").files["encoder.safetensors"] for m in models)
    assert first != second


def test_finished_training_leaves_no_checkpoint(model: Any, models_home: Path):
    folder = models_home / "checkpoints"
    assert folder.is_dir()
    assert not any(folder.iterdir())


def test_histories_hold_the_curves(model: Any):
    for name in ("encoder", "classifier"):
        history = json.loads((getattr(model, name) / "history.json").read_text())
        series = history["series"]
        assert {"train/loss", "validation/P@1", "validation/nDCG@5"} <= set(series)
        assert [at for at, _ in series["validation/P@1"]] == list(range(history["epochs"] + 1))
        assert -1 <= history["best_epoch"] < history["epochs"]


def test_embeddings_are_those_of_the_encoder_with_its_auxiliary_vectors(model: Any):
    dataset = Dataset.open(model.dataset)
    encoder, tensors = load_encoder(model.encoder)
    documents = ShardedVectors.open(model.embeddings / "documents")
    expected = encoder.encode(dataset.train.tokens).numpy()
    np.testing.assert_allclose(documents.all(), expected, atol=1e-3)
    rows = torch.from_numpy(np.load(model.encoder / "row_of_label.npy")).long()
    z = encoder.encode(dataset.labels.tokens) + tensors["auxiliary.weight"][rows]
    labels = ShardedVectors.open(model.embeddings / "labels").all()
    np.testing.assert_allclose(labels, torch.nn.functional.normalize(z, dim=1), atol=1e-3)


def test_the_size_of_shards_does_not_show(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export_embeddings, "SHARD_ROWS", 25)
    inputs = {"dataset": model.dataset, "encoder": model.encoder}
    run_step("export_embeddings", model.config, inputs, tmp_path / "embeddings")
    for name, shards in (("documents", 3), ("labels", 1)):
        folder = tmp_path / "embeddings" / name
        assert len(list(folder.iterdir())) == shards
        np.testing.assert_allclose(
            ShardedVectors.open(folder).all(),
            ShardedVectors.open(model.embeddings / name).all(),
            atol=1e-3,
        )


def test_only_labels_in_use_have_classifiers(model: Any):
    dataset = Dataset.open(model.dataset)
    used = np.load(model.classifier / "labels_in_use.npy")
    np.testing.assert_array_equal(used, np.unique(dataset.train.labels.take(dataset.fit_rows).data))
    classifiers = np.load(model.classifier / "classifiers.npy")
    assert classifiers.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(classifiers, axis=1), 1.0, atol=1e-2)


def test_the_bundle_says_what_it_is(model: Any):
    manifest = model.manifest("bundle")
    assert manifest.meta["labels"] == 12
    assert manifest.meta["index_recall"] == {"labels": 1.0, "classifiers": 1.0, "documents": 1.0}
    assert manifest.meta["catalogue_digest"] == model.manifest("dataset").inputs["catalogue"]
    assert set(manifest.inputs) == {"dataset", "encoder", "embeddings", "classifier"}
    assert not [name for name in manifest.files if name.endswith((".pkl", ".pt", ".bin"))]


def test_the_bundle_tells_what_its_catalogue_was(model: Any):
    """Held against the catalogue that the model was trained on, nothing has changed."""
    present, remembered = Profile.of(Dataset.open(model.dataset)), Profile.open(model.bundle)
    assert remembered.catalogue == present.catalogue
    observed = Comparison(remembered, present).observed()
    assert len(observed) > 2
    assert not any(o.tally.count for o in observed)


def test_the_bundle_states_only_settings_that_were_in_force(model: Any):
    stated = json.loads((model.bundle / "config.json").read_text())
    for section, values in stated.items():
        assert values == json.loads(model.config.to_json([section]))[section]


@pytest.mark.parametrize(
    "sections",
    [
        {"clustering": {"clusters": 0}},
        {"encoder": {"kind": "transformer", "layers": 1}},
        {"encoder": {"kind": "transformer_with_bag", "layers": 1}},
        {"module_one": {"loss": "triplet", "auxiliary_on": "raw", "two_way": False}},
        {"module_one": {"epochs": 0}, "module_two": {"epochs": 0}},
        {"retrieval": {"index": "scan"}},
        {"retrieval": {"index": "ivf"}},
        {"module_two": {"loss": "triplet", "mined": 0, "cluster_size": 1}},
        {"fusion": {"shortlist": 1, "neighbours": 1, "hidden": 1}},
    ],
    ids=str,
)
def test_every_option_leads_to_a_model_that_answers(
    sections: dict[str, dict[str, Any]],
    catalogue: Path,
    configure: Callable[..., Config],
    train_model: Callable[..., Any],
):
    short = {"epochs": 1}
    defaults = {"module_one": short, "module_two": short}
    merged = {name: defaults.get(name, {}) | sections.get(name, {}) for name in defaults | sections}
    trained = train_model(catalogue, configure(**merged))
    assert_answers(trained.predictor(), ["amber goat", "zebra", ""], 15)
    if sections.get("clustering"):
        assert trained.manifest("clusters").meta["rows"] == 0


def test_documents_do_not_vote_on_themselves(
    tmp_path: Path,
    configure: Callable[..., Config],
    train_model: Callable[..., Any],
    write_catalogue: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
):
    # Nothing can be learned from one document about another, so a vote is right only by cheating.
    rng = np.random.default_rng(2)
    texts = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(60)]
    catalogue = write_catalogue(
        tmp_path / "noise",
        labels_of(*(f"label {i}" for i in range(40))),
        documents_of("d", *((text, [int(rng.integers(0, 40))]) for text in texts)),
        documents_of("t", ("abc", [0])),
    )
    config = configure(
        data={"validation_fraction": 0.5},
        module_one={"epochs": 0},
        module_two={"epochs": 0},
        fusion={"neighbours": 5},
    )
    train_model(catalogue, config)
    shown = re.search(r"fusion, validation .* vote (\d+\.\d)", capsys.readouterr().err)
    assert shown is not None
    assert float(shown[1]) < 40.0


def labels_of(*texts: str) -> list[Row]:
    return [{"id": f"l{i}", "text": text} for i, text in enumerate(texts)]


def documents_of(prefix: str, *rows: tuple[str, list[int]]) -> list[Row]:
    return [
        {"id": f"{prefix}{i}", "text": text, "labels": [f"l{n}" for n in own]}
        for i, (text, own) in enumerate(rows)
    ]


WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CHINESE = ("机器学习", "数据库", "操作系统", "图像处理", "网络安全")
ODD: dict[str, tuple[list[Row], list[Row], list[Row]]] = {
    "one document": (
        labels_of("red", "blue"),
        documents_of("d", ("red fox", [0])),
        documents_of("t", ("red", [0])),
    ),
    "two documents": (
        labels_of("red", "blue"),
        documents_of("d", ("red fox", [0]), ("blue sky", [1])),
        documents_of("t", ("red", [0])),
    ),
    "ten documents": (
        labels_of(*WORDS),
        documents_of("d", *((f"{word} apples", [i]) for i, word in enumerate(WORDS))),
        documents_of("t", ("two pears", [1])),
    ),
    "one label": (
        labels_of("fruit"),
        documents_of("d", *((f"{word} apples", [0]) for word in WORDS)),
        documents_of("t", ("two pears", [0])),
    ),
    "Chinese": (
        labels_of(*CHINESE),
        documents_of("d", *((f"{CHINESE[i % 5]}入门{i}", [i % 5]) for i in range(20))),
        documents_of("t", ("数据库系统", [1])),
    ),
    "more cold labels than others": (
        labels_of(*WORDS),
        documents_of("d", *((f"one {word}", [0]) for word in WORDS)),
        documents_of("t", ("two pears", [1])),
    ),
    "all documents alike": (
        labels_of("red", "blue"),
        documents_of("d", *(("the same", [i % 2]) for i in range(30))),
        documents_of("t", ("the same", [0])),
    ),
    "all labels alike": (
        labels_of(*["the same"] * 8),
        documents_of("d", *((word, [i % 8]) for i, word in enumerate(WORDS))),
        documents_of("t", ("one", [0])),
    ),
    "every document has every label": (
        labels_of(*WORDS),
        documents_of("d", *((word, list(range(10))) for word in WORDS)),
        documents_of("t", ("one", [0])),
    ),
    "documents are labels": (
        labels_of(*(f"item {i}" for i in range(40))),
        documents_of("d", *((f"item {i}", [(i + 1) % 40, (i + 2) % 40]) for i in range(40))),
        documents_of("t", ("item 3", [4])),
    ),
    "texts of nothing known": (
        labels_of("☃", "☂"),
        documents_of("d", *(("☃☂", [i % 2]) for i in range(8))),
        documents_of("t", ("☃", [0])),
    ),
    "no training documents": (labels_of("red"), [], documents_of("t", ("red", [0]))),
    "no document with a label": (
        labels_of("red"),
        documents_of("d", ("red fox", []), ("blue sky", [])),
        documents_of("t", ("red", [0])),
    ),
    "no labels": ([], documents_of("d", ("red fox", [])), documents_of("t", ("red", []))),
}
REFUSED = {"no training documents", "no document with a label", "no labels"}


@pytest.mark.parametrize("name", ODD)
def test_odd_catalogues_work_or_are_refused(
    name: str,
    tmp_path: Path,
    configure: Callable[..., Config],
    train_model: Callable[..., Any],
    write_catalogue: Callable[..., Path],
):
    catalogue = write_catalogue(tmp_path / "odd", *ODD[name])
    tolerant = (
        "max_repeated_texts",
        "max_repeated_label_texts",
        "max_train_test_texts",
        "max_unknown_tokens",
        "max_unlabelled_documents",
    )
    config = configure(
        validation=dict.fromkeys(tolerant, 1.0),
        module_one={"epochs": 2, "batch_size": 1024},
        module_two={"epochs": 2, "batch_size": 1024, "mine_from_epoch": 0},
    )
    if name in REFUSED:
        with pytest.raises(XcflowError) as refusal:
            train_model(catalogue, config)
        assert "\n" not in str(refusal.value)
        return
    predictor = train_model(catalogue, config).predictor()
    texts = [row["text"] for row in ODD[name][1][:4]] + ["", "something else 其他"]
    assert_answers(predictor, texts, 3)
    assert_answers(predictor, texts, 200)


def test_chinese_words_are_told_apart(
    tmp_path: Path,
    configure: Callable[..., Config],
    train_model: Callable[..., Any],
    write_catalogue: Callable[..., Path],
):
    catalogue = write_catalogue(tmp_path / "chinese", *ODD["Chinese"])
    untrained = configure(
        clustering={"clusters": 0}, module_one={"epochs": 0}, module_two={"epochs": 0}
    )
    predictor = train_model(catalogue, untrained).predictor()
    top = predictor.top_k(list(CHINESE), 1, "encoder")
    assert top.labels[:, 0].tolist() == list(range(5))


def test_tokens_of_another_encoder_are_refused(themed: Dataset):
    _require_tokens_of(EncoderConfig(model=str(themed.tokenizer_file.parent)), themed)
    with pytest.raises(DataError, match="tokenised for another encoder"):
        _require_tokens_of(EncoderConfig(model="minilm"), themed)


# Threads are the process's: other tests run in it too.
ONE_THREAD = Config.from_dict({"run": {"threads": 1}})


def test_a_step_that_is_not_there():
    with pytest.raises(ConfigError, match="no step named 'bake': known are validate_data, "):
        run_step("bake", ONE_THREAD, {}, Path("nowhere"))


def test_inputs_that_are_missing_or_unknown(tmp_path: Path):
    with pytest.raises(ConfigError, match="step train_encoder needs the input clusters"):
        run_step("train_encoder", ONE_THREAD, {"dataset": tmp_path}, tmp_path / "out")
    with pytest.raises(ConfigError, match="step gate_model has no input bundle: its inputs are ev"):
        run_step("gate_model", ONE_THREAD, {"evaluation": tmp_path, "bundle": tmp_path}, tmp_path)


@pytest.mark.parametrize("name", [n for n in STEPS if n != "validate_data"])
def test_an_input_that_no_step_wrote(name: str, tmp_path: Path):
    inputs = {key: tmp_path / key for key in STEPS[name].inputs}
    for folder in inputs.values():
        folder.mkdir()
    with pytest.raises(XcflowError, match=r"not a complete .* \(no manifest\.json\)"):
        run_step(name, ONE_THREAD, inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()

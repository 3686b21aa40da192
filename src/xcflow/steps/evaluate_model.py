"""Seventh step: measure a bundle beside the baselines and, where there is one, the champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from xcflow.artifact import read_manifest
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config, EncoderConfig, build
from xcflow.distributed.world import World
from xcflow.errors import DataError
from xcflow.evaluation.baselines import baseline_rankers
from xcflow.evaluation.evaluate import evaluate
from xcflow.evaluation.evaluation_charts import Histories
from xcflow.evaluation.rankers import BundleRanker
from xcflow.evaluation.report import evaluation_page
from xcflow.evaluation.result import CANDIDATE, CHAMPION, KIND, REPORT, Evaluation
from xcflow.phases import phase
from xcflow.pretrained import model_folder
from xcflow.serving.bundle import CONFIG, REFRESH, TRAINING
from xcflow.serving.predictor import Predictor
from xcflow.steps.provenance import provenance, written_by_first

_TOLD = ("index_recall", REFRESH)  # of a bundle's manifest


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Measure ``inputs["bundle"]`` on the test split of ``inputs["dataset"]``.

    ``inputs["champion"]`` may be an older bundle with other labels, which are matched by id.
    Nothing is chosen here: no figure of the test split flows back into a model.

    Raises:
        DataError: No test document has a label, or the data set's tokens are not the encoder's.
    """
    world, dataset = World.of_environment(), Dataset.open(inputs["dataset"])
    ids = dataset.labels.ids
    with phase("load"):
        predictor, champion = Predictor.load(inputs["bundle"]), None
        predictor.hear_without_auxiliary()
    voices = {voice: voice for voice in predictor.voices}
    facts = {name: _facts(inputs[name]) for name in ("bundle", "champion") if name in inputs}
    candidate = BundleRanker(predictor, predictor.manifest.digest, ids, voices, facts["bundle"])
    if "champion" in inputs:
        with phase("load"):
            old = Predictor.load(inputs["champion"])
        main = {CANDIDATE: CHAMPION}
        champion = BundleRanker(old, old.manifest.digest, ids, main, facts["champion"])
    encoder = _encoder_config(inputs["bundle"])
    _require_tokens_of(encoder, dataset)
    origin = provenance("evaluate_model", config, inputs)
    with written_by_first(world, output, KIND, origin) as folder, TemporaryDirectory() as scratch:
        baselines = baseline_rankers(dataset, encoder)
        place = folder or Path(scratch)
        evaluate(dataset, candidate, champion, baselines, config.evaluation, place, world)
        if folder:
            with phase("report"):
                page = evaluation_page(Evaluation.load(folder), _curves(inputs["bundle"]))
            (folder / REPORT).write_text(page, encoding="utf-8")


def _facts(bundle: Path) -> dict[str, Any]:
    """What a bundle says of itself, and the bytes that a server must hold."""
    manifest = read_manifest(bundle)
    size = sum((bundle / name).stat().st_size for name in manifest.files)
    facts = {
        name: manifest.meta[name] for name in ("index_recall", REFRESH) if name in manifest.meta
    }
    return {"bytes": size, **facts}


def _encoder_config(bundle: Path) -> EncoderConfig:
    """What the bundle's encoder was trained from."""
    path = bundle / CONFIG
    tree = json.loads(path.read_text(encoding="utf-8"))
    return build(EncoderConfig, tree["encoder"], str(path))


def _curves(bundle: Path) -> Histories:
    """How the bundle's modules were trained."""
    histories: Histories = json.loads((bundle / TRAINING).read_text(encoding="utf-8"))
    return histories


def _require_tokens_of(encoder: EncoderConfig, dataset: Dataset) -> None:
    """The untrained encoder reads the data set's tokens, so their numbers must be its own."""
    pretrained = Tokenizer.from_file(str(model_folder(encoder.model) / "tokenizer.json"))
    known = Tokenizer.from_file(str(dataset.tokenizer_file)).get_vocab()
    if not pretrained.get_vocab().items() <= known.items():
        raise DataError(
            "was tokenised for another encoder than the model's: validate the catalogue with the "
            "model's configuration",
            dataset.path,
        )

"""Sixth step: indexes, their recall, the fusion of the voices; writes the model bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from xcflow.artifact import writing
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.tokenizer import unknown_token
from xcflow.config import Config, EvaluationConfig
from xcflow.encoders.build import load_encoder, save_encoder
from xcflow.evaluation.metrics import Measure, without
from xcflow.evaluation.ratios import metrics_of
from xcflow.phases import phase
from xcflow.progress import log, progress
from xcflow.ragged import Ragged
from xcflow.retrieval.calibration import Calibrator, fit_calibrator
from xcflow.retrieval.fusion import Fusion, Proposals
from xcflow.retrieval.index import VectorIndex
from xcflow.retrieval.ranking import top_of_rows
from xcflow.retrieval.voices import POSTINGS, Questions, Voices
from xcflow.retrieval.words import WordIndex
from xcflow.serving.bundle import (
    AUXILIARY,
    CLUSTERS,
    CONFIG,
    KIND,
    LABEL_COUNTS,
    SETTINGS,
    TOKENIZER,
    TRAINING,
    label_map_sha256,
)
from xcflow.steps import STEPS
from xcflow.steps.bundled_catalogue import save_catalogue, voting_documents
from xcflow.steps.provenance import provenance
from xcflow.training.data import Splits
from xcflow.training.fusing import Look, choose_fusion
from xcflow.training.precision import export_and_choose
from xcflow.vectors import ShardedVectors

_BLOCK = 512
_TRAINED = ("encoder", "classifier")


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the bundle."""
    dataset = Dataset.open(inputs["dataset"])
    splits = Splits.of(dataset)
    vectors = ShardedVectors.open(inputs["embeddings"] / "documents")
    with phase("indexes"):
        voices, known = _voices(config, inputs, dataset, vectors)
    queries = vectors.take(splits.validation.rows)
    with phase("recall"):
        recall = voices.recall(queries[: config.retrieval.recall_queries])
    counts = dataset.label_counts(dataset.fit_rows)
    forbidden = np.isin(known, splits.validation.rows)
    with phase("validation documents"):
        fusion, calibrator, figures = _fit(config, voices, queries, dataset, splits, forbidden)
    meta = {
        "label_map_sha256": label_map_sha256(dataset.labels.ids),
        "labels": len(dataset.labels),
        "labels_in_use": len(voices.in_use),
        "encoder": config.encoder.kind,
        "catalogue_digest": dataset.manifest.inputs.get("catalogue", ""),
        "index_recall": recall,
        **{f"validation/{name}": value for name, value in figures.items()},
    }
    with writing(output, KIND, **provenance("build_index", config, inputs), meta=meta) as folder:
        encoder, tensors = load_encoder(inputs["encoder"])
        save_encoder(encoder, folder, half_tables=True)
        with phase("precision"):
            choice = export_and_choose(
                encoder,
                folder,
                splits.validation.tokens(),
                queries,
                lambda found: _p_at_1(config, voices, fusion, found, dataset, splits, forbidden),
            )
        if choice:
            meta["precision"] = {
                "chosen": choice.precision,
                "because": choice.reason,
                "validation_P@1": choice.figures,
            }
        settings = {
            "precision": choice.precision if choice else None,
            "voices": voices.save(folder),
            "fusion": fusion.to_dict(),
            "calibration": calibrator.to_dict(),
            "shortlist": config.fusion.shortlist,
            "excludes_itself": splits.excludes_itself,
            "max_document_tokens": config.data.max_document_tokens,
            "max_label_tokens": config.data.max_label_tokens,
            "auxiliary_vectors": len(tensors["auxiliary.weight"]),
            "unknown_token": unknown_token(Tokenizer.from_file(str(dataset.tokenizer_file))),
        }
        _write_json(folder / SETTINGS, settings)
        _write_json(folder / CONFIG, json.loads(config.to_json(STEPS["build_index"].sections)))
        _write_json(folder / TRAINING, {role: _curves(inputs[role]) for role in _TRAINED})
        np.save(folder / LABEL_COUNTS, counts)
        shutil.copyfile(dataset.tokenizer_file, folder / TOKENIZER)
        shutil.copyfile(inputs["encoder"] / CLUSTERS, folder / CLUSTERS)
        np.save(folder / AUXILIARY, tensors["auxiliary.weight"].numpy().astype(np.float16))
        save_catalogue(dataset, splits, known, folder)


def _voices(
    config: Config, inputs: Mapping[str, Path], dataset: Dataset, vectors: ShardedVectors
) -> tuple[Voices, NDArray[np.int64]]:
    """The voices, and which training documents vote: all that have labels, held out ones too."""
    known = voting_documents(dataset)
    labels = ShardedVectors.open(inputs["embeddings"] / "labels").all(np.float16)
    classifiers = np.load(inputs["classifier"] / "classifiers.npy", allow_pickle=False)
    return (
        Voices(
            labels=VectorIndex.build(labels, config.retrieval),
            classifiers=VectorIndex.build(classifiers, config.retrieval),
            in_use=np.load(inputs["classifier"] / "labels_in_use.npy", allow_pickle=False),
            documents=VectorIndex.build(
                vectors.take(known, np.float16), config.retrieval, half=True
            ),
            document_labels=dataset.train.labels.take(known),
            neighbours=config.fusion.neighbours,
            temperature=config.fusion.neighbour_temperature,
            words=WordIndex.build(dataset.labels.texts.to_list(), POSTINGS),
        ),
        known,
    )


def _fit(
    config: Config,
    voices: Voices,
    queries: NDArray[np.float32],
    dataset: Dataset,
    splits: Splits,
    forbidden: NDArray[np.bool_],
) -> tuple[Fusion, Calibrator, dict[str, float]]:
    """Fit the fusion on the validation documents, which do not vote for themselves.

    Comes with its figures on these documents.

    The calibrator learns from all looks, too: documents to come may have fewer of their kin among
    those that vote than held-out ones have, and are then less often answered rightly.
    """
    counts = dataset.label_counts(dataset.fit_rows)
    muted = _muted(len(queries), config)
    parts: list[list[Look]] = []  # of each block, one for each look
    with progress("scoring validation documents", len(queries), "documents") as advance:
        for start in range(0, len(queries), _BLOCK):
            block, left_out = _block(voices, queries, dataset, splits, start)
            heard = [voices.listen(block, config.fusion.shortlist, forbidden)]
            if muted is not None:
                silent = muted[start : start + _BLOCK]
                heard.append(voices.heard_without(heard[0], block, forbidden, silent))
            parts.append([_look(voices.propose(block, said), left_out, counts) for said in heard])
            advance(len(left_out))
    looks = [Look.joined(look) for look in zip(*parts, strict=True)]
    truth = without(splits.validation.labels, splits.left_out)
    measure = Measure.of_training(counts, len(splits.fit), EvaluationConfig())
    with phase("fusion"):
        fusion, scores, figures = choose_fusion(
            looks, truth, measure, config.fusion, config.run.seed
        )
    with phase("calibration"):
        calibrator = fit_calibrator(
            np.concatenate(scores),
            Ragged.concatenate([look.proposals for look in looks]),
            Ragged.concatenate([truth] * len(looks)),
            config.calibration,
        )
    log(f"calibration: {calibrator.curve.method}, {len(calibrator.curve.scores)} knots")
    return fusion, calibrator, figures


def _block(
    voices: Voices, queries: NDArray[np.float32], dataset: Dataset, splits: Splits, start: int
) -> tuple[Questions, Ragged]:
    """The validation documents from ``start`` on, and the labels that each is measured without."""
    rows = splits.validation.rows[start : start + _BLOCK]
    questions = voices.ask(queries[start : start + _BLOCK], dataset.train.texts.take(rows))
    return questions, splits.left_out.slice(start, start + len(rows))


def _look(proposals: Proposals, left_out: Ragged, counts: NDArray[np.int64]) -> Look:
    kept = ~proposals.labels.also_in(left_out)
    return Look(proposals.features(counts)[kept], proposals.labels.keep(kept))


def _p_at_1(
    config: Config,
    voices: Voices,
    fusion: Fusion,
    queries: NDArray[np.float32],
    dataset: Dataset,
    splits: Splits,
    forbidden: NDArray[np.bool_],
) -> float:
    """P@1 of the fused model on the validation documents, given their vectors [N, D]."""
    counts = dataset.label_counts(dataset.fit_rows)
    measure = Measure.of_training(counts, len(splits.fit), EvaluationConfig())
    ranked = []
    for start in range(0, len(queries), _BLOCK):
        block, left_out = _block(voices, queries, dataset, splits, start)
        heard = voices.listen(block, config.fusion.shortlist, forbidden)
        look = _look(voices.propose(block, heard), left_out, counts)
        ranked.append(top_of_rows(look.proposals, fusion.score(look.features), measure.depth))
    truth = without(splits.validation.labels, splits.left_out)
    return metrics_of(np.concatenate([top.labels for top in ranked]), truth, measure)["P@1"]


def _muted(documents: int, config: Config) -> NDArray[np.int64] | None:
    """[N] how many voters of each document are silent in the second look, if there is one."""
    if not config.fusion.muted:
        return None
    powers = 1 << np.arange(config.fusion.muted.bit_length())
    return np.random.default_rng(config.run.seed).choice(powers, documents)


def _curves(trained: Path) -> Any:
    """The curves of a training step's folder."""
    return json.loads((trained / "history.json").read_text(encoding="utf-8"))["series"]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")

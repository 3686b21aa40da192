"""In place of training: the champion takes in another catalogue; writes a bundle like any other.

Encoder, fusion and calibration stay what they are. A label that stays keeps its vector and its
classifier; a renamed one is read anew and keeps its auxiliary vector; a new one stands where its
text and the auxiliary vector of the labels most like it put it, and so does its classifier. What is
gone from the catalogue is gone from the model. All training documents vote, so new ones speak for
new labels, and draw their classifiers nearer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.artifact import writing
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.drift import Comparison
from xcflow.catalogue.hashing import find_hashes
from xcflow.catalogue.matching import LabelMatch
from xcflow.catalogue.profile import Profile
from xcflow.catalogue.string_table import StringTable
from xcflow.config import Config, RefreshConfig, RetrievalConfig, build
from xcflow.encoders.frozen import unit_parts
from xcflow.encoders.unit import unit_rows
from xcflow.errors import DataError
from xcflow.labels.inheritance import NO_VECTOR, augmented, inherited_rows, mean_directions
from xcflow.phases import phase
from xcflow.progress import log, progress
from xcflow.ragged import Ragged
from xcflow.retrieval.index import VectorIndex
from xcflow.retrieval.voices import POSTINGS, Voices
from xcflow.retrieval.words import WordIndex
from xcflow.serving.bundle import (
    AUXILIARY,
    CLUSTERS,
    CONFIG,
    KIND,
    LABEL_COUNTS,
    REFRESH,
    SETTINGS,
    TOKENIZER,
    TRAINING,
    label_map_sha256,
)
from xcflow.steps.bundled_catalogue import save_catalogue, text_hashes, voting_documents
from xcflow.steps.provenance import provenance
from xcflow.steps.refreshable import Refreshable
from xcflow.training.data import Splits

_BLOCK = 4096  # texts encoded at a time: bounds memory


class Labels(NamedTuple):
    """The labels of the new catalogue in the champion's space.

    Attributes:
        vectors: [L, D] their vectors z.
        row_of_label: [L] rows of their auxiliary vectors.
        in_use: [M] label rows of those with a classifier, rising.
        classifiers: [M, D] these classifiers.
        counts: [L] training documents that the classifiers learned from; of new labels those that
            drew them nearer.
    """

    vectors: NDArray[np.float16]
    row_of_label: NDArray[np.int32]
    in_use: NDArray[np.int64]
    classifiers: NDArray[np.float16]
    counts: NDArray[np.int64]


class Voters(NamedTuple):
    """The documents that vote.

    Attributes:
        vectors: [N, D] their vectors.
        labels: N rows of their label rows.
    """

    vectors: NDArray[np.float16]
    labels: Ragged


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the bundle that ``inputs["champion"]`` is with the catalogue of ``inputs["dataset"]``.

    Raises:
        ArtifactError: The champion cannot be refreshed.
        DataError: The catalogue has next to no label in common with the champion's, or was read
            for another encoder.
    """
    dataset = Dataset.open(inputs["dataset"])
    with phase("load"):
        champion = Refreshable.open(inputs["champion"])
    changes = Comparison(Profile.open(champion.folder), Profile.of(dataset))
    _require_same_kind(champion, dataset, changes)
    splits, voting = Splits.of(dataset), voting_documents(dataset)
    retrieval = build(RetrievalConfig, champion.config["retrieval"], str(champion.folder / CONFIG))
    with phase("documents"):
        documents, read = _documents(champion, dataset, voting)
    with phase("labels"):
        labels = _labels(champion, dataset, changes.match, documents, config.refresh)
    with phase("indexes"):
        voices = _voices(champion, dataset, labels, documents, retrieval)
    validation = np.searchsorted(voting, splits.validation.rows[: retrieval.recall_queries])
    with phase("recall"):
        recall = voices.recall(documents.vectors[validation].astype(np.float32))
    facts = {
        "from": champion.manifest.digest,
        # How many refreshes lie between this bundle and the training it comes from.
        "since_training": champion.manifest.meta.get(REFRESH, {}).get("since_training", 0) + 1,
        "labels_added": len(changes.match.added),
        "labels_removed": len(changes.match.removed),
        "labels_renamed": len(changes.match.renamed),
        "documents_read": read,
    }
    kept = {k: champion.manifest.meta[k] for k in ("precision",) if k in champion.manifest.meta}
    meta = {
        "label_map_sha256": label_map_sha256(dataset.labels.ids),
        "labels": len(dataset.labels),
        "labels_in_use": len(voices.in_use),
        "encoder": champion.manifest.meta["encoder"],
        "catalogue_digest": dataset.manifest.inputs.get("catalogue", ""),
        "index_recall": recall,
        REFRESH: facts,
        **kept,
    }
    log(
        "labels: "
        + ", ".join(f"{facts[f'labels_{k}']:,} {k}" for k in ("added", "removed", "renamed"))
    )
    origin = provenance("refresh_model", config, inputs)
    with writing(output, KIND, **origin, meta=meta) as folder:
        _copy_what_stays(champion, folder)
        settings = champion.settings | {"voices": voices.save(folder)}
        tree = champion.config | json.loads(config.to_json(["refresh"]))
        for name, value in ((SETTINGS, settings), (CONFIG, tree)):
            text = json.dumps(value, indent=1, sort_keys=True)
            (folder / name).write_text(text + "\n", encoding="utf-8")
        np.save(folder / LABEL_COUNTS, labels.counts)
        np.save(folder / CLUSTERS, labels.row_of_label)
        save_catalogue(dataset, splits, voting, folder)


def _require_same_kind(champion: Refreshable, dataset: Dataset, changes: Comparison) -> None:
    if changes.is_of_another:
        kept, removed = len(changes.match.kept), len(changes.match.removed)
        raise DataError(
            f"only {kept:,} of its {len(dataset.labels):,} labels are among the "
            f"champion's {kept + removed:,}: it is another catalogue, "
            "train a model of it (xcflow run)",
            dataset.path,
        )
    read_for, trained_from = dataset.manifest.meta["tokenizer"], champion.config["encoder"]["model"]
    if read_for != trained_from:
        raise DataError(
            f"was read for the encoder {read_for}, but the champion's is {trained_from}: refresh "
            f"it with --set encoder.model={trained_from}",
            dataset.path,
        )


def _labels(
    champion: Refreshable,
    dataset: Dataset,
    match: LabelMatch,
    documents: Voters,
    config: RefreshConfig,
) -> Labels:
    """Place all labels: what stays as it was, what is new or renamed by its text."""
    old, kept, added = match.old_rows, match.kept, match.added
    fresh = np.union1d(added, match.renamed)
    encoded = _encoded(champion, dataset.labels.texts, fresh)
    rows = np.where(old >= 0, champion.row_of_label[old], NO_VECTOR).astype(np.int32)
    rows[added] = _inherited(champion, encoded[np.isin(fresh, added)], config.nearest)
    vectors = np.empty((len(old), champion.embedder.dim), np.float16)
    vectors[kept] = champion.voices.labels.vectors[old[kept]]
    vectors[fresh] = augmented(
        encoded,
        rows[fresh],
        champion.auxiliary,
        champion.embedder.encoder.parts,
        on_unit=champion.config["module_one"]["auxiliary_on"] == "unit",
    )
    counts = np.where(old >= 0, champion.counts[old], 0)
    means, counts[added] = mean_directions(documents.vectors, documents.labels, added, len(old))
    trained = kept[np.isin(old[kept], champion.voices.in_use)]
    in_use = np.union1d(trained, added)
    classifiers = np.empty((len(in_use), champion.embedder.dim), np.float16)
    place = np.searchsorted(champion.voices.in_use, old[trained])
    classifiers[np.searchsorted(in_use, trained)] = champion.voices.classifiers.vectors[place]
    start = vectors[added] + np.float32(config.documents_weight) * means
    classifiers[np.searchsorted(in_use, added)] = unit_rows(start)
    return Labels(vectors, rows, in_use, classifiers, counts)


def _encoded(
    champion: Refreshable, texts: StringTable, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """[N, D] the encoder's vectors of some label texts, not normalised."""
    vectors = np.empty((len(rows), champion.embedder.dim), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        vectors[start : start + len(block)] = champion.embedder.labels(texts.take(block))
    return vectors


def _inherited(
    champion: Refreshable, encoded: NDArray[np.float32], nearest: int
) -> NDArray[np.int32]:
    """[N] rows that new labels, encoded without more, inherit from labels that were trained."""
    if not (len(encoded) and nearest and len(champion.auxiliary)):
        return np.full(len(encoded), NO_VECTOR, np.int32)
    trained = np.flatnonzero(champion.counts > 0)
    texts = StringTable.load(champion.folder / "labels" / "texts")
    known = champion.embedder.plain_labels(StringTable(texts.rows.take(trained)))
    unit = unit_parts(encoded, champion.embedder.encoder.parts)
    return inherited_rows(unit, known, champion.row_of_label[trained], nearest)


def _documents(
    champion: Refreshable, dataset: Dataset, voting: NDArray[np.int64]
) -> tuple[Voters, int]:
    """The documents that vote, and how many had to be read: the champion knows the others."""
    place = find_hashes(champion.document_hashes, text_hashes(dataset, voting))
    vectors = np.empty((len(voting), champion.embedder.dim), np.float16)
    known, new = np.flatnonzero(place >= 0), np.flatnonzero(place < 0)
    vectors[known] = champion.voices.documents.vectors[place[known]]
    with progress("embedding new documents", len(new), "documents") as advance:
        for start in range(0, len(new), _BLOCK):
            block = new[start : start + _BLOCK]
            texts = dataset.train.texts.take(voting[block])
            vectors[block] = champion.embedder.documents(texts)
            advance(len(block))
    return Voters(vectors, dataset.train.labels.take(voting)), len(new)


def _voices(
    champion: Refreshable,
    dataset: Dataset,
    labels: Labels,
    documents: Voters,
    retrieval: RetrievalConfig,
) -> Voices:
    return Voices(
        labels=VectorIndex.build(labels.vectors, retrieval),
        classifiers=VectorIndex.build(labels.classifiers, retrieval),
        in_use=labels.in_use,
        documents=VectorIndex.build(documents.vectors, retrieval, half=True),
        document_labels=documents.labels,
        neighbours=champion.voices.neighbours,
        temperature=champion.voices.temperature,
        words=WordIndex.build(dataset.labels.texts.to_list(), POSTINGS),
    )


def _copy_what_stays(champion: Refreshable, folder: Path) -> None:
    """Encoder, tokenizer, auxiliary vectors and the curves of the training."""
    for name in champion.manifest.files:
        if name.startswith("encoder.") or name in (TOKENIZER, AUXILIARY, TRAINING):
            shutil.copyfile(champion.folder / name, folder / name)

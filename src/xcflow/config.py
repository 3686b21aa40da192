"""The configuration: a typed tree, read from TOML, checked when it is made.

A *profile* is a TOML file with one table for each section below. Every value has a default, an
unknown key is an error that names the nearest known one, and ``--set section.key=value`` overrides
a single value.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

from xcflow.artifact import json_digest
from xcflow.cluster_config import ClusterConfig, Toleration, require_volume_size
from xcflow.errors import ConfigError
from xcflow.storage import is_remote, read_file

# The formats of catalogues; ``auto`` looks at the names of the files.
CatalogueFormat = Literal[
    "auto", "jsonl", "repository-json", "repository-text", "repository-bow", "parquet", "csv"
]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_at_least(minimum: int, section: str, config: Any, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        _require(value >= minimum, f"{section}.{key} must be at least {minimum}, it is {value}")


@dataclass(frozen=True)
class RunConfig:
    """What concerns the whole run.

    Attributes:
        seed: The one seed that every random choice is derived from.
        threads: Threads for numeric work; 0 means all cores that the process may use: those of the
            machine, or in a container of its CPU limit.
    """

    seed: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, f"run.seed must not be negative, it is {self.seed}")
        _require(self.threads >= 0, f"run.threads must not be negative, it is {self.threads}")


@dataclass(frozen=True)
class DataConfig:
    """How a catalogue becomes the canonical data set.

    Attributes:
        format: What the catalogue's files are; ``auto`` finds it by their names.
        max_document_tokens: Tokens kept of a document.
        max_label_tokens: Tokens kept of a label text.
        catalogue_words: At most this many whole words of the catalogue join the tokenizer's
            vocabulary; 0 keeps the pre-trained vocabulary.
        catalogue_word_min_count: A word joins when it stands in that many texts.
        validation_fraction: Share of the training documents held out for every choice.
        validation_documents: At most about this many are held out.
        chunk_rows: Rows read and written at a time; bounds memory.
    """

    format: CatalogueFormat = "auto"
    max_document_tokens: int = 64
    max_label_tokens: int = 32
    catalogue_words: int = 30_000
    catalogue_word_min_count: int = 3
    validation_fraction: float = 0.05
    validation_documents: int = 5_000
    chunk_rows: int = 20_000

    def __post_init__(self) -> None:
        _require(self.max_document_tokens >= 3, "data.max_document_tokens must be at least 3")
        _require(self.max_label_tokens >= 3, "data.max_label_tokens must be at least 3")
        _require_at_least(0, "data", self, "catalogue_words")
        _require_at_least(
            1, "data", self, "catalogue_word_min_count", "validation_documents", "chunk_rows"
        )
        _require(
            0.0 < self.validation_fraction <= 0.5,
            f"data.validation_fraction must be in (0, 0.5], it is {self.validation_fraction}",
        )


@dataclass(frozen=True)
class ValidationConfig:
    """What is expected of a catalogue.

    Each ``max_`` share (0 to 1) says how much of a defect is a warning; more stops the pipeline.
    What a run repairs by leaving rows out is forbidden or narrow by default, because it points to
    a broken export; what real catalogues simply have is only reported.

    Attributes:
        long_text_chars: A text with more characters is over-long (it is cut to
            ``data.max_document_tokens`` all the same).
        max_unreadable_rows: Rows that are not UTF-8, or not of the format's shape; left out.
        max_misstated_sizes: Files with another number of rows than a header states.
        max_empty_ids: Rows without an id; left out.
        max_repeated_ids: Rows whose id stood before in the same file; left out.
        max_empty_texts: Documents without text; not trained on.
        max_empty_label_texts: Labels without text; their id stands for it.
        max_long_texts: Documents with an over-long text.
        max_unknown_labels: Labels that a document names and the catalogue lacks; left out.
        max_unlabelled_documents: Documents without a label; not trained on.
        max_repeated_texts: Documents with the text of an earlier one in the same split.
        max_repeated_label_texts: Labels with the text of an earlier one.
        max_train_test_texts: Test documents whose text is also a training document's.
        max_unknown_filter: Rows and labels of the test filter that the catalogue lacks; left out.
        max_unknown_tokens: Tokens that the tokenizer has no entry for.
    """

    long_text_chars: int = 20_000
    max_unreadable_rows: float = 0.0
    max_misstated_sizes: float = 1.0
    max_empty_ids: float = 0.0
    max_repeated_ids: float = 0.0
    max_empty_texts: float = 0.2
    max_empty_label_texts: float = 1.0
    max_long_texts: float = 0.5
    max_unknown_labels: float = 0.05
    max_unlabelled_documents: float = 0.5
    max_repeated_texts: float = 0.9
    max_repeated_label_texts: float = 0.9
    max_train_test_texts: float = 0.5
    max_unknown_filter: float = 1.0
    max_unknown_tokens: float = 0.5

    def __post_init__(self) -> None:
        _require(self.long_text_chars >= 1, "validation.long_text_chars must be at least 1")
        for name, share in dataclasses.asdict(self).items():
            in_range = not name.startswith("max_") or 0.0 <= share <= 1.0
            _require(in_range, f"validation.{name} is a share from 0 to 1, it is {share}")


@dataclass(frozen=True)
class DriftLimits:
    """How far a catalogue may be from the last accepted one in one respect, as shares.

    Attributes:
        warn: More is a warning.
        fail: More stops the pipeline; with 1 nothing does.
    """

    warn: float
    fail: float = 1.0


@dataclass(frozen=True)
class DriftConfig:
    """When a catalogue differs from the last accepted one by more than it should.

    Nothing stops the pipeline by default: how much a catalogue changes from one export to the next
    is its own nature, and one home may serve several catalogues.

    Attributes:
        removed_labels: Labels that are gone, of those that were there.
        added_labels: Labels that were not there, of those that are.
        renamed_labels: Labels with another text, of those in common.
        removed_documents: Documents that are gone, of those that were there.
        label_shares: Total variation distance between the labels' shares of all pairs.
        label_frequencies: Kolmogorov-Smirnov distance between documents per label.
        document_lengths: The same between characters per document.
        label_lengths: The same between characters per label text.
        unknown_tokens_rise: Rise of the share of tokens that the tokenizer has no entry for.
    """

    removed_labels: DriftLimits = DriftLimits(0.05)
    added_labels: DriftLimits = DriftLimits(0.2)
    renamed_labels: DriftLimits = DriftLimits(0.05)
    removed_documents: DriftLimits = DriftLimits(0.1)
    label_shares: DriftLimits = DriftLimits(0.2)
    label_frequencies: DriftLimits = DriftLimits(0.1)
    document_lengths: DriftLimits = DriftLimits(0.1)
    label_lengths: DriftLimits = DriftLimits(0.1)
    unknown_tokens_rise: DriftLimits = DriftLimits(0.01)

    def __post_init__(self) -> None:
        for name, limits in dataclasses.asdict(self).items():
            for key, share in limits.items():
                where = f"drift.{name}.{key}"
                _require(0.0 <= share <= 1.0, f"{where} is a share from 0 to 1, it is {share}")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder shared by documents and labels.

    Attributes:
        kind: ``bag_of_embeddings``, ``transformer``, or ``transformer_with_bag``: both side by
            side, on the same batches.
        model: ``minilm`` (the packaged all-MiniLM-L6-v2), a local folder, or a Hugging Face id.
        layers: Use the first n layers of the transformer; 0 means all.
        bags: Bags of embeddings side by side that differ by chance: each has auxiliary vectors
            and a loss of its own, and cosines are averaged.
        phrases: At most this many pairs of words that stand together (one word may stand between
            them) get a row of their own in a bag of embeddings; 0 for none.
        phrase_min_count: A pair gets one when it stands in the texts that often.
        dropout: Dropout on the resulting vectors and on a transformer's input vectors.
        bf16: Matrix products in bfloat16: ``auto`` where the processor has units for it.
    """

    kind: Literal["bag_of_embeddings", "transformer", "transformer_with_bag"] = "bag_of_embeddings"
    model: str = "minilm"
    layers: int = 0
    bags: int = 1
    phrases: int = 100_000
    phrase_min_count: int = 2
    dropout: float = 0.2
    bf16: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        _require(self.layers >= 0, "encoder.layers must not be negative")
        _require_at_least(0, "encoder", self, "phrases")
        _require_at_least(1, "encoder", self, "bags", "phrase_min_count")
        _require(0.0 <= self.dropout < 1.0, "encoder.dropout must be in [0, 1)")


@dataclass(frozen=True)
class ClusteringConfig:
    """The map from labels to auxiliary vectors.

    Attributes:
        clusters: Number of shared auxiliary vectors K; 0 trains without them (NGAME). More than
            ``labels / min_cluster_size`` are never made.
        private_labels: The most frequent labels that get a vector of their own.
        private_min_count: A label needs that many training documents for one.
        min_cluster_size: Smallest mean number of labels in a cluster.
        max_rounds: Bound on the rounds of one 2-means split.
        tolerance: A split ends when the mean similarity rises by less.
    """

    clusters: int = 4096
    private_labels: int = 500
    private_min_count: int = 20
    min_cluster_size: int = 2
    max_rounds: int = 20
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        _require(self.clusters >= 0, "clustering.clusters must not be negative")
        _require(self.private_labels >= 0, "clustering.private_labels must not be negative")
        _require(self.min_cluster_size >= 1, "clustering.min_cluster_size must be at least 1")
        _require_at_least(1, "clustering", self, "max_rounds")
        _require_at_least(0, "clustering", self, "private_min_count", "tolerance")


@dataclass(frozen=True)
class ModuleOneConfig:
    """Module I: the encoder and the auxiliary vectors, trained together.

    Attributes:
        epochs: Passes over the training documents, at most.
        batch_size: Documents in a batch; each brings one of its labels.
        learning_rate: Peak rate of the token table.
        dense_learning_rate: Peak rate of the encoder's new dense weights.
        pretrained_learning_rate: Peak rate of a pre-trained transformer's weights.
        weight_decay: Decoupled decay of the dense weights (not of biases and norms).
        warmup_steps: Steps of linear warm-up (at most a tenth of all); then linear to 0.
        loss: ``triplet`` (the paper's: hardest in-batch negatives, softmax weights) or ``softmax``
            (every positive against all in-batch negatives).
        two_way: Rank documents for a label too, not only labels for a document.
        hardest: Negatives of a document that take part (triplet).
        margin: Margin of the triplet loss.
        temperature: Of the softmax weights (triplet) or of the loss (softmax).
        keep_zero_hinge: Triplet only: negatives beyond the margin keep weight, as in NGAME's code.
        auxiliary_learning_rate: Peak rate of the auxiliary vectors.
        auxiliary_norm: Norm of the random vectors that they start from. At 1 a label is half its
            text and half a random code of its cluster, which documents learn to point at. The
            authors' Xavier start has a norm of 0.1 to 0.6, falling with the number of clusters.
        auxiliary_on: ``unit`` adds the auxiliary vector to the normalised label vector (paper),
            ``raw`` to the un-normalised one (the authors' code).
        cluster_from_epoch: First epoch with clustered batches.
        cluster_size: Mean documents in a cluster then.
        double_every: Epochs after which clusters double; 0 keeps the size.
        memory_width: Dimensions of the document memory that is clustered.
        patience: Epochs without a better validation score after which training stops.
    """

    epochs: int = 12
    batch_size: int = 1024
    learning_rate: float = 2e-3
    dense_learning_rate: float = 2e-3
    pretrained_learning_rate: float = 4e-4
    weight_decay: float = 0.0
    warmup_steps: int = 50
    loss: Literal["triplet", "softmax"] = "softmax"
    two_way: bool = True
    hardest: int = 10
    margin: float = 0.3
    temperature: float = 0.05
    keep_zero_hinge: bool = False
    auxiliary_learning_rate: float = 2e-3
    auxiliary_norm: float = 1.0
    auxiliary_on: Literal["unit", "raw"] = "unit"
    cluster_from_epoch: int = 4
    cluster_size: int = 4
    double_every: int = 2
    memory_width: int = 128
    patience: int = 3

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "module_one.epochs must not be negative")
        _require(self.batch_size >= 1, "module_one.batch_size must be at least 1")
        _require(self.hardest >= 1, "module_one.hardest must be at least 1")
        _require(self.temperature > 0.0, "module_one.temperature must be above 0")
        _require(self.cluster_size >= 1, "module_one.cluster_size must be at least 1")
        _require(self.auxiliary_norm >= 0.0, "module_one.auxiliary_norm must not be negative")
        _require(self.memory_width >= 1, "module_one.memory_width must be at least 1")
        _require_at_least(
            0,
            "module_one",
            self,
            "learning_rate",
            "dense_learning_rate",
            "pretrained_learning_rate",
            "auxiliary_learning_rate",
            "weight_decay",
            "warmup_steps",
            "cluster_from_epoch",
            "double_every",
        )
        _require(self.patience >= 1, "module_one.patience must be at least 1")


@dataclass(frozen=True)
class ModuleTwoConfig:
    """Module II: one classifier for each label in use, on the frozen encoder.

    Attributes:
        epochs: Passes over the training documents, at most.
        batch_size: Documents in a batch.
        learning_rate: Peak rate.
        warmup_steps: Steps of linear warm-up (at most a tenth of all); then linear to 0.
        dropout: Dropout on the document vectors.
        loss: ``triplet`` or ``softmax``, as in Module I.
        hardest: Negatives of a document that take part (triplet).
        margin: Margin of the triplet loss.
        temperature: Of the softmax weights (triplet) or of the loss (softmax).
        cluster_size: Mean documents in a cluster of the batches (the document vectors are fixed,
            so they are clustered once); 1 takes documents in random order.
        mined: Nearest wrong labels of a document from which hard negatives are drawn; 0 for none.
        mined_per_batch: At most so many of them join a batch's candidates.
        mine_from_epoch: First epoch with mined negatives.
        mine_every: Epochs between two searches.
        patience: Epochs without a better validation score after which training stops.
    """

    epochs: int = 10
    batch_size: int = 1024
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    dropout: float = 0.5
    loss: Literal["triplet", "softmax"] = "softmax"
    hardest: int = 5
    margin: float = 0.2
    temperature: float = 0.05
    cluster_size: int = 32
    mined: int = 20
    mined_per_batch: int = 3_000
    mine_from_epoch: int = 1
    mine_every: int = 4
    patience: int = 3

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "module_two.epochs must not be negative")
        _require(self.batch_size >= 1, "module_two.batch_size must be at least 1")
        _require(0.0 <= self.dropout < 1.0, "module_two.dropout must be in [0, 1)")
        _require(self.hardest >= 1, "module_two.hardest must be at least 1")
        _require(self.temperature > 0.0, "module_two.temperature must be above 0")
        _require(self.cluster_size >= 1, "module_two.cluster_size must be at least 1")
        _require_at_least(
            0,
            "module_two",
            self,
            "learning_rate",
            "warmup_steps",
            "mined",
            "mined_per_batch",
            "mine_from_epoch",
        )
        _require(self.mine_every >= 1, "module_two.mine_every must be at least 1")
        _require(self.patience >= 1, "module_two.patience must be at least 1")


@dataclass(frozen=True)
class RetrievalConfig:
    """How nearest vectors are found.

    Attributes:
        index: ``flat`` is exact; ``scan`` reads short codes of all vectors and compares the best of
            them exactly; ``ivf`` reads some inverted lists. ``auto`` goes by their number.
        flat_limit: Most vectors that ``auto`` searches exactly.
        scan_limit: Most vectors that it scans.
        ivf_probe: Share of the inverted lists that a search reads.
        recall_queries: Validation documents on which an index is measured against exact search.
    """

    index: Literal["auto", "flat", "scan", "ivf"] = "auto"
    flat_limit: int = 10_000
    scan_limit: int = 400_000
    ivf_probe: float = 0.03
    recall_queries: int = 500

    def __post_init__(self) -> None:
        _require_at_least(0, "retrieval", self, "flat_limit", "scan_limit")
        _require_at_least(1, "retrieval", self, "recall_queries")
        _require(0.0 < self.ivf_probe <= 1.0, "retrieval.ivf_probe must be in (0, 1]")


@dataclass(frozen=True)
class FusionConfig:
    """How the voices of encoder, classifiers and neighbouring documents become one score.

    Attributes:
        shortlist: Labels that each voice proposes for a document.
        neighbours: Training documents whose labels vote.
        neighbour_temperature: Of the softmax over the neighbours' similarities.
        muted: The network learns from each validation document twice: as it is, and with its
            nearest voters silent, 1 to so many (a power of 2, drawn). So it does not rely on close
            kin that a document of tomorrow may lack. 0 leaves the second look out.
        contenders: Best proposals of a document that all are trained on; of the rest, one in four.
        tail_weight: Power of the inverse propensity by which a true label weighs in its training:
            0 weighs all alike, 1 weighs them as PSP does.
        hidden: Hidden units of the network that ranks the proposals.
        steps: Steps of its training on the validation split.
        batch_documents: Documents of a step.
        rate: Its learning rate.
        decay: Its weight decay.
    """

    shortlist: int = 100
    neighbours: int = 50
    neighbour_temperature: float = 0.05
    muted: int = 32
    contenders: int = 50
    tail_weight: float = 0.5
    hidden: int = 32
    steps: int = 300
    batch_documents: int = 128
    rate: float = 0.02
    decay: float = 1e-3

    def __post_init__(self) -> None:
        _require(self.batch_documents >= 1, "fusion.batch_documents must be at least 1")
        _require(self.shortlist >= 1, "fusion.shortlist must be at least 1")
        _require(self.neighbours >= 1, "fusion.neighbours must be at least 1")
        _require(self.hidden >= 1, "fusion.hidden must be at least 1")
        _require(self.neighbour_temperature > 0.0, "fusion.neighbour_temperature must be above 0")
        _require_at_least(
            0, "fusion", self, "muted", "contenders", "tail_weight", "steps", "rate", "decay"
        )


@dataclass(frozen=True)
class CalibrationConfig:
    """How fused scores become probabilities, on the validation split.

    Attributes:
        method: ``isotonic``, ``platt`` (a sigmoid), or ``auto``: isotonic where data is plenty.
        depth: Best labels of each validation document that are learned from.
        min_right: ``auto`` takes isotonic from so many right, and so many wrong, labels on, each
            look at a document counted.
    """

    method: Literal["auto", "isotonic", "platt"] = "auto"
    depth: int = 10
    min_right: int = 500

    def __post_init__(self) -> None:
        _require_at_least(1, "calibration", self, "depth", "min_right")


@dataclass(frozen=True)
class RefreshConfig:
    """How the champion takes in a catalogue without training.

    Attributes:
        nearest: Known labels nearest to a new one that vote for the auxiliary vector it inherits;
            0 leaves new labels without one.
        documents_weight: A new label's classifier starts at its vector plus so many times the mean
            vector of its training documents, where it has any.
    """

    nearest: int = 10
    documents_weight: float = 0.5

    def __post_init__(self) -> None:
        _require_at_least(0, "refresh", self, "nearest", "documents_weight")


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a training loop saves a state from which it can go on, and where.

    No result depends on it.

    Attributes:
        every_seconds: Wall time between two saved states.
        uri: Folder for the states, also under ``s3://``, from which another machine can go on;
            empty for the home folder.
    """

    every_seconds: float = 60.0
    uri: str = ""

    def __post_init__(self) -> None:
        _require_at_least(0, "checkpoint", self, "every_seconds")


@dataclass(frozen=True)
class DistributedConfig:
    """How many processes share the work of a step that several can share.

    It says where work is done, not what: a checkpoint serves any number of them.

    Attributes:
        processes: Processes (ranks) on a machine; they share its cores.
        nodes: Machines. With more than one, the task of a pipeline starts a TrainJob on the
            cluster, which does the work.
        max_restarts: How often all ranks start again from the last checkpoint when one is lost.
        deadline_seconds: A TrainJob may take so long.
        runtime: Name of the cluster's training runtime, which brings service account, secrets and
            volumes to its pods.
        share: Folder through which inputs, output and states of a TrainJob travel, as
            ``s3://bucket/prefix``, or one that all pods see at the same path.
    """

    processes: int = 1
    nodes: int = 1
    max_restarts: int = 3
    deadline_seconds: int = 86_400
    runtime: str = "xcflow"
    share: str = ""

    def __post_init__(self) -> None:
        _require_at_least(1, "distributed", self, "processes", "nodes", "deadline_seconds")
        _require_at_least(0, "distributed", self, "max_restarts")
        _require(bool(self.runtime), "distributed.runtime must name a training runtime")
        _require(
            self.nodes == 1 or bool(self.share),
            f"distributed.nodes = {self.nodes} needs distributed.share, a folder such as "
            "s3://bucket/prefix through which the machines get their data",
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is measured on the test split. Nothing is chosen here.

    Attributes:
        ks: Depths of P@k, nDCG@k, PSP@k and R@k, rising.
        propensity_a: A of the propensity model: .6 for Amazon's product catalogues, .5 for
            Wikipedia's categories, .55 for all others.
        propensity_b: B of the propensity model: 2.6, .4 and 1.5 in the same order.
        block_documents: Documents scored at a time; bounds memory.
        kept_predictions: Predictions of each document that are kept for reports.
        latency_texts: Texts sent one by one to time an answer.
    """

    ks: tuple[int, ...] = (1, 3, 5, 10, 100)
    propensity_a: float = 0.55
    propensity_b: float = 1.5
    block_documents: int = 1_000
    kept_predictions: int = 10
    latency_texts: int = 100

    def __post_init__(self) -> None:
        ks = list(self.ks)
        _require(
            bool(ks) and ks[0] >= 1 and ks == sorted(set(ks)),
            f"evaluation.ks must be rising numbers from 1 on, they are {ks}",
        )
        _require(ks[-1] <= 10_000, "evaluation.ks must not exceed 10000")
        _require(self.propensity_a >= 0.0, "evaluation.propensity_a must not be negative")
        _require(self.propensity_b >= 0.0, "evaluation.propensity_b must not be negative")
        _require(self.block_documents >= 1, "evaluation.block_documents must be at least 1")
        _require(self.kept_predictions >= 1, "evaluation.kept_predictions must be at least 1")
        _require(self.latency_texts >= 0, "evaluation.latency_texts must not be negative")


# A metric, or the part of it that one slice of the labels has; nDCG does not split.
METRIC_NAME = r"(?!nDCG.*/)(P|nDCG|PSP|R)@([1-9][0-9]*)(?:/(head|torso|tail|cold))?"


@dataclass(frozen=True)
class GateConfig:
    """When a candidate becomes champion; ``mlflow/gate.toml`` holds the values in force.

    All differences are of metrics between 0 and 1, candidate minus opponent.

    Attributes:
        alpha: Error level of each bound of a difference, one-sided.
        resamples: Resamples of the paired bootstrap behind the bounds.
        primary: The metric that must rise.
        lift: The primary metric must rise above the champion's by more than this.
        floor_lift: The primary metric must reach each baseline's by at least this.
        secondary: Metrics that must not fall.
        margin: A secondary metric falls when it is lower by more than this.
        slice_metric: The R@k that must not fall in any slice of the labels; empty for none.
        slice_margin: In a slice it falls when it is lower by more than this.
        slice_documents: With fewer test documents a slice only speaks when it fell for certain.
        minimum_documents: With fewer test documents nothing is promoted.
        new_label_recall: Of a refresh: smallest recall of the labels that the champion lacks.
        new_label_documents: With fewer test documents that have such a label a refresh is held.
        max_latency_ms: Largest 99th percentile of the time for a single text; 0 for any.
        max_latency_ratio: Largest median of that time over the champion's; 0 for any.
        max_bundle_mb: Largest size of the bundle, which a server holds in memory; 0 for any.
        max_memory_mb: Largest resident memory of the evaluation; 0 for any.
        min_index_recall: Smallest share of the exact nearest that each index must find.
        max_data_status: The gravest status of the data report with which a model is promoted.
        promote: Whether a candidate may become champion at all; off for experiments.
    """

    alpha: float = 0.05
    resamples: int = 2_000
    primary: str = "P@1"
    lift: float = 0.0
    floor_lift: float = 0.0
    secondary: tuple[str, ...] = ("P@5", "PSP@5", "R@100")
    margin: float = 0.005
    slice_metric: str = "R@10"
    slice_margin: float = 0.02
    slice_documents: int = 2_000
    minimum_documents: int = 100
    new_label_recall: float = 0.1
    new_label_documents: int = 50
    max_latency_ms: float = 1_000.0
    max_latency_ratio: float = 0.0
    max_bundle_mb: float = 8_192.0
    max_memory_mb: float = 0.0
    min_index_recall: float = 0.9
    max_data_status: Literal["passed", "noted", "warning"] = "warning"
    promote: bool = True

    def __post_init__(self) -> None:
        _require(0.0 < self.alpha < 0.5, f"gate.alpha must be in (0, 0.5), it is {self.alpha}")
        _require(self.resamples >= 100, "gate.resamples must be at least 100")
        _require_at_least(0, "gate", self, "lift", "margin", "slice_margin", "slice_documents")
        _require_at_least(0, "gate", self, "max_latency_ms", "max_latency_ratio")
        _require_at_least(0, "gate", self, "max_bundle_mb", "max_memory_mb")
        _require_at_least(1, "gate", self, "minimum_documents")
        _require_at_least(0, "gate", self, "new_label_recall", "new_label_documents")
        recall = self.min_index_recall
        _require(0.0 <= recall <= 1.0, f"gate.min_index_recall must be in [0, 1], it is {recall}")
        _require(
            re.fullmatch(r"(R@[1-9][0-9]*)?", self.slice_metric) is not None,
            f"gate.slice_metric must be a recall such as R@10, it is {self.slice_metric!r}",
        )
        for key, name in self._metrics():
            _require(
                re.fullmatch(METRIC_NAME, name) is not None,
                f"gate.{key}: {name!r} is no metric: known are P@k, nDCG@k, PSP@k, R@k, and one "
                "slice's part of them, as in R@10/tail (head, torso, tail, cold)",
            )

    def _metrics(self) -> Iterator[tuple[str, str]]:
        """The metrics that are asked about, each with its key."""
        yield "primary", self.primary
        yield from (("secondary", metric) for metric in self.secondary)
        if self.slice_metric:
            yield "slice_metric", self.slice_metric

    def depths(self) -> dict[str, int]:
        """Metrics that are asked about -> their depth k."""
        return {m: int(m.partition("@")[2].partition("/")[0]) for _, m in self._metrics()}


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded.

    Attributes:
        uri: MLflow tracking URI; empty means a sqlite store under the home folder.
        experiment: Name of the experiment.
        model_name: Name of the registered model.
        patience_seconds: How long a step that needs an answer asks a store again that is away.
    """

    uri: str = ""
    experiment: str = "xcflow"
    model_name: str = "xcflow"
    patience_seconds: float = 120.0

    def __post_init__(self) -> None:
        _require_at_least(0, "tracking", self, "patience_seconds")
        _require(self.experiment != "", "tracking.experiment must not be empty")
        # MLflow takes neither / nor :, and its searches no quotes.
        _require(
            re.fullmatch(r"[^/:'\"]+", self.model_name) is not None,
            "tracking.model_name must be a name without slashes, colons and quotes, it is "
            f"{self.model_name!r}",
        )


@dataclass(frozen=True)
class NotifyConfig:
    """Who is told how a run ended, beside the tracking store.

    Attributes:
        webhook: Address that gets a POST with JSON; empty for ``$XCFLOW_WEBHOOK_URL``, where it is
            set. An address that holds a secret belongs there.
        attempts: How often it is tried.
        timeout_seconds: How long one attempt may take.
    """

    webhook: str = ""
    attempts: int = 3
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"(https?://.+)?", self.webhook) is not None,
            f"notify.webhook must begin with http:// or https://, it is {self.webhook!r}",
        )
        _require_at_least(1, "notify", self, "attempts")
        _require(self.timeout_seconds > 0, "notify.timeout_seconds must be above 0")


@dataclass(frozen=True)
class TaskResources:
    """What one task asks of a cluster.

    Attributes:
        cpu: Requested cores, as Kubernetes writes them.
        memory: Requested and largest memory, as Kubernetes writes it.
        accelerator: Resource name of an accelerator, such as ``nvidia.com/gpu``.
        accelerators: How many; 0 for none.
        shared_memory: Largest size of ``/dev/shm``, through which loaders of data and processes on
            one node talk; part of ``memory``; empty for the container's default of 64 MiB.
        node_selector: Labels that a node must have, beside those of ``cluster.node_selector``.
        tolerations: Taints that do not keep the task away, beside ``cluster.tolerations``.
    """

    cpu: str = "2"
    memory: str = "4Gi"
    accelerator: str = "nvidia.com/gpu"
    accelerators: int = 0
    shared_memory: str = "1Gi"
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"([0-9]*\.)?[0-9]+|[0-9]+m", self.cpu) is not None,
            f"resources: cpu must be a number of cores such as 2 or 500m, not {self.cpu!r}",
        )
        _require(
            re.fullmatch(r"[1-9][0-9]*([KMGTPE]i|[MGTPE])?", self.memory) is not None,
            f"resources: memory must be a size such as 4Gi, not {self.memory!r}",
        )
        _require(self.accelerators >= 0, "resources: accelerators must not be negative")
        _require(
            self.accelerator != "" or not self.accelerators,
            "resources: accelerators needs accelerator, the resource that is counted",
        )
        require_volume_size(self.shared_memory, "resources: shared_memory")


@dataclass(frozen=True)
class SmallTaskResources(TaskResources):
    """What a task asks for that moves no data."""

    cpu: str = "500m"
    memory: str = "1Gi"
    shared_memory: str = ""


@dataclass(frozen=True)
class ResourcesConfig:
    """What the pipeline's tasks ask of a cluster; one sub-section each, ``other`` for the rest."""

    validate_data: TaskResources = field(default_factory=TaskResources)
    check_drift: TaskResources = field(default_factory=TaskResources)
    cluster_labels: TaskResources = field(default_factory=TaskResources)
    train_encoder: TaskResources = field(default_factory=TaskResources)
    export_embeddings: TaskResources = field(default_factory=TaskResources)
    train_classifier: TaskResources = field(default_factory=TaskResources)
    build_index: TaskResources = field(default_factory=TaskResources)
    refresh_model: TaskResources = field(default_factory=TaskResources)
    evaluate_model: TaskResources = field(default_factory=TaskResources)
    other: SmallTaskResources = field(default_factory=SmallTaskResources)


@dataclass(frozen=True)
class Config:
    """The whole configuration; each attribute is a section (a table of the TOML file)."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    module_one: ModuleOneConfig = field(default_factory=ModuleOneConfig)
    module_two: ModuleTwoConfig = field(default_factory=ModuleTwoConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], source: str = "configuration") -> Self:
        """Make a configuration from nested plain values.

        Raises:
            ConfigError: An unknown section or key, a value of the wrong type or out of range.
        """
        return build(cls, tree, source)

    @classmethod
    def load(cls, profile: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a shipped profile by name or a TOML file by path, then apply overrides.

        The gate's thresholds come from ``mlflow/gate.toml`` where neither names them.

        Args:
            profile: Name of a shipped profile, or the path or ``s3://`` URI of a TOML file.
            overrides: Texts of the form ``section.key=value``.

        Raises:
            ConfigError: No such profile, not TOML, or a wrong key or value.
            StorageError: A remote file cannot be read.
        """
        tree, source = _read_profile(profile)
        for override in overrides:
            _apply_override(tree, override)
        if isinstance(tree.setdefault("gate", {}), dict):
            tree["gate"] = dataclasses.asdict(default_gate()) | tree["gate"]
        config = cls.from_dict(tree, source)
        for metric, k in config.gate.depths().items():
            _require(
                k in config.evaluation.ks,
                f"{source}: the gate asks for {metric}, so evaluation.ks must hold {k}",
            )
        return config

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``."""
        return cls.from_dict(json.loads(text))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, complete with defaults."""
        return dataclasses.asdict(self)

    def to_json(self, sections: Iterable[str] | None = None) -> str:
        """Canonical JSON of the whole tree or of some sections."""
        tree = self.to_dict()
        chosen = tree if sections is None else {name: tree[name] for name in sections}
        return json.dumps(chosen, sort_keys=True, separators=(",", ":"))

    def digest(self, *sections: str) -> str:
        """sha256 over the named sections, or over all of them."""
        tree = self.to_dict()
        return json_digest({name: tree[name] for name in sections} if sections else tree)


def default_gate() -> GateConfig:
    """The gate's thresholds from ``mlflow/gate.toml``, which an installed package carries along.

    Raises:
        ConfigError: The file cannot be read or has a wrong key or value.
    """
    packaged = Path(str(resources.files("xcflow") / "evaluation" / "gate.toml"))
    in_checkout = Path(__file__).parents[2] / "mlflow" / "gate.toml"
    path = packaged if packaged.is_file() else in_checkout
    return build(GateConfig, read_toml(path), str(path))


def profile_names() -> list[str]:
    """Names of the shipped profiles."""
    folder = resources.files("xcflow") / "profiles"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def profile_text(name: str) -> str:
    """The TOML text of a shipped profile."""
    return (resources.files("xcflow") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: The file cannot be read or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    return _parse_toml(text, str(path))


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error


def _read_profile(profile: str | Path) -> tuple[dict[str, Any], str]:
    if is_remote(profile):
        content = read_file(profile)
        if content is None:
            raise ConfigError(f"{profile}: no such file")
        return _parse_toml(content.decode(errors="replace"), str(profile)), str(profile)
    path = Path(profile)
    if path.suffix == ".toml" or path.is_file():
        return read_toml(path), str(path)
    if str(profile) in profile_names():
        source = f"profile {profile}"
        return _parse_toml(profile_text(str(profile)), source), source
    known = ", ".join(profile_names())
    raise ConfigError(f"no profile named {profile!r}: known are {known}, or give a .toml file")


def _apply_override(tree: dict[str, Any], override: str) -> None:
    name, sign, text = override.partition("=")
    *sections, key = name.strip().split(".")
    if not (sign and sections and all(sections) and key):
        raise ConfigError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    for section in sections:
        tree = tree.setdefault(section, {})
        _require(isinstance(tree, dict), f"--set {override}: {section} is a value, not a section")
    tree[key] = value


T = TypeVar("T")


def build(cls: type[T], tree: Mapping[str, Any], source: str) -> T:
    """Make a tree of configuration dataclasses from nested plain values.

    Args:
        cls: The frozen dataclass at the root; its fields are plain values or further dataclasses.
        tree: The values, as TOML or JSON gives them.
        source: Where they come from, for the error's line.

    Raises:
        ConfigError: An unknown key, a value of the wrong type or out of range.
    """
    return cast(T, _build(cls, tree, source, ""))


def _build(cls: type[Any], tree: Mapping[str, Any], source: str, prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    names = list(defaults)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
            what = "key" if prefix or not dataclasses.is_dataclass(hints[near]) else "section"
            raise ConfigError(
                f"{source}: unknown {what} {prefix}{key}, did you mean {prefix}{near}?"
            )
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {prefix}{key} is a section, not a value")
            # A default of its own stays in force for the keys that are not given.
            own = defaults[key]
            given = {} if own is dataclasses.MISSING else dataclasses.asdict(own)
            section = {**given, **value}
            values[key] = _build(cast(type[Any], hint), section, source, f"{prefix}{key}.")
        else:
            values[key] = _checked(value, hint, f"{source}: {prefix}{key}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _checked(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the annotated type; integers stand for floats, lists for tuples."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        _require(value in choices, f"{where} must be one of {', '.join(choices)}, not {value!r}")
        return value
    if origin is tuple:
        _require(isinstance(value, list | tuple), f"{where} must be a list, not {value!r}")
        return tuple(_checked(item, typing.get_args(hint)[0], where) for item in value)
    if origin is dict:
        _require(isinstance(value, Mapping), f"{where} is a table of names and values")
        return {
            key: _checked(v, typing.get_args(hint)[1], f"{where}.{key}") for key, v in value.items()
        }
    if dataclasses.is_dataclass(hint):
        _require(isinstance(value, Mapping), f"{where} must hold tables, not {value!r}")
        return _build(cast(type[Any], hint), value, where, "")
    if origin in (typing.Union, types.UnionType):
        raise TypeError(f"{where}: union types are not supported in a configuration")
    if hint is float and type(value) is int:
        return float(value)
    _require(type(value) is hint, f"{where} must be of type {hint.__name__}, not {value!r}")
    _require(hint is not float or math.isfinite(value), f"{where} must be finite, not {value}")
    return value

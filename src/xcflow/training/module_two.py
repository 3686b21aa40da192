"""Module II: one classifier for each label in use, on document vectors that no longer change.

Classifiers start at the augmented label vectors. Candidates of a batch are the labels of all its
documents, joined by labels that the classifiers of a few epochs ago took for right (mined by
nearest-neighbour search). A document weighs the same however many labels it has.

Several ranks hold the classifiers dealt to them. Each scores all documents of the batch against its
own candidates, so classifiers and their state are never sent; of scores, only what the loss needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xcflow.config import ModuleTwoConfig, RetrievalConfig
from xcflow.distributed.collectives import Dealt, order_of_first
from xcflow.distributed.world import ALONE, World
from xcflow.encoders.dropout import Dropout
from xcflow.labels.clustering import balanced_clusters
from xcflow.negatives.batches import DocumentMemory
from xcflow.negatives.candidates import Candidates
from xcflow.negatives.mining import mine
from xcflow.phases import phase
from xcflow.ragged import Ragged
from xcflow.retrieval.exact import KEYS
from xcflow.row_table import RowTable
from xcflow.topk import NO_LABEL
from xcflow.training.data import Splits
from xcflow.training.losses import mean_by_document, negatives_only, ranking_losses
from xcflow.training.validation import Validation
from xcflow.vectors import ShardedVectors

_BLOCK = 8192
_CLUSTERED_WIDTH = 128  # dimensions are enough to tell which documents are alike


class ModuleTwo:
    """What the training loop needs of Module II.

    Args:
        documents: Unit vectors of all training documents, held out ones too.
        labels: [L, D] augmented unit vectors of all labels.
        used: [M] rows of the labels in use, rising; only they get a classifier.
        splits: Documents to learn from and to validate on.
        config: Loss, rates, negatives.
        retrieval: How labels are searched when negatives are mined.
        seed: The run's seed.
        world: Ranks that train together.

    Attributes:
        table: The classifiers that belong to this rank.
    """

    def __init__(
        self,
        documents: ShardedVectors,
        labels: ShardedVectors,
        used: NDArray[np.int64],
        splits: Splits,
        config: ModuleTwoConfig,
        retrieval: RetrievalConfig,
        seed: int,
        world: World = ALONE,
    ) -> None:
        self._documents = documents
        self._held_out = torch.from_numpy(documents.take(splits.validation.rows))
        self._labels = labels
        self._fit = splits.fit
        # Classifiers are numbered by their place among the labels in use.
        self._truth = Ragged(
            np.searchsorted(used, splits.fit.labels.data), splits.fit.labels.offsets
        )
        place = np.searchsorted(used, splits.fit.same_item).clip(max=len(used) - 1)
        self._same_item = np.where(used[place] == splits.fit.same_item, place, -1)
        self._used = used
        self._config = config
        self._retrieval = retrieval
        self._seed = seed
        self._world = world
        self._validation = Validation(splits, world)
        self.table = RowTable(torch.from_numpy(labels.take(used[world.rank :: world.size])))
        self._mined = np.empty((0, 0), np.int32)
        self._dropout = Dropout(config.dropout)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Clusters of like documents, shuffled; mines negatives where the epoch asks for it."""
        config = self._config
        since = epoch - config.mine_from_epoch
        if config.mined and since >= 0 and since % config.mine_every == 0:
            with phase("mining"):
                self._mined = mine(
                    self._documents,
                    self._fit.rows,
                    self.classifiers().numpy(),
                    config.mined,
                    self._retrieval,
                    self._world,
                )
        return order_of_first(self._world, len(self._fit), lambda: self._shuffled(epoch))

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        members = self._clusters
        place = rng.permutation(int(members.max()) + 1)[members]
        return np.lexsort((rng.random(len(members)), place))

    @cached_property
    def _clusters(self) -> NDArray[np.int32]:
        """[N] the cluster of each document: made once, for their vectors stay as they are."""
        documents, size = len(self._fit), self._config.cluster_size
        if size == 1 or documents < 2 * size:
            return np.arange(documents, dtype=np.int32)
        memory = DocumentMemory(documents, self._documents.dim, _CLUSTERED_WIDTH, self._seed)
        for start in range(0, documents, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, documents))
            memory.put(rows, torch.from_numpy(self._documents.take(self._fit.rows[rows])))
        return balanced_clusters(
            memory.vectors, documents // size, seed=self._seed, max_rounds=4, tolerance=1e-3
        )

    def step(self, rows: NDArray[np.int64], rate: float, rng: np.random.Generator) -> float:
        """One batch: score against the candidates, update their rows."""
        truth = self._truth.take(rows)
        proposed = np.concatenate([truth.data, self._draw_mined(rows, rng)])
        everyone = Candidates.shared(proposed, truth, self._same_item[rows])
        counts = torch.bincount(everyone.positives.rows, minlength=len(rows))
        candidates = everyone.dealt_to(self._world)
        documents = torch.from_numpy(self._documents.take(self._fit.rows[rows]))
        documents = nn.functional.normalize(self._dropout(documents), dim=1)
        leaf = self.table.gather(torch.from_numpy(candidates.labels))
        scores = documents @ nn.functional.normalize(leaf, dim=1).T
        positives = candidates.positives
        losses = ranking_losses(
            self._config,
            negatives_only(scores, candidates),
            scores[positives.rows, positives.columns],
            positives.rows,
            world=self._world,
        )
        loss = mean_by_document(losses, positives.rows, counts)
        with phase("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with phase("sparse update"):
            self.table.step(rate * self._config.learning_rate)
        return loss.item()

    def _draw_mined(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int32]:
        """Mined labels of the batch's documents, thinned to what may join a batch."""
        if not self._mined.size:
            return np.empty(0, np.int32)
        mined = self._mined[rows].ravel()
        mined = mined[mined != NO_LABEL]
        share = self._config.mined_per_batch / max(len(mined), 1)
        return np.asarray(mined[rng.random(len(mined)) < share])

    def classifiers(self) -> Tensor:
        """Unit classifiers [M, D] of the labels in use, of those that belong to this rank."""
        return nn.functional.normalize(self.table.weight, dim=1)

    def validate(self) -> dict[str, float]:
        """Metrics of the classifiers alone; a label without one stands with its label vector."""
        in_use = np.zeros(len(self._labels), bool)
        in_use[self._used] = True
        numbers = np.where(in_use, np.cumsum(in_use), np.cumsum(~in_use)) - 1
        rows = np.flatnonzero(numbers % self._world.size == self._world.rank)
        blocks = self._label_blocks(rows, in_use)
        return self._validation.of_vectors(self._held_out, blocks, rows)

    def _label_blocks(
        self, labels: NDArray[np.int64], in_use: NDArray[np.bool_]
    ) -> Iterator[Tensor]:
        """For each of this rank's labels its classifier or else its label vector, in blocks."""
        first = 0
        for start in range(0, len(labels), KEYS):
            rows = labels[start : start + KEYS]
            vectors = torch.from_numpy(self._labels.take(rows))
            places = torch.from_numpy(np.flatnonzero(in_use[rows]))
            trained = self.table.weight[first : first + len(places)]
            vectors[places] = nn.functional.normalize(trained, dim=1)
            first += len(places)
            yield vectors

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """The classifiers; with ``training`` also moments and mined negatives."""
        if not training:
            return {"classifier.weight": self.table.weight}
        return self.table.tensors("classifier") | {"mined": torch.from_numpy(self._mined)}

    def dealt(self) -> dict[str, Dealt]:
        """All classifiers, with their state."""
        return dict.fromkeys(self.table.tensors("classifier"), Dealt(0, len(self._used)))

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        if training:
            self.table.restore("classifier", tensors)
            self._mined = tensors["mined"].numpy()
        else:
            self.table.weight.copy_(tensors["classifier.weight"])

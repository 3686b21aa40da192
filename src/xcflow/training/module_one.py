"""Module I: the shared encoder and the auxiliary vectors, trained on clustered batches.

A document brings one of its labels, drawn uniformly; the labels of the other documents of the
batch are its negatives, except those that are known to be true for it or are the document itself.

Several ranks encode the documents and candidate labels dealt to them and give each other the
labels' vectors: each scores its documents against all candidates of the batch. Dense gradients are
added up; row tables are shared by columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xcflow.config import ModuleOneConfig
from xcflow.distributed.collectives import Dealt, dealt_rows, order_of_first, sum_gradients
from xcflow.distributed.world import ALONE, World
from xcflow.encoders.base import Encoder
from xcflow.encoders.parts import parts_of, unit_parts
from xcflow.labels.auxiliary import AuxiliaryVectors
from xcflow.negatives.batches import Curriculum, DocumentMemory, document_order
from xcflow.negatives.candidates import Candidates
from xcflow.phases import phase
from xcflow.ragged import Ragged
from xcflow.retrieval.exact import KEYS
from xcflow.training.data import Splits
from xcflow.training.losses import negatives_only, ranking_losses
from xcflow.training.validation import Validation


class ModuleOne:
    """What the training loop needs of Module I.

    Args:
        encoder: Shared by documents and labels.
        auxiliary: Joins the label side.
        splits: Documents to learn from and to validate on.
        label_tokens: Token rows of the L label texts.
        config: Losses, rates, curriculum.
        seed: The run's seed.
        world: Ranks that train together.
    """

    def __init__(
        self,
        encoder: Encoder,
        auxiliary: AuxiliaryVectors,
        splits: Splits,
        label_tokens: Ragged,
        config: ModuleOneConfig,
        seed: int,
        world: World = ALONE,
    ) -> None:
        self._encoder = encoder
        self._auxiliary = auxiliary
        self._fit = splits.fit
        self._held_out = splits.validation
        self._label_tokens = label_tokens
        self._config = config
        self._losses = partial(ranking_losses, config, keep_zero_hinge=config.keep_zero_hinge)
        self._seed = seed
        self._world = world
        self._validation = Validation(splits, world)
        self._memory = DocumentMemory(
            len(splits.fit), encoder.dim, config.memory_width, seed, world
        )
        self._tables = encoder.tables() | {"auxiliary": auxiliary.table}
        for table in self._tables.values():
            table.deal_to(world)
        self._optimizer = _dense_optimizer(encoder, config)
        encoder.train()

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Clustered by what the encoder said in the epoch before, once the curriculum says so."""
        config = self._config
        curriculum = Curriculum(config.cluster_from_epoch, config.cluster_size, config.double_every)
        memory = self._memory.vectors if epoch > 0 else None
        return order_of_first(
            self._world,
            len(self._fit),
            lambda: document_order(epoch, memory, len(self._fit), curriculum, self._seed),
        )

    def step(self, rows: NDArray[np.int64], rate: float, rng: np.random.Generator) -> float:
        """One batch: encode, score, update."""
        world = self._world
        drawn = draw_one(self._fit.labels.take(rows), rng)
        own, own_drawn = rows[world.rank :: world.size], drawn[world.rank :: world.size]
        candidates = Candidates.shared(drawn, self._fit.labels.take(own), self._fit.same_item[own])
        labels_of = [candidates.labels[rank :: world.size] for rank in range(world.size)]
        if not world.alone:  # as many masks of dropout as there are texts, not the same ones twice
            torch.manual_seed(torch.initial_seed() + world.rank)
        with phase("forward"):
            texts = [
                Ragged.concatenate(
                    [self._fit.tokens(rows[rank :: world.size]), self._label_tokens.take(labels)]
                )
                for rank, labels in enumerate(labels_of)
            ]
            encoded = self._encoder.forward_dealt(texts, world)
        documents, names = torch.split(encoded, [len(own), len(labels_of[world.rank])])
        documents = unit_parts(documents, self._auxiliary.parts)
        labels = self._auxiliary.augment_dealt(names, [torch.from_numpy(x) for x in labels_of])
        labels = dealt_rows(world, labels, len(candidates.labels))
        loss = self._loss_of_parts(documents, labels, candidates, own_drawn, len(rows))
        self._optimizer.zero_grad()
        with phase("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(world, self._encoder.parameters())
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        with phase("dense update"):
            self._optimizer.step()
        with phase("sparse update"):
            self._encoder.sparse_step(rate * self._config.learning_rate)
            self._auxiliary.step(rate * self._config.auxiliary_learning_rate)
        self._memory.put(rows, documents)
        return loss.item()

    def _loss_of_parts(
        self,
        documents: Tensor,
        labels: Tensor,
        candidates: Candidates,
        drawn: NDArray[np.int64],
        batch: int,
    ) -> Tensor:
        """The mean over the encoder's parts of the loss by each part's own cosines."""
        parts = self._auxiliary.parts
        pairs = zip(parts_of(documents, parts), parts_of(labels, parts), strict=True)
        losses = [self._loss((len(parts) * d) @ z.T, candidates, drawn, batch) for d, z in pairs]
        return torch.stack(losses).mean()

    def _loss(
        self, scores: Tensor, candidates: Candidates, drawn: NDArray[np.int64], batch: int
    ) -> Tensor:
        """What this rank's documents add to the mean over the ``batch`` documents of all ranks."""
        negatives = negatives_only(scores, candidates)
        rows = torch.arange(len(drawn))
        columns = torch.from_numpy(np.searchsorted(candidates.labels, drawn))
        positives = scores[rows, columns]
        loss = self._losses(negatives, positives, rows).sum() / batch
        if self._config.two_way:
            # Each rank has negatives of the labels among its documents.
            reverse = self._losses(negatives.T, positives, columns, world=self._world)
            loss = 0.5 * (loss + reverse.sum() / batch)
        return loss

    def label_vectors(self, rows: NDArray[np.int64]) -> Iterator[Tensor]:
        """Augmented unit vectors z of some labels, block by block."""
        for start in range(0, len(rows), KEYS):
            block = rows[start : start + KEYS]
            yield augmented_labels(self._encoder, self._auxiliary, self._label_tokens, block)

    def validate(self) -> dict[str, float]:
        """Metrics of the encoder alone."""
        world, held_out = self._world, self._held_out
        self._make_whole()
        own = self._encoder.encode(held_out.tokens(world.dealt(len(held_out))))
        labels = world.dealt(len(self._label_tokens))
        return self._validation.of_vectors(
            dealt_rows(world, own, len(held_out)), self.label_vectors(labels), labels
        )

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """Encoder and auxiliary vectors; with ``training`` also moments and document memory."""
        self._make_whole()
        tensors = self._encoder.state(training=training)
        if not training:
            return tensors | {"auxiliary.weight": self._auxiliary.table.weight}
        tensors |= self._auxiliary.table.tensors("auxiliary")
        tensors["memory"] = self._memory.vectors
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": v for name, v in moments.items()}
        return tensors

    def _make_whole(self) -> None:
        for table in self._tables.values():
            table.make_whole()

    def dealt(self) -> dict[str, Dealt]:
        """First moments of the row tables."""
        return {f"{name}.first": table.dealt for name, table in self._tables.items()}

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        self._encoder.restore(tensors, training=training)
        self._auxiliary.table.weight.copy_(tensors["auxiliary.weight"])
        if not training:
            return
        self._auxiliary.table.restore("auxiliary", tensors)
        if self._world.first:
            self._memory.vectors.copy_(tensors["memory"])
        state = self._optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                moments.setdefault(int(number), {})[key] = value
        self._optimizer.load_state_dict({**state, "state": moments})


def augmented_labels(
    encoder: Encoder, auxiliary: AuxiliaryVectors, tokens: Ragged, labels: NDArray[np.int64]
) -> Tensor:
    """[N, D] unit vectors z of some label rows, without gradients.

    Args:
        encoder: Encodes their texts.
        auxiliary: Has their auxiliary vectors.
        tokens: Token rows of the L label texts.
        labels: [N] label rows.
    """
    vectors = encoder.encode(tokens.take(labels), unit=False)
    return auxiliary.augment(vectors, torch.from_numpy(labels), training=False)


def draw_one(truth: Ragged, rng: np.random.Generator) -> NDArray[np.int64]:
    """[B] one value of each row (none empty), drawn uniformly."""
    places = truth.offsets[:-1] + (rng.random(len(truth)) * truth.lengths).astype(np.int64)
    return np.asarray(truth.data[places], np.int64)


def _dense_optimizer(encoder: Encoder, config: ModuleOneConfig) -> torch.optim.AdamW:
    pretrained = {id(p) for p in encoder.pretrained_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in encoder.parameters():
        peak = (
            config.pretrained_learning_rate if id(p) in pretrained else config.dense_learning_rate
        )
        decay = config.weight_decay if p.ndim > 1 else 0.0
        groups.setdefault((peak, decay), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": members, "peak": peak, "weight_decay": decay}
            for (peak, decay), members in groups.items()
        ],
        eps=1e-6,
        fused=True,
    )

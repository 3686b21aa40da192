"""Module I: the shared encoder and the auxiliary vectors, trained on clustered batches.

A document brings one of its labels, drawn uniformly; the labels of the other documents of the
batch are its negatives, except those that are known to be true for it or are the document itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xcflow.config import ModuleOneConfig
from xcflow.encoders.base import Encoder, blocks
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
    """

    def __init__(
        self,
        encoder: Encoder,
        auxiliary: AuxiliaryVectors,
        splits: Splits,
        label_tokens: Ragged,
        config: ModuleOneConfig,
        seed: int,
    ) -> None:
        self._encoder = encoder
        self._auxiliary = auxiliary
        self._fit = splits.fit
        self._held_out = splits.validation
        self._label_tokens = label_tokens
        self._config = config
        self._losses = partial(ranking_losses, config, keep_zero_hinge=config.keep_zero_hinge)
        self._seed = seed
        self._validation = Validation(splits)
        self._memory = DocumentMemory(len(splits.fit), encoder.dim, config.memory_width, seed)
        self._optimizer = _dense_optimizer(encoder, config)
        encoder.train()

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Clustered by what the encoder said in the epoch before, once the curriculum says so."""
        config = self._config
        curriculum = Curriculum(config.cluster_from_epoch, config.cluster_size, config.double_every)
        memory = self._memory.vectors if epoch > 0 else None
        return document_order(epoch, memory, len(self._fit), curriculum, self._seed)

    def step(self, rows: NDArray[np.int64], rate: float, rng: np.random.Generator) -> float:
        """One batch: encode, score, update."""
        truth = self._fit.labels.take(rows)
        drawn = draw_one(truth, rng)
        candidates = Candidates.shared(drawn, truth, self._fit.same_item[rows])
        with phase("forward"):
            encoded = self._encoder(
                Ragged.concatenate([self._fit.tokens(rows), self._labels(candidates)])
            )
        texts, names = encoded.split([len(rows), len(candidates.labels)])
        documents = unit_parts(texts, self._auxiliary.parts)
        labels = self._auxiliary.augment(names, torch.from_numpy(candidates.labels), training=True)
        loss = self._loss_of_parts(documents, labels, candidates, drawn)
        self._optimizer.zero_grad()
        with phase("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        with phase("dense update"):
            self._optimizer.step()
        with phase("sparse update"):
            self._encoder.sparse_step(rate * self._config.learning_rate)
            self._auxiliary.step(rate * self._config.auxiliary_learning_rate)
        self._memory.put(rows, documents)
        return loss.item()

    def _labels(self, candidates: Candidates) -> Ragged:
        return self._label_tokens.take(candidates.labels)

    def _loss_of_parts(
        self,
        documents: Tensor,
        labels: Tensor,
        candidates: Candidates,
        drawn: NDArray[np.int64],
    ) -> Tensor:
        """The mean over the encoder's parts of the loss by each part's own cosines."""
        parts = self._auxiliary.parts
        pairs = zip(parts_of(documents, parts), parts_of(labels, parts), strict=True)
        losses = [self._loss((len(parts) * d) @ z.T, candidates, drawn) for d, z in pairs]
        return torch.stack(losses).mean()

    def _loss(self, scores: Tensor, candidates: Candidates, drawn: NDArray[np.int64]) -> Tensor:
        negatives = negatives_only(scores, candidates)
        rows = torch.arange(len(drawn))
        columns = torch.from_numpy(np.searchsorted(candidates.labels, drawn))
        positives = scores[rows, columns]
        loss = self._losses(negatives, positives, rows).mean()
        if self._config.two_way:
            loss = 0.5 * (loss + self._losses(negatives.T, positives, columns).mean())
        return loss

    def label_vectors(self) -> Iterator[Tensor]:
        """Augmented unit vectors z of all labels, block by block."""
        return augmented_labels(self._encoder, self._auxiliary, self._label_tokens, KEYS)

    def validate(self) -> dict[str, float]:
        """Metrics of the encoder alone."""
        documents = self._encoder.encode(self._held_out.tokens())
        return self._validation.of_vectors(documents, self.label_vectors())

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """Encoder and auxiliary vectors; with ``training`` also moments and document memory."""
        tensors = self._encoder.state(training=training)
        if not training:
            return tensors | {"auxiliary.weight": self._auxiliary.table.weight}
        tensors |= self._auxiliary.table.tensors("auxiliary")
        tensors["memory"] = self._memory.vectors
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": v for name, v in moments.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        self._encoder.restore(tensors, training=training)
        self._auxiliary.table.weight.copy_(tensors["auxiliary.weight"])
        if not training:
            return
        self._auxiliary.table.restore("auxiliary", tensors)
        self._memory.vectors.copy_(tensors["memory"])
        state = self._optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                moments.setdefault(int(number), {})[key] = value
        self._optimizer.load_state_dict({**state, "state": moments})


def augmented_labels(
    encoder: Encoder, auxiliary: AuxiliaryVectors, tokens: Ragged, rows: int
) -> Iterator[Tensor]:
    """Unit vectors z of the L label texts with their auxiliary vectors, without gradients.

    They come in blocks of ``rows`` labels, because all of them may be more than memory should hold.
    """
    for start, block in blocks(tokens, rows):
        vectors = encoder.encode(block, unit=False)
        labels = torch.arange(start, start + len(block))
        yield auxiliary.augment(vectors, labels, training=False)


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

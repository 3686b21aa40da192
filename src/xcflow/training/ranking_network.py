"""The network that weighs the voices, fitted to rank.

It minimises, on held-out documents alone, the softmax loss of each true label against the proposals
that are not true: a ranking loss over just the lists that are ranked in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.config import FusionConfig
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import FEATURES, VOICES, Fusion, moments


def fit_fusion(
    features: NDArray[np.float32],
    proposals: Ragged,
    truth: Ragged,
    gains: NDArray[np.float64],
    config: FusionConfig,
    seed: int,
) -> Fusion:
    """Choose the weights on held-out documents.

    Args:
        features: [T, F] of the proposals.
        proposals: N rows of proposed label rows.
        truth: N rows of true label rows.
        gains: [L] inverse propensity of each label; its power ``config.tail_weight`` weighs the
            loss of a true label, so that the many frequent ones do not decide alone.
        config: Width, steps, decay, and the contenders of a document that are looked at.
        seed: Decides the start and the batches.
    """
    mean, scale, varies = moments(features)
    x = torch.from_numpy((features - mean) / scale)
    generator = torch.Generator().manual_seed(seed)
    hidden = 0.3 * torch.randn(len(FEATURES), config.hidden, generator=generator)
    # What never varies here tells nothing, so it must not sway the answers where it does vary.
    hidden *= torch.from_numpy(varies)[:, None]
    # All voices count alike where nothing can be learned: no true label among the proposals.
    linear = torch.tensor([1.0] * len(VOICES) + [0.0] * (len(FEATURES) - len(VOICES)))
    weights = [hidden, torch.zeros(config.hidden), torch.zeros(config.hidden), linear]
    true = torch.from_numpy(proposals.also_in(truth))
    rows = torch.from_numpy(proposals.row_ids())
    weight = torch.from_numpy(gains[proposals.data] ** config.tail_weight).float()
    if bool(true.any()):
        kept = _contenders(x[:, : len(VOICES)].sum(1), rows, config.contenders) | true
        kept &= torch.bincount(rows[true], minlength=len(proposals))[rows] > 0
        weight /= weight[true].mean()
        lists = _Lists(x[kept], _renumbered(rows[kept]), true[kept], weight[kept])
        _minimise(weights, lists, config, np.random.default_rng(seed))
    values = [np.asarray(weight.detach().numpy()) for weight in weights]
    return Fusion(mean, scale, *values)


def _contenders(scores: Tensor, rows: Tensor, count: int) -> Tensor:
    """[T] a proposal is looked at if among the best of its document, or one in four of the rest.

    The best decide; without the others nothing would keep the hopeless ones down.
    """
    order = torch.from_numpy(np.lexsort((-scores.numpy(), rows.numpy())))
    sizes = torch.bincount(rows)
    rank = torch.arange(len(rows)) - torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
    kept = torch.zeros(len(rows), dtype=torch.bool)
    kept[order[(rank < count) | (rank % 4 == 0)]] = True
    return kept


def _renumbered(rows: Tensor) -> Tensor:
    """Rising document numbers without gaps."""
    numbers: Tensor = torch.unique_consecutive(rows, return_inverse=True)[1]
    return numbers


class _Lists(NamedTuple):
    """Proposals of documents, one after the other, that each have a true one.

    Attributes:
        x: [T, F] features.
        rows: [T] number of the document, rising from 0 without gaps.
        true: [T] whether the label is right.
        weight: [T] weight of the loss, were the label right.
    """

    x: Tensor
    rows: Tensor
    true: Tensor
    weight: Tensor

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[_Lists]:
        """Batches of ``size`` documents, without end: all are drawn before one comes again."""
        parts = torch.split(torch.arange(len(self.rows)), torch.bincount(self.rows).tolist())
        while True:
            order = rng.permutation(len(parts))
            for start in range(0, len(order), size):
                chosen = torch.cat([parts[i] for i in order[start : start + size]])
                x, rows, true, weight = (part[chosen] for part in self)
                yield _Lists(x, _renumbered(rows), true, weight)


def _minimise(
    weights: list[Tensor], lists: _Lists, config: FusionConfig, rng: np.random.Generator
) -> None:
    """Adam with decay and a falling rate, over batches of documents."""
    hidden, bias, out, linear = (weight.requires_grad_() for weight in weights)
    optimizer = torch.optim.AdamW(weights, lr=config.rate, weight_decay=config.decay)
    batches = lists.batches(config.batch_documents, rng)
    for step, batch in zip(range(config.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1.0 - step / config.steps)
        scores = torch.tanh(batch.x @ hidden + bias) @ out + batch.x @ linear
        loss = _list_loss(scores, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _list_loss(scores: Tensor, lists: _Lists) -> Tensor:
    """Softmax loss of each true proposal against its document's false ones, a mean by document."""
    _, rows, true, weight = lists
    documents = int(rows[-1]) + 1
    top = torch.full((documents,), -1e9).scatter_reduce(0, rows, scores.detach(), "amax")
    shares = torch.exp(scores - top[rows]) * ~true
    against = torch.log(torch.zeros(documents).index_add(0, rows, shares) + 1e-9) + top
    counts = torch.bincount(rows[true], minlength=documents)
    losses = torch.nn.functional.softplus(against[rows[true]] - scores[true]) * weight[true]
    return (losses / counts[rows[true]]).sum() / documents

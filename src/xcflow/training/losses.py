"""Losses on a block of scores between documents and candidate labels.

A block is [B, U] cosines; which of its entries are known positives comes as sparse index pairs,
never as dense targets. Where several ranks hold some of the candidates each, a loss needs of the
others' negatives no more than what it makes of them: one number for each document, or the hardest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xcflow.config import ModuleOneConfig, ModuleTwoConfig
from xcflow.distributed.collectives import stacked
from xcflow.distributed.world import ALONE, World
from xcflow.negatives.candidates import Candidates

_NEVER = -1e4  # finite, so that a row without any negative gives no NaN


def negatives_only(scores: Tensor, candidates: Candidates) -> Tensor:
    """A copy of a [B, U] block in which known pairs can not be taken for negatives."""
    known = (candidates.positives, candidates.ignored)
    rows = torch.cat([pairs.rows for pairs in known])
    columns = torch.cat([pairs.columns for pairs in known])
    return scores.index_put((rows, columns), scores.new_tensor(_NEVER))


def hardest_triplet(
    negatives: Tensor,
    positives: Tensor,
    rows: Tensor,
    *,
    hardest: int,
    margin: float,
    temperature: float,
    keep_zero_hinge: bool = False,
    world: World = ALONE,
) -> Tensor:
    """Margin loss of each positive against the hardest negatives of its document.

    h_n = max(0, s_n - s_p + margin) over the ``hardest`` highest s_n;
    w = softmax(s_n / temperature); loss = sum_n w_n h_n (NGAME, WSDM 2023; DEXA, KDD 2023). The
    gradient flows through w. Negatives with h = 0 take no part in the softmax (DEXA), or keep the
    mass e^0 (NGAME's code).

    Args:
        negatives: [B, U] scores with known positives masked (``negatives_only``).
        positives: [P] scores of the positives.
        rows: [P] the document of each positive.
        hardest: Negatives that take part, at most; fewer where fewer candidates are.
        margin: g.
        temperature: tau.
        keep_zero_hinge: NGAME's variant.
        world: Ranks that hold other candidates of the same documents.

    Returns:
        [P] loss of each positive.
    """
    top = _hardest(negatives, hardest, world)[rows]
    hinge = (top - positives[:, None] + margin).clamp_min(0.0)
    active = hinge > 0
    idle = 0.0 if keep_zero_hinge else _NEVER
    logits = torch.where(active, top / temperature, torch.full_like(top, idle))
    return (torch.softmax(logits, 1) * hinge).sum(1)


def _hardest(negatives: Tensor, count: int, world: World) -> Tensor:
    """[B, h] the highest scores of each document among the negatives of all ranks."""
    top = negatives.topk(min(count, negatives.shape[1]), dim=1).values
    if world.alone:
        return top
    lacking = top.new_full((len(top), count - top.shape[1]), -torch.inf)
    every = stacked(world, torch.cat([top, lacking], 1)).transpose(0, 1).flatten(1)
    top = every.topk(count, dim=1).values
    return top[:, : int(top[:1].isfinite().sum())]  # all documents have as many candidates


def decoupled_softmax(
    negatives: Tensor,
    positives: Tensor,
    rows: Tensor,
    *,
    temperature: float,
    world: World = ALONE,
) -> Tensor:
    """Softmax loss of each positive against all negatives of its document.

    -log(e^{s_p / tau} / (e^{s_p / tau} + sum_n e^{s_n / tau})): other positives of the document do
    not compete (DEXML, ICLR 2024).

    Args:
        negatives: [B, U] scores with known positives masked.
        positives: [P] scores of the positives.
        rows: [P] the document of each positive.
        temperature: tau.
        world: Ranks that hold other candidates of the same documents.

    Returns:
        [P] loss of each positive.
    """
    against = torch.logsumexp(negatives / temperature, 1)
    if not world.alone:
        against = torch.logsumexp(stacked(world, against), 0)
    return torch.nn.functional.softplus(against[rows] - positives / temperature)


def ranking_losses(
    config: ModuleOneConfig | ModuleTwoConfig,
    negatives: Tensor,
    positives: Tensor,
    rows: Tensor,
    *,
    keep_zero_hinge: bool = False,
    world: World = ALONE,
) -> Tensor:
    """[P] loss of each positive, by the loss that a module's configuration names."""
    if config.loss == "softmax":
        return decoupled_softmax(
            negatives, positives, rows, temperature=config.temperature, world=world
        )
    return hardest_triplet(
        negatives,
        positives,
        rows,
        hardest=config.hardest,
        margin=config.margin,
        temperature=config.temperature,
        keep_zero_hinge=keep_zero_hinge,
        world=world,
    )


def mean_by_document(losses: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    """Mean over documents of the mean over a document's positives: each document weighs one.

    Args:
        losses: [P] loss of each positive, or of those that this rank holds.
        rows: [P] the document of each.
        counts: [B] positives of each document, on all ranks.
    """
    return (losses / counts[rows]).sum() / len(counts)

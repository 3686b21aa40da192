"""Losses on a block of scores between documents and candidate labels.

A block is [B, U] cosines; which of its entries are known positives comes as sparse index pairs,
never as dense targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xcflow.config import ModuleOneConfig, ModuleTwoConfig
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

    Returns:
        [P] loss of each positive.
    """
    top = negatives.topk(min(hardest, negatives.shape[1]), dim=1).values[rows]
    hinge = (top - positives[:, None] + margin).clamp_min(0.0)
    active = hinge > 0
    idle = 0.0 if keep_zero_hinge else _NEVER
    logits = torch.where(active, top / temperature, torch.full_like(top, idle))
    return (torch.softmax(logits, 1) * hinge).sum(1)


def decoupled_softmax(
    negatives: Tensor, positives: Tensor, rows: Tensor, *, temperature: float
) -> Tensor:
    """Softmax loss of each positive against all negatives of its document.

    -log(e^{s_p / tau} / (e^{s_p / tau} + sum_n e^{s_n / tau})): other positives of the document do
    not compete (DEXML, ICLR 2024).

    Args:
        negatives: [B, U] scores with known positives masked.
        positives: [P] scores of the positives.
        rows: [P] the document of each positive.
        temperature: tau.

    Returns:
        [P] loss of each positive.
    """
    against = torch.logsumexp(negatives / temperature, 1)[rows]
    return torch.nn.functional.softplus(against - positives / temperature)


def ranking_losses(
    config: ModuleOneConfig | ModuleTwoConfig,
    negatives: Tensor,
    positives: Tensor,
    rows: Tensor,
    *,
    keep_zero_hinge: bool = False,
) -> Tensor:
    """[P] loss of each positive, by the loss that a module's configuration names."""
    if config.loss == "softmax":
        return decoupled_softmax(negatives, positives, rows, temperature=config.temperature)
    return hardest_triplet(
        negatives,
        positives,
        rows,
        hardest=config.hardest,
        margin=config.margin,
        temperature=config.temperature,
        keep_zero_hinge=keep_zero_hinge,
    )


def mean_by_document(losses: Tensor, rows: Tensor, documents: int) -> Tensor:
    """Mean over documents of the mean over a document's positives: each document weighs one."""
    counts = torch.bincount(rows, minlength=documents).clamp_min(1)
    return (losses / counts[rows]).sum() / documents

"""Losses against loops over their definition, values and gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xcflow.negatives.candidates import Candidates, Pairs
from xcflow.ragged import Ragged
from xcflow.training.losses import (
    decoupled_softmax,
    hardest_triplet,
    mean_by_document,
    negatives_only,
)


class Case:
    """A random [B, U] block of scores with its truth."""

    def __init__(self, documents: int, labels: int, seed: int, *, all_known: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.same_item = rng.integers(-1, labels, documents)
        share = 1.0 if all_known else 0.3
        known = rng.random((documents, labels)) < share
        known[np.arange(documents), rng.integers(0, labels, documents)] = True
        self.truth = [np.flatnonzero(row).tolist() for row in known]
        self.candidates = Candidates.shared(
            np.arange(labels), Ragged.from_rows(self.truth), self.same_item
        )
        scores = torch.from_numpy(rng.uniform(-1, 1, (documents, labels)))
        self.scores = scores.requires_grad_()

    def negatives(self, document: int) -> list[int]:
        known = {*self.truth[document], int(self.same_item[document])}
        return [label for label in range(self.scores.shape[1]) if label not in known]

    def pairs(self) -> Pairs:
        return self.candidates.positives

    def losses(self, function, **settings: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
        pairs = self.pairs()
        block = negatives_only(self.scores, self.candidates)
        return function(block, self.scores[pairs.rows, pairs.columns], pairs.rows, **settings)


cases = st.builds(Case, st.integers(1, 5), st.integers(1, 9), st.integers(0, 10_000))


def slow_triplet(
    case: Case, hardest: int, margin: float, temperature: float, keep_zero_hinge: bool
) -> list[torch.Tensor]:
    losses = []
    for i, j in zip(case.pairs().rows.tolist(), case.pairs().columns.tolist(), strict=True):
        row = case.scores[i]
        top = sorted((row[n] for n in case.negatives(i)), key=torch.Tensor.item)[-hardest:]
        hinges = [torch.relu(s - row[j] + margin) for s in top]
        masses = [
            torch.exp(s / temperature)
            if h > 0
            else torch.tensor(1.0 if keep_zero_hinge else 0.0, dtype=row.dtype)
            for s, h in zip(top, hinges, strict=True)
        ]
        # NGAME's code gives mass to whatever fills the places that no negative takes.
        idle = min(hardest, len(row)) - len(top) if keep_zero_hinge else 0
        total = sum(masses, torch.tensor(idle + 1e-300, dtype=row.dtype))
        weighted = [m / total * h for m, h in zip(masses, hinges, strict=True)]
        losses.append(sum(weighted, torch.zeros((), dtype=row.dtype)))
    return losses


@given(case=cases, hardest=st.integers(1, 12), keep_zero_hinge=st.booleans())
def test_hardest_triplet(case: Case, hardest: int, keep_zero_hinge: bool):
    found = case.losses(
        hardest_triplet,
        hardest=hardest,
        margin=0.3,
        temperature=0.1,
        keep_zero_hinge=keep_zero_hinge,
    )
    expected = torch.stack(slow_triplet(case, hardest, 0.3, 0.1, keep_zero_hinge))
    torch.testing.assert_close(found, expected)
    same_gradient(found, expected, case.scores)


@given(case=cases)
def test_decoupled_softmax(case: Case):
    found = case.losses(decoupled_softmax, temperature=0.2)
    expected = []
    for i, j in zip(case.pairs().rows.tolist(), case.pairs().columns.tolist(), strict=True):
        against = sum(
            (torch.exp(case.scores[i, n] / 0.2) for n in case.negatives(i)),
            torch.zeros((), dtype=torch.float64),
        )
        own = torch.exp(case.scores[i, j] / 0.2)
        expected.append(-torch.log(own / (own + against)))
    torch.testing.assert_close(found, torch.stack(expected))
    same_gradient(found, torch.stack(expected), case.scores)


def same_gradient(found: torch.Tensor, expected: torch.Tensor, scores: torch.Tensor) -> None:
    weights = torch.arange(1.0, len(found) + 1, dtype=scores.dtype)
    gradients = [
        torch.autograd.grad((loss * weights).sum() + 0.0 * scores.sum(), scores)[0]
        for loss in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_without_any_negative_there_is_no_loss(dtype: torch.dtype, temperature: float):
    case = Case(3, 4, 0, all_known=True)
    case.scores = case.scores.detach().to(dtype).requires_grad_()
    for losses in (
        case.losses(hardest_triplet, hardest=2, margin=0.3, temperature=temperature),
        case.losses(decoupled_softmax, temperature=temperature),
    ):
        assert losses.tolist() == [0.0] * 12
        (gradient,) = torch.autograd.grad(losses.sum(), case.scores)
        assert not gradient.any()


def test_the_mass_of_negatives_beyond_the_margin():
    negatives = torch.tensor([[0.8, -0.9]])
    positives, rows = torch.tensor([0.6]), torch.tensor([0])
    settings = {"hardest": 2, "margin": 0.3, "temperature": 0.1}
    # Only 0.8 is within the margin of 0.6, with a hinge of 0.5.
    dexa = hardest_triplet(negatives, positives, rows, **settings)
    assert float(dexa) == pytest.approx(0.5)
    ngame = hardest_triplet(negatives, positives, rows, **settings, keep_zero_hinge=True)
    assert float(ngame) == pytest.approx(0.5 * math.exp(8) / (math.exp(8) + 1))


def test_masking_leaves_the_scores_alone():
    case = Case(4, 6, 2)
    before = case.scores.detach().clone()
    masked = negatives_only(case.scores, case.candidates)
    assert torch.equal(case.scores.detach(), before)
    for i in range(4):
        unmasked = set(torch.nonzero(masked[i] == before[i]).ravel().tolist())
        assert unmasked == set(case.negatives(i))


@given(st.lists(st.lists(st.floats(0, 9), max_size=4), min_size=1, max_size=5))
def test_each_document_weighs_the_same(losses: list[list[float]]):
    rows = torch.tensor([i for i, row in enumerate(losses) for _ in row], dtype=torch.int64)
    flat = torch.tensor([x for row in losses for x in row], dtype=torch.float64)
    expected = np.mean([np.mean(row) if row else 0.0 for row in losses])
    counts = torch.bincount(rows, minlength=len(losses))
    assert float(mean_by_document(flat, rows, counts)) == pytest.approx(expected)


def test_one_label_pulls_as_hard_as_many():
    losses = torch.ones(5, requires_grad=True)
    rows = torch.tensor([0, 1, 1, 1, 1])
    mean_by_document(losses, rows, torch.bincount(rows)).backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.5, 0.125, 0.125, 0.125, 0.125]

"""One score from four voices: encoder, classifiers, neighbouring documents, words of label texts.

Each voice proposes labels and every proposal is scored by all. A small network on a few
features of a proposal ranks them: how much a voice is to be trusted depends on how often its label
was seen, which no fixed weights express. It minimises, on the validation split alone, the softmax
loss of each true label against the proposals that are not true: a ranking loss over just the lists
that are ranked in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.config import FusionConfig
from xcflow.errors import ArtifactError
from xcflow.ragged import Ragged

VOICES = ("encoder", "classifier", "vote", "words")
FEATURES = (*VOICES, "sqrt_vote", "log_count", "nearest")


@dataclass(frozen=True, eq=False)
class Proposals:
    """Proposed labels of N documents with the scores of each voice.

    Attributes:
        labels: N rows of label rows, rising.
        encoder: [T] cosine of document and augmented label vector.
        classifier: [T] cosine of document and classifier; the encoder's where there is none.
        vote: [T] the neighbours' vote, 0 where no neighbour carries the label.
        words: [T] cosine of the TF-IDF vectors of the document and the label text.
        nearest: [T] cosine of the document's nearest neighbour: votes from afar tell less.
    """

    labels: Ragged
    encoder: NDArray[np.float32]
    classifier: NDArray[np.float32]
    vote: NDArray[np.float32]
    words: NDArray[np.float32]
    nearest: NDArray[np.float32]

    def features(self, counts: NDArray[np.int64]) -> NDArray[np.float32]:
        """[T, F] in the order of ``FEATURES``.

        A cold label counts as one that was seen once. Told apart, it would be ranked by how often
        validation documents have cold labels, and they hardly can; the next catalogue may be full
        of them.

        Args:
            counts: [L] documents of each label that the classifiers learned from.
        """
        seen = counts[self.labels.data]
        columns = (
            self.encoder,
            self.classifier,
            self.vote,
            self.words,
            np.sqrt(self.vote),
            np.log1p(np.maximum(seen, 1)),
            self.nearest,
        )
        return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


@dataclass(frozen=True, eq=False)
class Fusion:
    """score = w . tanh(A x + b) + v . x of standardised features x.

    Only the order of a document's labels means something.

    Attributes:
        mean: [F] feature means on the validation split.
        scale: [F] feature deviations.
        hidden: [F, H] the matrix A, transposed.
        bias: [H] b.
        out: [H] w.
        linear: [F] v.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    hidden: NDArray[np.float32]
    bias: NDArray[np.float32]
    out: NDArray[np.float32]
    linear: NDArray[np.float32]

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """[T] fused scores of [T, F] features."""
        x = (features - self.mean) / self.scale
        bent = np.tanh(x @ self.hidden + self.bias) @ self.out
        return np.asarray(bent + x @ self.linear, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        values = {name: np.asarray(value).tolist() for name, value in self.__dict__.items()}
        return {"features": list(FEATURES), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises:
            ArtifactError: It weighs other features than this version computes.
        """
        weighed = values["features"]
        if weighed != list(FEATURES):
            raise ArtifactError(
                f"the model's fusion weighs {', '.join(weighed)}, this version of xcflow has "
                f"{', '.join(FEATURES)}: build the model again"
            )
        return cls(
            **{k: np.asarray(v, np.float32) for k, v in values.items() if k != "features"},
        )


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
    mean, scale, varies = _moments(features)
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


def fixed_fusion(features: NDArray[np.float32]) -> dict[str, Fusion]:
    """Fusions that need no fitting: all voices alike, and each voice alone.

    Args:
        features: [T, F] of proposals, for the scale of each voice.
    """
    mean, scale, _ = _moments(features)
    mixtures = {"equal": (1.0,) * len(VOICES)}
    mixtures |= {name: tuple(float(name == voice) for voice in VOICES) for name in VOICES}
    nothing = np.zeros(1, np.float32)
    hidden = np.zeros((len(FEATURES), 1), np.float32)
    rest = (0.0,) * (len(FEATURES) - len(VOICES))
    return {
        name: Fusion(mean, scale, hidden, nothing, nothing, np.array(mixture + rest, np.float32))
        for name, mixture in mixtures.items()
    }


def _moments(
    features: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Mean and deviation of each feature, and whether it varies; 1 stands for no deviation."""
    nothing = np.zeros(len(FEATURES), np.float32)
    mean = features.mean(0) if len(features) else nothing
    spread = features.std(0) if len(features) else nothing
    varies = spread > 1e-5
    return mean, np.where(varies, spread, np.float32(1.0)), varies


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

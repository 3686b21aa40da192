"""One score from four voices: encoder, classifiers, neighbouring documents, words of label texts.

Each voice proposes labels and every proposal is scored by all. A small network on a few
features of a proposal ranks them: how much a voice is to be trusted depends on how often its label
was seen, which no fixed weights express. ``xcflow.training.fusing`` fits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

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
        columns = (
            self.encoder,
            self.classifier,
            self.vote,
            self.words,
            np.sqrt(self.vote),
            np.log1p(np.maximum(counts[self.labels.data], 1)),
            self.nearest,
        )
        features = np.empty((len(self.labels.data), len(columns)), np.float32)
        for place, column in enumerate(columns):
            features[:, place] = column
        return features


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


def fixed_fusion(features: NDArray[np.float32]) -> dict[str, Fusion]:
    """Fusions that need no fitting: all voices alike, and each voice alone.

    Args:
        features: [T, F] of proposals, for the scale of each voice.
    """
    mean, scale, _ = moments(features)
    mixtures = {"equal": (1.0,) * len(VOICES)}
    mixtures |= {name: tuple(float(name == voice) for voice in VOICES) for name in VOICES}
    nothing = np.zeros(1, np.float32)
    hidden = np.zeros((len(FEATURES), 1), np.float32)
    rest = (0.0,) * (len(FEATURES) - len(VOICES))
    return {
        name: Fusion(mean, scale, hidden, nothing, nothing, np.array(mixture + rest, np.float32))
        for name, mixture in mixtures.items()
    }


def moments(
    features: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Mean and deviation of each feature, and whether it varies; 1 stands for no deviation."""
    nothing = np.zeros(len(FEATURES), np.float32)
    mean = features.mean(0) if len(features) else nothing
    spread = features.std(0) if len(features) else nothing
    varies = spread > 1e-5
    return mean, np.where(varies, spread, np.float32(1.0)), varies

"""A transformer and a bag of embeddings side by side: meaning in context, and the words themselves.

What a transformer blurs, rare names above all, a bag of embeddings holds in a vector of its own;
what depends on the neighbouring words only the transformer sees. Both are trained on the same
batches, each by a loss of its own: by one loss of their mean they lean on each other, and what one
gets wrong the other learns to outweigh on the training documents alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xcflow.encoders.bag import BagOfEmbeddings
from xcflow.encoders.base import Encoder
from xcflow.encoders.parts import unit_parts
from xcflow.encoders.transformer import Transformer
from xcflow.ragged import Ragged


class TransformerWithBag(Encoder):
    """E(text) = [unit(T(text)), unit(B(text))] / sqrt(2): the cosine is the mean of both cosines.

    Args:
        transformer: T.
        bag: B.
    """

    KIND = "transformer_with_bag"

    def __init__(self, transformer: Transformer, bag: BagOfEmbeddings) -> None:
        super().__init__()
        self.transformer = transformer
        self.bag = bag
        self.dim = transformer.dim + bag.dim

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors [B, D] of a batch."""
        both = torch.cat([self.transformer(tokens), self.bag(tokens)], dim=1)
        return unit_parts(both, self.parts)

    @property
    def parts(self) -> tuple[int, ...]:
        """The transformer's and the bag's."""
        return (self.transformer.dim, self.bag.dim)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of the transformer."""
        return self.transformer.pretrained_parameters()

    def sparse_step(self, rate: float) -> None:
        """Update the bag's token rows."""
        self.bag.sparse_step(rate)

    def settings(self) -> dict[str, Any]:
        """The kind and the transformer's settings; the bag is all in the tensors."""
        return {"kind": self.KIND, "transformer": self.transformer.settings()}

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """The tensors of both."""
        return self.transformer.state(training=training) | self.bag.state(training=training)

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        self.transformer.restore(tensors, training=training)
        self.bag.restore(tensors, training=training)

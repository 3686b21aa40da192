"""Bag of embeddings: the sum of a text's token vectors, then one residual block.

The token table starts from a pre-trained transformer's input embeddings, so it needs no corpus of
its own; a word that the transformer lacks starts at the sum of its pieces. Rare tokens start
longer than frequent ones (a power of the inverse document frequency): in a plain sum the common
words of a catalogue would drown the telling ones. Phrases have rows behind those of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from xcflow.config import EncoderConfig
from xcflow.distributed.world import ALONE, World
from xcflow.encoders.base import Encoder, token_rows
from xcflow.encoders.dropout import Dropout
from xcflow.encoders.files import BAG
from xcflow.encoders.phrases import Phrases
from xcflow.encoders.vocabulary import pieces_of_new_words, pretrained_tokenizer
from xcflow.errors import ConfigError
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged
from xcflow.row_table import RowTable

IDF_POWER = 0.5


class BagOfEmbeddings(Encoder):
    """E(text) = dropout(v + W relu(v) + b), v = sum of rows / sqrt(number of tokens).

    Args:
        table: [V + P, D] rows of tokens and phrases.
        dropout: Dropout on the block's result, in training.
        phrases: P phrases.
    """

    KIND = BAG

    def __init__(self, table: Tensor, dropout: float, phrases: Phrases | None = None) -> None:
        super().__init__()
        self.phrases = phrases or Phrases.none()
        self.dim = table.shape[1]
        self.table = RowTable(table)
        self.residual = nn.Linear(self.dim, self.dim)
        self.dropout = Dropout(dropout)
        with torch.no_grad():
            # Close to the identity at the start: what the pre-trained table knows is kept.
            self.residual.weight.copy_(0.1 * torch.eye(self.dim))
            self.residual.bias.zero_()

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors [B, D] of a batch; in training the rows of the table collect gradients."""
        if self.training:
            return self.forward_dealt([tokens], ALONE)
        ids, starts = token_rows(self.phrases.added_to(tokens))
        sums = nn.functional.embedding_bag(ids, self.table.weight, starts, mode="sum")
        return self._of_sums(sums, tokens)

    def forward_dealt(self, texts: Sequence[Ragged], world: World) -> Tensor:
        """Vectors of this rank's texts; the rows of the table collect gradients."""
        units = self.phrases.added_to(Ragged.concatenate(texts))
        occurrences = _Occurrences.of(units)
        sums = _sum_rows(self.table.gather(occurrences.tokens), occurrences)
        own = self.table.own_rows(sums, [len(each) for each in texts])
        return self._of_sums(own, texts[world.rank])

    def _of_sums(self, sums: Tensor, tokens: Ragged) -> Tensor:
        lengths = torch.from_numpy(tokens.lengths).clamp_min(1).float()
        vectors = sums * lengths.rsqrt()[:, None]
        out: Tensor = self.dropout(vectors + self.residual(torch.relu(vectors)))
        return out

    def tables(self) -> dict[str, RowTable]:
        """The one of tokens and phrases."""
        return {"encoder.table": self.table}

    def sparse_step(self, rate: float) -> None:
        """Update the token rows of the last batch."""
        self.table.step(rate)

    def settings(self) -> dict[str, Any]:
        """The kind; all else is in the tensors."""
        return {"kind": self.KIND}

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """Table, residual block, phrases, and with ``training`` the table's moments."""
        dense = {f"encoder.{name}": value for name, value in self.state_dict().items()}
        table = self.table.tensors("encoder.table")
        kept = table if training else {"encoder.table.weight": self.table.weight}
        phrases = {name: torch.tensor(array) for name, array in self.phrases.arrays().items()}
        return dense | kept | phrases

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        self.load_state_dict(
            {name: tensors[f"encoder.{name}"] for name in self.state_dict()},
        )
        if training:
            self.table.restore("encoder.table", tensors)
        else:
            self.table.weight.copy_(tensors["encoder.table.weight"])


@dataclass(frozen=True)
class _Occurrences:
    """Which token stands in which text, by texts and by tokens.

    Attributes:
        tokens: [U] distinct tokens, rising.
        token_of: [T] position in ``tokens`` of each occurrence, text by text.
        text_starts: [B] where each text begins in ``token_of``.
        text_of: [T] the text of each occurrence, token by token.
        token_starts: [U] where each token begins in ``text_of``.
    """

    tokens: Tensor
    token_of: Tensor
    text_starts: Tensor
    text_of: Tensor
    token_starts: Tensor

    @classmethod
    def of(cls, texts: Ragged) -> _Occurrences:
        by_token = np.argsort(texts.data, kind="stable")  # a radix sort where ids have 16 bits
        rising = texts.data[by_token]
        first = np.concatenate([np.ones(min(len(rising), 1), bool), rising[1:] != rising[:-1]])
        token_of = np.empty(len(rising), np.int64)
        token_of[by_token] = np.cumsum(first) - 1
        starts = np.flatnonzero(first)
        arrays = (
            rising[starts].astype(np.int64),
            token_of,
            texts.offsets[:-1].copy(),
            texts.row_ids()[by_token],
            starts,
        )
        return cls(*map(torch.from_numpy, arrays))


def _sum_rows(table: Tensor, occurrences: _Occurrences) -> Tensor:
    """Sums [B, D] by text of the rows of a [U, D] table."""
    sums: Tensor = _SumRows.apply(table, occurrences)  # type: ignore[no-untyped-call]
    return sums


class _SumRows(torch.autograd.Function):
    """Sums of table rows by text. The backward pass is the same kernel on the transposed index.

    PyTorch's own backward of ``embedding_bag`` accumulates row by row; summing by token in one
    bag each runs at memory speed and needs no atomic additions.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, occurrences: _Occurrences) -> Tensor:
        ctx.occurrences = occurrences
        return nn.functional.embedding_bag(
            occurrences.token_of, table, occurrences.text_starts, mode="sum"
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        occurrences = ctx.occurrences
        sums = nn.functional.embedding_bag(
            occurrences.text_of, gradient.contiguous(), occurrences.token_starts, mode="sum"
        )
        return sums, None


def initial_table(
    config: EncoderConfig, tokenizer_file: Path, document_frequency: NDArray[np.int64], texts: int
) -> Tensor:
    """The token table before training.

    Args:
        config: Which pre-trained model it starts from.
        tokenizer_file: The data set's tokenizer; its first ids are the pre-trained ones.
        document_frequency: [V] number of texts that each token stands in.
        texts: Number of texts.

    Returns:
        [V, D] float32, rows centred on the pre-trained mean and scaled by idf to a mean norm of 1.
    """
    folder = model_folder(config.model)
    before = pretrained_tokenizer(folder)
    # Some models round the number of rows up; the spare ones mean nothing.
    pretrained = _input_embeddings(folder)[: before.get_vocab_size()]
    table = pretrained - pretrained.mean(0)
    after = Tokenizer.from_file(str(tokenizer_file))
    idf = np.log((texts + 1.0) / (document_frequency + 1.0)) + 1e-3
    scale = torch.from_numpy(idf**IDF_POWER).float()
    usual = scale[len(table) :] * table.norm(dim=1).mean()
    table = table * scale[: len(table), None]
    table = torch.cat([table, _new_rows(pieces_of_new_words(before, after), table, usual)])
    scaled: Tensor = table / table.norm(dim=1).mean()
    return scaled


def _new_rows(words: list[list[int]], table: Tensor, lengths: Tensor) -> Tensor:
    """Rows [W, D] of words that join the vocabulary, by the pieces that they were read as.

    A word starts as the sum of its pieces, that is, as the text that it stands for. One that the
    pre-trained model cannot read starts somewhere at random, or all such words would be one.
    """
    generator = torch.Generator().manual_seed(0)
    rows = table.new_empty(len(words), table.shape[1])
    for row, (pieces, length) in enumerate(zip(words, lengths, strict=True)):
        noise = torch.randn(table.shape[1], generator=generator)
        rows[row] = table[pieces].sum(0) if pieces else noise * (length / noise.norm())
    return rows


def _input_embeddings(folder: Path) -> Tensor:
    """The word embeddings of a transformer's weights file."""
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        names = [n for n in weights.keys() if n.endswith("word_embeddings.weight")]  # noqa: SIM118
        if not names:
            raise ConfigError(f"{folder}/model.safetensors has no word_embeddings.weight")
        tensor: Tensor = weights.get_tensor(names[0]).float()
        return tensor

"""Encoders before training, written to a folder, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EncoderConfig
from xcflow.disk import shared
from xcflow.encoders.bag import BagOfEmbeddings, initial_table
from xcflow.encoders.base import Encoder
from xcflow.encoders.files import SETTINGS, WEIGHTS, read_settings, tensors_of_member, unreadable
from xcflow.encoders.phrases import PHRASE_ARRAYS, Phrases, word_tokens
from xcflow.encoders.side_by_side import SideBySide
from xcflow.encoders.transformer import Transformer, pretrained_transformer, transformer_of
from xcflow.errors import ArtifactError
from xcflow.ragged import Ragged

_BLOCK = 100_000


def initial_encoder(config: EncoderConfig, dataset: Dataset) -> Encoder:
    """The encoder before training: pre-trained weights, nothing learned from the catalogue.

    Args:
        config: Which encoder.
        dataset: Its tokenizer, and for a bag of embeddings how often tokens occur.
    """
    members: list[Encoder] = []
    if config.kind != BagOfEmbeddings.KIND:
        members.append(pretrained_transformer(config, dataset.tokenizer_file))
    if config.kind != Transformer.KIND:
        members += _initial_bags(config, dataset)
    return members[0] if len(members) == 1 else SideBySide(members)


def _initial_bags(config: EncoderConfig, dataset: Dataset) -> list[BagOfEmbeddings]:
    tokenizer = Tokenizer.from_file(str(dataset.tokenizer_file))
    vocabulary = tokenizer.get_vocab_size()
    frequency = np.zeros(vocabulary, np.int64)
    texts = (dataset.labels.tokens, dataset.train.tokens)
    for tokens in texts:
        frequency += _document_frequency(tokens, vocabulary)
    table = initial_table(config, dataset.tokenizer_file, frequency, sum(map(len, texts)))
    phrases = Phrases.of(
        texts, word_tokens(tokenizer), most=config.phrases, min_count=config.phrase_min_count
    )
    table = torch.cat([table, torch.zeros(len(phrases), table.shape[1])])
    return [BagOfEmbeddings(table.clone(), config.dropout, phrases) for _ in range(config.bags)]


def _document_frequency(tokens: Ragged, vocabulary: int) -> NDArray[np.int64]:
    """[V] in how many rows each token stands."""
    counts = np.zeros(vocabulary, np.int64)
    for start in range(0, len(tokens), _BLOCK):
        block = tokens.slice(start, min(start + _BLOCK, len(tokens)))
        cells = np.unique(block.row_ids() * vocabulary + block.data.astype(np.int64))
        counts += np.bincount(cells % vocabulary, minlength=vocabulary)
    return counts


def save_encoder(
    encoder: Encoder,
    folder: Path,
    extra: dict[str, Tensor] | None = None,
    *,
    half_tables: bool = False,
) -> None:
    """Write an encoder's settings and weights.

    Args:
        encoder: Any of this package's encoders.
        folder: An existing folder.
        extra: More tensors for the same file.
        half_tables: Whether tables of embeddings are kept in half precision: they are most of a
            bag, and what answers needs no more.
    """
    text = json.dumps(encoder.settings(), indent=2, sort_keys=True)
    (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")
    tensors = encoder.state(training=False) | (extra or {})
    if half_tables:
        tensors |= {n: t.half() for n, t in tensors.items() if n.endswith("table.weight")}
    with shared(folder / WEIGHTS):
        save_file({n: value.contiguous() for n, value in tensors.items()}, folder / WEIGHTS)


def load_encoder(folder: Path) -> tuple[Encoder, dict[str, Tensor]]:
    """Read what ``save_encoder`` wrote; needs neither a model hub nor the pre-trained weights.

    Returns:
        The encoder, in evaluation mode, and all tensors of the file.

    Raises:
        ArtifactError: The folder holds no encoder that this version knows.
    """
    settings = read_settings(folder)
    try:
        kept = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(folder, error) from error
    tensors = {n: t.float() if t.dtype == torch.float16 else t for n, t in kept.items()}
    encoder = _encoder_like(settings, tensors, folder)
    encoder.restore(tensors, training=False)
    return encoder.eval(), tensors


def _encoder_like(settings: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Encoder:
    """An encoder with arbitrary weights that can take the given tensors."""
    kind = settings["kind"]
    if kind == Transformer.KIND:
        return transformer_of(settings)
    if kind == BagOfEmbeddings.KIND:
        table = torch.empty_like(tensors["encoder.table.weight"])
        arrays = {n: t.numpy() for n, t in tensors.items() if n in PHRASE_ARRAYS}
        return BagOfEmbeddings(table, dropout=0.0, phrases=Phrases.restored(arrays))
    if kind == SideBySide.KIND:
        members = enumerate(settings["members"])
        return SideBySide(
            [_encoder_like(each, tensors_of_member(tensors, i), folder) for i, each in members]
        )
    raise ArtifactError(f"{folder}: unknown kind of encoder {kind!r}")

"""A pre-trained transformer with mean pooling, optionally cut to its first layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from xcflow.config import EncoderConfig
from xcflow.encoders.base import Encoder
from xcflow.encoders.dropout import Dropout
from xcflow.encoders.padding import like_lengths, padded
from xcflow.encoders.vocabulary import pieces_of_new_words, pretrained_tokenizer
from xcflow.errors import ConfigError
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged

# A batch is encoded in parts of like length: a part is padded to its own longest text, so the
# share of padding stays small however uneven the batch is. What a layer makes of a part stays in
# the processor's cache until the next operation reads it.
_TOKENS_PER_PART = 1024


class Transformer(Encoder):
    """Mean of the last hidden states over all tokens of ``[CLS] text [SEP]``.

    Args:
        model: A transformer without pooling layer.
        settings: ``architecture`` (the model's own configuration), ``cls_id`` and ``sep_id`` (the
            tokens around a text), ``bf16`` (whether products run in bfloat16; weights and results
            stay float32), ``dropout`` (on the tokens' input vectors and on the result, in
            training; none inside, where drawing the masks would cost a quarter of the time).

    Attributes:
        limit: Tokens of a text, at most, with the two around it.
    """

    KIND = "transformer"

    def __init__(self, model: nn.Module, settings: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self._settings = settings
        self.dim = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.limit = int(model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
        self._ends = (int(settings["cls_id"]), int(settings["sep_id"]))
        self._bf16 = use_bf16(settings["bf16"])
        self.dropout = Dropout(float(settings["dropout"]))

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors [B, D] of a batch."""
        if not len(tokens):  # a rank may have no text of a small batch, but gradients to add up
            return torch.empty(0, self.dim, requires_grad=self.training)
        lengths = np.minimum(tokens.lengths + 2, self.limit)
        parts = like_lengths(lengths, _TOKENS_PER_PART)
        # One context for all parts: it keeps the weights that it has converted.
        context: Any = (
            torch.autocast("cpu", torch.bfloat16) if self._bf16 else contextlib.nullcontext()
        )
        with context:
            inputs = [self._padded(tokens.take(rows)) for rows in parts]
            words = self._words([ids for ids, _ in inputs])
            pooled = [self.pool(w, mask) for w, (_, mask) in zip(words, inputs, strict=True)]
        place = torch.from_numpy(np.argsort(np.concatenate(parts)))
        vectors: Tensor = self.dropout(torch.cat(pooled).index_select(0, place))
        return vectors

    def _words(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Token vectors [B, width, E] of each part's ids [B, width]."""
        lookup = self.model.get_input_embeddings()  # type: ignore[operator]
        if not self.training:
            yield from (lookup(ids) for ids in parts)
            return
        # One lookup for the batch: each has a gradient as large as the whole table.
        vectors = lookup(torch.cat([ids.ravel() for ids in parts]))
        for ids, words in zip(parts, vectors.split([ids.numel() for ids in parts]), strict=True):
            yield words.view(*ids.shape, -1)

    def pool(self, words: Tensor, mask: Tensor) -> Tensor:
        """Vectors [B, D] of token vectors [B, T, E] where the mask [B, T] is 1."""
        hidden = self.hidden(words, mask)
        weights = mask[:, :, None].to(hidden.dtype)
        sums: Tensor = (hidden * weights).sum(1, dtype=torch.float32)
        return sums / mask.sum(1, keepdim=True)

    def hidden(self, words: Tensor, mask: Tensor) -> Tensor:
        """The last layer's vectors [B, T, D] of token vectors [B, T, E]."""
        last: Tensor = self.model(inputs_embeds=words, attention_mask=mask).last_hidden_state
        return last

    def touched_rows(self, texts: Sequence[Ragged]) -> dict[nn.Parameter, Tensor]:
        """The input embeddings of their tokens and of those around them."""
        tokens = [np.asarray(each.data, np.int64) for each in texts]
        rows = np.unique(np.concatenate([*tokens, np.array(self._ends)]))
        table: nn.Parameter = self.model.get_input_embeddings().weight  # type: ignore[operator]
        return {table: torch.from_numpy(rows)}

    def _padded(self, tokens: Ragged) -> tuple[Tensor, Tensor]:
        ids, mask = padded(tokens, self._ends, self.limit)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return list(self.model.parameters())

    def sparse_step(self, rate: float) -> None:
        """All weights belong to autograd."""

    def settings(self) -> dict[str, Any]:
        """Architecture with the number of tokens that there are now, special tokens, precision."""
        architecture = self.model.config.to_dict()  # type: ignore[union-attr, operator]
        return {**self._settings, "architecture": architecture}

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """The weights."""
        return {f"encoder.{k}": v.contiguous() for k, v in self.model.state_dict().items()}

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        names = self.model.state_dict()
        self.model.load_state_dict({name: tensors[f"encoder.{name}"] for name in names})


def pretrained_transformer(config: EncoderConfig, tokenizer_file: Path) -> Transformer:
    """A transformer with its pre-trained weights, cut to the configured layers.

    Args:
        config: Which model.
        tokenizer_file: The data set's tokenizer; its first ids are the pre-trained ones. A word
            that joined the vocabulary starts at the mean of its pieces.

    Raises:
        ConfigError: The model has fewer layers than asked for, or lacks a tensor.
    """
    from transformers import AutoConfig

    folder = model_folder(config.model)
    settings = AutoConfig.from_pretrained(str(folder))
    layers = config.layers or settings.num_hidden_layers
    if layers > settings.num_hidden_layers:
        raise ConfigError(
            f"encoder.layers is {layers}, but {config.model} has {settings.num_hidden_layers}"
        )
    settings.num_hidden_layers = layers
    before = pretrained_tokenizer(folder)
    cls_id, sep_id = before.token_to_id("[CLS]"), before.token_to_id("[SEP]")
    if cls_id is None or sep_id is None:
        raise ConfigError(f"{folder}/tokenizer.json has no [CLS] and [SEP] tokens")
    encoder = transformer_of(
        {
            "kind": Transformer.KIND,
            "architecture": settings.to_dict(),
            "cls_id": cls_id,
            "sep_id": sep_id,
            "bf16": config.bf16,
            "dropout": config.dropout,
        }
    )
    _load_weights(encoder.model, folder)
    _add_words(encoder.model, before, Tokenizer.from_file(str(tokenizer_file)))
    return encoder


def transformer_of(settings: dict[str, Any]) -> Transformer:
    """A transformer with arbitrary weights from what ``Transformer.settings`` gave."""
    from transformers import AutoConfig, AutoModel

    architecture = dict(settings["architecture"])
    known = AutoConfig.for_model(architecture.pop("model_type"), **architecture)
    for name in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(known, name):
            setattr(known, name, 0.0)
    # On texts of some twenty tokens plain products beat the fused kernel's backward pass twice.
    model = AutoModel.from_config(known, attn_implementation="eager")  # type: ignore[no-untyped-call]
    for name in [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)]:
        share = float(settings["dropout"]) if "embeddings" in name else 0.0
        model.set_submodule(name, Dropout(share))
    if hasattr(model, "pooler"):  # DistilBERT has none, and cannot be told to leave it out
        model.pooler = None
    return Transformer(model.float(), settings)


def _load_weights(model: nn.Module, folder: Path) -> None:
    wanted = model.state_dict()
    stored = load_file(folder / "model.safetensors")
    prefix = next((p for p in ("", "bert.", "distilbert.") if p + next(iter(wanted)) in stored), "")
    missing = [name for name in wanted if prefix + name not in stored]
    if missing:
        raise ConfigError(f"{folder}/model.safetensors has no tensor {prefix}{missing[0]}")
    model.load_state_dict({name: stored[prefix + name] for name in wanted})


def _add_words(model: nn.Module, before: Tokenizer, after: Tokenizer) -> None:
    """Give the words that joined the vocabulary a row each, at the mean of their pieces.

    A word that the pre-trained model cannot read starts somewhere at random among the others.
    """
    known, size = before.get_vocab_size(), after.get_vocab_size()
    if size == known:
        return
    model.resize_token_embeddings(size, mean_resizing=False)  # type: ignore[operator]
    table = model.get_input_embeddings().weight  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean, spread = table[:known].mean(0), table[:known].std(0)
        for row, ids in enumerate(pieces_of_new_words(before, after), known):
            noise = torch.randn(table.shape[1], generator=generator)
            table[row] = table[ids].mean(0) if ids else mean + spread * noise


def use_bf16(choice: str) -> bool:
    """Whether bfloat16 products pay: asked for, or the processor multiplies them natively."""
    if choice == "auto":
        capability = torch.cpu.get_capabilities()
        return bool(capability.get("amx_bf16") or capability.get("avx512_bf16"))
    return choice == "on"

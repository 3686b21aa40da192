"""A bundle's own tokenizer and encoder: texts to vectors, without torch where the bundle allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from xcflow.catalogue.string_table import StringTable
from xcflow.catalogue.text_reader import TextReader
from xcflow.encoders.frozen import FrozenEncoder, load_frozen, unit_parts
from xcflow.errors import DataError
from xcflow.progress import progress
from xcflow.ragged import Ragged
from xcflow.serving.bundle import TOKENIZER

_LABEL_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Embedder:
    """Texts to vectors as the model was trained to read them.

    Attributes:
        reader: The tokenizer.
        encoder: The encoder.
        unknown_token: Stands for a text without any token.
        max_document_tokens: Tokens read of a document.
        max_label_tokens: Tokens read of a label text.
    """

    reader: TextReader
    encoder: FrozenEncoder
    unknown_token: int
    max_document_tokens: int
    max_label_tokens: int

    @classmethod
    def load(cls, bundle: Path, settings: Mapping[str, Any]) -> Self:
        """Open that of a bundle with these settings."""
        return cls(
            TextReader(Tokenizer.from_file(str(bundle / TOKENIZER))),
            load_frozen(bundle, settings.get("precision")),
            settings["unknown_token"],
            settings["max_document_tokens"],
            settings["max_label_tokens"],
        )

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return self.encoder.dim

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [N, D] of documents.

        Raises:
            DataError: A text that is none.
        """
        return self.encoder.encode(self.tokens(texts, self.max_document_tokens))

    def labels(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [N, D] of label texts, not normalised, nothing added."""
        return self.encoder.encode(self.tokens(texts, self.max_label_tokens), unit=False)

    def plain_labels(self, texts: StringTable) -> NDArray[np.float16]:
        """Unit vectors [L, D] of bare label texts, without auxiliary vectors."""
        vectors, start = np.empty((len(texts), self.dim), np.float16), 0
        with progress("labels without auxiliary vectors", len(texts), "texts") as advance:
            for block in texts.chunks(_LABEL_BLOCK):
                plain = unit_parts(self.labels(block), self.encoder.parts)
                vectors[start : start + len(block)] = plain
                start += len(block)
                advance(len(block))
        return vectors

    def tokens(self, texts: Sequence[str], limit: int) -> Ragged:
        """Token rows of texts, none empty.

        Raises:
            DataError: A text that is none.
        """
        try:
            rows = self.reader.ids(texts)
        except (TypeError, UnicodeError) as error:
            reason = "a text to answer is no valid Unicode (half a surrogate pair), or no text"
            raise DataError(reason) from error
        return Ragged.from_rows([row[:limit] or [self.unknown_token] for row in rows])

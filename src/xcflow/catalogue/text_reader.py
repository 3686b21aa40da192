"""Texts to token ids, several times faster than the tokenizer itself for BERT's kind.

BERT's normaliser and pre-tokeniser look at one character at a time, WordPiece at one word, and a
space always parts words. So what becomes of a character, a word and of all that stands between two
spaces is asked of them once; from then on a text is read by tables. Whatever could come out
otherwise goes to the tokenizer.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

# Of words, and of passages between spaces, so many are remembered, and none that is longer: scripts
# without spaces have whole texts for passages. Both together bound memory.
_MOST = 200_000
_LONGEST = 40


class TextReader:
    """Gives the ids that a tokenizer gives, without special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        tree = json.loads(tokenizer.to_str())
        self._added = [token["content"] for token in tree["added_tokens"]]
        self._by_tables = _reads_by_tables(tree)
        self._characters = _Characters(tokenizer)
        self._passages: dict[str, list[int]] = {}
        self._pieces: dict[str, list[int]] = {}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text.

        Raises:
            TypeError: A text that is none.
            UnicodeError: Half a surrogate pair (a TypeError where the tokenizer itself reads).
        """
        if not self._by_tables:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        return [self._ids(text) for text in texts]

    def words(self, text: str) -> list[str]:
        """The words of a text, as the tokenizer's own normaliser and pre-tokeniser cut them."""
        if self._by_tables:
            try:
                return self._cut(text)
            except _DependsOnNeighboursError:
                pass
        normaliser = self._tokenizer.normalizer
        return _words(self._tokenizer, normaliser.normalize_str(text) if normaliser else text)

    def _ids(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError(f"a text is expected, this is {type(text).__name__}")
        known, ids = self._passages, []
        for passage in text.split(" "):
            ids += known[passage] if passage in known else self._read(passage)
        return ids

    def _read(self, passage: str) -> list[int]:
        ids: list[int] = []
        try:
            if any(token in passage for token in self._added):
                raise _DependsOnNeighboursError
            for word in self._cut(passage):
                ids += self._pieces[word] if word in self._pieces else self._cut_up(word)
        except _DependsOnNeighboursError:
            ids = list(self._tokenizer.encode(passage, add_special_tokens=False).ids)
        return _remembered(self._passages, passage, ids)

    def _cut(self, text: str) -> list[str]:
        return text.translate(self._characters).split()

    def _cut_up(self, word: str) -> list[int]:
        pieces = [token.id for token in self._tokenizer.model.tokenize(word)]
        return _remembered(self._pieces, word, pieces)


class _DependsOnNeighboursError(Exception):
    """What becomes of a character depends on those beside it."""


class _Characters(dict[int, str]):
    """Character -> what stands for it in the normal form, words parted by spaces."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Marks are put in order by their class. Nearly all are removed later.
        for part in unicodedata.normalize("NFD", character):
            if unicodedata.combining(part) and unicodedata.category(part) != "Mn":
                raise _DependsOnNeighboursError
        normal = self._tokenizer.normalizer.normalize_str(character)
        found = "".join(self._in_a_word(part) for part in normal)
        if any(part.isspace() and part != " " for part in found):
            raise _DependsOnNeighboursError  # a space to Python alone
        self[code] = found
        return found

    def _in_a_word(self, character: str) -> str:
        cut = _words(self._tokenizer, f"a{character}a")
        return cut[0][1:-1] if len(cut) == 1 else f" {''.join(cut[1:-1])} "


def _reads_by_tables(tree: dict[str, Any]) -> bool:
    kinds = [(tree[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    return (
        kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and tree["truncation"] is tree["padding"] is None
        # Added tokens are looked for in the raw text, unless it is to be normalised first.
        and not any(t["normalized"] or " " in t["content"] for t in tree["added_tokens"])
    )


def _remembered(table: dict[str, list[int]], key: str, ids: list[int]) -> list[int]:
    if len(table) < _MOST and len(key) <= _LONGEST:
        table[key] = ids
    return ids


def _words(tokenizer: Tokenizer, normal: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

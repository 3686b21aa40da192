"""The tokenizer: a WordPiece vocabulary, joined by words of the catalogue.

A bag of embeddings cannot compose a word from its pieces as a transformer does, so frequent words
of the catalogue become tokens of their own. WordPiece takes the longest match, hence a word that
joins the vocabulary is used without another rule, and scripts that the pre-trained vocabulary
lacks become readable. For a transformer the texts become shorter, hence training faster.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable

from tokenizers import Tokenizer

from xcflow.catalogue.text_reader import TextReader
from xcflow.config import DataConfig, EncoderConfig
from xcflow.errors import ConfigError
from xcflow.pretrained import model_folder

Texts = Callable[[], Iterable[list[str]]]


def build_tokenizer(encoder: EncoderConfig, data: DataConfig, texts: Texts) -> Tokenizer:
    """The tokenizer for an encoder and a catalogue, without truncation and padding.

    Args:
        encoder: Which pre-trained model it starts from.
        data: How many catalogue words may join.
        texts: Gives the training documents' and labels' texts in chunks; called at most once.

    Returns:
        A fast tokenizer; the ids of the pre-trained vocabulary keep their numbers and new words
        follow in order of falling frequency.
    """
    path = model_folder(encoder.model) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if data.catalogue_words > 0:
        tokenizer = _with_catalogue_words(tokenizer, data, texts())
    return tokenizer


def unknown_token(tokenizer: Tokenizer) -> int:
    """The id of the unknown token, 0 where the vocabulary has none (byte-level ones)."""
    for token in ("[UNK]", "<unk>"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    return 0


def _with_catalogue_words(
    tokenizer: Tokenizer, data: DataConfig, chunks: Iterable[list[str]]
) -> Tokenizer:
    tree = json.loads(tokenizer.to_str())
    if tree["model"]["type"] != "WordPiece":
        raise ConfigError(
            f"data.catalogue_words: the tokenizer of this encoder.model is {tree['model']['type']},"
            " only WordPiece takes new words: set data.catalogue_words = 0"
        )
    vocabulary: dict[str, int] = tree["model"]["vocab"]
    # Tokens beside the vocabulary would move behind the new words.
    vocabulary.update({token["content"]: token["id"] for token in tree["added_tokens"]})
    longest = int(tree["model"].get("max_input_chars_per_word", 100))
    reader, counts = TextReader(tokenizer), Counter[str]()
    for chunk in chunks:
        for words in map(reader.words, chunk):
            counts.update({w for w in words if w not in vocabulary and len(w) <= longest})
    frequent = [(-n, w) for w, n in counts.items() if n >= data.catalogue_word_min_count]
    following = max(vocabulary.values()) + 1
    for new_id, (_, word) in enumerate(sorted(frequent)[: data.catalogue_words], following):
        vocabulary[word] = new_id
    return Tokenizer.from_str(json.dumps(tree, ensure_ascii=False))

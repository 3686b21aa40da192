"""Words of a catalogue that joined a pre-trained model's vocabulary."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer


def pretrained_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a pre-trained model, which takes whole texts as they are."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def pieces_of_new_words(before: Tokenizer, after: Tokenizer) -> list[list[int]]:
    """What a pre-trained model read in place of each word that joined its vocabulary.

    Args:
        before: The model's own tokenizer.
        after: The data set's, whose first ids are those of the model's.

    Returns:
        The model's ids for each new word, in the order of the new ids; none for a word that the
        model cannot read.
    """
    first, size = before.get_vocab_size(), after.get_vocab_size()
    words = [str(after.id_to_token(row)) for row in range(first, size)]
    unknown = before.token_to_id("[UNK]")
    readings = before.encode_batch(words, add_special_tokens=False)
    return [[piece for piece in reading.ids if piece != unknown] for reading in readings]

"""The tokenizer that a catalogue gets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from xcflow.catalogue.tokenizer import build_tokenizer, unknown_token
from xcflow.config import DataConfig, EncoderConfig
from xcflow.errors import ConfigError


def build(
    pretrained: Path,
    chunks: Iterable[list[str]],
    words: int = 100,
    min_count: int = 1,
    kind: Literal["bag_of_embeddings", "transformer"] = "bag_of_embeddings",
) -> Tokenizer:
    encoder = EncoderConfig(kind=kind, model=str(pretrained))
    data = DataConfig(catalogue_words=words, catalogue_word_min_count=min_count)
    return build_tokenizer(encoder, data, lambda: chunks)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


def test_words_of_the_catalogue_become_tokens(pretrained: Path):
    joined = build(pretrained, [["Mailbox red", "mailbox; kernel"], ["kernel mailbox"]])
    assert tokens(joined, "MAILBOX kernel") == ["mailbox", "kernel"]
    assert tokens(joined, "mail") == ["m", "##a", "##i", "##l"]
    before = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    size = before.get_vocab_size()
    assert {joined.id_to_token(i) for i in range(size)} == set(before.get_vocab())
    assert before.get_vocab().items() <= joined.get_vocab().items()
    # In order of falling frequency: mailbox (3 texts), kernel (2), then the semicolon.
    assert [joined.id_to_token(size + i) for i in range(4)] == ["mailbox", "kernel", ";", None]


def test_a_transformer_gets_the_same_words(pretrained: Path):
    chunks = [["Mailbox red", "mailbox; kernel"]]
    joined = build(pretrained, chunks, kind="transformer")
    assert joined.to_str() == build(pretrained, chunks).to_str()


def test_a_word_counts_once_in_a_text_and_must_be_frequent_enough(pretrained: Path):
    chunks = [["abc abc abc xyz", "xyz"]]
    assert tokens(build(pretrained, chunks, min_count=2), "abc xyz") == ["a", "##b", "##c", "xyz"]


def test_only_so_many_words_join_and_ties_are_broken_by_spelling(pretrained: Path):
    joined = build(pretrained, [["cc bb aa", "cc"]], words=2)
    assert [tokens(joined, word) for word in ("aa", "bb", "cc")] == [["aa"], ["b", "##b"], ["cc"]]


def test_scripts_that_were_unknown_become_readable(pretrained: Path):
    chunks = [["机器学习", "学习 машина"]]
    assert tokens(build(pretrained, chunks, words=0), "学 машина 中") == ["[UNK]", "[UNK]", "中"]
    joined = build(pretrained, chunks)
    assert tokens(joined, "学习机器") == ["学", "习", "机", "器"]
    assert tokens(joined, "Машина") == ["машина"]


def test_the_order_of_texts_does_not_matter(pretrained: Path):
    texts = ["alpha beta", "beta gamma", "delta", "alpha"]
    one = build(pretrained, [texts]).to_str()
    assert build(pretrained, [texts[::-1][:1], texts[::-1][1:]]).to_str() == one
    assert build(pretrained, [texts]).to_str() == one


def test_it_survives_a_file(pretrained: Path, tmp_path: Path):
    joined = build(pretrained, [["naïve 学习 mailbox"]])
    joined.save(str(tmp_path / "t.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "t.json"))
    text = "naïve 学 mailbox mail"
    assert loaded.encode(text).ids == joined.encode(text).ids


def test_it_neither_cuts_nor_pads(pretrained: Path, tmp_path: Path):
    tokenizer = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((pretrained / name).read_bytes())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for words in (0, 10):
        tokenizer = build(tmp_path, [["zz"]], words=words)
        batch = tokenizer.encode_batch(["a b c d e", "a"])
        assert [len(encoding) for encoding in batch] == [5, 1]


def test_without_new_words_the_texts_are_not_read(pretrained: Path):
    def never() -> Iterable[list[str]]:
        raise AssertionError("the texts are not needed")
        yield []

    kept = build(pretrained, never(), words=0)
    before = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    assert kept.get_vocab() == before.get_vocab()


def test_a_token_that_was_added_to_the_pretrained_vocabulary_keeps_its_number(
    pretrained: Path, tmp_path: Path
):
    tokenizer = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    tokenizer.add_tokens(["<tag>"])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((pretrained / name).read_bytes())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    joined = build(tmp_path, [["mailbox"]])
    assert joined.token_to_id("<tag>") == tokenizer.token_to_id("<tag>")
    assert joined.token_to_id("mailbox") == tokenizer.token_to_id("<tag>") + 1
    assert tokens(joined, "mailbox <tag>") == ["mailbox", "<tag>"]


def test_other_kinds_of_vocabulary_cannot_grow(pretrained: Path, tmp_path: Path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((pretrained / name).read_bytes())
    Tokenizer(BPE({"a": 0, "b": 1}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"is BPE, only WordPiece takes new words: set data.cata"):
        build(tmp_path, [["ab"]])
    assert build(tmp_path, [["ab"]], words=0).get_vocab_size() == 2


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [({"a": 0, "[UNK]": 3}, 3), ({"<unk>": 0, "a": 1}, 0), ({"a": 1}, 0)],
)
def test_the_unknown_token(vocabulary: dict[str, int], expected: int):
    assert unknown_token(Tokenizer(BPE(vocabulary, []))) == expected

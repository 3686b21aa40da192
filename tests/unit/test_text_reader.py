"""Token ids by tables are those of the tokenizer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from xcflow.catalogue import text_reader
from xcflow.catalogue.text_reader import TextReader
from xcflow.encoders.vocabulary import pretrained_tokenizer
from xcflow.pretrained import model_folder

ODD = [
    "",
    "  ",
    "Mailbox-server, (web) 2.0!",
    "tab\there\r\nand\x0bthere\x00\x7f\x1c\x85\u2028\u00a0\u200b\ufeff\ufffd",
    "ÄÖÜ äöü Straße İstanbul ΑΣ ς ǅ ﬁ Å",
    "a\u0301\u0327 e\u0327\u0301 \u0301 \u0915\u094d\u0937 \u093c\u0915",
    "中文 mixed with中文，。 한국어 ภาษาไทย 日本語カタカナ",
    "[UNK] [CLS]red[SEP] [MASK [unk] [PAD]",
    "##red # # a##b ##",
    "x" * 500,
    "🙂 👩‍👩‍👧 \U0001d165\U0001d16d \u302e",
    "“quotes” – dashes … ¿que? ´`^~$€",
]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LATIN = st.text(st.sampled_from("abcABC äÖéß.,-'\t#[]019"), max_size=60)


@pytest.fixture(scope="module")
def packaged() -> Tokenizer:
    return pretrained_tokenizer(model_folder("minilm"))


def slowly(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


@given(texts=st.lists(st.one_of(ANY, LATIN, st.sampled_from(ODD)), max_size=5))
def test_any_text_is_read_as_by_the_tokenizer(packaged: Tokenizer, texts: list[str]):
    reader = TextReader(packaged)
    for _ in range(2):  # the second time from the tables
        assert reader.ids(texts) == slowly(packaged, texts)
        assert [reader.words(text) for text in texts] == [words(packaged, t) for t in texts]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lowercase": False, "strip_accents": False},
        {"clean_text": False, "handle_chinese_chars": False},
    ],
)
def test_whatever_the_normaliser_is_told(packaged: Tokenizer, options: dict, text: str):
    tree = json.loads(packaged.to_str())
    tree["normalizer"] |= options
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    assert TextReader(tokenizer).ids([text, text]) == slowly(tokenizer, [text, text])


def test_each_character_alone_and_inside_a_word(packaged: Tokenizer):
    reader = TextReader(packaged)
    characters = [chr(c) for c in range(0x3100) if not 0xD800 <= c < 0xE000]
    texts = [text for c in characters for text in (c, f"x{c}y", f"x {c}{c} y")]
    assert reader.ids(texts) == slowly(packaged, texts)


def test_tokenizers_of_other_kinds_read_for_themselves(packaged: Tokenizer):
    tokenizer = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    assert TextReader(tokenizer).ids(["abba"]) == [[2, 1, 0]]
    tree = json.loads(packaged.to_str())
    tree["added_tokens"][0]["normalized"] = True
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    assert TextReader(tokenizer).ids(ODD) == slowly(tokenizer, ODD)


def test_only_so_many_words_are_remembered(packaged: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_reader, "_MOST", 3)
    texts = ["one two three four five", "five four three two one"]
    assert TextReader(packaged).ids(texts) == slowly(packaged, texts)


def test_whole_texts_are_not_remembered(packaged: Tokenizer):
    """Scripts without spaces have whole texts for passages."""
    reader, texts = TextReader(packaged), ["中文" * 30, "x" * 90, "short 中文"]
    assert reader.ids(texts) == slowly(packaged, texts)
    assert set(reader._passages) == {"short", "中文"}
    assert set(reader._pieces) == {"short", "中", "文"}


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["list"], "half \ud800 a pair"])
def test_what_is_no_text_is_refused(packaged: Tokenizer, text: object):
    with pytest.raises((TypeError, UnicodeError)):
        TextReader(packaged).ids(["red", text])

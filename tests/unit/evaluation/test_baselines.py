"""The TF-IDF baseline against a dense reference, and on texts without words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer

from xcflow.config import EncoderConfig
from xcflow.encoders.build import initial_encoder
from xcflow.evaluation import baselines
from xcflow.evaluation.baselines import TfidfBaseline, UntrainedBaseline, best_of
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL

WORDS = ["red", "blue", "car", "boat", "7", "x"]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), min_size=1, max_size=8),
    st.lists(st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), max_size=5),
    st.integers(1, 10),
    st.integers(1, 20),
)
def test_equals_a_dense_product(labels, texts, k, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "POSTINGS_PER_BLOCK", block)
        top = TfidfBaseline(labels).top_k(texts, k)
    assert top.labels.shape == top.scores.shape == (len(texts), k)
    if not any(labels):
        assert (top.labels == NO_LABEL).all()
        return
    vectoriser = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit(labels)
    for i, text in enumerate(texts):
        dense = (vectoriser.transform([text]) @ vectoriser.transform(labels).T).toarray()[0]
        found = top.labels[i][top.labels[i] >= 0]
        assert len(found) == min(k, (dense > 0).sum())
        np.testing.assert_allclose(top.scores[i, : len(found)], dense[found], rtol=1e-5)
        np.testing.assert_allclose(
            top.scores[i, : len(found)], np.sort(dense)[::-1][: len(found)], rtol=1e-5
        )


def test_equal_scores_come_in_the_order_of_the_rows():
    top = TfidfBaseline(["same", "other", "same", "same"]).top_k(["same"], 2)
    assert top.labels.tolist() == [[0, 2]]


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(1, 25))
def test_best_of_equals_a_full_sort(values, k):
    labels = np.arange(len(values))[::-1]
    scores = np.array(values, np.float32)
    expected = sorted(zip(-scores, labels, strict=True))[:k]
    found = best_of(labels, scores, k)
    assert found[0].tolist() == [label for _, label in expected]
    assert found[1].tolist() == [-score for score, _ in expected]


def test_writing_without_spaces_is_matched_by_characters():
    top = TfidfBaseline(["红色汽车", "蓝色的船", "red car"]).top_k(["一辆汽车", "小船"], 1)
    assert top.labels.tolist() == [[0], [1]]


def test_single_letters_and_digits_count_in_short_codes():
    top = TfidfBaseline(["C 5", "C 7", "D 7"]).top_k(["c7 D 7"], 3)
    assert top.labels[0, 0] == 2


@pytest.mark.parametrize("labels", [["", "!?"], ["...", "--"]])
def test_label_texts_without_a_word_answer_nothing(labels):
    top = TfidfBaseline(labels).top_k(["any text", ""], 2)
    assert (top.labels == NO_LABEL).all()


def test_no_text_no_answer():
    assert TfidfBaseline(["a"]).top_k([], 3).labels.shape == (0, 3)


@pytest.mark.parametrize("kind", ["bag_of_embeddings", "transformer"])
def test_the_untrained_encoder_ranks_by_the_cosine_of_its_vectors(make_dataset, monkeypatch, kind):
    file = model_folder("minilm") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()

    def tokens(texts):
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return Ragged.from_rows([e.ids for e in encoded], np.uint16)

    names = ["a red car", "a blue boat", "shared library for audio", "game of chess"]
    dataset = make_dataset(names, [[0], [1]], [[0]])
    dataset = replace(
        dataset,
        labels=replace(dataset.labels, tokens=tokens(names)),
        train=replace(dataset.train, tokens=tokens(["red boats", "chess"])),
        tokenizer_file=file,
    )
    monkeypatch.setattr(baselines, "ENCODE_BLOCK", 3)
    config = EncoderConfig(kind=kind, layers=2 if kind == "transformer" else 0, bf16="off")
    queries = tokens(["chess game", "sound library", "a red car"])
    top = UntrainedBaseline(dataset, config).top_k(queries, 6)

    encoder = initial_encoder(config, dataset)
    cosine = (encoder.encode(queries) @ encoder.encode(tokens(names)).T).numpy()
    assert top.labels[:, 0].tolist() == [3, 2, 0]
    assert (top.labels[:, 4:] == NO_LABEL).all()
    np.testing.assert_array_equal(top.labels[:, :4], np.argsort(-cosine, axis=1))
    np.testing.assert_allclose(top.scores[:, :4], -np.sort(-cosine, axis=1), atol=1e-5)

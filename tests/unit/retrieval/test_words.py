"""TF-IDF over label texts against a dense reference, and on texts without words."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from xcflow.retrieval import words
from xcflow.retrieval.words import WordIndex
from xcflow.topk import NO_LABEL, TopK


def best(labels: list[str], texts: list[str], k: int) -> TopK:
    index = WordIndex.build(labels)
    return index.search(index.vectors(texts), k)


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
        patch.setattr(words, "_TEXTS_PER_BLOCK", block)
        patch.setattr(words, "_SPARSE", block % 3)
        top = best(labels, texts, k)
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
    top = best(["same", "other", "same", "same"], ["same"], 2)
    assert top.labels.tolist() == [[0, 2]]


def test_writing_without_spaces_is_matched_by_characters():
    top = best(["红色汽车", "蓝色的船", "red car"], ["一辆汽车", "小船"], 1)
    assert top.labels.tolist() == [[0], [1]]


def test_single_letters_and_digits_count_in_short_codes():
    top = best(["C 5", "C 7", "D 7"], ["c7 D 7"], 3)
    assert top.labels[0, 0] == 2


@pytest.mark.parametrize("labels", [["", "!?"], ["...", "--"]])
def test_label_texts_without_a_word_answer_nothing(labels):
    top = best(labels, ["any text", ""], 2)
    assert (top.labels == NO_LABEL).all()


def test_no_text_no_answer():
    assert best(["a"], [], 3).labels.shape == (0, 3)


def test_frequent_words_propose_nothing_but_count_in_cosines():
    labels = ["the red car", "the blue car", "the green boat", "the"]
    index, whole = WordIndex.build(labels, longest=2), WordIndex.build(labels)
    queries = index.vectors(["the red car", "the"])
    top = index.search(queries, 4)
    assert set(top.labels[0][top.labels[0] >= 0].tolist()) == {0, 1}
    assert (top.labels[1] == NO_LABEL).all()
    rows, columns = np.repeat([0, 1], 4), np.tile(np.arange(4), 2)
    expected = whole.search(whole.vectors(["the red car", "the"]), 4)
    found = index.cosines(queries, rows, columns).reshape(2, 4)
    for row in range(2):
        for label, score in zip(expected.labels[row], expected.scores[row], strict=True):
            assert found[row, label] == pytest.approx(score, rel=1e-5)


def test_cosines_of_no_pairs():
    index = WordIndex.build(["a b"])
    nothing = np.empty(0, np.int64)
    assert index.cosines(index.vectors(["a"]), nothing, nothing).shape == (0,)


def test_it_survives_a_folder(tmp_path: Path):
    labels = ["red car", "blue boat", "红色", ""]
    before = WordIndex.build(labels)
    before.save(tmp_path / "words")
    after = WordIndex.load(tmp_path / "words")
    texts = ["a blue car", "红", "unknown"]
    for old, new in zip(
        before.search(before.vectors(texts), 3), after.search(after.vectors(texts), 3), strict=True
    ):
        np.testing.assert_array_equal(old, new)

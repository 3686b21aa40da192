"""Bags of words, in the newer and in the older files."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.catalogue.readers import Misstatement, open_catalogue
from xcflow.errors import DataError

WORDS = "how trees talk owls in old a river of stones nothing known birds the by singing and woods"
VOCABULARY = [*WORDS.split(), "rivers"]
FILES = {
    "Xf.txt": "tree\nowl\n\nriver\n",
    "trn_X_Xf.txt": "3 4\n0:0.5 1:1.5\n\n3:1 0:1 2:9\n",
    "trn_X_Y.txt": "3 2\n0:1.0 1:1.0\n\n1:1\n",
    "tst_X_Xf.txt": "1 4\n1:1\n",
    "tst_X_Y.txt": "1 2\n0:1\n",
    "lbl_X_Xf.txt": "2 4\n0:1\n3:1\n",
}
OLD_FILES = {
    "Xf.txt": FILES["Xf.txt"],
    "train.txt": "3 4 2\n0,1 0:0.5 1:1.5\n\n1 3:1 0:1\n",
    "test.txt": "1 4 2\n0 1:1\n",
}
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=5).map(" ".join)


def bag(text: str) -> str:
    """The words of a text with falling values, written from the last to the first."""
    words = list(enumerate(reversed(text.split()), start=1))
    return " ".join(f"{VOCABULARY.index(word)}:{value / 4}" for value, word in words)


def table(rows: list[str], *sizes: int, end: str) -> str:
    header = " ".join(map(str, (len(rows), *sizes)))
    return "".join(f"{row}{end}" for row in [header, *rows])


def files_of(content, end="\n", bom="", suffix="", old=False):
    features, width = len(VOCABULARY), len(content.labels)
    texts = [bag(text) for text in content.labels]
    files = {"Xf.txt": "".join(word + end for word in VOCABULARY)}
    files["Yf.txt" if old else "lbl_X_Xf.txt"] = table(texts, features, end=end)
    for name, old_name, documents in (
        ("trn", "train", content.train),
        ("tst", "test", content.test),
    ):
        texts = [bag(text) for text, _ in documents]
        labels = [list(map(str, row)) for _, row in documents]
        if old:
            rows = [f"{','.join(row)} {text}" for row, text in zip(labels, texts, strict=True)]
            files[f"{old_name}.txt"] = table(rows, features, width, end=end)
        else:
            files[f"{name}_X_Xf.txt"] = table(texts, features, end=end)
            rows = [" ".join(f"{label}:1.0" for label in row) for row in labels]
            files[f"{name}_X_Y.txt"] = table(rows, width, end=end)
    files["tst_filter_labels.txt"] = "".join(f"{d} {label}{end}" for d, label in content.pairs)
    return {f"{name}{suffix}": bom + text for name, text in files.items()}


def test_a_text_is_the_words_in_falling_order_of_their_values(tmp_path, tools):
    train = tools.read(tools.write(tmp_path, FILES))
    assert train.ids == ["0", "1", "2"]
    assert train.texts == ["owl tree", "", "river tree"]
    assert train.labels == [["0", "1"], [], ["1"]]
    labels = tools.read(tmp_path, "labels")
    assert (labels.ids, labels.texts) == (["0", "1"], ["tree", "river"])


def test_the_older_files(tmp_path, tools):
    train = tools.read(tools.write(tmp_path, OLD_FILES))
    assert train.ids == ["0", "1", "2"]
    assert train.texts == ["owl tree", "", "river tree"]
    assert train.labels == [["0", "1"], [], ["1"]]
    assert train.lines == [2, 3, 4]


@pytest.mark.parametrize("line", [" 0:0.5 1:1.5", "0:0.5 1:1.5"])
def test_a_row_of_the_older_files_without_labels(tmp_path, tools, line):
    folder = tools.write(tmp_path, {**OLD_FILES, "train.txt": f"1 4 2\r\n{line}\r\n"})
    train = tools.read(folder)
    assert (train.texts, train.labels) == (["owl tree"], [[]])


@pytest.mark.parametrize("files", [OLD_FILES, {k: v for k, v in FILES.items() if k[:3] != "lbl"}])
def test_labels_of_which_nothing_stands_there_are_numbered(tmp_path, tools, files):
    labels = tools.read(tools.write(tmp_path, files), "labels")
    assert (labels.ids, labels.texts, labels.faults) == (["0", "1"], ["", ""], [])


def test_texts_of_labels_are_better_than_their_bags(tmp_path, tools):
    labels = tools.read(tools.write(tmp_path, {**FILES, "Y.txt": "Trees\nRivers\n"}), "labels")
    assert labels.texts == ["Trees", "Rivers"]


@pytest.mark.parametrize("files", [FILES, OLD_FILES])
def test_without_words_or_texts_it_is_refused(tmp_path, tools, files):
    folder = tools.write(tmp_path, {k: v for k, v in files.items() if k != "Xf.txt"})
    with pytest.raises(
        DataError, match=r"add the texts .* or the vocabulary \(Xf\.txt\)"
    ) as caught:
        open_catalogue(folder)
    assert "\n" not in str(caught.value)


def test_texts_are_read_where_both_stand_there(tmp_path, tools):
    texts = {"trn_X.txt": "one\ntwo\nthree\n", "tst_X.txt": "four\n", "Y.txt": "a\nb\n"}
    assert tools.read(tools.write(tmp_path, {**FILES, **texts})).texts == ["one", "two", "three"]
    assert open_catalogue(tmp_path, "repository-bow").files["train"].name == "trn_X_Xf.txt"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"4:1", "feature 4 has no word: Xf.txt has 4 (from 0)"),
        (b"-1:1", "feature -1 has no word"),
        (b"0", "expected index:value, got '0'"),
        (b"0:x", "expected index:value, got '0:x'"),
        (b"1_0:1", "expected index:value, got '1_0:1'"),
        (b"\xff:1", "expected index:value, got "),
        (b"1" * 5000 + b":1", "expected index:value, got "),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_malformed_row_is_a_fault_with_its_line(tmp_path, tools, row, reason, old):
    if old:
        files = {**OLD_FILES, "train.txt": b"3 4 2\n0 0:1\n1 " + row + b"\n1 3:1\n"}
    else:
        files = {**FILES, "trn_X_Xf.txt": b"3 4\n0:1\n" + row + b"\n3:1\n"}
    train = tools.read(tools.write(tmp_path, files))
    assert train.ids == ["0", "2"]
    ((file, line, told),) = tools.told(train)
    assert (file, line) == ("train.txt" if old else "trn_X_Xf.txt", 3)
    assert reason in told


def test_labels_of_the_older_files_that_are_no_numbers(tmp_path, tools):
    train = tools.read(tools.write(tmp_path, {**OLD_FILES, "train.txt": "1 4 2\n0,a 0:1\n"}))
    assert tools.told(train) == [("train.txt", 2, "expected a row's number, got 'a'")]


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({**FILES, "trn_X_Xf.txt": "7 4\n0:1\n\n3:1\n"}, "trn_X_Xf.txt"),
        ({**OLD_FILES, "train.txt": "7 4 2\n0 0:1\n\n1 3:1\n"}, "train.txt"),
    ],
)
def test_a_header_with_another_number_loses_no_row(tmp_path, tools, files, file):
    train = tools.read(tools.write(tmp_path, files))
    assert len(train) == 3
    assert isinstance(train.faults[0], Misstatement)
    assert tools.told(train) == [(file, 1, "the header says 7 rows, there are 3")]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({**FILES, "trn_X_Xf.txt": "1 4\n0:1\n"}, r"trn_X_Y\.txt: holds 3 rows, trn_X_Xf\.txt 1"),
        ({**OLD_FILES, "train.txt": "3 4\n"}, "line 1: expected the header 'rows features labels'"),
        ({**OLD_FILES, "train.txt": f"1 4 {2**40}\n"}, "line 1: expected the header"),
        ({**FILES, "Xf.txt": b"tree\n\xff\n"}, r"Xf\.txt, line 2: is not UTF-8: byte 0xff"),
    ],
)
def test_what_cannot_be_read_at_all(tmp_path, tools, files, reason):
    with pytest.raises(DataError, match=reason):
        tools.read(tools.write(tmp_path, files))


def test_a_damaged_file_is_told_with_its_line(tmp_path, tools):
    folder = tools.write(tmp_path, {k: v for k, v in OLD_FILES.items() if k != "train.txt"})
    (folder / "train.txt.gz").write_bytes(gzip.compress(b"1 4 2\n" + b"0 0:1\n" * 9)[:-9])
    with pytest.raises(DataError, match=r"train\.txt\.gz, line \d+: the gzip stream ends too"):
        tools.read(folder)


@given(
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    suffix=st.sampled_from(["", ".gz"]),
    old=st.booleans(),
    rows=st.integers(1, 5),
)
def test_round_trip(data, end, bom, suffix, old, rows, tools, tmp_path_factory):
    content = data.draw(tools.contents(TEXTS))
    folder = tmp_path_factory.mktemp("bags")
    catalogue = tools.write(folder, files_of(content, end, bom, suffix, old))
    same = tools.write_jsonl(tmp_path_factory.mktemp("jsonl"), content)
    tools.assert_reads_alike(catalogue, same, rows)


@pytest.mark.parametrize("old", [False, True])
def test_the_data_set_is_that_of_json_lines(tmp_path, tools, small, old):
    catalogue = tools.write(tmp_path / "bags", files_of(small, old=old))
    same = tools.write_jsonl(tmp_path / "jsonl", small)
    assert tools.ingested(catalogue, tmp_path / "one") == tools.ingested(same, tmp_path / "two")

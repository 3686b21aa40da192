"""Texts and label matrices side by side."""

import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from xcflow.catalogue.formats import csr_file
from xcflow.catalogue.readers import Misstatement, open_catalogue
from xcflow.config import Config
from xcflow.errors import DataError
from xcflow.steps import run_step

FILES = {
    "trn_X.txt": "one\ntwo\nthree\n",
    "trn_X_Y.txt": "3 2\n0:1.0 1:1.0\n\n1:1\n",
    "tst_X.txt": "four\n",
    "tst_X_Y.txt": "1 2\n0:1\n",
    "Y.txt": "first\nsecond\n",
}
# A line cannot hold its own end.
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff"))


def matrix(rows, width: int, end: str = "\n") -> str:
    lines = [" ".join(f"{label}:1.0" for label in labels) for labels in rows]
    return "".join(f"{line}{end}" for line in [f"{len(rows)} {width}", *lines])


def npz(rows, width: int, dtype=np.int32) -> bytes:
    indptr = np.cumsum([0, *map(len, rows)]).astype(dtype)
    indices = np.array([label for row in rows for label in row], dtype)
    whole = sparse.csr_matrix(
        (np.ones(len(indices), np.float32), indices, indptr), (len(rows), width)
    )
    stream = io.BytesIO()
    sparse.save_npz(stream, whole)
    return stream.getvalue()


def files_of(content, end="\n", bom="", npz_files=False, suffix=""):
    files = {f"Y.txt{suffix}": bom + "".join(text + end for text in content.labels)}
    for name, documents in (("trn", content.train), ("tst", content.test)):
        files[f"{name}_X.txt{suffix}"] = bom + "".join(text + end for text, _ in documents)
        labels, width = [row for _, row in documents], len(content.labels)
        if npz_files:
            files[f"Y.{name}.npz"] = npz(labels, width)
        else:
            files[f"{name}_X_Y.txt{suffix}"] = bom + matrix(labels, width, end)
    pairs = "".join(f"{document} {label}{end}" for document, label in content.pairs)
    files[f"filter_labels_test.txt{suffix}"] = pairs
    return files


def test_ids_are_the_numbers_of_the_rows(tmp_path, tools):
    folder = tools.write(tmp_path, FILES)
    train = tools.read(folder)
    assert train.ids == ["0", "1", "2"]
    assert train.texts == ["one", "two", "three"]
    assert train.labels == [["0", "1"], [], ["1"]]
    assert train.lines == [1, 2, 3]
    labels = tools.read(folder, "labels")
    assert (labels.ids, labels.texts) == (["0", "1"], ["first", "second"])


@pytest.mark.parametrize("name", ["filter_labels_text.txt", "tst_filter_labels.txt.gz"])
def test_each_name_of_the_filter(tmp_path, tools, name):
    ignored = {"filter_labels_train.txt": "nonsense"}
    folder = tools.write(tmp_path, {**FILES, **ignored, name: "0 1\n\n0 x\r\n7\t0\n"})
    found = tools.read(folder, "test_filter")
    assert (found.ids, found.labels, found.lines) == (["0", "7"], [["1"], ["0"]], [1, 4])
    assert tools.told(found) == [(name, 3, "expected the row of a document and of a label")]


def test_without_a_filter_there_is_none(tmp_path, tools):
    reader = open_catalogue(tools.write(tmp_path, FILES))
    assert set(reader.files) == {"labels", "train", "test"}


def test_a_row_that_cannot_be_read_does_not_move_the_others(tmp_path, tools):
    texts = b"one\nt\xffo\nthree\nfour\n"
    labels = "4 2\n0:1\n0:1\n1-1\n1:1 1:1 9:1 -1:1\n"
    train = tools.read(tools.write(tmp_path, {**FILES, "trn_X.txt": texts, "trn_X_Y.txt": labels}))
    assert train.ids == ["0", "3"]
    assert train.labels == [["0"], ["1", "1", "9", "-1"]]  # repeated and unknown: ingest counts
    assert tools.told(train) == [
        ("trn_X.txt", 2, "is not UTF-8: byte 0xff at position 2 of 3"),
        ("trn_X_Y.txt", 4, "expected index:value, got '1-1'"),
    ]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        ("one\ntwo\nthree\n\n\n", "3 2\n0:1\n\n1:1\n"),
        ("one\ntwo\nthree", "3 2\n0:1\n\n1:1\n\n\n"),
        ("\ufeffone\r\ntwo\r\nthree\r\n", "\ufeff3 2\r\n0:1\r\n \r\n1:1\r\n"),
    ],
)
def test_blank_rows_and_line_ends(tmp_path, tools, texts, labels):
    train = tools.read(tools.write(tmp_path, {**FILES, "trn_X.txt": texts, "trn_X_Y.txt": labels}))
    assert train.faults == []
    assert train.texts == ["one", "two", "three"]
    assert train.labels == [["0"], [], ["1"]]


@pytest.mark.parametrize(
    ("texts", "labels", "last"),
    [
        ("one\ntwo\nthree", "3 2\n0:1\n1:1\n", "three"),
        ("one\ntwo\n\n", "3 2\n0:1\n1:1\n", ""),
        ("one\ntwo\n", "3 2\n0:1\n1:1\n\n", ""),
    ],
)
def test_an_empty_last_row_without_line_end(tmp_path, tools, texts, labels, last):
    """Whoever joins rows by line ends writes none after an empty last row."""
    train = tools.read(tools.write(tmp_path, {**FILES, "trn_X.txt": texts, "trn_X_Y.txt": labels}))
    assert train.faults == []
    assert train.texts == ["one", "two", last]
    assert train.labels == [["0"], ["1"], []]


@pytest.mark.parametrize("size", [2, 9])
def test_a_header_with_another_number_loses_no_row(tmp_path, tools, size):
    folder = tools.write(tmp_path, {**FILES, "trn_X_Y.txt": f"{size} 2\n0:1\n\n1:1\n"})
    train = tools.read(folder)
    assert train.labels == [["0"], [], ["1"]]
    (told,) = train.faults
    assert isinstance(told, Misstatement)
    assert (told.file, told.line) == ("trn_X_Y.txt", 1)
    assert told.reason == f"the header says {size} rows, there are 3"


def test_another_number_of_labels_than_the_matrix_has_is_a_fault(tmp_path, tools):
    labels = tools.read(tools.write(tmp_path, {**FILES, "Y.txt": "first\nsec\nond\n"}), "labels")
    assert tools.told(labels) == [("Y.txt", 1, "trn_X_Y.txt says 2 labels, there are 3")]
    assert not isinstance(labels.faults[0], Misstatement)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {"trn_X.txt": "one\ntwo\nth\nree\n"},
            r"trn_X\.txt: holds 4 rows, trn_X_Y\.txt 3: a text with a line break inside, or",
        ),
        ({"trn_X.txt": "one\n"}, r"trn_X_Y\.txt: holds 3 rows, trn_X\.txt 1"),
        ({"trn_X.txt": "one\ntwo\n"}, r"trn_X_Y\.txt: holds 3 rows, trn_X\.txt 2"),
        ({"trn_X_Y.txt": "3 2\n0:1\n"}, r"trn_X\.txt: holds 3 rows, trn_X_Y\.txt 1"),
        ({"trn_X_Y.txt": "2 2\n0:1\n1:1\n"}, r"trn_X\.txt: holds 3 rows, trn_X_Y\.txt 2"),
        ({"trn_X_Y.txt": "0:1\n"}, r"trn_X_Y\.txt, line 1: expected the header 'rows labels'"),
        ({"trn_X_Y.txt": ""}, r"trn_X_Y\.txt, line 1: expected the header 'rows labels'"),
        ({"trn_X_Y.txt": "-1 2\n"}, r"trn_X_Y\.txt, line 1: expected the header 'rows labels'"),
        ({"Y.trn.npz": b""}, r"both trn_X_Y\.txt and Y\.trn\.npz stand here"),
        ({"lbl_X.txt": b""}, r"both Y\.txt and lbl_X\.txt stand here"),
    ],
)
def test_files_that_do_not_fit(tmp_path, tools, files, reason):
    folder = tools.write(tmp_path, {**FILES, **files})
    with pytest.raises(DataError, match=reason) as caught:
        tools.read(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_told_with_its_line(tmp_path, tools):
    folder = tools.write(tmp_path, {k: v for k, v in FILES.items() if k != "trn_X.txt"})
    content = gzip.compress(b"one\ntwo\nthree\n")
    (folder / "trn_X.txt.gz").write_bytes(content[:-9])
    with pytest.raises(DataError, match=r"trn_X\.txt\.gz, line \d+: the gzip stream ends too"):
        tools.read(folder)


def test_missing_files_are_named(tmp_path, tools):
    folder = tools.write(tmp_path, {"trn_X.txt": "", "Y.txt": "", "tst_X.txt": ""})
    with pytest.raises(DataError, match=r"misses trn_X_Y\.txt or trn_X_Y\.txt\.gz or Y\.trn\.npz;"):
        open_catalogue(folder)


def npz_folder(tmp_path, tools, content: bytes):
    files = {k: v for k, v in FILES.items() if k != "trn_X_Y.txt"}
    return tools.write(tmp_path, {**files, "Y.trn.npz": content})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_matrix_is_read_in_parts(tmp_path, tools, monkeypatch, dtype):
    monkeypatch.setattr(csr_file, "ROWS", 2)
    train = tools.read(npz_folder(tmp_path, tools, npz([[1, 0], [], [1]], 2, dtype)))
    assert train.labels == [["1", "0"], [], ["1"]]


def arrays(**changed) -> bytes:
    stream = io.BytesIO()
    right = {"format": b"csr", "shape": (3, 2), "indptr": [0, 1, 1, 2], "indices": [0, 1]}
    np.savez(stream, **{k: v for k, v in {**right, **changed}.items() if v is not None})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is no zip archive"),
        (arrays()[:-60], "it is no zip archive"),
        (arrays(format=b"coo"), "holds a matrix in the format 'coo': save it as csr"),
        (arrays(format=None), "format is not a file in the archive"),
        (arrays(shape=(1, 2, 3)), "too many values"),
        (arrays(indices=np.array([{}, {}], object)), "expected a flat array of integers"),
        (arrays(format=np.array([{}], object)), "cannot be loaded"),
        (arrays(indices=[0.5, 0.5]), "expected a flat array of integers"),
        (arrays(indices=[0]), "an array ends too early"),
        (arrays(indptr=[0, 1]), "an array ends too early"),
        (arrays(indptr=[0, 2, 1, 2]), "rows end before they begin"),
        (arrays(indptr=[1, 1, 1, 2]), "the first row does not begin at 0"),
    ],
)
def test_what_is_no_matrix(tmp_path, tools, content, reason):
    folder = npz_folder(tmp_path, tools, content)
    with pytest.raises(DataError, match=r"Y\.trn\.npz: ") as caught:
        tools.read(folder)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@given(place=st.integers(0, 700), byte=st.integers(1, 255))
def test_a_damaged_matrix_is_one_error_or_other_rows(place, byte, tools, tmp_path_factory):
    content = bytearray(npz([[1, 0], [], [1]], 2))
    content[place] ^= byte
    folder = npz_folder(tmp_path_factory.mktemp("c"), tools, bytes(content))
    try:
        tools.read(folder)
    except DataError:
        return


@given(
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    npz_files=st.booleans(),
    suffix=st.sampled_from(["", ".gz"]),
    rows=st.integers(1, 5),
)
def test_round_trip(data, end, bom, npz_files, suffix, rows, tools, tmp_path_factory):
    content = data.draw(tools.contents(LINES))
    files = files_of(content, end, bom, npz_files, suffix)
    catalogue = tools.write(tmp_path_factory.mktemp("text"), files)
    same = tools.write_jsonl(tmp_path_factory.mktemp("jsonl"), content)
    tools.assert_reads_alike(catalogue, same, rows)


@pytest.mark.parametrize("npz_files", [False, True])
def test_the_data_set_is_that_of_json_lines(tmp_path, tools, small, npz_files):
    catalogue = tools.write(tmp_path / "text", files_of(small, npz_files=npz_files))
    same = tools.write_jsonl(tmp_path / "jsonl", small)
    assert tools.ingested(catalogue, tmp_path / "one") == tools.ingested(same, tmp_path / "two")


def test_a_header_with_another_number_is_a_warning(tmp_path, tools, small):
    files = files_of(small)
    files["trn_X_Y.txt"] = files["trn_X_Y.txt"].replace("5 4\n", "7 4\n", 1)
    folder = tools.write(tmp_path / "catalogue", files)
    limits = {"max_train_test_texts": 1.0}
    config = Config.from_dict({"validation": limits, "data": {"catalogue_words": 0}})
    run_step("validate_data", config, {"catalogue": folder}, tmp_path / "dataset")
    report = json.loads((tmp_path / "dataset" / "report.json").read_text())
    (check,) = [check for check in report["checks"] if check["name"] == "misstated_sizes"]
    assert (check["status"], check["count"], check["total"]) == ("warning", 1, 6)
    assert check["examples"][0]["remark"] == "the header says 7 rows, there are 5"
    assert report["files"]["trn_X.txt"] == 5
    strict = Config.from_dict({"validation": {"max_misstated_sizes": 0.0}})
    with pytest.raises(DataError, match=r"trn_X_Y\.txt, line 1: the header says 7 rows"):
        run_step("validate_data", strict, {"catalogue": folder}, tmp_path / "refused")

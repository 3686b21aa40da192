"""The raw data of the Extreme Classification Repository."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.catalogue.readers import catalogue_digest, open_catalogue
from xcflow.errors import DataError


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "lbl.json": lines({"uid": "L7", "title": "seven"}, {"uid": "L9", "title": "nine"}),
    "trn.json": lines(
        {"uid": "a", "title": "A", "content": "text", "target_ind": [1, 0], "target_rel": [1, 1]},
        {"uid": "b", "title": "B", "content": "", "target_ind": []},
    ),
    "tst.json": lines({"uid": "t", "title": "T", "content": None, "target_ind": [0]}),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def files_of(content, end="\n", bom="", suffix=""):
    def texts(text: str) -> dict[str, str]:
        title, _, rest = text.partition(" ")
        return {"title": title, "content": rest} if title and rest else {"title": text}

    labels = [{"uid": str(i), **texts(text)} for i, text in enumerate(content.labels)]
    files = {"lbl.json": labels}
    for name, documents in (("trn", content.train), ("tst", content.test)):
        files[f"{name}.json"] = [
            {"uid": str(i), **texts(text), "target_ind": labels}
            for i, (text, labels) in enumerate(documents)
        ]
    written = {
        f"{name}{suffix}": bom + "".join(json.dumps(row) + end for row in rows)
        for name, rows in files.items()
    }
    pairs = "".join(f"{document} {label}{end}" for document, label in content.pairs)
    return {**written, "filter_labels_test.txt": pairs}


def test_rows_name_labels_by_their_uids(tmp_path, tools):
    files = {**FILES, "filter_labels_test.txt": "0 1\n5 0\n", "filter_labels_train.txt": "x"}
    folder = tools.write(tmp_path / "LF-Wiki", files)
    train = tools.read(folder)
    assert train.ids == ["a", "b"]
    assert train.texts == ["A text", "B"]
    assert train.labels == [["L9", "L7"], []]
    filtered = tools.read(folder, "test_filter")
    assert (filtered.ids, filtered.labels) == (["t", "5"], [["L9"], ["L7"]])


@pytest.mark.parametrize("name", ["LF-AmazonTitles-131K", "titles"])
def test_data_sets_of_titles_have_no_contents(tmp_path, tools, name):
    folder = tools.write(tmp_path / name, FILES)
    assert tools.read(folder).texts == ["A", "B"]
    # Other rows, so another identity, though the bytes are the same.
    assert catalogue_digest(folder) != catalogue_digest(tools.write(tmp_path / "LF", FILES))


def test_labels_without_an_id_of_their_own_have_their_row(tmp_path, tools):
    labels = ["L7", None, "L7", 5, "1", "", "L8"]
    rows = [{"uid": uid, "title": f"title {i}"} for i, uid in enumerate(labels)]
    train = {"uid": "a", "title": "A", "target_ind": [*range(7), 7, 5, 99, -1]}
    folder = tools.write(
        tmp_path / "c", {**FILES, "lbl.json": lines(*rows), "trn.json": lines(train)}
    )
    ids = ["L7", "row 1", "2", "5", "1", "row 5", "L8"]
    assert tools.read(folder, "labels").ids == ids
    (named,) = tools.read(folder).labels
    assert named == [*ids, "7", "row 5", "99", "-1"]


def test_documents_without_an_id_have_their_row(tmp_path, tools):
    rows = [{"title": "A", "target_ind": []}, {"uid": 17, "title": "B", "target_ind": []}]
    folder = tools.write(tmp_path / "c", {**FILES, "trn.json": lines(*rows)})
    assert tools.read(folder).ids == ["0", "17"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b'{"uid": "x", "title": "\xff", "target_ind": []}',
            "is not UTF-8: byte 0xff at position 24",
        ),
        (b'{"uid": "x", "title": "cut', "ends before its JSON object does"),
        (b'["x"]', "expected an object with uid, title, content, got a list"),
        (b'{"uid": "x", "target_ind": []}', "title is missing"),
        (b'{"uid": "x", "title": ["t"], "target_ind": []}', "title must be a string, got a list"),
        (b'{"uid": "x", "title": "t", "content": 3, "target_ind": []}', "content must be a string"),
        (b'{"uid": ["x"], "title": "t", "target_ind": []}', "uid must be a string, got a list"),
        (b'{"uid": "\\ud800", "title": "t", "target_ind": []}', "uid holds half a surrogate pair"),
        (b'{"uid": "x", "title": "t"}', "target_ind is missing"),
        (b'{"uid": "x", "title": "t", "target_ind": 1}', "target_ind must be a list of label rows"),
        (b'{"uid": "x", "title": "t", "target_ind": ["1"]}', "a label row must be an integer, got"),
        (
            b'{"uid": "x", "title": "t", "target_ind": [true]}',
            "a label row must be an integer, got",
        ),
    ],
)
def test_a_malformed_row_is_a_fault_with_its_line(tmp_path, tools, line, reason):
    first, second = FILES["trn.json"].encode().splitlines()
    content = b"\xef\xbb\xbf" + first + b"\r\n\r\n" + line + b"\n" + second
    train = tools.read(tools.write(tmp_path / "c", {**FILES, "trn.json": content}))
    assert (train.ids, train.lines) == (["a", "b"], [1, 4])
    ((file, number, told),) = tools.told(train)
    assert (file, number) == ("trn.json", 3)
    assert reason in told


def test_a_faulty_label_leaves_the_others_their_rows(tmp_path, tools):
    first, second = FILES["lbl.json"].encode().splitlines()
    folder = tools.write(tmp_path / "c", {**FILES, "lbl.json": b"\n".join([first, b"{", second])})
    files = lines({"uid": "a", "title": "A", "target_ind": [0, 1, 2]})
    tools.write(folder, {"trn.json": files, "filter_labels_test.txt": "0 2\n"})
    labels = tools.read(folder, "labels")
    assert labels.ids == ["L7", "L9"]
    assert [line for _, line, _ in tools.told(labels)] == [2]
    assert tools.read(folder).labels == [["L7", "1", "L9"]]
    assert tools.read(folder, "test_filter").labels == [["L9"]]


def test_damaged_labels_are_told_as_such_to_whoever_needs_them(tmp_path, tools):
    folder = tools.write(tmp_path / "c", {k: v for k, v in FILES.items() if k != "lbl.json"})
    (folder / "lbl.json.gz").write_bytes(gzip.compress(FILES["lbl.json"].encode())[:-9])
    for role in ("labels", "train"):
        with pytest.raises(DataError, match=r"lbl\.json\.gz, line \d+: the gzip stream ends too"):
            tools.read(folder, role)


def test_missing_and_doubled_files_are_named(tmp_path, tools):
    folder = tools.write(tmp_path / "c", {"trn.json": "", "tst.json.gz": ""})
    with pytest.raises(DataError, match=r"misses lbl\.json or lbl\.json\.gz$"):
        open_catalogue(folder)
    tools.write(folder, {"lbl.json": "", "trn.json.gz": ""})
    with pytest.raises(DataError, match=r"both trn\.json and trn\.json\.gz stand here"):
        open_catalogue(folder)


@given(
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    suffix=st.sampled_from(["", ".gz"]),
    rows=st.integers(1, 5),
)
def test_round_trip(data, end, bom, suffix, rows, tools, tmp_path_factory):
    content = data.draw(tools.contents(TEXTS))
    folder = tmp_path_factory.mktemp("raw")
    catalogue = tools.write(folder, files_of(content, end, bom, suffix))
    same = tools.write_jsonl(tmp_path_factory.mktemp("jsonl"), content)
    tools.assert_reads_alike(catalogue, same, rows)


def test_the_data_set_is_that_of_json_lines(tmp_path, tools, small):
    catalogue = tools.write(tmp_path / "raw", files_of(small))
    same = tools.write_jsonl(tmp_path / "jsonl", small)
    assert tools.ingested(catalogue, tmp_path / "one") == tools.ingested(same, tmp_path / "two")

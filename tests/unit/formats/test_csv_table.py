"""Comma-separated tables."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.catalogue.formats import csv_table
from xcflow.catalogue.readers import open_catalogue
from xcflow.errors import DataError

FILES = {
    "labels.csv": "id,text\nl1,one\nl2,two\n",
    "train.csv": "id,text,labels\nd1,a text,l1 l2\n",
    "test.csv": "id,text,labels\nt1,a test,l1\n",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def table(header: list[str], rows: list[list[str]], end: str) -> str:
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([header, *rows])
    return stream.getvalue()


def files_of(content, end="\n", bom="", suffix="", separator=" "):
    def field(labels: list[int]) -> str:
        return separator.join(map(str, labels)) + ("|" if "|" in separator and labels else "")

    def documents(rows) -> list[list[str]]:
        return [[field(labels), text, str(i)] for i, (text, labels) in enumerate(rows)]

    header = ["labels", "text", "id"]
    labels = [[text, "", str(i)] for i, text in enumerate(content.labels)]
    files = {
        "labels": table(["text", "comment", "id"], labels, end),
        "trn": table(header, documents(content.train), end),
        "tst": table(header, documents(content.test), end),
        "tst_filter": table(
            ["id", "labels"], [[str(d), field([x])] for d, x in content.pairs], end
        ),
    }
    return {f"{name}.csv{suffix}": bom + text for name, text in files.items()}


def train(tmp_path, tools, content):
    return tools.read(tools.write(tmp_path, {**FILES, "train.csv": content}))


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("l1 l2", ["l1", "l2"]),
        (" l1\tl1 ", ["l1", "l1"]),
        ("l1|l2", ["l1", "l2"]),
        ("a b | c|", ["a b", "c"]),
        ("", []),
        ("|", []),
    ],
)
def test_several_label_ids_in_a_field(tmp_path, tools, field, labels):
    assert train(tmp_path, tools, f"id,text,labels\nd1,,{field}\n").labels == [labels]


def test_what_is_accepted_without_a_word(tmp_path, tools):
    """A byte order mark, CRLF, blank lines, line breaks in a text, other columns, any order."""
    content = (
        '\ufefftext, labels ,year,id\r\n\r\n"two\r\nlines, ""quoted""",l1,1,d1\r\n  \r\n'
        '"ü\x00\u2028",l2,,d2'
    )
    chunk = train(tmp_path, tools, content)
    assert chunk.faults == []
    assert chunk.ids == ["d1", "d2"]
    assert chunk.texts == ['two\r\nlines, "quoted"', "ü\x00\u2028"]
    assert chunk.lines == [3, 6]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"d,\xc3\xbc\xff,l1", "is not UTF-8: byte 0xff"),
        (b"d,text", "has 2 fields, the header has 3"),
        (b"d,a, text,l1", "has 4 fields, the header has 3"),
        (b'd,"te"xt,l1', "is not a row of a CSV file: ',' expected after '\"'"),
        (b"d,te\rxt,l1", "is not a row of a CSV file: new-line character seen"),
        (b"d," + b"x" * 2000 + b",l1", "is not a row of a CSV file: field larger than"),
    ],
)
def test_a_malformed_row_is_a_fault_with_its_line(tmp_path, tools, monkeypatch, row, reason):
    monkeypatch.setattr(csv_table, "MAX_FIELD_CHARS", 1000)
    chunk = train(tmp_path, tools, b"id,text,labels\nd1,a,\n" + row + b"\nd2,b,\n")
    assert (chunk.ids, chunk.lines) == (["d1", "d2"], [2, 4])
    ((file, line, told),) = tools.told(chunk)
    assert (file, line) == ("train.csv", 3)
    assert reason in told
    assert "\n" not in told


def test_a_quote_that_is_never_closed(tmp_path, tools):
    chunk = train(tmp_path, tools, 'id,text,labels\nd1,a,\nd2,"b,\nd3,c,\n')
    assert chunk.ids == ["d1"]
    reason = "is not a row of a CSV file: unexpected end of data"
    assert tools.told(chunk) == [("train.csv", 3, reason)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("id,label\n", "line 1: expected a header with one column text and one column labels"),
        ("\nid,text,labels,text\n", "line 2: expected a header with one column text$"),
        ('"id', "line 1: expected a header with one column id and"),
    ],
)
def test_a_table_without_its_header_is_refused(tmp_path, tools, content, reason):
    with pytest.raises(DataError, match=rf"train\.csv, {reason}"):
        train(tmp_path, tools, content)


def test_an_empty_file_has_no_rows(tmp_path, tools):
    assert len(train(tmp_path, tools, "")) == 0


def test_a_damaged_file_is_told_with_its_line(tmp_path, tools):
    folder = tools.write(tmp_path, {k: v for k, v in FILES.items() if k != "train.csv"})
    (folder / "trn.csv.gz").write_bytes(gzip.compress(FILES["train.csv"].encode())[:-9])
    with pytest.raises(DataError, match=r"trn\.csv\.gz, line \d+: the gzip stream ends too early"):
        tools.read(folder)


def test_missing_files_are_named(tmp_path, tools):
    with pytest.raises(DataError, match=r"misses train\.csv or train\.csv\.gz or trn\.csv or"):
        open_catalogue(tools.write(tmp_path, {"labels.csv": "", "test.csv": ""}))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_rows_faults_or_one_error(content, tools, tmp_path_factory):
    for header in (b"", b"id,text,labels\n"):
        folder = tmp_path_factory.mktemp("c")
        try:
            chunk = train(folder, tools, header + content)
        except DataError:
            continue
        assert len(chunk) + len(chunk.faults) <= content.count(b"\n") + 1


@given(
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    suffix=st.sampled_from(["", ".gz"]),
    separator=st.sampled_from([" ", "|", " | "]),
    rows=st.integers(1, 5),
)
def test_round_trip(data, end, bom, suffix, separator, rows, tools, tmp_path_factory):
    content = data.draw(tools.contents(TEXTS))
    files = files_of(content, end, bom, suffix, separator)
    catalogue = tools.write(tmp_path_factory.mktemp("csv"), files)
    same = tools.write_jsonl(tmp_path_factory.mktemp("jsonl"), content)
    tools.assert_reads_alike(catalogue, same, rows)


def test_the_data_set_is_that_of_json_lines(tmp_path, tools, small):
    catalogue = tools.write(tmp_path / "csv", files_of(small))
    same = tools.write_jsonl(tmp_path / "jsonl", small)
    assert tools.ingested(catalogue, tmp_path / "one") == tools.ingested(same, tmp_path / "two")

"""What is found in a catalogue, what it leads to, and how it is reported."""

import contextlib
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xcflow.catalogue import findings
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.expectations import Expectations, Rule, Share
from xcflow.catalogue.findings import Check, Finding
from xcflow.catalogue.report import Report, page
from xcflow.catalogue.summary import by_doubling, text_lengths
from xcflow.config import Config, ValidationConfig
from xcflow.errors import ConfigError, DataError
from xcflow.steps.validate_data import run

Row = dict[str, Any]
ALL_CHECKS = [value for value in vars(findings).values() if isinstance(value, Check)]


class Catalogue:
    """A small valid catalogue to be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels = [{"id": f"l{i}", "text": f"label {i}"} for i in range(4)]
        self.train = [self.document(f"d{i}", f"document {i}") for i in range(20)]
        self.test = [self.document(f"t{i}", f"query {i}") for i in range(10)]
        self.test_filter: list[Row] = []
        self.raw: dict[str, bytes] = {}

    @staticmethod
    def document(name: str, text: str) -> Row:
        return {"id": name, "text": text, "labels": [f"l{int(name[1:]) % 4}"]}

    def validate(self, output: Path, **validation: Any) -> dict[str, Any]:
        """The report on the catalogue, refused or not."""
        roles = {"labels": self.labels, "train": self.train, "test": self.test}
        if self.test_filter:
            roles["test_filter"] = self.test_filter
        self.folder.mkdir(exist_ok=True)
        for role, rows in roles.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            content = text.encode() + self.raw.get(role, b"")
            (self.folder / f"{role}.jsonl").write_bytes(content)
        config = Config.from_dict({"validation": validation, "data": {"catalogue_words": 0}})
        run(config, {"catalogue": self.folder}, output)
        return read_report(output)


def read_report(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text())
    report["checks"] = {check["name"]: check for check in report["checks"]}
    return report


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "catalogue")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


def test_a_clean_catalogue_passes_every_check(catalogue: Catalogue, output: Path, capfd):
    catalogue.test_filter = [{"id": "t1", "labels": ["l0"]}]
    report = catalogue.validate(output)
    assert report["status"] == "passed"
    assert set(report["checks"]) == {check.name for check in ALL_CHECKS}
    assert all(check["count"] == 0 and check["total"] > 0 for check in report["checks"].values())
    assert "warning" not in capfd.readouterr().err


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The report on a catalogue with one of each soft finding, and the lines of the log."""
    folder = tmp_path_factory.mktemp("spoiled")
    c = Catalogue(folder / "catalogue")
    c.labels.append({"id": "cold", "text": "nobody has it"})
    c.labels[2]["text"] = "Label 1"
    c.labels[3]["text"] = ""
    c.train[3]["text"] = " \t"
    c.train[4]["text"] = "x" * 50
    c.train[5]["labels"] *= 2
    c.train[6]["labels"] = []
    c.train[7]["text"] = "DOCUMENT   2 "
    c.test[2]["labels"] = ["l1", "gone"]
    c.test[8]["text"] = c.train[9]["text"]
    c.test_filter = [{"id": "t1", "labels": ["l0"]}, {"id": "nobody", "labels": []}]
    log = io.StringIO()
    with contextlib.redirect_stderr(log):
        report = c.validate(folder / "dataset", long_text_chars=40)
    assert Dataset.open(folder / "dataset").manifest.meta["status"] == "warning"
    return report, log.getvalue()


SOFT = [
    ("empty_texts", "warning", "train.jsonl:4", ""),
    ("long_texts", "warning", "train.jsonl:5", "50 characters"),
    ("repeated_labels", "noted", "train.jsonl:6", ""),
    ("unlabelled_documents", "warning", "train.jsonl:7", ""),
    ("repeated_texts", "warning", "train.jsonl:8", "text of line 3"),
    ("repeated_label_texts", "warning", "labels.jsonl:3", "text of line 2"),
    ("empty_label_texts", "warning", "labels.jsonl:4", ""),
    ("cold_labels", "noted", "labels.jsonl:5", ""),
    ("unknown_labels", "warning", "test.jsonl:3", "names 'gone'"),
    ("train_test_texts", "warning", "test.jsonl:9", "text of train.jsonl, line 10"),
    ("unknown_filter", "warning", "test_filter.jsonl:2", ""),
]


@pytest.mark.parametrize(("name", "status", "place", "remark"), SOFT)
def test_a_soft_finding(spoiled, name: str, status: str, place: str, remark: str):
    report, log = spoiled
    check = report["checks"][name]
    assert (check["status"], check["count"]) == (status, 1)
    (example,) = check["examples"]
    assert f"{example['file']}:{example['line']}" == place
    assert example["remark"] == remark
    warnings = [w for w in log.splitlines() if w.startswith(f"warning: {check['title']}: 1 of ")]
    assert len(warnings) == (status == "warning")


def test_nothing_else_is_found(spoiled):
    report, _ = spoiled
    found = {name for name, check in report["checks"].items() if check["status"] != "passed"}
    assert found == {name for name, *_ in SOFT}


@pytest.mark.parametrize(
    ("role", "raw", "line", "reason"),
    [
        ("train", b'{"id": "x", "te', 21, "ends before its JSON object does: the line was cut off"),
        ("train", b'{"id": "\xe9", "text": "", "labels": []}', 21, "is not UTF-8: byte 0xe9"),
        ("labels", b'{"id": 17, "text": ""}', 5, "id must be a string, got the number 17"),
        ("train", b'{"id": "", "text": "a", "labels": []}', 21, "Rows without an id: 1 of 35 rows"),
        ("test", b'{"id": "t3", "text": "a", "labels": []}', 11, "id of line 4"),
        ("labels", b'{"id": "l2", "text": "a"}', 5, "id of line 3"),
    ],
)
def test_a_hard_failure_names_file_line_and_reason(
    role: str, raw: bytes, line: int, reason: str, catalogue: Catalogue, output: Path
):
    catalogue.raw = {role: raw}
    with pytest.raises(DataError) as caught:
        catalogue.validate(output)
    message = str(caught.value)
    assert message.startswith(f"{catalogue.folder / role}.jsonl, line {line}: {reason}")
    assert "\n" not in message
    assert not output.exists()
    page = output.with_name("dataset.rejected") / "report.html"
    assert message.endswith(f"report: {page}")
    assert page.is_file()
    report = read_report(page.parent)
    assert report["status"] == "failed"
    assert report["summary"] is None


def test_what_is_allowed_is_left_out_and_counted(catalogue: Catalogue, output: Path):
    catalogue.raw = {
        "train": b'{"id": "d3", "text": "another", "labels": ["l0"]}\n{"id": 1}\n',
        "labels": b'{"id": "l0", "text": "another"}\n{"id": " ", "text": ""}\n',
    }
    allowed = {"max_repeated_ids": 0.1, "max_unreadable_rows": 0.1, "max_empty_ids": 0.1}
    report = catalogue.validate(output, **allowed)
    counts = {name: c["count"] for name, c in report["checks"].items() if c["count"]}
    assert counts == {"repeated_ids": 2, "unreadable_rows": 1, "empty_ids": 1}
    dataset = Dataset.open(output)
    assert (len(dataset.train), len(dataset.labels)) == (20, 4)
    assert dataset.train.texts[3] == "document 3"
    assert dataset.labels.texts[0] == "label 0"


def test_too_much_of_a_soft_finding_is_a_failure(catalogue: Catalogue, output: Path):
    for row in catalogue.train[:3]:
        row["labels"] = ["gone"]
    with pytest.raises(DataError, match=r"3 of 30 pairs .* \(10%, 5% allowed\)"):
        catalogue.validate(output)
    report = catalogue.validate(output, max_unknown_labels=0.1)
    assert report["checks"]["unknown_labels"]["status"] == "warning"
    assert not output.with_name("dataset.rejected").exists()


@pytest.mark.parametrize("role", ["labels", "train", "test"])
def test_an_empty_part_is_refused(role: str, catalogue: Catalogue, output: Path):
    setattr(catalogue, role, [])
    with pytest.raises(DataError, match=rf"{role}\.jsonl: holds not a single "):
        catalogue.validate(output)


def test_nothing_but_cold_labels_is_refused(catalogue: Catalogue, output: Path):
    for row in catalogue.train:
        row["labels"] = []
    with pytest.raises(DataError, match=r"train\.jsonl: holds not a single document"):
        catalogue.validate(output, max_unlabelled_documents=1.0)


def test_a_file_that_breaks_off_is_reported_with_what_was_seen_before(
    catalogue: Catalogue, output: Path
):
    catalogue.raw = {"labels": b"not json\n"}
    with pytest.raises(DataError):
        catalogue.validate(output)
    train = catalogue.folder / "train.jsonl"
    train.rename(catalogue.folder / "train.jsonl.gz")
    config = Config.from_dict({})
    with pytest.raises(DataError, match=r"train\.jsonl\.gz: is not gzip.*; 1 more failed; report"):
        run(config, {"catalogue": catalogue.folder}, output)
    checks = read_report(output.with_name("dataset.rejected"))["checks"]
    assert checks["unreadable_files"]["status"] == "failed"
    assert checks["unreadable_rows"]["examples"][0]["file"] == "labels.jsonl"


def test_texts_that_the_tokenizer_cannot_read_are_refused(catalogue: Catalogue, output: Path):
    for row in [*catalogue.train, *catalogue.test]:
        row["text"] = "ᚠᛇᚻ ᛒᛦᚦ ᚠᚱᚩᚠᚢᚱ " + row["id"]
    for row in catalogue.labels:
        row["text"] = "ᛋᚳᛖᚪᛚ ᚦᛖᚪᚻ " + row["id"]
    with pytest.raises(DataError, match=r"Tokens that the tokenizer has no entry for"):
        catalogue.validate(output)
    report = catalogue.validate(output, max_unknown_tokens=1.0)
    assert report["checks"]["unknown_tokens"]["status"] == "warning"


class Outline(HTMLParser):
    """Collects what a page refers to and what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("href", "src", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_from_outside_and_shows_texts_as_texts(
    catalogue: Catalogue, output: Path
):
    catalogue.train[3]["text"] = "<script>alert(1)</script><img src=x>"
    catalogue.train[4]["text"] = catalogue.train[3]["text"]
    catalogue.validate(output)
    html = (output / "report.html").read_text()
    shown = Outline()
    shown.feed(html)
    assert shown.references == []
    assert not {"script", "img", "link", "iframe"} & set(shown.tags)
    assert not re.search(r"url\(|@import|https?:", html)
    assert "<script>alert(1)</script><img src=x>" in shown.text
    assert "text of line 4" in shown.text
    for check in ALL_CHECKS:
        if check.name != "unknown_filter":
            assert check.title in shown.text


def test_the_page_tells_the_gravest_status():
    statuses = ("failed", "warning", "noted", "passed")
    headings = ("is refused", "with warnings", "is in order", "is in order")
    results = [
        Finding(check, 1, 3, 0.5, status, ())
        for check, status in zip(ALL_CHECKS, statuses, strict=False)
    ]
    for gravest, heading in enumerate(headings):
        html = page(Report({"train.jsonl": 3}, "0" * 64, results[gravest:]))
        assert heading in html.split("</h1>")[0]
        assert all(f">{status}</span>" in html for status in statuses[gravest:])


def test_great_expectations_counts_over_chunks():
    chunks = [pd.DataFrame({"a": [0, 1, 2]}), pd.DataFrame({"a": [5, 9, 0]})]
    rules = [Rule("small", "a", minimum=1), Rule("large", "a", maximum=4), Rule("both", "a", 1, 4)]
    expectations = Expectations()
    assert expectations.count_broken("t", chunks, rules) == {"small": 2, "large": 2, "both": 4}
    for rule in rules:
        broken = sum(int(rule.broken_by(chunk["a"].to_numpy()).sum()) for chunk in chunks)
        assert broken == {"small": 2, "large": 2, "both": 4}[rule.name]
    shares = [Share("at", 0.5, 0.5, 0), Share("over", 0.51, 0.5, 0), Share("none", 0, 0, 0)]
    assert expectations.exceeded("s", shares) == {"allowed": {"over"}, "tolerated": {"at", "over"}}
    assert expectations.exceeded("r", shares[2:]) == {"allowed": set(), "tolerated": set()}


def test_validation_sends_nothing_and_writes_nowhere_else(
    catalogue: Catalogue, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    catalogue.validate(output)
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalogue", "dataset"]


def test_thresholds_are_shares():
    with pytest.raises(ConfigError, match=r"validation\.max_empty_ids is a share from 0 to 1"):
        Config.from_dict({"validation": {"max_empty_ids": 1.5}})
    names = set(vars(ValidationConfig())) - {"long_text_chars"}
    assert names == {check.threshold for check in ALL_CHECKS if check.threshold}


def test_ranges_double():
    histogram = by_doubling("numbers", np.array([0, 0, 1, 2, 3, 4, 7, 8, 1000]))
    assert histogram.title == "numbers"
    assert histogram.ranges[:5] == ("0", "1", "2–3", "4–7", "8–15")
    assert histogram.ranges[-1] == "512–1,023"
    assert histogram.counts[:5] == (2, 1, 2, 2, 1)
    assert sum(histogram.counts) == 9
    assert by_doubling("", np.zeros(3, np.int64)).counts == (3,)


@pytest.mark.parametrize("lengths", [[1], [0, 0], list(range(200)), [5] * 500 + [10_000]])
def test_every_length_is_in_one_bar(lengths: list[int]):
    histogram = text_lengths(np.array(lengths, np.int32))
    assert sum(histogram.counts) == len(lengths)
    assert len(histogram.ranges) == len(histogram.counts) <= 30

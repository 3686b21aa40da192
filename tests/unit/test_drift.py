"""How a catalogue differs from an accepted one: counts, distances, limits, the report."""

import html
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue import drift_checks
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.drift import Comparison, Drift, find_drift, kolmogorov_smirnov
from xcflow.catalogue.findings import Check, Finding
from xcflow.catalogue.hashing import hash_strings
from xcflow.catalogue.profile import MAX_CHARS, Profile
from xcflow.catalogue.string_table import StringTable
from xcflow.config import Config, DriftConfig
from xcflow.errors import ArtifactError, ConfigError, DataError
from xcflow.steps import run_step

# Id -> text and number of training documents.
Labels = dict[str, tuple[str, int]]
ALL_CHECKS = [value for value in vars(drift_checks).values() if isinstance(value, Check)]

labels_of_a_catalogue = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.tuples(st.text("xyé", min_size=1, max_size=3), st.integers(0, 5)),
    min_size=1,
)
ids_of_documents = st.sets(st.integers(0, 30).map(str), min_size=1)


def profile(labels: Labels, documents: set[str], tokens: int = 100, unknown: int = 0) -> Profile:
    texts = [text for text, _ in labels.values()]
    lengths = np.bincount([len(text) for text in texts], minlength=MAX_CHARS + 1)
    return Profile(
        catalogue="c" * 64,
        label_ids=StringTable.from_list(list(labels)),
        label_texts=StringTable.from_list(texts),
        label_counts=np.array([count for _, count in labels.values()]),
        document_ids=np.sort(hash_strings(sorted(documents))),
        document_lengths=np.bincount([3] * len(documents), minlength=MAX_CHARS + 1),
        label_lengths=lengths,
        tokens=tokens,
        unknown_tokens=unknown,
    )


def counts(old: Profile, new: Profile) -> dict[str, int]:
    return {o.check.name: o.tally.count for o in Comparison(old, new).observed()}


@given(labels=labels_of_a_catalogue, documents=ids_of_documents, shift=st.integers(0, 5))
def test_the_same_catalogue_in_another_order_has_not_changed(
    labels: Labels, documents: set[str], shift: int
):
    rows = list(labels.items())
    shifted = dict(rows[shift:] + rows[:shift])
    found = counts(profile(labels, documents), profile(shifted, documents))
    assert set(found) == {check.name for check in ALL_CHECKS}
    assert not any(found.values())


@given(
    old=labels_of_a_catalogue,
    new=labels_of_a_catalogue,
    old_documents=ids_of_documents,
    new_documents=ids_of_documents,
)
def test_what_came_and_went_is_what_sets_say(
    old: Labels, new: Labels, old_documents: set[str], new_documents: set[str]
):
    found = counts(profile(old, old_documents), profile(new, new_documents))
    assert found["removed_labels"] == len(old.keys() - new.keys())
    assert found["added_labels"] == len(new.keys() - old.keys())
    if len(found) > 2:
        common = old.keys() & new.keys()
        assert found["renamed_labels"] == sum(old[i][0] != new[i][0] for i in common)
        assert found["removed_documents"] == len(old_documents - new_documents)
        assert found["added_documents"] == len(new_documents - old_documents)
    else:
        assert not old.keys() & new.keys()


@given(old=labels_of_a_catalogue, new=labels_of_a_catalogue)
def test_the_distance_of_label_shares_is_what_its_definition_says(old: Labels, new: Labels):
    found = counts(profile(old, {"1"}), profile(new, {"1"}))
    sums = [sum(count for _, count in labels.values()) for labels in (old, new)]
    if "label_shares" not in found or not all(sums):
        return
    shares: list[Counter[str]] = [
        Counter({i: n / total for i, (_, n) in labels.items()})
        for labels, total in zip((old, new), sums, strict=True)
    ]
    moved = sum(abs(shares[0][i] - shares[1][i]) for i in old.keys() | new.keys()) / 2
    assert found["label_shares"] == pytest.approx(moved * sums[1], abs=0.5 + 1e-9)


@given(
    old=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    new=st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
def test_the_distance_of_distributions_is_that_of_scipy(old: list[int], new: list[int]):
    found = kolmogorov_smirnov(np.bincount(old), np.bincount(new))
    assert found == pytest.approx(ks_2samp(old, new).statistic)


def found(drift: Drift) -> dict[str, Finding]:
    return {finding.check.name: finding for finding in drift.findings}


def many(count: int, start: int = 0) -> Labels:
    return {f"l{i}": (f"label {i}", 1 + i % 7) for i in range(start, start + count)}


def test_examples_name_the_labels_with_most_documents_first():
    old = {**many(40), "gone": ("the rare one", 1), "lost": ("the frequent one", 90)}
    new = {**many(40), "l7": ("an octet", 1), "fresh": ("a new one", 3)}
    by_name = found(find_drift(profile(old, {"1"}), profile(new, {"1"}), DriftConfig()))
    assert [(e.id, e.text, e.remark) for e in by_name["removed_labels"].examples] == [
        ("lost", "the frequent one", "training documents: 90"),
        ("gone", "the rare one", "training documents: 1"),
    ]
    (added,) = by_name["added_labels"].examples
    assert (added.id, added.remark) == ("fresh", "training documents: 3")
    (renamed,) = by_name["renamed_labels"].examples
    assert (renamed.id, renamed.text, renamed.remark) == ("l7", "an octet", "was: label 7")


def test_labels_that_were_mixed_up_show_in_their_shares_only():
    """Each document names the label after its own: no other figure changes."""
    old = {f"l{i}": (f"label {i}", i) for i in range(10, 50)}
    shifted = {f"l{i}": (f"label {i}", 10 + (i - 9) % 40) for i in range(10, 50)}
    by_name = found(find_drift(profile(old, {"1"}), profile(shifted, {"1"}), DriftConfig()))
    assert {name for name, finding in by_name.items() if finding.count} == {"label_shares"}
    assert by_name["label_shares"].examples[0].id == "l49"


@pytest.mark.parametrize(
    ("limits", "removed", "status"),
    [
        ({}, 0, "passed"),
        ({}, 5, "noted"),
        ({}, 6, "warning"),
        ({"removed_labels": {"warn": 0.1}}, 6, "noted"),
        ({"removed_labels": {"fail": 0.06}}, 6, "warning"),
        ({"removed_labels": {"fail": 0.05}}, 6, "failed"),
    ],
)
def test_a_limit_is_crossed_by_more(limits: dict[str, Any], removed: int, status: str):
    config = Config.from_dict({"drift": limits}).drift
    old, new = profile(many(100), {"1"}), profile(many(100 - removed), {"1"})
    assert found(find_drift(old, new, config))["removed_labels"].status == status


def test_only_a_rise_of_unknown_tokens_counts():
    few, many_ = (profile(many(5), {"1"}, tokens=1000, unknown=n) for n in (20, 50))
    assert counts(few, many_)["unknown_tokens_rise"] == 30
    assert counts(many_, few)["unknown_tokens_rise"] == 0
    larger = replace(few, tokens=2000, unknown_tokens=40)
    assert counts(few, larger)["unknown_tokens_rise"] == 0


def test_another_catalogue_is_told_from_one_that_lost_most():
    old = profile(many(100), {"1"})
    other = find_drift(old, profile(many(100, start=96), {"1"}), DriftConfig())
    assert other.is_of_another
    assert set(found(other)) == {"removed_labels", "added_labels"}
    assert {f.status for f in other.findings} == {"warning"}
    part = find_drift(old, profile(many(2), {"1"}), DriftConfig())
    assert not part.is_of_another
    assert found(part)["removed_labels"].count == 98


def test_another_catalogue_fails_where_labels_may_not_go():
    config = Config.from_dict({"drift": {"removed_labels": {"fail": 0.5}}}).drift
    drift = find_drift(profile(many(9), {"1"}), profile(many(9, start=50), {"1"}), config)
    assert found(drift)["removed_labels"].status == "failed"


def test_each_limit_has_its_check():
    limited = {check.name for check in ALL_CHECKS if check.threshold}
    assert limited == set(vars(DriftConfig()))
    with pytest.raises(ConfigError, match=r"drift\.label_shares\.warn is a share from 0 to 1"):
        Config.from_dict({"drift": {"label_shares": {"warn": 2.0}}})
    assert Config.from_dict({"drift": {"label_shares": {"fail": 0.5}}}).drift.label_shares == (
        replace(DriftConfig().label_shares, fail=0.5)
    )


def write_catalogue(folder: Path, labels: int = 30, prefix: str = "") -> Path:
    """Documents of different lengths with one label each."""
    rows = {
        "labels": [{"id": f"l{i}", "text": f"{prefix}label {i}"} for i in range(labels)],
        "train": [document("d", i, labels) for i in range(60)],
        "test": [document("t", i, labels) for i in range(10)],
    }
    folder.mkdir()
    for role, content in rows.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (folder / f"{role}.jsonl").write_text("".join(lines))
    return folder


def document(role: str, i: int, labels: int) -> dict[str, Any]:
    text = f"{role}{i:02}" + "é" * (i % 5)
    return {"id": f"{role}{i}", "text": text, "labels": [f"l{i % labels}"]}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same catalogue with all and with half of its labels."""
    folder = tmp_path_factory.mktemp("drift")
    config = Config.from_dict({"data": {"catalogue_words": 0}})
    made = {}
    for name, labels, prefix in (("all", 30, ""), ("half", 15, "the ")):
        catalogue = write_catalogue(folder / name, labels, prefix)
        made[name] = folder / f"{name} dataset"
        run_step("validate_data", config, {"catalogue": catalogue}, made[name])
    return made


def test_a_profile_is_kept_beside_the_labels(datasets: dict[str, Path], tmp_path: Path):
    dataset = Dataset.open(datasets["all"])
    before = Profile.of(dataset)
    with writing(tmp_path / "bundle", "bundle") as folder:
        (folder / "labels").mkdir()
        dataset.labels.ids.save(folder / "labels" / "ids")
        dataset.labels.texts.save(folder / "labels" / "texts")
        before.save(folder)
    after = Profile.open(tmp_path / "bundle")
    assert vars(after).keys() == vars(before).keys()
    for name, value in vars(before).items():
        if isinstance(value, StringTable):
            assert getattr(after, name).to_list() == value.to_list()
        else:
            np.testing.assert_array_equal(getattr(after, name), value)
    assert before.document_lengths[2:9].tolist() == [0, 14, 14, 14, 14, 14, 0]
    assert len(before.document_ids) == 70
    assert before.tokens > 0


def test_a_bundle_without_a_profile_is_refused(datasets: dict[str, Path], tmp_path: Path):
    with writing(tmp_path / "bundle", "bundle"):
        pass
    with pytest.raises(ArtifactError, match="holds no profile of a catalogue"):
        Profile.open(tmp_path / "bundle")


def check(datasets: dict[str, Path], output: Path, **drift: dict[str, float]) -> dict[str, Any]:
    """The report on the catalogue that lost half of its labels."""
    inputs = {"dataset": datasets["half"], "accepted": datasets["all"]}
    run_step("check_drift", Config.from_dict({"drift": drift}), inputs, output)
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


def test_the_report_has_both_what_was_found_and_what_differs(
    datasets: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    report = check(datasets, tmp_path / "drift")
    checks = {row["name"]: row for row in report["checks"]}
    assert checks["removed_labels"]["status"] == "warning"
    assert checks["removed_labels"]["threshold"] == "drift.removed_labels.fail"
    assert checks["renamed_labels"]["count"] == 15
    assert checks["removed_documents"]["status"] == "passed"
    names = {check.name for check in ALL_CHECKS}
    alone = json.loads((datasets["half"] / "report.json").read_text())
    assert [row for row in report["checks"] if row["name"] not in names] == alone["checks"]
    assert report["summary"] == alone["summary"]
    assert report["drift"]["labels_in_common"] == 15
    assert (
        report["drift"]["accepted_catalogue_digest"]
        == (Dataset.open(datasets["all"]).manifest.meta["catalogue_digest"])
    )
    page = html.unescape((tmp_path / "drift" / "report.html").read_text())
    assert "Beside the last accepted catalogue" in page
    assert "15 of 15 labels" in page
    assert "was: label 3" in page
    assert all(check.title in page for check in ALL_CHECKS)
    assert "warning: Labels that were removed: 15 of 30 labels" in capfd.readouterr().err
    meta = read_manifest(tmp_path / "drift", "drift").meta
    assert (meta["status"], meta["removed_labels"]) == ("warning", 15)


def test_too_large_a_difference_stops_with_one_line(datasets: dict[str, Path], tmp_path: Path):
    output = tmp_path / "drift"
    with pytest.raises(DataError) as caught:
        check(datasets, output, removed_labels={"fail": 0.2})
    message = str(caught.value)
    page = tmp_path / "drift.rejected" / "report.html"
    assert message == (
        "Labels that were removed: 15 of 30 labels of the accepted catalogue (50%, 20% allowed); "
        f"report: {page}"
    )
    assert "The catalogue is refused" in page.read_text()
    assert not output.exists()
    check(datasets, output)
    assert not page.parent.exists()


def test_without_an_accepted_catalogue_the_report_stays_as_it_is(
    datasets: dict[str, Path], tmp_path: Path
):
    run_step("check_drift", Config(), {"dataset": datasets["all"]}, tmp_path / "drift")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "drift" / name).read_text() == (datasets["all"] / name).read_text()

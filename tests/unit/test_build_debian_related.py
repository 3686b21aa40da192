import gzip
import json

import build_debian_related as builder
import pytest

INDEX = """\
Package: lib
Source: lib (1.2-3)
Description: a  library
 of many pages
Depends: libc (>= 2), ghost

Package: lib-doc
Source: lib
Description: manual of the library
Suggests: lib:any (>= 1) | viewer [amd64], lib-doc

Package: app
Description: an application
Pre-Depends: lib (= 1.2),
 libc
Recommends: viewer
Breaks: old

Package: old
Description: an old application
Enhances: app

Package: viewer
Description: shows things
Depends: app, libc

Package: libc
Description: needed by nearly all
"""


@pytest.fixture
def packages(monkeypatch):
    # Three of five documents name libc; in so small an index that is what "common" means.
    monkeypatch.setattr(builder, "LARGEST_LABEL_SHARE", 0.5)
    return builder.read_packages(INDEX.splitlines(keepends=True))


def rows(path):
    return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]


def test_relations_are_read_without_versions_and_architectures(packages):
    assert packages["lib-doc"].related == {"lib", "viewer", "lib-doc"}
    assert packages["app"].related == {"lib", "libc", "viewer"}  # a folded field; Breaks is none
    assert packages["lib"].related == {"libc", "ghost"}


def test_text_is_the_name_and_the_short_description(packages):
    assert packages["lib"].text == "lib: a library"


def test_source_is_the_name_unless_stated(packages):
    assert (packages["lib-doc"].source, packages["lib"].source) == ("lib", "lib")
    assert packages["app"].source == "app"


def test_a_later_stanza_replaces_an_earlier_one():
    packages = builder.read_packages(["Package: a\n", "\n", "Package: a\n", "Depends: b\n"])
    assert packages["a"].related == {"b"}


def test_common_unknown_and_own_labels_are_dropped(packages):
    data = builder.build(packages, in_test=lambda source: False)
    assert data.train == {
        "app": ["lib", "viewer"],
        "lib-doc": ["lib", "viewer"],
        "old": ["app"],
        "viewer": ["app"],
    }
    assert data.labels == ["app", "lib", "viewer"]
    assert data.removed["labels dropped: too common"] == 1
    assert data.removed["points dropped: nothing left"] == 1  # lib named only libc and a ghost


def test_a_test_document_is_not_asked_for_what_training_has_shown(packages):
    # viewer, in train, names app: app -> viewer is neither truth nor a prediction that counts.
    # old names app too, but is no label that could be predicted.
    data = builder.build(packages, in_test=lambda source: source == "app")
    assert data.test == {"app": ["lib"]}
    assert data.test_filter == {"app": ["app", "viewer"]}
    assert data.removed["test pairs dropped: reciprocal pair in train"] == 1


def test_labels_without_a_training_document_are_dropped(packages):
    data = builder.build(packages, in_test=lambda source: source != "viewer")
    assert data.train == {"viewer": ["app"]}
    assert data.labels == ["app"]
    assert data.test == {"old": ["app"]}
    assert data.removed["test pairs dropped: label has no training point"] == 3
    assert data.removed["test points dropped: no label left"] == 2


def test_the_split_is_by_source_and_takes_its_share(packages):
    asked = []
    builder.build(packages, in_test=lambda source: bool(asked.append(source)))
    assert set(asked) == {"app", "lib", "old", "viewer"}  # of lib-doc its source was asked
    in_test = sum(builder.in_test_split(f"package{i}") for i in range(2000))
    assert in_test / 2000 == pytest.approx(builder.TEST_SHARE, abs=0.03)


def test_files_are_the_same_bytes_each_time_and_hold_all_rows(packages, tmp_path):
    texts = {name: package.text for name, package in packages.items()}
    data = builder.build(packages, in_test=lambda source: source == "app")
    first = builder.write(data, texts, tmp_path / "a")
    second = builder.write(data, texts, tmp_path / "b")
    assert first == second
    for name in first["sha256"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert rows(tmp_path / "a" / "tst.jsonl.gz") == [
        {"id": "app", "text": "app: an application", "labels": ["lib"]}
    ]
    assert [row["id"] for row in rows(tmp_path / "a" / "labels.jsonl.gz")] == data.labels


def test_train_of_keeps_the_split_of_an_earlier_data_set(packages, tmp_path):
    texts = {name: package.text for name, package in packages.items()}
    data = builder.build(packages, in_test=lambda source: source == "viewer")
    builder.write(data, texts, tmp_path)
    in_test = builder.split_of(tmp_path, packages)
    assert builder.build(packages, in_test) == data


@pytest.mark.parametrize("content", [b"no index at all\n", b"\xff\xfe"])
def test_a_file_that_is_no_index_gets_one_line(content, tmp_path, capsys):
    index = tmp_path / "Packages"
    index.write_bytes(content)
    with pytest.raises(SystemExit) as exit_:
        builder.main(["--packages", str(index), "--output", str(tmp_path / "out")])
    assert exit_.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()

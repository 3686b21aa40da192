"""A catalogue's seal says what the catalogue holds, and nothing else passes for it."""

import json
from pathlib import Path

import pytest

from xcflow.catalogue.readers import catalogue_digest
from xcflow.catalogue.seal import NAME, Seal, read_seal
from xcflow.config import DataConfig
from xcflow.errors import DataError
from xcflow.storage import replace_file

CONFIG = DataConfig(chunk_rows=2)


@pytest.fixture
def folder(write_catalogue, tmp_path) -> Path:
    return write_catalogue(
        tmp_path / "catalogue",
        [{"id": i, "text": f"label {i}"} for i in ("a", "b", "c", "b", " ")],
        [{"id": f"d{i}", "text": "text", "labels": ["a"]} for i in (1, 2, 2)],
        [{"id": f"d{i}", "text": "text", "labels": ["b"]} for i in (2, 3)],
    )


def test_a_seal_knows_digest_and_counts_of_the_content(folder):
    seal = Seal.of(folder, CONFIG)
    assert seal.digest == catalogue_digest(folder)
    assert (seal.labels, seal.documents) == (3, 3)
    sizes = {file.name: file.size for file in seal.parts.values()}
    assert sizes == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_seal_is_no_part_of_the_catalogue_and_comes_back_as_it_was(folder):
    digest = catalogue_digest(folder)
    seal = Seal.of(folder, CONFIG)
    replace_file(folder / NAME, seal.to_bytes())
    assert read_seal(str(folder)) == seal
    assert catalogue_digest(folder) == digest
    assert Seal.of(folder, CONFIG).to_bytes() == (folder / NAME).read_bytes()


def test_a_catalogue_without_a_seal_has_none(folder):
    assert read_seal(str(folder)) is None


def altered(seal: Seal, **values: object) -> bytes:
    return json.dumps({**json.loads(seal.to_bytes()), **values}).encode()


def test_what_is_no_seal_is_refused_in_one_line(folder):
    seal = Seal.of(folder, CONFIG)
    contents = {
        b"{": "is no seal of a catalogue",
        b"[]": "is no seal of a catalogue",
        b"\xff": "is no seal of a catalogue",
        b"{}": "is no seal of a catalogue",
        altered(seal, parts=[1]): "is no seal of a catalogue",
        altered(seal, labels="many"): "is no seal of a catalogue",
        altered(seal, parts={"labels": {"name": "x"}}): "is no seal of a catalogue",
        altered(seal, layout=2): "has the layout 2, this version of xcflow reads 1",
        altered(seal, digest="0" * 64): "was altered",
    }
    for content, reason in contents.items():
        (folder / NAME).write_bytes(content)
        with pytest.raises(DataError, match=reason) as caught:
            read_seal(str(folder))
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(folder / NAME))


def test_a_catalogue_that_changes_while_it_is_sealed_is_refused(folder, monkeypatch):
    from xcflow.catalogue import seal

    def change(reader, rows):
        with (folder / "train.jsonl").open("a") as stream:
            stream.write("\n")
        return []

    monkeypatch.setattr(seal, "document_hashes", change)
    with pytest.raises(DataError, match="was changed while it was read"):
        Seal.of(folder, CONFIG)

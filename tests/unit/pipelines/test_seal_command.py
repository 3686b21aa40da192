"""`xcflow seal`: a catalogue's own manifest, and what becomes of a catalogue that breaks it."""

import json

import pytest

from xcflow.catalogue.readers import catalogue_digest
from xcflow.catalogue.seal import NAME, read_seal
from xcflow.config import Config
from xcflow.errors import DataError
from xcflow.steps import run_step
from xcflow_pipelines import shell
from xcflow_pipelines.cli import app

CONFIG = Config.from_dict({"data": {"catalogue_words": 0}})


@pytest.fixture
def xcflow(tmp_path, monkeypatch, capsys):
    """Runs a command line; returns exit code, standard output and error."""
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))

    def act(*arguments):
        code = shell.guarded(lambda: app(arguments, standalone_mode=False))
        return code, *capsys.readouterr()

    return act


@pytest.fixture
def folder(write_catalogue, tmp_path):
    return write_catalogue(
        tmp_path / "catalogue",
        [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}],
        [{"id": f"d{i}", "text": f"text {i}", "labels": ["a"]} for i in range(9)],
        [{"id": "t1", "text": "other text", "labels": ["b"]}],
    )


def test_a_catalogue_is_sealed_in_its_place(xcflow, folder):
    digest = catalogue_digest(folder)
    code, out, _ = xcflow("seal", "--data", str(folder))
    assert (code, out) == (0, f"sealed as {digest[:12]}: 2 labels, 10 documents\n")
    assert read_seal(str(folder)).digest == digest
    code, out, _ = xcflow("seal", "--data", f"{folder}/", "--json")
    assert json.loads(out) == {"digest": digest, "labels": 2, "documents": 10}


def test_a_sealed_catalogue_is_read_like_another(xcflow, folder, tmp_path):
    xcflow("seal", "--data", str(folder))
    run_step("validate_data", CONFIG, {"catalogue": folder}, tmp_path / "dataset")
    assert (tmp_path / "dataset" / "manifest.json").is_file()


def test_a_catalogue_that_breaks_its_seal_is_refused_when_it_is_read(xcflow, folder, tmp_path):
    xcflow("seal", "--data", str(folder))
    train = folder / "train.jsonl"
    train.write_text(train.read_text().replace("text 1", "text 2"))
    with pytest.raises(DataError, match=rf"{NAME}: is the seal of another content"):
        run_step("validate_data", CONFIG, {"catalogue": folder}, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "--data: give the folder or URI of a catalogue"),
        ("nowhere", "--data nowhere: no such folder"),
    ],
)
def test_without_a_catalogue_there_is_nothing_to_seal(xcflow, data, words):
    code, out, error = xcflow("seal", "--data", data)
    assert (code, out) == (2, "")
    assert words in error
    assert error.count("\n") == 1

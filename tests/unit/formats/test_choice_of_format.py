"""Which format a folder is taken for."""

import re
from typing import get_args

import pytest

from xcflow.catalogue.readers import READERS, catalogue_digest, open_catalogue
from xcflow.config import CatalogueFormat, Config
from xcflow.errors import ConfigError, DataError
from xcflow.steps.validate_data import run

CSV = {
    "labels.csv": "id,text\n0,csv\n",
    "train.csv": "id,text,labels\n0,csv,0\n",
    "test.csv": "id,text,labels\n0,csv,0\n",
}


def test_every_format_that_can_be_named_has_a_reader():
    assert {"auto", *READERS} == set(get_args(CatalogueFormat))


def test_two_formats_in_one_folder(tmp_path, tools, small):
    folder = tools.write(tools.write_jsonl(tmp_path, small), CSV)
    reason = "several formats: name one with --set data.format=jsonl or --set data.format=csv"
    for use in (open_catalogue, catalogue_digest):
        with pytest.raises(DataError, match=re.escape(reason)):
            use(folder)
    assert open_catalogue(folder, "csv").files["train"].name == "train.csv"
    assert catalogue_digest(folder, "csv") != catalogue_digest(folder, "jsonl")


def test_the_step_takes_the_format_that_is_named(tmp_path, tools, small):
    folder = tools.write(tools.write_jsonl(tmp_path / "in", small), CSV)
    config = Config.from_dict({"data": {"format": "parquet"}})
    with pytest.raises(DataError, match=r"misses labels\.parquet; train\.parquet or trn\.parquet"):
        run(config, {"catalogue": folder}, tmp_path / "out")


def test_a_format_that_is_none():
    with pytest.raises(ConfigError, match=r"data\.format must be one of auto, jsonl, repository-"):
        Config.from_dict({"data": {"format": "json"}})


def test_a_folder_without_any_is_told_all(tmp_path):
    with pytest.raises(
        DataError, match=r"looked for labels\.jsonl.*lbl\.json.*Xf\.txt.*labels\.csv"
    ):
        open_catalogue(tmp_path)


def test_the_digest_sees_every_file_that_is_read(tmp_path, tools):
    files = {
        "trn_X_Xf.txt": "0 1\n",
        "tst_X_Xf.txt": "0 1\n",
        "lbl_X_Xf.txt": "0 1\n",
        "trn_X_Y.txt": "0 0\n",
        "tst_X_Y.txt": "0 0\n",
        "Xf.txt": "word\n",
        "filter_labels_test.txt": "",
    }
    digest = catalogue_digest(tools.write(tmp_path, files))
    for name, content in files.items():
        changed = catalogue_digest(tools.write(tmp_path, {name: content + "\n"}))
        assert changed != digest, name
        tools.write(tmp_path, {name: content, "filter_labels_train.txt": "0 0\n"})
        assert catalogue_digest(tmp_path) == digest

"""Where pre-trained models come from."""

from pathlib import Path

import pytest

from xcflow.errors import ConfigError
from xcflow.pretrained import model_folder


def test_the_packaged_model():
    names = {path.name for path in model_folder("minilm").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_a_local_folder(pretrained: Path):
    assert model_folder(str(pretrained)) == pretrained


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder(make_pretrained, tmp_path: Path, name: str):
    folder = make_pretrained(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"model: .*/{name} is missing"):
        model_folder(str(folder))


@pytest.mark.parametrize("model", ["no-such-org/no-such-model", "/no/such/folder", "a b?"])
def test_what_is_nowhere(model: str):
    with pytest.raises(
        ConfigError, match=r"nor to be had from the model hub .*: give a local folde"
    ):
        model_folder(model)

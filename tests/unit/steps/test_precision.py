"""The precision in which a bundle's transformer answers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.encoders.frozen import load_frozen
from xcflow.serving.predictor import Predictor
from xcflow.steps import STEPS, run_step
from xcflow.training import precision
from xcflow.training.precision import best_precision

TEXTS = ["amber goat w", "koala", "", "ebony ibis y x", "zebra 斑马"]


@pytest.mark.parametrize(
    ("fp32", "int8", "expected"),
    [
        (0.500, 0.497, "int8"),  # three documents of a thousand, which floats would call more
        (0.500, 0.496, "fp32"),
        (0.500, 0.600, "int8"),
        (0.0, 0.0, "int8"),
        (float("nan"), float("nan"), "fp32"),
    ],
)
def test_int8_answers_where_it_loses_no_more_than_three_tenths_of_a_point(
    fp32: float, int8: float, expected: str
):
    chosen, reason = best_precision({"torch": 1.0, "fp32": fp32, "int8": int8})
    assert chosen == expected
    assert "0.3 points" in reason


@pytest.fixture(scope="module")
def model(
    catalogue: Path, configure: Callable[..., Config], train_model: Callable[..., Any]
) -> Any:
    encoder = {"kind": "transformer_with_bag", "layers": 1}
    return train_model(catalogue, configure(encoder=encoder))


def rebuilt(model: Any, output: Path) -> Path:
    """The bundle built once more."""
    inputs = {name: getattr(model, name) for name in STEPS["build_index"].inputs}
    run_step("build_index", model.config, inputs, output)
    return output


def settings_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "bundle.json").read_text()))


def exports(bundle: Path) -> list[str]:
    return sorted(path.name for path in bundle.glob("*.onnx"))


def test_a_bundle_holds_both_exports_and_what_they_are_worth(model: Any):
    assert exports(model.bundle) == ["encoder.0.fp32.onnx", "encoder.0.int8.onnx"]
    said = model.manifest("bundle").meta["precision"]
    figures = said["validation_P@1"]
    assert set(figures) == {"torch", "fp32", "int8"}
    assert figures["fp32"] == figures["torch"]
    assert (said["chosen"], said["because"]) == best_precision(figures)
    assert settings_of(model.bundle)["precision"] == said["chosen"]


def test_the_predictor_answers_in_the_chosen_precision(model: Any):
    predictor = model.predictor()
    chosen = settings_of(model.bundle)["precision"]
    tokens = predictor.embedder.tokens(TEXTS, 64)
    expected = load_frozen(model.bundle, chosen).encode(tokens)
    np.testing.assert_array_equal(predictor.embed(TEXTS), expected)
    in_torch = load_frozen(model.bundle).encode(tokens)
    np.testing.assert_allclose(
        load_frozen(model.bundle, "fp32").encode(tokens), in_torch, atol=1e-5
    )


def test_answers_do_not_depend_on_the_company(model: Any):
    predictor = model.predictor()
    together = predictor.top_k(TEXTS, 4)
    for row, text in enumerate(TEXTS):
        alone = predictor.top_k([text], 4)
        np.testing.assert_array_equal(together.labels[row], alone.labels[0])
        np.testing.assert_allclose(together.scores[row], alone.scores[0], atol=1e-5)


def test_the_same_model_gives_the_same_bundle(model: Any, tmp_path: Path):
    again = read_manifest(rebuilt(model, tmp_path / "again"))
    assert again.digest == model.manifest("bundle").digest


def test_where_int8_loses_too_much_fp32_answers(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(precision, "MOST_LOST", -2.0)
    bundle = rebuilt(model, tmp_path / "bundle")
    assert settings_of(bundle)["precision"] == "fp32"
    assert read_manifest(bundle).meta["precision"]["because"].startswith("on which int8 loses")
    assert len(exports(bundle)) == 2
    tokens = Predictor.load(bundle).embedder.tokens(TEXTS, 64)
    expected = load_frozen(bundle, "fp32").encode(tokens)
    np.testing.assert_array_equal(Predictor.load(bundle).embed(TEXTS), expected)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_torch_answers_and_the_log_says_so(
    package: str,
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.delitem(sys.modules, "xcflow.encoders.onnx_export", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    bundle = rebuilt(model, tmp_path / "bundle")
    line = f"answers will need torch: {package} "
    (said,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith(line)]
    assert said.endswith("is not installed: pip install 'xcflow[onnx]'")
    assert exports(bundle) == []
    assert settings_of(bundle)["precision"] is None
    assert "precision" not in read_manifest(bundle).meta
    top = Predictor.load(bundle).top_k(TEXTS, 3)
    assert top.labels.shape == (len(TEXTS), 3)


def test_a_bundle_of_an_earlier_version_answers_by_torch(model: Any, tmp_path: Path):
    bundle = shutil.copytree(model.bundle, tmp_path / "bundle")
    settings = settings_of(bundle)
    del settings["precision"]
    (bundle / "bundle.json").write_text(json.dumps(settings))
    predictor = Predictor.load(bundle, verify=False)
    expected = load_frozen(bundle).encode(predictor.embedder.tokens(TEXTS, 64))
    np.testing.assert_array_equal(predictor.embed(TEXTS), expected)


def test_answering_needs_no_torch(model: Any):
    program = """
import json, sys
for name in ("torch", "transformers", "onnx", "onnxscript"):
    sys.modules[name] = None  # an import of it fails
from pathlib import Path
from xcflow.serving.predictor import Predictor
top = Predictor.load(Path(sys.argv[1])).top_k(json.loads(sys.argv[2]), 3)
print(json.dumps(top.labels.tolist()))
"""
    command = [sys.executable, "-c", program, str(model.bundle), json.dumps(TEXTS)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert said == model.predictor().top_k(TEXTS, 3).labels.tolist()

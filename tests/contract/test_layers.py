"""The import contracts of pyproject.toml hold, and each of them would notice a breach."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("src/xcflow", "components/xcflow_components", "pipelines/xcflow_pipelines")


def lint_imports(path: Path) -> subprocess.CompletedProcess[str]:
    """Check the packages that lie side by side in ``path`` against the contracts."""
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports("
    command += f"config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", command],
        cwd=path,
        env=os.environ | {"PYTHONPATH": str(path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path):
    """A copy of the packages' modules, to be broken."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            tmp_path / Path(package).name,
            ignore=shutil.ignore_patterns("__pycache__", "data", "*.html"),
        )
    return tmp_path


def test_contracts_hold(tree):
    result = lint_imports(tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("xcflow/evaluation/breach.py", "import kfp", "the library knows nothing of Kubeflow"),
        ("xcflow/steps/breach.py", "from xcflow_components import notify", "never back"),
        ("xcflow_components/breach.py", "import xcflow_pipelines", "never back"),
        ("xcflow/evaluation/breach.py", "import mlflow", "only xcflow.registry imports mlflow"),
        ("xcflow_pipelines/breach.py", "import mlflow", "only xcflow.registry imports mlflow"),
        ("xcflow/catalogue/breach.py", "import boto3", "only xcflow.storage imports boto3"),
        ("xcflow/labels/breach.py", "from xcflow import training", "layers inside xcflow"),
        ("xcflow/breach.py", "", "layers inside xcflow"),
    ],
)
def test_a_breach_is_noticed(tree, module, line, contract):
    # Inside a function, as a late import would be.
    (tree / module).write_text(f"def breach():\n    {line or 'pass'}\n")
    result = lint_imports(tree)
    assert result.returncode == 1
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    assert any(contract in line for line in broken), result.stdout + result.stderr


def test_the_registry_may_import_mlflow(tree):
    (tree / "xcflow/registry/allowed.py").write_text("import mlflow\n")
    assert lint_imports(tree).returncode == 0

"""What is installed: the wheel's content, the lock's, and the name mlflow."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("src/xcflow", "components/xcflow_components", "pipelines/xcflow_pipelines")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = re.findall(r"^([A-Za-z0-9._-]+)==", LOCK, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    expected = {
        path.relative_to((ROOT / package).parent).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    # The gate's thresholds belong beside the tracking server's settings, and to whoever installs.
    assert inside == expected | {"xcflow/evaluation/gate.toml"}
    assert {"xcflow/py.typed", "xcflow/data/debian-related/trn.jsonl.gz"} <= inside
    assert any(re.fullmatch(r"xcflow/profiles/[\w-]+\.toml", name) for name in inside)
    assert not any("test" in Path(name).parts for name in inside)


def test_wheel_brings_the_command_and_the_licence(wheel):
    names = wheel.namelist()
    (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
    assert b"xcflow = xcflow_pipelines.cli:main" in wheel.read(entry_points)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_lock_pins_by_hash_and_names_no_place():
    requirement = r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+( ; [^\\]+)? \\\n"
    digest = r" {4}--hash=sha256:[0-9a-f]{64}( \\)?\n"
    comment = r"( *#[^\n]*)?\n"
    assert re.fullmatch(f"({comment})*({requirement}({digest})+({comment})*)+", LOCK)
    assert "://" not in LOCK
    assert not re.search(r"(^|\s)/\w", LOCK, flags=re.MULTILINE)


def test_lock_leaves_torch_to_the_set_up():
    assert not [pin for pin in PINS if re.match(r"(torch|triton|nvidia)", pin)]
    assert len(PINS) == len(set(PINS))


def test_torch_has_one_version():
    (pinned,) = (name for name in PROJECT["project"]["dependencies"] if name.startswith("torch"))
    (resolved,) = PROJECT["tool"]["uv"]["dependency-metadata"]
    assert pinned == f"torch=={resolved['version']}"


def test_installed_packages_agree_with_each_other():
    check = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_mlflow_is_the_library_even_from_the_root():
    # The folder mlflow/ holds settings; with an __init__.py it would be what `import mlflow` finds.
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(sys.prefix)

"""The set-up script: quick when the environment stands, one clear line when it cannot be built."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "a folder with spaces"
    for name in ("tools/setup_env.sh", "pyproject.toml", "requirements.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    return root


def setup(root: Path, python: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": python}
    return subprocess.run(
        [root / "tools/setup_env.sh"], env=environment, capture_output=True, text=True, check=False
    )


def fake_python(path: Path, version: str, modules: bool) -> str:
    """Write a stand-in that answers the script's three questions and can do nothing else."""
    old = version.startswith("3.9")
    path.write_text(
        f"""#!/bin/sh
case "$2" in
  *version_info\\[:2\\]*) echo {version} ;;
  *version_info*) exit {int(old)} ;;
  *) exit {int(not modules)} ;;
esac
"""
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("version", "modules", "said"),
    [
        (None, True, "needs Python 3.11 or newer;"),
        ("3.9", True, "found 3.9"),
        ("3.11", False, "venv"),
    ],
)
def test_an_unfit_python_gets_one_line(checkout, tmp_path, version, modules, said):
    python = str(tmp_path / "my python")
    if version:
        fake_python(Path(python), version, modules)
    result = setup(checkout, python)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert said in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_complete_environment_is_left_alone_and_an_outdated_one_is_not(checkout, tmp_path):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(shutil.which("true"))
    state = subprocess.run(
        "pwd -P && cat requirements.lock pyproject.toml | cksum",
        shell=True,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    stamp = checkout / ".venv/.complete"
    stamp.write_text(state)
    unfit = str(tmp_path / "none")
    assert setup(checkout, unfit).returncode == 0
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert setup(checkout, unfit).returncode == 1


def test_an_interrupted_set_up_is_not_taken_as_done(checkout, tmp_path):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(shutil.which("true"))
    assert setup(checkout, str(tmp_path / "none")).returncode == 1

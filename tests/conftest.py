"""What every test needs: no word to the outside, and the same examples in every run."""

import os
import signal
import tempfile

import hypothesis
import pytest

# Read when the libraries are imported, so set before any of them is.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

# Who starts the tests in the background has their programs ignore interruptions otherwise.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

# Data and models so small that any test may train them.
pytest_plugins = ["forked_ranks", "small_catalogue", "tiny_data", "tiny_models"]


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """What killed programs leave behind goes when the tests' own files do."""
    folder = str(tmp_path_factory.mktemp("left"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


def pytest_collection_modifyitems(items):
    """Files that may take longest come first: else one of them is left at the end, alone."""
    seconds = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds[item.path] = max(seconds.get(item.path, 0), mark.args[0] if mark else 0)
    items.sort(key=lambda item: -seconds[item.path])

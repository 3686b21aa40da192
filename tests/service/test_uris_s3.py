"""Commands on ``s3://`` URIs, and on a real server: whatever may be local may be remote."""

import json

import pytest

from xcflow.artifact import read_manifest
from xcflow.storage import exists, fetch, listing, publish, replace_file
from xcflow_pipelines import shell
from xcflow_pipelines.cli import app
from xcflow_pipelines.toml_text import to_toml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("credentials")]

ROOT = "s3://bucket/uris"


@pytest.fixture
def xcflow(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))

    def act(*arguments):
        code = shell.guarded(lambda: app([str(a) for a in arguments], standalone_mode=False))
        return code, *capsys.readouterr()

    return act


@pytest.fixture
def remote(model):
    """A catalogue, a profile, a data set and a bundle under ``s3://``."""
    for name in ("catalogue", "dataset", "bundle"):
        publish(model.folders[name], f"{ROOT}/{name}")
    replace_file(f"{ROOT}/profile.toml", to_toml(model.config.to_dict()).encode())
    return ("--profile", f"{ROOT}/profile.toml")


def test_steps_read_and_write_remote_folders(xcflow, remote, model, tmp_path):
    """With the bytes of local ones; nothing but copies stays here."""
    dataset, clusters = f"{ROOT}/steps/dataset", f"{ROOT}/steps/clusters"
    catalogue = ("--input", f"catalogue={ROOT}/catalogue", "--output", dataset)
    assert xcflow("step", "validate_data", *catalogue, *remote)[:2] == (0, f"{dataset}\n")
    inputs = ("--input", f"dataset={dataset}", "--output", clusters)
    assert xcflow("step", "cluster_labels", *inputs, *remote)[:2] == (0, f"{clusters}\n")
    copy = fetch(clusters, tmp_path / "copies", complete=True)
    assert read_manifest(copy, "clusters", verify=True) == model.manifest("clusters")
    assert {path.name for path in (tmp_path / "home").iterdir()} <= {"downloads", "outputs"}
    assert list((tmp_path / "home" / "outputs").iterdir()) == []


def test_models_and_catalogues_are_found_by_their_uris(xcflow, remote, tmp_path):
    code, out, _ = xcflow("predict", "amber goat x", "--model", f"{ROOT}/bundle", "--json")
    assert code == 0
    assert json.loads(out)["labels"]
    code, out, _ = xcflow(
        "evaluate", "--model", f"{ROOT}/bundle", "--data", f"{ROOT}/catalogue", *remote, "--json"
    )
    assert code == 0
    evaluation = json.loads(out)["folder"]
    publish(evaluation, f"{ROOT}/evaluation")
    assert xcflow("compare", evaluation, f"{ROOT}/evaluation")[0] == 0


def test_a_remote_catalogue_is_validated_against_a_remote_model(xcflow, remote):
    kept = f"{ROOT}/validated"
    data = ("--data", f"{ROOT}/catalogue", *remote)
    code, out, _ = xcflow("validate", *data, "--output", kept)
    assert (code, out.split()[-1]) == (0, f"{kept}/report.html")
    assert {"manifest.json", "report.html"} <= {file.name for file in listing(kept)}
    code, out, _ = xcflow("validate", *data, "--against", f"{ROOT}/bundle", "--json")
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--model", f"{ROOT}/catalogue"), "is not whole (no manifest.json)"),
        (("--model", f"{ROOT}/dataset"), "holds a dataset, not a bundle"),
        (("--model", f"{ROOT}/nothing"), "nothing: nothing is there: check bucket and prefix"),
    ],
)
def test_what_is_no_model_is_said_in_one_line(xcflow, remote, arguments, line):
    code, _, said = xcflow("predict", "amber goat x", *arguments)
    assert code != 0
    assert line in said
    assert said.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused_before_the_work(xcflow, remote):
    arguments = ("--input", f"catalogue={ROOT}/catalogue", *remote)
    code, _, said = xcflow("step", "validate_data", *arguments, "--output", "s3://no-bucket/x")
    assert code != 0
    assert "no such bucket" in said
    code, _, said = xcflow("validate", "--profile", f"{ROOT}/absent.toml")
    assert f"{ROOT}/absent.toml: no such file" in said
    assert not exists(f"{ROOT}/absent.toml")

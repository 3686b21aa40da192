"""The command `xcflow sweep` with a stand-in for the pipeline: what is run, kept and drawn."""

import json
import statistics

import pytest

from xcflow.artifact import read_manifest
from xcflow.errors import XcflowError
from xcflow.home import Home
from xcflow_pipelines import records, retrain, shell
from xcflow_pipelines.cli import app
from xcflow_pipelines.records import RunRecord, run_identity
from xcflow_pipelines.sweep_page import Scale
from xcflow_pipelines.watcher import CACHED, DONE, SKIPPED, LocalRun, TaskState

FILE = """
[grid]
"clustering.clusters" = [0, 1024, 4096]
"module_one.loss" = ["softmax", "triplet"]
"run.seed" = [1, 2]
"""


class Pipeline:
    """Stands in for the pipeline: evaluates a predictor that is better with more clusters."""

    def __init__(self, dataset, noisy, evaluated):
        self.configs, self.dataset, self.noisy, self.evaluated = [], dataset, noisy, evaluated
        self.fails_at = None

    def __call__(self, config, label, data, home):
        if len(self.configs) == self.fails_at:
            raise XcflowError("step train_encoder failed: no memory")
        self.configs.append(config)
        accuracy = 0.3 + config.clustering.clusters / 10_000
        model = self.noisy(self.dataset, accuracy, config.run.seed)
        alone = {"encoder": self.noisy(self.dataset, accuracy / 2, config.run.seed)}
        evaluation = self.evaluated(self.dataset, model, baselines=alone, ks=(1, 5, 10))
        run = LocalRun(f"{label}-{len(self.configs)}", home.runs / f"{label}-{len(self.configs)}")
        run.folder.mkdir(parents=True)
        shared = CACHED if len(self.configs) > 1 else DONE
        run.tasks = [TaskState("validate_data", shared), TaskState("train_encoder", DONE)]
        run.tasks += [TaskState("promote_model", SKIPPED), TaskState("configure", DONE)]
        folders = {"evaluate_model": str(evaluation.path)}
        run.summary = {"mlflow_run": "", "folders": folders, "times": {}}
        record = RunRecord.of(run, config, run_identity(config, "catalogue", "library"))
        record.write(home)
        return run, record


@pytest.fixture
def pipeline(large_dataset, noisy, evaluated, monkeypatch):
    stand_in = Pipeline(large_dataset, noisy, evaluated)
    monkeypatch.setattr(retrain, "run_pipeline", stand_in)
    monkeypatch.setattr("xcflow.library.library_digest", lambda: "library")
    monkeypatch.setattr("xcflow.catalogue.readers.catalogue_digest", lambda *_: "catalogue")
    return stand_in


@pytest.fixture
def xcflow(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    (tmp_path / "clusters.toml").write_text(FILE)

    def act(*arguments):
        command = ("sweep", "clusters.toml", *arguments)
        code = shell.guarded(lambda: app(command, standalone_mode=False))
        return code, *capsys.readouterr()

    return act


def test_each_combination_is_run_once_and_the_seeds_are_put_together(xcflow, pipeline):
    code, out, error = xcflow("--json")
    assert code == shell.OK
    assert len(pipeline.configs) == 12
    assert not any(config.gate.promote for config in pipeline.configs)
    assert '[3 of 12] clustering.clusters = 0, module_one.loss = "triplet", run.seed = 1' in error
    tree = json.loads(out)
    assert len(tree["groups"]) == 6
    first = tree["groups"][0]
    assert first["values"] == {"clustering.clusters": 0, "module_one.loss": "softmax"}
    assert first["runs"] == ["clusters-1", "clusters-2"]
    values = []
    for name in first["runs"]:
        folder = records.find_run(Home.at(), name).folder("evaluate_model")
        values.append(json.loads((folder / "metrics.json").read_text())["models"]["fused"]["P@1"])
        read_manifest(folder, "evaluation")
    assert first["figures"]["fused"]["P@1"] == {
        "mean": pytest.approx(statistics.fmean(values)),
        "deviation": pytest.approx(statistics.stdev(values)),
    }
    assert first["figures"]["encoder"]["P@1"]["mean"] < first["figures"]["fused"]["P@1"]["mean"]
    assert tree["from_cache"] == {"validate_data": 11, "train_encoder": 0}


def test_a_failed_sweep_names_the_combination_and_goes_on_when_called_again(xcflow, pipeline):
    pipeline.fails_at = 5
    code, out, error = xcflow()
    assert (code, out) == (shell.FAILED, "")
    last = error.splitlines()[-1]
    assert "clustering.clusters = 1024" in last
    assert last.endswith("run.seed = 2: step train_encoder failed: no memory")
    pipeline.fails_at = None
    code, _, error = xcflow()
    assert code == shell.OK
    assert error.count("finished before: ") == 5
    assert len(pipeline.configs) == 12
    xcflow()
    assert len(pipeline.configs) == 12


def test_a_run_whose_evaluation_is_gone_is_run_again(xcflow, pipeline):
    xcflow()
    lost = records.find_run(Home.at(), "clusters-2").folder("evaluate_model")
    (lost / "manifest.json").unlink()
    xcflow()
    assert len(pipeline.configs) == 13
    assert pipeline.configs[-1] == pipeline.configs[1]


def test_the_table_has_a_row_for_each_setting(xcflow, pipeline, tmp_path):
    _, out, _ = xcflow()
    lines = out.splitlines()
    assert lines[0].split() == [
        "clustering.clusters", "module_one.loss", "seeds", "P@1", "P@5", "PSP@5", "R@10",
    ]  # fmt: skip
    assert len([line for line in lines if '"triplet"' in line]) == 3
    assert all(line.count("±") == 4 for line in lines[1:7])
    shared = "taken from the cache, in how many of 12 runs: validate_data 11"
    assert lines[-2] == shared
    assert lines[-1] == f"the page: {tmp_path / 'home' / 'sweeps' / 'clusters.html'}"


def test_the_page_draws_a_line_for_each_other_setting_with_error_bars(
    xcflow, pipeline, tmp_path, read_page
):
    xcflow("--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<svg class="chart"') == 2
    # Two losses, two voices, and of each the runs without clusters apart from the others.
    assert page.count("<polyline") == 16
    assert page.count('<line class="break"') == 2
    assert page.count('<line class="error') == 24
    for words in (
        "P@1 in points by clustering.clusters",
        "PSP@5 in",
        "4,096",
        "clusters-12",
        "±",
        "softmax&#34;, encoder alone",
        "so 0 stands apart",
        "<td>validate_data</td>",
    ):
        assert words in page
    assert read_page(page).scripts == []
    before = page
    xcflow("--html", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == before


def test_seeds_alone_make_one_row_and_no_chart(xcflow, pipeline, tmp_path):
    (tmp_path / "clusters.toml").write_text('[grid]\n"run.seed" = [1, 2, 3]')
    code, out, _ = xcflow("--html", "page.html")
    assert code == shell.OK
    assert out.splitlines()[1].split()[0] == "3"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<svg" not in page


def test_one_seed_has_no_deviation(xcflow, pipeline, tmp_path):
    (tmp_path / "clusters.toml").write_text('[grid]\n"clustering.clusters" = [0, 64]')
    _, out, _ = xcflow("--html", "page.html")
    assert "±" not in out
    assert '<line class="error' not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_wrong_file_is_one_line(xcflow, pipeline, tmp_path):
    (tmp_path / "clusters.toml").write_text('[grid]\n"run.sed" = [1]')
    code, out, error = xcflow()
    assert (code, out) == (shell.USAGE, "")
    assert error.count("\n") == 1
    assert "did you mean run.seed?" in error
    assert pipeline.configs == []


@pytest.mark.parametrize(
    ("values", "places", "apart"),
    [
        ([4096, 0, 1024], [9.5, 10, 12], True),
        ([0, 64], [0, 64], False),
        ([1, 2, 3], [1, 2, 3], False),
        ([0.25, 8.0], [-2, 3], False),
        ([-1, 100], [-1, 100], False),
    ],
)
def test_values_far_apart_stand_by_their_logarithms(values, places, apart):
    scale = Scale.of(values)
    assert [scale.places[value] for value in sorted(values)] == places
    assert scale.apart == apart
    assert scale.breaks == ([(places[0] + places[1]) / 2] if apart else [])

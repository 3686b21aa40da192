import json
import os

import pytest

from xcflow.artifact import writing
from xcflow.config import Config, TrackingConfig
from xcflow.errors import TrackingError
from xcflow.registry import names, operations
from xcflow.registry.summary import flat, metric_name, sampled, settings_that_differ
from xcflow.registry.tracking import CURVE_POINTS, Tracker, tracking_uri


@pytest.fixture
def run(tracker):
    return tracker.open_run("a run", "key", {"run": {"seed": 1}}, {"method": "DEXA"})


@pytest.fixture
def trained(tmp_path):
    """What a training step writes."""
    history = {
        "series": {
            "train/loss": [[i, 1.0 / (i + 1)] for i in range(3 * CURVE_POINTS)],
            "validation/P@1": [[0, 0.25], [1, 0.5]],
            "empty": [],
        },
        "seconds": 12.5,
        "best": None,
    }
    with writing(tmp_path / "encoder", "encoder", meta={"dim": 8, "name": "x"}) as folder:
        (folder / "history.json").write_text(json.dumps(history))
        (folder / "report.html").write_text("<p>report</p>")
    return tmp_path / "encoder"


def test_parameters_are_flat_and_readable(tracker, run):
    recorded = tracker.client.get_run(run)
    assert recorded.info.run_name == "a run"
    assert recorded.data.params == {"run.seed": "1"}
    assert recorded.data.tags["method"] == "DEXA"
    assert tracker.description(run) == ("a run", {"run.seed": "1"})
    with pytest.raises(TrackingError, match="nonsense"):
        tracker.description("nonsense")


def test_a_run_is_found_by_its_key(tracker, run):
    assert tracker.find_run("key") == run
    assert tracker.open_run("another name", "key", {}, {}) == run
    with pytest.raises(TrackingError, match="other"):
        tracker.find_run("other")


def test_a_given_run_is_joined_and_left_open(tracker, monkeypatch, tmp_path):
    elsewhere = tracker.client.create_experiment("elsewhere", str(tmp_path / "elsewhere"))
    given = tracker.client.create_run(elsewhere).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    assert tracker.open_run("ignored", "key", {"run": {"seed": 1}}, {}) == given
    assert tracker.find_run("whatever") == given
    child = tracker.start_step(given, "train_encoder", "key/1", {})
    assert list(tracker.steps(given)) == ["train_encoder"]
    tracker.end(child, names.FINISHED)
    tracker.end(given, names.FINISHED)
    assert tracker.client.get_run(child).info.status == "FINISHED"
    assert tracker.client.get_run(given).info.status == "RUNNING"


def test_a_step_is_a_child_with_curves_figures_and_report(tracker, run, trained):
    child = tracker.start_step(run, "train_encoder", "key/1", {"module_one": {"epochs": 2}})
    tracker.log_step(child, trained)
    recorded = tracker.steps(run)["train_encoder"]
    assert recorded.data.tags["mlflow.parentRunId"] == run
    assert recorded.data.params == {"module_one.epochs": "2"}
    assert recorded.data.metrics["seconds"] == 12.5
    assert recorded.data.metrics["dim"] == 8
    validation = tracker.client.get_metric_history(child, "validation/P_at_1")
    assert [(point.step, point.value) for point in validation] == [(0, 0.25), (1, 0.5)]
    assert [f.path for f in tracker.client.list_artifacts(child)] == ["report.html"]
    loss = tracker.client.get_metric_history(child, "train/loss")
    assert len(loss) <= CURVE_POINTS
    assert max(point.step for point in loss) == 3 * CURVE_POINTS - 1


def test_a_failed_step_names_the_reason_of_the_run(tracker, run):
    good, bad = (
        tracker.start_step(run, step, step, {}) for step in ("validate_data", "train_encoder")
    )
    tracker.end(good, names.FINISHED)
    tracker.end(bad, names.FAILED, "out of patience")
    reason = operations.close_run(tracker, "key", succeeded=False, error="a task failed")
    assert reason == "train_encoder: out of patience"
    closed = tracker.client.get_run(run)
    assert closed.info.status == "FAILED"
    assert closed.data.tags["error"] == reason


def test_the_catalogue_is_recorded_by_its_digest(tracker, run, tmp_path):
    tracker.log_dataset(run, "debian", "d" * 64, str(tmp_path), "training")
    (recorded,) = tracker.client.get_run(run).inputs.dataset_inputs
    assert recorded.dataset.name == "debian"
    assert ("d" * 64).startswith(recorded.dataset.digest)


def test_an_absent_server_is_one_line_without_the_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://someone:secret@127.0.0.1:9"
    with pytest.raises(TrackingError) as caught:
        Tracker(uri, "tests").open_run("a run", "key", {}, {})
    assert str(caught.value) == "tracking store http://127.0.0.1:9: cannot be reached"


def test_the_store_of_one_home_does_not_leak(tracker):
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_where_runs_are_recorded(home, monkeypatch):
    assert tracking_uri(TrackingConfig(), home) == f"sqlite:///{home.database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri(TrackingConfig(), home) == "http://server"
    assert tracking_uri(TrackingConfig(uri="http://configured"), home) == "http://configured"


def test_flat_names_are_those_that_set_takes():
    tree = {"a": {"b": 1, "c": {"d": "x"}}, "e": [1, 2]}
    assert flat(tree) == {"a.b": "1", "a.c.d": "x", "e": "1, 2"}


def test_settings_that_are_not_the_defaults():
    config = Config.from_dict({"run": {"seed": 7}, "clustering": {"clusters": 64}})
    assert settings_that_differ(config.to_dict()) == "run.seed=7, clustering.clusters=64"
    assert settings_that_differ(Config().to_dict()) == ""


def test_metric_names_that_mlflow_accepts(tracker, run):
    names_of_ours = (metric_name("test/fused/P@1"), "time/train_encoder/batches/sparse update")
    tracker.log_figures(run, dict.fromkeys(names_of_ours, 0.5))
    assert set(names_of_ours) <= set(tracker.client.get_run(run).data.metrics)
    with pytest.raises(TrackingError, match='Invalid value "test/fused/P@1"'):
        tracker.log_figures(run, {"test/fused/P@1": 0.5})


def test_an_experiment_carries_the_view_that_its_page_is_opened_with(tracker, run):
    experiment = tracker.client.get_experiment_by_name("tests")
    view = json.loads(experiment.tags["mlflow.sharedViewState.xcflow"])
    assert "metrics.`test/fused/P_at_1`" in view["selectedColumns"]
    sections = {section["uuid"] for section in view["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == sections
    assert f"/{experiment.experiment_id}/runs?viewStateShareKey=xcflow" in tracker.runs_page()


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 99])
def test_a_sampled_curve_is_short_and_keeps_its_end(length):
    points = [[i, i / 2] for i in range(length)]
    found = list(sampled(points, 10))
    assert len(found) <= 10
    assert found[-1] == (length - 1, (length - 1) / 2)
    assert found == sorted(set(found))

"""A run is started once for each key, whatever happens to requests and answers."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from kfp_stub import Fault

from xcflow.config import Config
from xcflow.errors import ClusterError
from xcflow.library import library_digest
from xcflow_pipelines.cluster.compiling import compile_package
from xcflow_pipelines.cluster.submitting import submit

URI = "s3://catalogues/debian"


def submitted(config, **options):
    return submit(config, "quick", URI, **options)


def test_a_run_has_the_pipeline_its_arguments_and_a_name(kubeflow, config):
    run = submitted(config, catalogue_digest="abc")
    (kept,) = kubeflow.runs.values()
    assert run.created
    assert run.run_id == kept["run_id"]
    assert run.name == kept["display_name"]
    assert run.name.startswith("debian-quick-K4096-s1-")
    assert run.page == f"{kubeflow.url}/#/runs/details/{run.run_id}"
    assert kept["runtime_config"]["parameters"] == {
        "run_name": run.name,
        "catalogue_uri": URI,
        "catalogue_digest": "abc",
        "library_digest": library_digest(),
        "config": config.to_json(),
    }
    (version,) = kubeflow.versions.values()
    assert (
        kept["pipeline_version_reference"]["pipeline_version_id"]
        == (version["pipeline_version_id"])
    )
    assert [e["display_name"] for e in kubeflow.experiments.values()] == ["xcflow"]
    assert "service_account" not in kept


def test_what_the_profile_says_of_runs_reaches_them(kubeflow):
    config = Config.from_dict(
        {
            "tracking": {"experiment": "nightly"},
            "cluster": {"service_account": "runner", "pipeline_root": "s3://out/here"},
        }
    )
    submitted(config)
    (kept,) = kubeflow.runs.values()
    assert kept["service_account"] == "runner"
    assert kept["runtime_config"]["pipeline_root"] == "s3://out/here"
    assert [e["display_name"] for e in kubeflow.experiments.values()] == ["nightly"]


def test_each_content_is_uploaded_once_and_named_by_itself(kubeflow, config):
    first, second = submitted(config), submitted(config)
    other = submitted(Config.from_dict({"cluster": {"ttl_seconds": 60}}))
    assert len(kubeflow.runs) == 3
    assert first.version == second.version == compile_package(config).version
    assert first.version != other.version
    assert sorted(v["name"] for v in kubeflow.versions.values()) == sorted(
        [first.version, other.version]
    )
    assert len(kubeflow.pipelines) == 1


def test_the_same_key_starts_nothing_again(kubeflow, config):
    first = submitted(config, key="digest-1")
    changed = Config.from_dict({"run": {"seed": 2}, "cluster": {"ttl_seconds": 60}})
    again = submitted(changed, key="digest-1")
    assert first.created
    assert not again.created
    assert again.run_id == first.run_id
    assert submitted(config, key="digest-2").created
    assert len(kubeflow.runs) == 2


@pytest.mark.parametrize("request_", ["/runs$", "/upload_version", "/pipelines$", "/experiments$"])
@pytest.mark.parametrize("fault", [{"drop": "after"}, {"drop": "before"}, {"status": 503}])
def test_a_lost_answer_makes_no_second_one(kubeflow, config, request_, fault):
    kubeflow.faults = [Fault("POST", request_, **fault)]
    run = submitted(config, key="digest")
    assert run.created
    assert run.run_id in kubeflow.runs
    assert len(kubeflow.runs) == len(kubeflow.versions) == len(kubeflow.pipelines) == 1
    assert len(kubeflow.experiments) == 1


def test_a_crash_between_request_and_answer_is_made_good_by_the_next_try(kubeflow, config):
    looks = Fault("GET", "/runs$", drop="before", times=0)
    # The run is started, its answer is lost, and then nothing answers any more.
    kubeflow.faults = [Fault("POST", "/runs$", drop="after", then=looks), looks]
    with pytest.raises(ClusterError, match="cannot be reached"):
        submitted(config, key="digest")
    assert len(kubeflow.runs) == 1
    looks.times = 0
    assert not submitted(config, key="digest").created
    assert len(kubeflow.runs) == 1


def test_where_nothing_can_be_seen_nothing_is_started(kubeflow, config):
    kubeflow.faults = [Fault("GET", "/runs$", drop="before", times=99)]
    with pytest.raises(ClusterError, match="cannot be reached"):
        submitted(config, key="digest")
    assert not kubeflow.runs


def test_many_at_once_keep_one_run(kubeflow, config):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: submitted(config, key="digest"), range(8)))
    assert len({run.run_id for run in runs}) == 1
    assert sum(run.created for run in runs) == 1
    ((going_on),) = [run for run in kubeflow.active_runs() if run["state"] == "PENDING"]
    assert going_on["run_id"] == runs[0].run_id
    assert len(kubeflow.versions) == len(kubeflow.pipelines) == len(kubeflow.experiments) == 1


def test_a_run_is_found_among_many(kubeflow, config):
    first = submitted(config, key="digest")
    (kept,) = kubeflow.runs.values()
    for number in range(250):  # more than a page, with the key in their names but no run of it
        kubeflow.runs[f"other-{number}"] = {
            **kept,
            "run_id": f"other-{number}",
            "display_name": f"{first.name}-{number}",
            "created_at": "2020-01-01T00:00:00Z",
        }
    kubeflow.runs[first.run_id] = kubeflow.runs.pop(first.run_id)
    assert submitted(config, key="digest").run_id == first.run_id


def test_a_namespace_goes_with_everything(monkeypatch, kubeflow):
    kubeflow.multi_user = True
    config = Config.from_dict({"cluster": {"namespace": "team"}})
    assert submitted(config).created
    (experiment,) = kubeflow.experiments.values()
    (pipeline,) = kubeflow.pipelines.values()
    assert experiment["namespace"] == pipeline["namespace"] == "team"


@pytest.mark.parametrize(
    ("namespace", "multi_user", "line"),
    [
        ("", True, "serves several users: set cluster.namespace"),
        ("team", False, "is a single-user installation: leave cluster.namespace empty"),
        ("other", True, r"is not allowed in namespace other \(403\): User is not authorized"),
    ],
)
def test_a_wrong_namespace_is_one_line(kubeflow, namespace, multi_user, line):
    kubeflow.multi_user = multi_user
    with pytest.raises(ClusterError, match=line):
        submitted(Config.from_dict({"cluster": {"namespace": namespace}}))
    assert not kubeflow.runs


def test_a_catalogue_on_this_machine_is_refused(kubeflow, config):
    with pytest.raises(ClusterError, match="'/data/here': the cluster's tasks cannot read it"):
        submit(config, "quick", "/data/here")
    assert not kubeflow.requests


def test_a_refusal_of_the_run_is_one_line(kubeflow, config):
    kubeflow.faults = [Fault("POST", "/runs$", status=400)]
    with pytest.raises(ClusterError, match=r"refused \(400\): told to fail"):
        submitted(config)
    assert not kubeflow.runs


def test_the_stub_refuses_what_the_models_do_not_know(kubeflow):
    with pytest.raises(Exception, match="unknown attribute name of V2beta1Experiment"):
        kubeflow.answer("POST", "/apis/v2beta1/experiments", {}, {"name": "x"})
    with pytest.raises(Exception, match="unknown query"):
        kubeflow.answer("GET", "/apis/v2beta1/pipelines", {"name": "x"}, {})
    filter_ = {"predicates": [{"operation": "LIKE", "key": "name", "string_value": "x"}]}
    with pytest.raises(Exception, match="'LIKE' is none of"):
        kubeflow.answer("GET", "/apis/v2beta1/pipelines", {"filter": json.dumps(filter_)}, {})

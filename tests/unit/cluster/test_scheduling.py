"""A schedule is exactly one recurring run in force, wherever the command before was stopped."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from kfp_stub import Fault

from xcflow.config import Config
from xcflow.errors import ClusterError
from xcflow_pipelines.cluster import scheduling
from xcflow_pipelines.cluster.scheduling import schedule, schedules, unschedule
from xcflow_pipelines.shell import BadUsageError

URI = "s3://catalogues/debian"
NIGHTLY, HOURLY = "0 0 3 * * *", "0 0 * * * *"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(scheduling, "POLL_S", 0.01)


def scheduled(config, cron=NIGHTLY, **options):
    return schedule(config, "quick", URI, cron, **options)


def names(kubeflow):
    return [row["display_name"] for row in kubeflow.recurring_runs.values()]


def test_a_schedule_is_a_recurring_run_in_utc_one_at_a_time_without_catching_up(kubeflow, config):
    done = scheduled(config)
    (row,) = kubeflow.recurring_runs.values()
    assert done.changed
    assert not done.replaced
    assert done.schedule.enabled
    assert done.schedule.recurring_run == row["display_name"]
    assert row["display_name"].startswith("retraining-")
    assert row["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert row["no_catchup"] is True
    assert row["max_concurrency"] == "1"
    assert row["pipeline_version_reference"]["pipeline_version_id"] in kubeflow.versions


def test_its_runs_look_up_the_catalogue_and_the_time_when_they_start(kubeflow, config):
    scheduled(config)
    (row,) = kubeflow.recurring_runs.values()
    parameters = row["runtime_config"]["parameters"]
    assert parameters["catalogue_uri"] == URI
    assert parameters["catalogue_digest"] == ""
    assert parameters["run_name"] == "debian-quick-K4096-s1-{time}"


def test_the_same_again_changes_nothing(kubeflow, config):
    scheduled(config)
    before = [r for r in kubeflow.requests if not r.startswith("GET")]
    done = scheduled(config)
    assert not done.changed
    assert [r for r in kubeflow.requests if not r.startswith("GET")] == before


@pytest.mark.parametrize(
    "change",
    [
        {"cron": HOURLY},
        {"config": {"run": {"seed": 2}}},
        {"config": {"cluster": {"ttl_seconds": 60}}},
        {"config": {"cluster": {"service_account": "other"}}},
        {"config": {"cluster": {"pipeline_root": "s3://other"}}},
    ],
)
def test_a_changed_schedule_replaces_the_old_one(kubeflow, config, change):
    old = scheduled(config).schedule.recurring_run
    changed = Config.from_dict(change["config"]) if "config" in change else config
    done = scheduled(changed, change.get("cron", NIGHTLY))
    assert done.changed
    assert done.replaced == (old,)
    assert kubeflow.enabled() == [done.schedule.recurring_run]
    assert old in names(kubeflow)  # deleting it would end the runs that it has started


def test_the_old_one_goes_when_the_new_one_is_in_force(kubeflow, config):
    scheduled(config)
    kubeflow.slow_to_enable = 3
    kubeflow.requests.clear()
    scheduled(config, HOURLY)
    looks = [r for r in kubeflow.requests if r.startswith("GET /recurringruns/")]
    assert len(looks) == 3
    disabled = next(i for i, r in enumerate(kubeflow.requests) if r.endswith(":disable"))
    assert max(i for i, r in enumerate(kubeflow.requests) if r in looks) < disabled


def test_where_the_new_one_does_not_come_into_force_the_old_one_stays(
    kubeflow, config, monkeypatch
):
    old = scheduled(config).schedule.recurring_run
    monkeypatch.setattr(scheduling, "PATIENCE_S", 0.05)
    kubeflow.slow_to_enable = 10**6
    with pytest.raises(ClusterError, match=r"is not in force after .* the same command goes on"):
        scheduled(config, HOURLY)
    assert kubeflow.enabled() == [old]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/recurringruns$", status=400, times=99),
        Fault("GET", "/recurringruns/[^/]+$", status=400, times=99),
        Fault("POST", ":disable$", status=400, times=99),
        Fault("POST", "/recurringruns$", drop="after", then=Fault("GET", "/recur", drop="before")),
    ],
    ids=["before the new one", "before it is in force", "before the old one is off", "no answer"],
)
def test_a_crash_anywhere_is_made_good_by_the_same_command(kubeflow, config, fault):
    scheduled(config)
    kubeflow.faults = [fault, *([fault.then] if fault.then else [])]
    if fault.then:
        fault.then.times = 0
    with pytest.raises(ClusterError):
        scheduled(config, HOURLY)
    assert kubeflow.enabled()  # no night is left out
    kubeflow.faults = []
    done = scheduled(config, HOURLY)
    assert kubeflow.enabled() == [done.schedule.recurring_run]
    assert names(kubeflow).count(done.schedule.recurring_run) == 1


def test_one_that_was_switched_off_comes_back(kubeflow, config):
    first = scheduled(config).schedule
    scheduled(config, HOURLY)
    back = scheduled(config)
    assert back.changed
    assert back.schedule.recurring_run_id == first.recurring_run_id
    assert kubeflow.enabled() == [first.recurring_run]


def test_many_at_once_keep_one(kubeflow, config):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: scheduled(config), range(6)))
    assert len(set(names(kubeflow))) == 1
    assert len(kubeflow.enabled()) == 1


def test_schedules_of_other_names_are_left_alone(kubeflow, config):
    scheduled(config, name="nightly")
    scheduled(config, HOURLY, name="nightly-2")
    scheduled(config, HOURLY, name="nightly")
    assert [(s.name, s.cron, s.enabled) for s in schedules(config)] == [
        ("nightly", NIGHTLY, False),
        ("nightly-2", HOURLY, True),
        ("nightly", HOURLY, True),
    ]
    gone = unschedule(config, "nightly")
    assert len(gone) == 1
    assert [s.name for s in schedules(config) if s.enabled] == ["nightly-2"]
    assert unschedule(config, "nightly") == ()


def test_there_need_not_be_any(kubeflow, config):
    assert schedules(config) == []
    with pytest.raises(ClusterError, match="no schedule 'nightly'"):
        unschedule(config, "nightly")


def test_one_with_an_interval_that_somebody_else_made_is_no_schedule(kubeflow, config):
    scheduled(config)
    (row,) = kubeflow.recurring_runs.values()
    kubeflow.recurring_runs["other"] = {
        **row,
        "recurring_run_id": "other",
        "display_name": "other-0123456789ab",
        "trigger": {"periodic_schedule": {"interval_second": "60"}},
    }
    assert [s.name for s in schedules(config)] == ["retraining"]


def test_in_a_namespace(kubeflow):
    kubeflow.multi_user = True
    scheduled(Config.from_dict({"cluster": {"namespace": "team"}}))
    (row,) = kubeflow.recurring_runs.values()
    assert row["namespace"] == "team"


def test_wrong_words_are_refused_before_anything_is_asked(kubeflow, config):
    with pytest.raises(BadUsageError, match="5 fields"):
        scheduled(config, "0 3 * * *")
    with pytest.raises(BadUsageError, match="--name 'Every Night'"):
        scheduled(config, name="Every Night")
    with pytest.raises(ClusterError, match="cannot read it"):
        schedule(config, "quick", "here", NIGHTLY)
    assert not kubeflow.requests

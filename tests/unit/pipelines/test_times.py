import io

from rich.console import Console

from xcflow.phases import StepTimes
from xcflow_pipelines.times import times_table


def shown(tasks, seconds):
    console = Console(width=100, file=io.StringIO())
    console.print(times_table(tasks, seconds))
    return [line.split() for line in console.file.getvalue().splitlines()]


def task(name, state, seconds, times=None):
    return {"name": name, "state": state, "seconds": seconds, "times": times and times.to_dict()}


def test_each_step_with_its_phases_and_what_surrounds_them():
    trained = StepTimes(70.0, {"backward": 40.0, "imports": 20.0, "tiny": 0.1, "other": 9.9}, 512.0)
    tasks = [
        task("configure", "done", 5.0),
        task("validate_data", "from cache", 0.0, StepTimes(12.0, {"read": 12.0}, 300.0)),
        task("train_encoder", "done", 80.0, trained),
        task("promote_model", "skipped", 0.0),
    ]
    rows = shown(tasks, 100.0)
    assert [" ".join(row) for row in rows] == [
        "where the time went seconds share peak MB",
        "configure 5.0 5%",
        "validate_data (from cache, 12.0 s when it ran)",
        "train_encoder 80.0 80% 512",
        "backward 40.0 40%",
        "imports 20.0 20%",
        "process and record 10.0 10%",
        "other 10.0 10%",
        "between the tasks 15.0 15%",
        "in all 100.0 100%",
    ]


def test_times_that_are_not_known():
    rows = shown([task("gate_model", "from cache", 0.0)], 0.0)
    assert ["gate_model", "(from", "cache)"] in rows

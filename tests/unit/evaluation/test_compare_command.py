"""The command `xcflow compare` on real evaluations in a home without a tracking store."""

import json

import pytest

from xcflow.config import Config
from xcflow.home import Home
from xcflow_pipelines import records, shell
from xcflow_pipelines.cli import app
from xcflow_pipelines.records import RunRecord, find_measured, tracking_of
from xcflow_pipelines.watcher import LocalRun


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    return Home.at()


@pytest.fixture
def xcflow(home, capsys):
    def act(*arguments):
        capsys.readouterr()  # what the evaluations said
        code = shell.guarded(lambda: app(("compare", *map(str, arguments)), standalone_mode=False))
        return code, *capsys.readouterr()

    return act


@pytest.fixture
def runs(home, large_dataset, noisy, evaluated):
    """Three runs in the home: the name of each and the folder of its evaluation."""
    folders = {}
    for seed, accuracy in enumerate((0.4, 0.6, 0.5)):
        evaluation = evaluated(large_dataset, noisy(large_dataset, accuracy, seed), ks=(1, 5, 10))
        run = LocalRun(f"quick-{seed}", home.runs / f"quick-{seed}")
        run.folder.mkdir(parents=True)
        run.summary = {
            "mlflow_run": f"{seed}abc",
            "folders": {"evaluate_model": str(evaluation.path)},
        }
        RunRecord.of(run, Config.load("quick", [f"run.seed={seed}"]), f"identity {seed}").write(
            home
        )
        folders[run.name] = evaluation.path
    return folders


def test_two_runs_on_the_terminal(xcflow, runs):
    code, out, error = xcflow("quick-0", "quick-1")
    assert (code, error) == (shell.OK, "")
    lines = out.splitlines()
    assert lines[0] == "A  quick-0  (the reference)"
    assert lines[1] == "B  quick-1"
    rows = {line.split()[0]: line.split()[1:] for line in lines if "@" in line}
    assert {"P@1", "PSP@5", "R@10", "R@10/head", "R@10/torso", "R@10/tail"} <= set(rows)
    assert float(rows["P@1"][2]) > 0
    assert rows["P@1"][-1] == "better"
    assert "  run.seed: 0 -> 1" in lines
    assert "clustering" not in out
    assert "right labels among the first 5: B has more for" in out
    assert sum(line.startswith("  + ") for line in lines) == 3
    assert sum(line.startswith("  - ") for line in lines) == 3
    assert "not compared" not in out
    assert xcflow("quick-0", "quick-1")[1] == out


def test_the_first_of_several_is_the_reference(xcflow, runs):
    code, out, _ = xcflow("quick-1", "quick-0", "quick-2", "--json")
    assert code == shell.OK
    tree = json.loads(out)
    assert tree["reference"] == "quick-1"
    assert [c["run"] for c in tree["comparisons"]] == ["quick-0", "quick-2"]
    for comparison in tree["comparisons"]:
        found = comparison["metrics"]["P@1"]
        assert found["difference"] == pytest.approx(found["run"] - found["reference"])
        assert found["difference"] < 0
        assert comparison["slices"]["R@10/tail"]["low"] < 0
        assert comparison["documents"]["worse"] > comparison["documents"]["better"]
        assert len(comparison["examples"]["better"]) == 15
        assert len(comparison["label_frequency"]["groups"]) >= 8
        assert comparison["not_compared"] == {}
    assert tree["comparisons"][0]["settings"] == {"run.seed": ["1", "0"]}


def test_the_page_is_written_where_it_is_wanted(xcflow, runs, tmp_path):
    code, out, _ = xcflow("quick-0", "quick-1", "--html", tmp_path / "page.html")
    assert code == shell.OK
    assert out.splitlines()[-1] == f"the page: {tmp_path / 'page.html'}"
    assert "</html>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    below = tmp_path / "pages" / "today" / "page.html"
    assert xcflow("quick-0", "quick-1", "--html", below)[0] == shell.OK
    assert below.is_file()
    code, out, error = xcflow("quick-0", "quick-1", "--html", below / "page.html")
    assert (code, out) == (shell.FAILED, "")
    assert "page.html: cannot be written: File exists" in error
    assert error.count("\n") == 1


def test_folders_are_compared_too_but_state_no_configuration(xcflow, runs):
    folders = list(runs.values())
    code, out, _ = xcflow(folders[0], "quick-1")
    assert code == shell.OK
    assert f"configuration: none is recorded of {folders[0]}" in out


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["quick-0"], "takes two to 7 runs, not 1"),
        (["quick-0"] * 8, "takes two to 7 runs, not 8"),
        (["quick-0", "quick"], "could be any of the runs quick-0, quick-1, quick-2"),
    ],
)
def test_wrong_usage_is_one_line(xcflow, runs, names, words):
    code, out, error = xcflow(*names)
    assert (code, out) == (shell.USAGE, "")
    assert words in error
    assert error.count("\n") == 1


def test_a_run_of_the_tracking_store_takes_its_configuration_from_there(home, runs, monkeypatch):
    class Store:
        @classmethod
        def at(cls, tracking, home):
            return cls()

        def fetch_folder(self, run, name, place):
            return runs["quick-1"]

        def description(self, run):
            return f"name of {run}", {"run.seed": "1", "someone_elses": "x"}

    monkeypatch.setattr("xcflow.registry.tracking.Tracker", Store)
    found = find_measured(home, tracking_of(home), "of another machine")
    assert found.name == "name of of another machine"
    assert found.folder == runs["quick-1"]
    assert found.settings == {"run.seed": "1"}


@pytest.mark.parametrize("text", ["{", '{"name": "quick-1"}', '["quick-1"]'])
def test_a_record_that_cannot_be_read_is_named(xcflow, home, runs, text):
    (home.runs / "quick-1" / records.RECORD).write_text(text)
    code, out, error = xcflow("quick-0", "quick-2")
    assert (code, out) == (shell.FAILED, "")
    assert "quick-1/run.json: cannot be read" in error
    assert error.count("\n") == 1

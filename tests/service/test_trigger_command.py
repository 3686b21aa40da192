"""`xcflow pipeline trigger` against real MLflow and S3 servers and one that speaks Kubeflow."""

import json
import os
import re
import signal
import subprocess
import sys
import uuid

import pytest
import urllib3
from kfp_stub import Fault

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue.readers import catalogue_digest
from xcflow.catalogue.seal import NAME, Seal
from xcflow.config import Config, DataConfig, GateConfig
from xcflow.errors import ClusterError
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.registry import names
from xcflow.registry.claims import Attempt, ClaimLog
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker
from xcflow.steps import flow
from xcflow.storage import publish, replace_file
from xcflow_pipelines import shell
from xcflow_pipelines.cli import app
from xcflow_pipelines.cluster import endpoint, submitting
from xcflow_pipelines.cluster.trigger_command import Kubeflow
from xcflow_pipelines.cluster.triggering import Patience, Trigger

pytestmark = pytest.mark.usefixtures("credentials")
QUICK = Patience(claim_s=3.0, poll_s=0.1)
TRIGGERS = 16


@pytest.fixture(scope="module")
def tracking_server(make_server, tmp_path_factory):
    server = make_server(tmp_path_factory.mktemp("tracking"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _surroundings(tracking_server, kubeflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.uri)
    monkeypatch.setenv(endpoint.HOST_VARIABLE, kubeflow.url)
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(endpoint, "PAUSES_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(submitting, "SETTLE_S", 1.2)


@pytest.fixture
def folder(write_catalogue, tmp_path):
    return write_catalogue(
        tmp_path / "catalogue",
        [{"id": f"l{i}", "text": f"label {i}"} for i in range(3)],
        [{"id": f"d{i}", "text": uuid.uuid4().hex, "labels": ["l0"]} for i in range(3)],
        [{"id": "t1", "text": "query", "labels": ["l1"]}],
    )


@pytest.fixture
def uri(folder, request):
    """The catalogue in the bucket, without a seal."""
    uri = f"s3://bucket/triggers/{request.node.name}"
    publish(folder, uri)
    return uri


@pytest.fixture
def sealed(uri, folder):
    """The same with its seal."""
    replace_file(f"{uri}/{NAME}", Seal.of(folder, DataConfig()).to_bytes())
    return uri


@pytest.fixture
def model(request):
    """The name of a model of the test's own."""
    return re.sub(r"\W", "_", request.node.name)


@pytest.fixture
def options(model):
    """Options that name it."""
    return ["--set", f"tracking.model_name={model}"]


@pytest.fixture
def trigger(options, capsys):
    """Runs the command; returns exit code, standard output and error."""

    def act(uri, *more):
        arguments = ["pipeline", "trigger", "--catalogue", uri, *options, *more]
        code = shell.guarded(lambda: app(arguments, standalone_mode=False))
        return code, *capsys.readouterr()

    return act


@pytest.fixture
def make_trigger(model, tmp_path):
    def make():
        config = Config.from_dict({"tracking": {"model_name": model}})
        home = Home.at(tmp_path / f"home-{uuid.uuid4().hex[:8]}")
        tracker = Tracker.at(config.tracking, home)
        return Trigger(config, tracker, home, Kubeflow(config, "quick", home), QUICK)

    return make


def posts(kubeflow):
    return [request for request in kubeflow.requests if request.startswith("POST")]


def test_a_sealed_catalogue_is_submitted_with_the_digest_of_its_content(
    trigger,
    sealed,
    folder,
    kubeflow,
):
    code, out, _ = trigger(sealed, "--json")
    told = json.loads(out)
    assert (code, told["state"], told["basis"]) == (0, "submitted", "seal")
    (run,) = kubeflow.runs.values()
    assert (told["run"], told["name"]) == (run["run_id"], run["display_name"])
    parameters = run["runtime_config"]["parameters"]
    assert parameters["catalogue_uri"] == sealed
    assert parameters["catalogue_digest"] == told["digest"] == catalogue_digest(folder)
    kubeflow.go_on(run["run_id"], "FAILED")
    code, out, _ = trigger(sealed, "--json")
    again = json.loads(out)
    assert (code, again["state"], again["run_state"]) == (0, "known", "FAILED")
    assert again["run"] == told["run"]
    code, out, _ = trigger(sealed, "--again", "--json")
    assert json.loads(out)["state"] == "submitted"
    assert len(kubeflow.runs) == 2


def test_the_pipeline_may_be_named(trigger, sealed, kubeflow):
    code, _, error = trigger(sealed, "--pipeline", "nightly", "--dry-run")
    assert (code, kubeflow.runs) == (1, {})
    assert "no pipeline 'nightly': known are xcflow-retraining, xcflow-catalogue-refresh" in error
    code, _, error = trigger(sealed, "--pipeline", "xcflow-catalogue-refresh")
    assert (code, kubeflow.runs) == (1, {})
    assert "there is no champion yet to take a catalogue in: retrain first" in error
    assert trigger(sealed, "--pipeline", "xcflow-retraining")[0] == 0
    assert "nothing to do: " in trigger(sealed)[1]
    assert len(kubeflow.runs) == 1


def test_the_run_for_a_listing_finds_out_the_content_itself(trigger, uri, kubeflow):
    code, out, _ = trigger(uri)
    assert code == 0
    assert "(by its listing)" in out
    assert "no model is champion yet" in out
    assert "submitted: " in out
    (run,) = kubeflow.runs.values()
    assert run["runtime_config"]["parameters"]["catalogue_digest"] == ""
    assert "nothing to do: " in trigger(uri)[1]
    assert len(kubeflow.runs) == 1


def test_a_dry_run_changes_nothing_anywhere(
    trigger, sealed, kubeflow, tracking_server, tmp_path, options
):
    code, out, _ = trigger(sealed, "--dry-run", "--json")
    assert (code, json.loads(out)["state"]) == (0, "due")
    assert posts(kubeflow) == []
    model = options[1].partition("=")[2]
    client = Tracker.at(Config().tracking, Home.at(tmp_path / "home")).client
    assert client.get_experiment_by_name(f"{model} triggers") is None


def test_a_run_that_was_removed_from_the_cluster_is_known_and_over(trigger, sealed, kubeflow):
    trigger(sealed)
    kubeflow.runs.clear()
    assert json.loads(trigger(sealed, "--json")[1])["run_state"] == "REMOVED"
    assert json.loads(trigger(sealed, "--again", "--json")[1])["state"] == "submitted"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("POST", "/runs$", status=400), "refused (400)"),
        (Fault("POST", "upload_version", status=403), "is not allowed"),
        (Fault("GET", "healthz", status=401), "is not allowed (401)"),
        (Fault("GET", "healthz", drop="before", times=99), "cannot be reached"),
    ],
)
def test_a_refusal_is_one_line_and_the_next_call_goes_on(
    trigger,
    make_trigger,
    sealed,
    kubeflow,
    fault,
    words,
):
    kubeflow.faults.append(fault)
    code, out, error = trigger(sealed)
    assert (code, out) == (1, "")
    assert words in error
    assert error.count("\n") == 1
    assert kubeflow.runs == {}
    kubeflow.faults.clear()
    outcome = make_trigger().pull(sealed)
    assert outcome.state == "submitted"
    assert list(kubeflow.runs) == [outcome.submission.run]


def test_an_answer_that_is_lost_makes_no_second_run(trigger, sealed, kubeflow):
    kubeflow.faults.append(Fault("POST", "/runs$", drop="after"))
    code, out, _ = trigger(sealed, "--json")
    assert code == 0
    assert list(kubeflow.runs) == [json.loads(out)["run"]]


def test_an_endpoint_that_acts_and_never_answers_makes_no_second_run(
    make_trigger,
    sealed,
    kubeflow,
):
    kubeflow.faults.append(Fault("POST", "/runs$", drop="after"))
    kubeflow.faults.append(Fault("GET", "/runs$", status=503, times=99))
    kubeflow.faults[-1], kubeflow.faults[-2] = kubeflow.faults[-2], kubeflow.faults[-1]
    with pytest.raises(ClusterError):
        make_trigger().pull(sealed)
    kubeflow.faults.clear()
    outcome = make_trigger().pull(sealed)
    assert list(kubeflow.runs) == [outcome.submission.run]


def test_a_catalogue_here_is_out_of_reach_of_the_cluster(trigger, folder, kubeflow):
    assert json.loads(trigger(str(folder), "--dry-run", "--json")[1])["basis"] == "content"
    code, _, error = trigger(str(folder))
    assert code == 1
    assert "the cluster's tasks cannot read it" in error
    assert posts(kubeflow) == []


@pytest.mark.parametrize(
    ("catalogue", "words"),
    [
        ("s3://bucket/no/catalogue", "s3://bucket/no/catalogue: nothing is there"),
        ("s3://nobody/has/this", "no such bucket"),
    ],
)
def test_a_place_without_a_catalogue_is_told_in_one_line(trigger, catalogue, words):
    code, out, error = trigger(catalogue)
    assert (code, out) == (1, "")
    assert words in error
    assert error.count("\n") == 1


def test_a_store_of_catalogues_that_is_away_is_told_in_one_line(
    trigger, sealed, monkeypatch, kubeflow
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, _, error = trigger(sealed)
    assert code == 1
    assert "cannot be reached" in error
    assert error.count("\n") == 1
    assert kubeflow.runs == {}


def test_to_watch_and_to_repeat_exclude_each_other(trigger, sealed):
    code, _, error = trigger(sealed, "--again", "--watch", "1")
    assert code == 2
    assert "--again with --watch" in error


def process(uri, options, *more):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "xcflow_pipelines", "pipeline", "trigger"]
    command += ["--catalogue", uri, *options, "--json", *more]
    # Each on a machine of its own, as far as it can tell.
    environment = os.environ | {"XCFLOW_HOME": f"{os.environ['XCFLOW_HOME']}-{uuid.uuid4().hex}"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_sixteen_at_once_one_submits_and_all_know_the_run(sealed, options, kubeflow):
    processes = [process(sealed, options) for _ in range(TRIGGERS)]
    answers = [json.loads(p.communicate(timeout=800)[0]) for p in processes]
    (run,) = kubeflow.runs
    assert {answer["run"] for answer in answers} == {run}
    states = sorted(answer["state"] for answer in answers)
    assert states == ["known"] * (TRIGGERS - 1) + ["submitted"]
    assert len([request for request in posts(kubeflow) if request == "POST /runs"]) == 1


@pytest.mark.slow
def test_a_watch_submits_what_comes_and_ends_when_it_is_told(sealed, folder, options, kubeflow):
    watch = process(sealed, options, "--watch", "0.2")
    try:
        first = json.loads(watch.stdout.readline())
        assert first["state"] == "submitted"
        known = json.loads(watch.stdout.readline())
        assert (known["state"], known["run"]) == ("known", first["run"])
        replace_file(f"{sealed}/train.jsonl", b'{"id": "d", "text": "t", "labels": ["l0"]}\n')
        assert "an upload is not finished" in watch.stderr.readline()
        publish_sealed(sealed, folder)
        second = json.loads(watch.stdout.readline())
        assert second["state"] == "submitted"
        assert second["run"] != first["run"]
        watch.send_signal(signal.SIGTERM)
        _, error = watch.communicate(timeout=60)
        assert watch.returncode == 128 + signal.SIGTERM
        assert "interrupted" in error.splitlines()[-1]
        assert len(kubeflow.runs) == 2
    finally:
        watch.kill()


def publish_sealed(uri, folder):
    """Another version of the catalogue, the seal last."""
    with (folder / "train.jsonl").open("a") as stream:
        stream.write('{"id": "d9", "text": "one more", "labels": ["l2"]}\n')
    replace_file(f"{uri}/train.jsonl", (folder / "train.jsonl").read_bytes())
    replace_file(f"{uri}/{NAME}", Seal.of(folder, DataConfig()).to_bytes())


# The command, which dies before or after a request that changes something on the cluster.
DIE = """
import os, signal, sys
import urllib3

what, when = sys.argv.pop(1), sys.argv.pop(1)
original = urllib3.connectionpool.HTTPConnectionPool.urlopen

def urlopen(self, method, url, *args, **kwargs):
    path = url.partition("?")[0]
    fatal = method == "POST" and "/v2beta1" in path and path.endswith(f"/{what}")
    if fatal and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    response = original(self, method, url, *args, **kwargs)
    if fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return response

urllib3.connectionpool.HTTPConnectionPool.urlopen = urlopen
from xcflow_pipelines.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["experiments", "pipelines", "upload_version", "runs"])
def test_killed_while_the_cluster_acts_the_next_one_makes_it_one_run(
    make_trigger,
    options,
    sealed,
    kubeflow,
    what,
    when,
):
    command = ["pipeline", "trigger", "--catalogue", sealed, *options]
    victim = subprocess.run([sys.executable, "-c", DIE, what, when, *command], check=False)
    assert victim.returncode == -signal.SIGKILL
    outcome = make_trigger().pull(sealed)
    assert list(kubeflow.runs) == [outcome.submission.run]
    assert make_trigger().pull(sealed).state == "known"


@pytest.mark.slow
def test_a_claim_without_a_run_is_taken_over(make_trigger, sealed, kubeflow, model, tmp_path):
    config = Config.from_dict({"tracking": {"model_name": model}})
    log = ClaimLog(Tracker.at(config.tracking, Home.at(tmp_path / "home")), model)
    trigger = make_trigger()
    digest = trigger.pull(sealed, dry_run=True).outline.digest
    assert log.claim(digest, Attempt(1, 0, None))
    assert trigger.pull(sealed).state == "submitted"
    assert log.latest(digest).claims == 2
    assert len(kubeflow.runs) == 1


def test_a_listing_whose_content_the_champion_was_trained_on_needs_no_run(
    trigger, uri, folder, model, tmp_path, monkeypatch, kubeflow
):
    monkeypatch.delenv(names.RUN_KEY_VARIABLE, raising=False)
    replace_file(f"{uri}/meta.json", b'{"licence": "CC0-1.0"}')
    config = Config.from_dict({"tracking": {"model_name": model}})
    # A run that a schedule started: it finds out what stands there by itself.
    _, digest, *_ = flow.open_run("scheduled", uri, "", library_digest(), config.to_json())
    assert digest == catalogue_digest(folder)
    tracker = Tracker.at(config.tracking, Home.at())
    assert tracker.tags(tracker.find_run("scheduled"))[names.LICENCE] == "CC0-1.0"
    assert json.loads(trigger(uri, "--dry-run", "--json")[1])["state"] == "due"
    promote(config, digest, tmp_path)
    assert json.loads(trigger(uri, "--json")[1])["state"] == "accepted"
    replace_file(f"{uri}/train.jsonl", b'{"id": "d", "text": "t", "labels": ["l0"]}\n')
    due = json.loads(trigger(uri, "--dry-run", "--json")[1])
    assert (due["state"], due["accepted"]) == ("due", digest)
    assert "holds no profile of a catalogue" in due["changes"][0]
    assert kubeflow.runs == {}


def promote(config, catalogue, folder):
    """Make a model that was trained on a catalogue the champion; it carries no profile."""
    with writing(folder / "bundle", "bundle", meta={"catalogue_digest": catalogue}) as partial:
        (partial / "weights.txt").write_text("weights")
    judgement = Judgement(
        verdict="PROMOTE", reasons=("for a test",), notes=(), checks=(),
        candidate=read_manifest(folder / "bundle").digest, champion="", evaluation="e",
        dataset="d", catalogue=catalogue, test_split="s", documents=1, thresholds=GateConfig(),
    )  # fmt: skip
    home = Home.at(folder / "home-of-the-champion")
    registry = Registry(Tracker.at(config.tracking, home), config.tracking.model_name, home)
    registry.promote(folder / "bundle", judgement, run=None)


def test_a_known_catalogue_costs_a_few_requests(make_trigger, sealed, monkeypatch):
    make_trigger().pull(sealed)
    trigger, asked = make_trigger(), []
    original = urllib3.connectionpool.HTTPConnectionPool.urlopen

    def urlopen(self, method, url, *args, **kwargs):
        asked.append(f"{method} {url.partition('?')[0]}")
        return original(self, method, url, *args, **kwargs)

    monkeypatch.setattr(urllib3.connectionpool.HTTPConnectionPool, "urlopen", urlopen)
    assert trigger.pull(sealed).state == "known"
    # Seal and listing; champion, experiment and claims; the run.
    assert len(asked) == 6, asked
    assert {request.partition(" ")[0] for request in asked} == {"GET"}

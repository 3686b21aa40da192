"""The tracking server on a real PostgreSQL and a real S3 server, with users, by its start script.

Users have only their passwords: whatever goes to S3 goes through the server. The tests follow each
other on one server; each leaves it running.
"""

import json
import os
import subprocess
import sys
import threading

import boto3
import pytest
import serving_soak as soak
from tracking_server import ADMIN, TrackingServer, outside

from xcflow.artifact import read_manifest, writing
from xcflow.errors import AccessError, CredentialsError, StoreAwayError
from xcflow.home import Home
from xcflow.registry.moves import MoveLog
from xcflow.registry.outbox import Outbox
from xcflow.registry.service import connected, recorded
from xcflow.registry.tracking import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PASSWORDS = {"admin": ADMIN} | {
    name: f"the password of {name}" for name in ("rita-reader", "tom-trainer", "pia-promoter")
}
SETTINGS = (
    "run.threads=1",
    "clustering.clusters=32",
    "module_one.epochs=2",
    "module_one.batch_size=128",
    "module_two.epochs=1",
    "data.validation_fraction=0.2",
    "gate.primary=R@10",
    "gate.secondary=[]",
)


@pytest.fixture(scope="module")
def storage(endpoint):
    """What the server, and nobody else, is told of S3."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "the-key",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
    }


@pytest.fixture(scope="module")
def bucket(storage):
    client = boto3.resource(
        "s3",
        endpoint_url=storage["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=storage["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=storage["AWS_SECRET_ACCESS_KEY"],
    )
    return client.Bucket("bucket")


@pytest.fixture(scope="module")
def server(postgres, storage, tmp_path_factory):
    place = {"MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/mlflow"}
    variables = storage | postgres.variables("mlflow") | place
    server = TrackingServer(tmp_path_factory.mktemp("server"), variables)
    server.start()
    yield server
    server.kill()


class Machine:
    """A home folder, and the command run there by one user or another."""

    def __init__(self, home, uri):
        self.home = Home.at(home)
        self.uri = uri

    def environment(self, user):
        return {
            "XCFLOW_HOME": str(self.home.root),
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": PASSWORDS[user],
        }

    def command(self, user, *arguments, **environment):
        return subprocess.run(
            [*soak.COMMAND, *arguments],
            capture_output=True,
            text=True,
            env=outside() | {"OMP_NUM_THREADS": "1"} | self.environment(user) | environment,
            check=False,
        )

    def answer(self, user, *arguments):
        done = self.command(user, *arguments, "--json")
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)

    def refusal(self, user, *arguments, **environment):
        """The one line with which a command ends that cannot be."""
        done = self.command(user, *arguments, **environment)
        assert done.returncode not in (0, 3), done.stdout
        (line,) = done.stderr.splitlines()
        return line


@pytest.fixture(scope="module")
def users(server, tmp_path_factory):
    """The users, made by the command; what it makes twice is made once."""
    admin = Machine(tmp_path_factory.mktemp("admin"), server.uri)
    for name in ("tom-trainer", "tom-trainer", "pia-promoter", "rita-reader"):
        role = name.partition("-")[2]
        made = admin.command(
            "admin", "user", name, "--role", role, XCFLOW_USER_PASSWORD=PASSWORDS[name]
        )
        assert (made.returncode, made.stdout) == (0, f"user {name}: {role}\n"), made.stderr
    return admin


@pytest.fixture
def machine(server, users, tmp_path):
    return Machine(tmp_path / "home", server.uri)


@pytest.fixture
def become(machine, monkeypatch):
    """Makes this process one of the users; returns what it has of the tracking server."""
    for variable in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_"))]:
        monkeypatch.delenv(variable)

    def act(user):
        for name, value in machine.environment(user).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XCFLOW_RUN_KEY", "key")
        return Tracker.from_environment()

    return act


@pytest.fixture(scope="module")
def trained(server, users, small_catalogue, tmp_path_factory):
    """A run of the trainer: what its command answered, and its machine."""
    machine = Machine(tmp_path_factory.mktemp("trainer"), server.uri)
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    done = machine.command(
        "tom-trainer", "run", "--data", str(small_catalogue), "--json", *overrides
    )
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout), machine, done.stderr


@pytest.fixture(scope="module")
def promoted(trained, tmp_path_factory):
    """The move that made the trainer's model the champion, from another machine."""
    machine = Machine(tmp_path_factory.mktemp("promoter"), trained[1].uri)
    return machine.answer("pia-promoter", "promote", trained[0]["mlflow_run"]), machine


def test_a_trainers_run_is_recorded_whole_and_promotes_nothing(trained, bucket, become):
    outcome, machine, said = trained
    assert outcome["verdict"] == "PROMOTE"
    refused = "tom-trainer may not promote: it needs the right EDIT on the registered model xcflow"
    assert refused in outcome["promotion"]["refused"]
    assert said.count(refused) == 1
    assert Outbox(machine.home).waiting() == []
    tracker = become("tom-trainer")
    run = tracker.client.get_run(outcome["mlflow_run"])
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "PROMOTE")
    assert refused in run.data.tags["not_promoted"]
    assert all(step.info.status == "FINISHED" for step in tracker.steps(run.info.run_id).values())
    assert tracker.client.search_model_versions() == []
    assert MoveLog(tracker, "xcflow").read() == []
    keys = [each.key for each in bucket.objects.filter(Prefix="mlflow/")]
    experiment = f"mlflow/{run.info.experiment_id}"
    for part in (
        f"{experiment}/{run.info.run_id}/artifacts/verdict/verdict.json",
        "/artifacts/artifacts/",
    ):
        assert any(part in key for key in keys), keys


def test_a_promoter_promotes_it_from_another_machine(trained, promoted):
    move, machine = promoted
    assert (move["version"], move["who"], move["run"]) == (
        "1",
        "pia-promoter",
        trained[0]["mlflow_run"],
    )
    assert machine.answer("rita-reader", "history") == [move]
    bundle = machine.home.models / move["digest"]
    assert read_manifest(bundle, "bundle", verify=True).digest == move["digest"]
    assert trained[1].answer("pia-promoter", "promote", trained[0]["run"]) == {}  # it is already


def test_a_reader_serves_the_champion(promoted, machine, become, tmp_path):
    """On a machine that has nothing: the model comes through the server."""
    move, _ = promoted
    become("rita-reader")
    with soak.running(machine.home.root, tmp_path / "log") as running:
        status, body = running.ask("POST", "/predict", {"texts": ["python library"], "k": 3})
        assert (status, body["model"]["version"]) == (200, move["version"])
        assert len(body["labels"][0]) == 3


FORBIDDEN = {
    "move the alias": lambda c, run, moves: c.set_registered_model_alias("xcflow", "champion", "1"),
    "register a version": lambda c, run, moves: c.create_model_version("xcflow", "models:/m-1"),
    "change a version": lambda c, run, moves: c.set_model_version_tag("xcflow", "1", "a", "b"),
    "delete a version": lambda c, run, moves: c.delete_model_version("xcflow", "1"),
    "delete the model": lambda c, run, moves: c.delete_registered_model("xcflow"),
    "rename the model": lambda c, run, moves: c.rename_registered_model("xcflow", "other"),
    "write a move": lambda c, run, moves: c.log_param(moves, "move_00099", "{}"),
    "delete the moves": lambda c, run, moves: c.delete_run(moves),
    "delete a run": lambda c, run, moves: c.delete_run(run),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_trainer_may_not(name, trained, promoted, become):
    tracker = become("tom-trainer")
    moves = MoveLog(tracker, "xcflow").open()
    with (
        pytest.raises(AccessError, match="the user tom-trainer has no right to this"),
        tracker.trouble(),
    ):
        FORBIDDEN[name](tracker.client, trained[0]["mlflow_run"], moves)
    assert [move.version for move in MoveLog(tracker, "xcflow").read()][:1] == ["1"]


def test_one_line_for_who_is_refused(promoted, machine, tmp_path):
    unknown = {"MLFLOW_TRACKING_PASSWORD": "a wrong one"}
    for command in (["history"], ["promote", "0123"]):
        line = machine.refusal("pia-promoter", *command, **unknown)
        assert "does not accept the user pia-promoter: check MLFLOW_TRACKING_USERNAME" in line
    nobody = {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}
    assert "asks for a user: set MLFLOW" in machine.refusal("admin", "history", **nobody)
    line = machine.refusal("tom-trainer", "rollback", "--to", "1", "--reason", "x")
    assert "version 1 is the champion already" in line
    line = machine.refusal(
        "tom-trainer", "user", "eve", "--role", "promoter", XCFLOW_USER_PASSWORD="x" * 12
    )
    assert "the user tom-trainer has no right to this (mlflow/users/create)" in line


def test_a_server_says_why_it_has_no_model(promoted, machine, become, tmp_path):
    become("rita-reader")
    wrong = {"MLFLOW_TRACKING_PASSWORD": "a wrong one"}
    running = soak.Server(machine.home.root, tmp_path / "log", **wrong)
    try:
        running.wait_until(lambda: "does not accept the user rita-reader" in running.said())
        assert "a wrong one" not in running.said()
    finally:
        running.stop()


def test_of_sixteen_that_log_the_same_parameter_one_wins(become):
    """What the order of moves relies on."""
    tracker = become("pia-promoter")
    tracker.experiment = "parameters"
    run = tracker.open_run("a run", "parameters", {}, {})
    start, answers = threading.Barrier(16), []

    def log(value):
        start.wait()
        try:
            tracker.client.log_param(run, "move_00001", value)
            answers.append(value)
        except Exception as error:  # noqa: BLE001
            answers.append(getattr(error, "error_code", error))

    threads = [threading.Thread(target=log, args=(str(i),)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = tracker.client.get_run(run).data.params["move_00001"]
    assert sorted(answers) == sorted([winner] + ["INVALID_PARAMETER_VALUE"] * 15)


PROMOTION = """
import sys
from pathlib import Path
from xcflow.artifact import read_manifest
from xcflow.config import GateConfig
from xcflow.errors import GateError
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker

bundle = Path(sys.argv[1])
texts = dict.fromkeys(("champion", "evaluation", "dataset", "catalogue", "test_split"), "")
digest = read_manifest(bundle).digest
judgement = Judgement("PROMOTE", ("better",), (), (), digest, documents=1,
                      thresholds=GateConfig(), **texts)
registry = Registry(Tracker.from_environment(), "raced", Home.at())
registry.champion()
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.promote(bundle, judgement, run=None)
except GateError as error:
    sys.exit(f"refused: {error}")
"""


def make_bundle(folder, content):
    with writing(folder, "bundle") as partial:
        (partial / "weights.txt").write_text(content)
    return folder


def test_of_promotions_on_two_machines_one_wins(server, users, become, tmp_path):
    processes, digests = [], []
    for name in ("one", "other"):
        bundle = make_bundle(tmp_path / f"bundle-{name}", name)
        digests.append(read_manifest(bundle).digest)
        machine = Machine(tmp_path / name, server.uri)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROMOTION, str(bundle)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=outside() | machine.environment("pia-promoter"),
            )
        )  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=300)[1] for process in processes]
    winner, loser = sorted(range(2), key=lambda i: processes[i].returncode)
    assert (processes[winner].returncode, processes[loser].returncode) == (0, 1), errors
    assert errors[loser].count("refused: ") == errors[loser].count("\n") == 1, errors
    done = MoveLog(become("rita-reader"), "raced").read()
    assert [move.digest for move in done] == [digests[winner]]


KILLED = """
import json, os, sys
from pathlib import Path
import requests
from xcflow.artifact import read_manifest
from xcflow.config import GateConfig
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker

bundle = Path(sys.argv[1])
texts = dict.fromkeys(("champion", "evaluation", "dataset", "catalogue", "test_split"), "")
digest = read_manifest(bundle).digest
judgement = Judgement("PROMOTE", ("better",), (), (), digest, documents=1,
                      thresholds=GateConfig(), **texts)
tracker = Tracker.from_environment()
send = requests.Session.send

def die_after(requests_left):
    def send_and_count(self, *args, **kwargs):
        nonlocal requests_left
        answer = send(self, *args, **kwargs)
        requests_left -= 1
        if not requests_left:
            os.kill(os.getpid(), 9)
        return answer
    requests.Session.send = send_and_count

for last in range(1, 100):
    registry = Registry(tracker, f"killed-{last}", Home.at())
    child = os.fork()
    if child == 0:
        die_after(last)
        registry.promote(bundle, judgement, run=None)
        os._exit(0)
    whole = os.waitpid(child, 0)[1] == 0
    written = len(registry.log.read())
    again = registry.promote(bundle, judgement, run=None)
    done = [(move.digest, move.version) for move in registry.log.read()]
    champion = registry.champion()
    assert done == [(champion.digest, champion.number)] == [(digest, "1")], (last, done)
    print(json.dumps([written, again is not None]), flush=True)
    if whole:
        break
"""


def test_a_promotion_that_is_killed_anywhere_is_finished_by_the_same_one(server, users, tmp_path):
    """It is killed after each of its requests in turn."""
    bundle, machine = make_bundle(tmp_path / "bundle", "killed"), Machine(tmp_path, server.uri)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(bundle)], capture_output=True, text=True, check=False,
        env=outside() | machine.environment("pia-promoter"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    # Killed before it was written down, between that and the alias, and when it was champion.
    assert list(dict.fromkeys(found)) == [(0, True), (1, True), (1, False)]


def record_a_step(folder):
    dataset = {"name": "catalogue", "digest": "0123456789abcdef", "source": "/data/catalogue"}
    with connected() as service:
        service.record("open_run", name="a run", key="key", params={}, tags={}, dataset=dataset)
        with (
            recorded("train_encoder", {"run": {"seed": 1}}, folder),
            writing(folder, "encoder") as out,
        ):
            (out / "report.html").write_text("<p>report</p>")
        service.record("close_run", key="key", succeeded=True, error="")


def assert_recorded(tracker):
    run = tracker.client.get_run(tracker.find_run("key"))
    assert run.info.status == "FINISHED"
    (step,) = tracker.steps(run.info.run_id).values()
    assert [file.path for file in tracker.client.list_artifacts(step.info.run_id)] == [
        "report.html"
    ]


def test_a_database_that_is_away_for_a_while(postgres, machine, become, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "away")
    tracker = become("tom-trainer")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "away")
    tracker.experiment_id()
    postgres.stop()
    try:
        record_a_step(tmp_path / "encoder")
        assert len(Outbox(machine.home).waiting()) == 4
        with pytest.raises(StoreAwayError, match=r"cannot answer now \(503\)"):
            tracker.find_run("key")
        assert "cannot answer now (503)" in machine.refusal("tom-trainer", "sync")
    finally:
        postgres.start()
    assert machine.answer("tom-trainer", "sync") == {"sent": 4, "waiting": 0}
    assert_recorded(Tracker.from_environment())


def test_records_wait_for_the_right_and_for_the_password(
    users, machine, become, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "xcflow")
    tracker = become("rita-reader")
    monkeypatch.setenv("XCFLOW_RUN_KEY", "key")
    record_a_step(tmp_path / "encoder")
    assert len(Outbox(machine.home).waiting()) == 4
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a wrong one")
    with pytest.raises(CredentialsError, match="does not accept the user rita-reader"):
        tracker.find_run("key")
    line = machine.refusal("rita-reader", "sync")
    assert "the user rita-reader has no right to this (mlflow/runs/create)" in line
    assert machine.answer("tom-trainer", "sync") == {"sent": 4, "waiting": 0}
    assert_recorded(become("tom-trainer"))


def test_a_backup_restored_elsewhere(postgres, storage, bucket, server, promoted, tmp_path):
    """As mlflow/README.md says: the database by pg_dump, the files by copying the bucket."""
    move, machine = promoted
    before = machine.answer("rita-reader", "history")
    postgres.client("pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", "mlflow")
    postgres.client("createdb", "restored")
    postgres.client("pg_restore", "--dbname=restored", "--exit-on-error", tmp_path / "dump")
    for each in bucket.objects.filter(Prefix="mlflow/"):
        source = {"Bucket": bucket.name, "Key": each.key}
        bucket.copy(source, each.key.replace("mlflow/", "restored/", 1))
    place = {"MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/restored"}
    restored = TrackingServer(tmp_path, storage | postgres.variables("restored") | place)
    restored.start()
    try:
        elsewhere = Machine(tmp_path / "elsewhere", restored.uri)
        assert elsewhere.answer("rita-reader", "history") == before
        labels = elsewhere.answer("rita-reader", "predict", "python library")["labels"]
        assert labels == machine.answer("rita-reader", "predict", "python library")["labels"]
        bundle = elsewhere.home.models / move["digest"]
        assert read_manifest(bundle, "bundle", verify=True).digest == move["digest"]
    finally:
        restored.kill()

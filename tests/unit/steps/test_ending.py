"""How a run begins and ends outside its steps: what stands in the catalogue, and who is told."""

import json
import time

import pytest
from hook import Hook

from xcflow.catalogue.readers import catalogue_digest
from xcflow.config import Config, NotifyConfig
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.registry import names, operations
from xcflow.registry.tracking import Tracker
from xcflow.steps import STEPS, flow, webhook

KEY = "3b0c7a52-9a43-4d5e-8f3e-0123456789ab"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", webhook.VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(names.RUN_KEY_VARIABLE, KEY)
    monkeypatch.setattr(webhook, "PAUSE_S", 0.01)


@pytest.fixture
def tracker(tmp_path):
    tracker = Tracker.at(Config().tracking, Home.at(tmp_path / "home"))
    dataset = {"name": "x", "digest": "d", "source": "/x"}
    operations.open_run(tracker, "nightly-0102-0300", KEY, {}, {}, dataset)
    return tracker


def ended(state="SUCCEEDED", error="", **sections):
    flow.close_run("nightly-{time}", Config.from_dict(sections).to_json(), state, error)


@pytest.fixture
def catalogue(tmp_path):
    folder = tmp_path / "colours"
    folder.mkdir()
    rows = [{"id": "a", "text": "red", "labels": ["x"]}]
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "labels.jsonl").write_text('{"id": "x", "text": "warm"}\n')
    return folder


def opened(catalogue, digest, name="nightly-{time}"):
    config = Config()
    return flow.open_run(name, str(catalogue), digest, library_digest(), config.to_json())


def test_a_run_without_a_digest_takes_what_stands_there_now(catalogue):
    name, digest, *sections = opened(catalogue, "")
    assert digest == catalogue_digest(catalogue)
    assert name.startswith("nightly-")
    assert time.strptime(name.removeprefix("nightly-"), "%m%d-%H%M")
    assert len(sections) == len(STEPS)
    with (catalogue / "train.jsonl").open("a") as stream:
        stream.write('{"id": "b", "text": "blue", "labels": ["x"]}\n')
    assert opened(catalogue, "")[1] == catalogue_digest(catalogue) != digest


def test_a_run_with_a_digest_keeps_to_it(catalogue):
    assert opened(catalogue, "of-the-trigger", "my-run")[:2] == ("my-run", "of-the-trigger")


@pytest.mark.parametrize(
    ("meta", "licence"),
    [('{"license": "CC0-1.0"}', "CC0-1.0"), ("{}", None), ('["CC0-1.0"]', None), ("{", None)],
)
def test_a_run_states_the_licence_of_its_catalogue_where_it_is_told(
    catalogue, tracker, meta, licence
):
    (catalogue / "meta.json").write_text(meta)
    opened(catalogue, "")
    assert tracker.tags(tracker.find_run(KEY)).get(names.LICENCE) == licence


def test_a_catalogue_that_is_gone_is_one_line(tmp_path, capfd):
    with pytest.raises(SystemExit):
        opened(tmp_path / "nowhere", "")
    assert "nowhere: no such folder" in capfd.readouterr().err


def test_the_webhook_is_told_of_a_promotion(tracker):
    run = tracker.find_run(KEY)
    tracker.client.set_tag(run, names.VERDICT, names.PROMOTE)
    with Hook() as hook:
        ended(notify={"webhook": hook.url}, cluster={"ui": "https://kubeflow/pipeline/"})
    ((path, kind, told),) = hook.told
    assert path == "/secret-path"
    assert kind == "application/json"
    assert told == {
        "text": "xcflow run nightly-0102-0300: promoted",
        "run": "nightly-0102-0300",
        "run_key": KEY,
        "state": "SUCCEEDED",
        "verdict": "PROMOTE",
        "error": "",
        "links": {"kubeflow": f"https://kubeflow/pipeline/#/runs/details/{KEY}"},
    }
    assert tracker.client.get_run(run).info.status == names.FINISHED


def test_the_webhook_is_told_of_a_failure_and_why(tracker):
    with Hook() as hook:
        ended("FAILED", "task train-encoder failed", notify={"webhook": hook.url})
    ((_, _, told),) = hook.told
    assert told["state"] == "FAILED"
    assert told["error"] == "task train-encoder failed"
    assert told["text"] == "xcflow run nightly-0102-0300: failed: task train-encoder failed"
    assert told["links"] == {}


def test_the_webhook_is_told_of_a_promotion_that_was_refused(tracker):
    tags = {names.VERDICT: names.PROMOTE, names.NOT_PROMOTED: "tom may not promote"}
    tracker.tag(tracker.find_run(KEY), tags)
    with Hook() as hook:
        ended(notify={"webhook": hook.url})
    ((_, _, told),) = hook.told
    assert told["text"] == (
        "xcflow run nightly-0102-0300: finished, PROMOTE, not promoted: tom may not promote"
    )


def test_an_address_from_the_environment_goes_before(tracker, monkeypatch):
    with Hook() as named, Hook() as secret:
        monkeypatch.setenv(webhook.VARIABLE, secret.url)
        ended(notify={"webhook": named.url})
    assert len(secret.told) == 1
    assert not named.told


def test_a_webhook_is_told_of_a_run_that_the_store_does_not_know(capfd):
    with Hook() as hook:
        ended("FAILED", "it was never opened", notify={"webhook": hook.url})
    ((_, _, told),) = hook.told
    assert told["run"] == f"nightly-{KEY}"
    assert told["error"] == "it was never opened"


def test_without_a_webhook_nobody_is_told(tracker):
    ended()
    assert tracker.client.get_run(tracker.find_run(KEY)).info.status == names.FINISHED


def posted(hook, **settings):
    return webhook.post(hook.url, {"run": "r"}, NotifyConfig(**settings))


@pytest.mark.parametrize("trouble", [503, 500, 429, "hang up"])
def test_passing_trouble_is_tried_again(trouble):
    with Hook(trouble, trouble) as hook:
        assert posted(hook)
    assert len(hook.told) == 3


def test_it_gives_up_with_one_line_that_shows_no_secret(capsys):
    with Hook(503, 503) as hook:
        assert not posted(hook, attempts=2)
    said = capsys.readouterr().err
    assert said == "the webhook at 127.0.0.1 was not told: it answers 503\n"


def test_a_refusal_is_not_tried_again():
    with Hook(404) as hook:
        assert not posted(hook)
    assert len(hook.told) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/secret", "file:///etc/passwd", "nonsense"])
def test_an_address_that_leads_nowhere_fails_nothing(url, capsys):
    assert not webhook.post(url, {}, NotifyConfig(attempts=1))
    said = capsys.readouterr().err
    assert said.startswith("the webhook at ")
    assert "secret" not in said

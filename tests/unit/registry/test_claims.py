"""Of many that want to submit a run for a catalogue one does, and all find what it submitted."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from xcflow.config import TrackingConfig
from xcflow.errors import TrackingError
from xcflow.registry.claims import Attempt, ClaimLog
from xcflow.registry.tracking import Tracker

DIGEST = "d" * 64
OTHER = "e" * 64
RACERS = 8


@pytest.fixture
def log(tracker):
    return ClaimLog(tracker, "model")


def settle(log, attempt, run):
    return log.settle(DIGEST, attempt, run, "a name", "s3://bucket/catalogue")


def test_nothing_is_known_and_nothing_is_made_by_asking(log, tracker):
    assert log.latest(DIGEST) == Attempt(1, 0, None)
    assert tracker.client.get_experiment_by_name("model triggers") is None


def test_a_claim_is_seen_by_all_and_is_of_its_catalogue_alone(log, tracker):
    assert log.claim(DIGEST, log.latest(DIGEST))
    assert ClaimLog(tracker, "model").latest(DIGEST) == Attempt(1, 1, None)
    assert log.latest(OTHER) == Attempt(1, 0, None)
    assert ClaimLog(tracker, "another model").latest(DIGEST) == Attempt(1, 0, None)


def test_a_claim_after_the_known_ones_is_refused_where_another_was_faster(log):
    known = log.latest(DIGEST)
    assert log.claim(DIGEST, known)
    assert not log.claim(DIGEST, known)
    assert log.claim(DIGEST, log.latest(DIGEST))
    assert log.latest(DIGEST).claims == 2


def test_the_first_submission_holds(log):
    attempt = log.latest(DIGEST)
    log.claim(DIGEST, attempt)
    first = settle(log, attempt, "run-1")
    assert settle(log, attempt, "run-2") == first
    assert first.run == "run-1"
    assert log.latest(DIGEST).submission == first


def test_who_submitted_is_whom_the_server_knows_by_the_address(log, tracker):
    tracker.uri = "https://nightly:secret@mlflow.example.org"
    attempt = log.latest(DIGEST)
    log.claim(DIGEST, attempt)
    (claim,) = log._params().values()
    assert json.loads(claim)["who"] == "nightly"
    assert settle(log, attempt, "run-1").who == "nightly"


def test_another_attempt_begins_without_claims(log):
    attempt = log.latest(DIGEST)
    log.claim(DIGEST, attempt)
    settle(log, attempt, "run-1")
    again = Attempt(2, 0, None)
    assert log.claim(DIGEST, again)
    assert log.latest(DIGEST) == Attempt(2, 1, None)
    settle(log, again, "run-2")
    assert log.latest(DIGEST).submission.run == "run-2"


def test_the_tenth_claim_and_attempt_are_later_than_the_second(log):
    for number in (2, 10):
        for claims in range(11):
            assert log.claim(DIGEST, Attempt(number, claims, None))
    assert log.latest(DIGEST) == Attempt(10, 11, None)


def test_of_many_that_claim_at_once_in_a_new_store_one_does(home):
    barrier = Barrier(RACERS)

    def race(_):
        log = ClaimLog(Tracker.at(TrackingConfig(experiment="tests"), home), "model")
        attempt = log.latest(DIGEST)
        barrier.wait()
        return log.claim(DIGEST, attempt)

    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(race, range(RACERS)))
    assert won.count(True) == 1
    client = Tracker.at(TrackingConfig(experiment="tests"), home).client
    assert [e.name for e in client.search_experiments() if "triggers" in e.name] == [
        "model triggers"
    ]


def test_a_deleted_record_is_told_not_begun_anew(log, tracker):
    log.claim(DIGEST, log.latest(DIGEST))
    experiment = tracker.client.get_experiment_by_name("model triggers")
    tracker.client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="'model triggers' was deleted: restore it"):
        log.latest(DIGEST)


def test_a_claim_that_cannot_be_written_is_told_not_taken_for_anothers(log, tracker):
    attempt = log.latest(DIGEST)
    tracker.client.delete_run(log.open())
    with pytest.raises(TrackingError, match="must be in the 'active' state"):
        log.claim(DIGEST, attempt)


def test_an_experiment_of_somebody_else_is_left_alone(log, tracker):
    tracker.client.create_experiment("model triggers")
    with pytest.raises(TrackingError, match="'model triggers' was made by hand: rename it"):
        log.claim(DIGEST, log.latest(DIGEST))

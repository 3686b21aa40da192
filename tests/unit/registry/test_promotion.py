import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from xcflow.config import TrackingConfig
from xcflow.errors import ArtifactError, GateError, TrackingError
from xcflow.registry.bundles import fetch_bundle, keep_bundle, quick_digest
from xcflow.registry.promotion import Registry, moves

CONFIG = TrackingConfig(experiment="tests", model_name="model")


@pytest.fixture
def promote(registry, make_bundle):
    """Promotes a bundle with the given content, judged against the given digest."""

    def act(content, against="", verdict="PROMOTE", catalogue="", **arguments):
        bundle, digest = make_bundle(content, catalogue)
        move = registry.promote(
            bundle,
            candidate=digest,
            run=None,
            verdict=verdict,
            compared_with=against,
            reason="for a test",
            **arguments,
        )
        return move, digest

    return act


def test_the_first_champion(registry, promote, home):
    assert registry.champion() is None
    move, digest = promote("a")
    assert (move.version, move.from_version) == ("1", "")
    assert registry.champion().digest == digest
    assert registry.previous() is None
    assert moves(home) == [move]


def test_the_next_champion_and_back(registry, promote, home):
    _, first = promote("a")
    _, second = promote("b", against=first)
    assert registry.champion().digest == second
    assert registry.previous().digest == first
    assert registry.champion().compared_with == first
    back = registry.rollback(None, "it was slow")
    assert registry.champion().digest == first
    assert registry.previous().digest == second
    assert (back.action, back.from_version, back.version) == ("rollback", "2", "1")
    assert back.reason == "it was slow"
    assert [move.action for move in moves(home)] == ["promote", "promote", "rollback"]
    registry.rollback("2", "it was not")
    assert registry.champion().digest == second


def test_promoting_the_champion_again_moves_nothing(registry, promote, home):
    _, first = promote("a")
    again, _ = promote("a", against=first)
    assert again is None
    assert len(moves(home)) == 1
    assert registry.champion().number == "1"


@pytest.mark.parametrize("verdict", ["HOLD", "REJECT"])
def test_without_a_good_verdict_nothing_moves(registry, promote, verdict):
    with pytest.raises(GateError, match=verdict):
        promote("a", verdict=verdict)
    assert registry.champion() is None


def test_a_verdict_on_another_champion_is_refused(registry, promote):
    _, first = promote("a")
    with pytest.raises(GateError, match="champion was changed"):
        promote("b", against="")
    assert registry.champion().digest == first


def test_an_override_is_recorded_as_what_it_was(registry, promote):
    promote("a")
    move, digest = promote("b", verdict="HOLD", override=True)
    assert move.verdict == "HOLD"
    assert registry.champion().digest == digest


def test_a_verdict_on_another_candidate_is_refused(registry, make_bundle):
    (bundle, _), (_, other) = make_bundle("a"), make_bundle("b")
    with pytest.raises(GateError, match="another model"):
        registry.promote(
            bundle, candidate=other, run=None, verdict="PROMOTE", compared_with="", reason=""
        )


def test_of_two_at_once_one_wins(tracker, home, make_bundle):
    """Both were judged when there was no champion."""

    def act(content):
        bundle, digest = make_bundle(content)
        registry = Registry(tracker, "model", home)
        try:
            registry.promote(
                bundle, candidate=digest, run=None, verdict="PROMOTE", compared_with="", reason=""
            )
        except GateError:
            return None
        return digest

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(act, ["a", "b"]))
    (winner,) = [digest for digest in results if digest]
    assert Registry(tracker, "model", home).champion().digest == winner
    assert len(moves(home)) == 1


def test_a_catalogue_is_held_against_the_latest_other_one(registry, promote):
    assert registry.accepted("monday") is None
    _, first = promote("a", catalogue="monday")
    assert registry.accepted("monday") is None
    assert registry.accepted("tuesday").digest == first
    _, second = promote("b", against=first, catalogue="tuesday")
    promote("c", against=second, catalogue="tuesday")
    assert registry.accepted("tuesday").digest == first  # as before these were promoted
    assert registry.accepted("monday").digest != first


def test_champions_that_were_compared_with_each_other_end_the_search(registry, promote):
    _, first = promote("a", catalogue="monday")
    _, second = promote("b", against=first, catalogue="monday")
    promote("a", against=second, catalogue="monday")
    assert registry.champion().compared_with == second
    assert registry.accepted("monday") is None


def test_a_champion_of_an_unknown_catalogue_is_passed_over(registry, promote):
    _, first = promote("a", catalogue="monday")
    promote("b", against=first)
    assert registry.accepted("tuesday").digest == first


def test_nothing_to_go_back_to(registry, promote):
    with pytest.raises(TrackingError, match="nothing to roll back to"):
        registry.rollback(None, "")
    promote("a")
    with pytest.raises(TrackingError, match="already"):
        registry.rollback("1", "")
    with pytest.raises(TrackingError, match="no version 9"):
        registry.rollback("9", "")


def test_a_lost_copy_is_fetched_from_the_registry(promote, tracker, home):
    _, digest = promote("a")
    shutil.rmtree(home.models)
    folder = fetch_bundle(tracker, home, digest)
    assert folder == home.models / digest
    assert (folder / "weights.txt").read_text() == "a"
    with pytest.raises(TrackingError, match="no registered model"):
        fetch_bundle(tracker, home, "0" * 64)


def test_an_altered_bundle_is_refused(home, make_bundle):
    bundle, digest = make_bundle("a")
    (bundle / "weights.txt").write_text("b")
    with pytest.raises(ArtifactError, match="altered"):
        keep_bundle(home, bundle, digest)
    assert not (home.models / digest).exists()


def test_the_short_way_to_a_digest_is_that_of_the_registry(registry, promote, home):
    assert quick_digest(home, CONFIG, "champion") is None
    _, first = promote("a")
    _, second = promote("b", against=first)
    assert quick_digest(home, CONFIG, "champion") == registry.champion().digest == second
    assert quick_digest(home, CONFIG, "previous") == registry.previous().digest == first
    assert quick_digest(home, CONFIG, "1") == first
    assert quick_digest(home, CONFIG, "9") is None
    assert quick_digest(home, TrackingConfig(uri="http://server"), "champion") is None


def test_a_damaged_record_is_named(promote, home):
    promote("a")
    with home.promotions.open("a") as stream:
        stream.write(json.dumps({"who": "knows"}) + "\n")
    with pytest.raises(ArtifactError, match="line 2"):
        moves(home)

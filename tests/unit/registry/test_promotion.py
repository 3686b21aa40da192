import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from xcflow.config import TrackingConfig
from xcflow.errors import ArtifactError, GateError, TrackingError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.bundles import fetch_bundle, keep_bundle, quick_version
from xcflow.registry.moves import MoveLog, altered_line, moves
from xcflow.registry.promotion import UNDER_WAY_S, Registry

CONFIG = TrackingConfig(experiment="tests", model_name="model")


@pytest.fixture
def promote(registry, make_bundle, judged):
    """Promotes a bundle with the given content, judged against the given digest."""

    def act(content, against="", verdict="PROMOTE", catalogue="", **arguments):
        bundle, digest = make_bundle(content, catalogue)
        judgement = judged(digest, against, verdict)
        return registry.promote(bundle, judgement, run=None, **arguments), digest

    return act


def test_the_first_champion(registry, promote, home):
    assert registry.champion() is None
    move, digest = promote("a", catalogue="monday")
    assert (move.version, move.from_version) == ("1", "")
    assert registry.champion().digest == digest
    assert registry.previous() is None
    assert moves(home) == [move] == registry.log.read()
    assert (move.compared_with, move.evaluation) == ("", f"evaluation of {digest[:6]}")
    assert (move.catalogue, move.test_split, move.reason) == ("monday", "split", "for a test")


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
    assert (back.verdict, back.evaluation) == ("PROMOTE", f"evaluation of {first[:6]}")
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
    move, digest = promote("b", verdict="HOLD", override=True, reason="a demonstration")
    assert (move.action, move.verdict, move.reason) == ("override", "HOLD", "a demonstration")
    assert registry.champion().digest == digest


def test_a_verdict_on_another_candidate_is_refused(registry, make_bundle, judged):
    (bundle, _), (_, other) = make_bundle("a"), make_bundle("b")
    with pytest.raises(GateError, match="another model"):
        registry.promote(bundle, judged(other), run=None)


PROMOTION = """
import sys
from pathlib import Path
from xcflow.config import GateConfig, TrackingConfig
from xcflow.errors import GateError
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker

uri, home, bundle, digest = sys.argv[1:]
tracker = Tracker.at(TrackingConfig(uri, "tests"), Home.at(home))
texts = dict(champion="", evaluation="", dataset="", catalogue="", test_split="")
judgement = Judgement("PROMOTE", ("better",), (), (), digest, documents=1, thresholds=GateConfig(),
                      **texts)
registry = Registry(tracker, "model", Home.at(home))
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.promote(Path(bundle), judgement, run=None)
except GateError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("homes", [("home", "home"), ("one", "other")])
def test_of_two_processes_at_once_one_wins(tracker, make_bundle, tmp_path, homes):
    """Both were judged when there was no champion; two homes share no lock, only the store."""
    digests, processes = {}, []
    for content, home in zip("ab", homes, strict=True):
        bundle, digests[content] = make_bundle(content)
        arguments = [tracker.uri, str(tmp_path / home), str(bundle), digests[content]]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROMOTION, *arguments],
                cwd=tmp_path,  # where a store without a home's folder keeps its files
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    winner, loser = sorted(range(2), key=lambda i: processes[i].returncode)
    assert (processes[winner].returncode, processes[loser].returncode) == (0, 1), errors
    assert errors[loser].count("refused: ") == errors[loser].count("\n") == 1, errors
    registry = Registry(tracker, "model", Home.at(tmp_path / homes[winner]))
    digest = digests["ab"[winner]]
    assert registry.champion().digest == digest
    assert [move.digest for move in registry.log.read()] == [digest]
    assert moves(registry.home) == registry.log.read()


def test_two_machines_that_know_the_same_past_cannot_both_go_on(registry, promote, tracker):
    """The store refuses the second of two moves with the same number, whatever came before."""
    move, _ = promote("a")
    other = MoveLog(tracker, "model")
    registry.log.write(2, replace(move, who="one"))
    with pytest.raises(GateError, match="another promotion was faster"):
        other.write(2, replace(move, who="the other"))
    assert [move.who for move in other.read()] == [move.who, "one"]


def test_while_a_move_is_under_way_another_waits(registry, promote):
    move, first = promote("a")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    registry.log.write(2, replace(move, who="ann", version="7", time=now))
    with pytest.raises(GateError, match="ann is just moving the champion to version 7: try again"):
        promote("b", against=first)
    assert registry.champion().digest == first


def test_a_move_that_was_left_half_made_is_made_by_who_wants_the_same(registry, promote, home):
    """As after a kill between the record and the alias."""
    promote("a")
    move, second = promote("b", verdict="HOLD", override=True, reason="a test")
    registry.tracker.client.set_registered_model_alias("model", names.CHAMPION, "1")
    again, _ = promote("b", verdict="HOLD", override=True, reason="a test")
    assert again == move
    assert registry.champion().digest == second
    assert registry.previous().number == "1"
    registry.tracker.client.set_registered_model_alias("model", names.CHAMPION, "1")
    assert registry.rollback("2", "the same by another name") == move
    assert registry.champion().digest == second
    assert len(registry.log.read()) == len(moves(home)) == 2


def test_a_move_that_was_given_up_is_gone_over(registry, promote):
    move, first = promote("a")
    long_ago = datetime.fromtimestamp(datetime.now(UTC).timestamp() - UNDER_WAY_S - 1, UTC)
    registry.log.write(2, replace(move, version="7", time=long_ago.isoformat()))
    _, second = promote("b", against=first)
    assert registry.champion().digest == second
    assert [move.version for move in registry.log.read()] == ["1", "7", "2"]


def test_the_record_outlives_the_home(registry, promote, tracker, tmp_path):
    _, first = promote("a")
    promote("b", verdict="HOLD", override=True, reason="x" * 10_000)
    other = Registry(tracker, "model", Home.at(tmp_path / "elsewhere"))
    assert moves(other.home) == []
    actions = [(move.action, move.version) for move in other.log.read()]
    assert actions == [("promote", "1"), ("override", "2")]
    assert other.rollback("1", "it was only a demonstration").digest == first
    assert len(registry.log.read()) == 3


def test_a_model_that_was_made_by_hand_gets_its_record_too(registry, promote, tracker):
    tracker.client.create_registered_model("model")
    move, _ = promote("a")
    assert registry.log.read() == [move]
    assert names.MOVES_RUN in tracker.client.get_registered_model("model").tags


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
    assert quick_version(home, CONFIG, "champion") is None
    _, first = promote("a")
    _, second = promote("b", against=first)
    assert quick_version(home, CONFIG, "champion") == ("2", second)
    assert registry.champion().digest == second
    assert quick_version(home, CONFIG, "previous") == ("1", first)
    assert registry.previous().digest == first
    assert quick_version(home, CONFIG, "1") == ("1", first)
    assert quick_version(home, CONFIG, "9") is None
    assert quick_version(home, TrackingConfig(uri="http://server"), "champion") is None


def test_a_damaged_record_is_named(promote, home):
    promote("a")
    with home.promotions.open("a") as stream:
        stream.write('{"who": "knows"}\n')
    with pytest.raises(ArtifactError, match="line 2"):
        moves(home)


@pytest.mark.parametrize(
    ("alter", "line"),
    [
        (lambda lines: lines, None),
        (lambda lines: [lines[0].replace("for a test", "for a joke"), *lines[1:]], 2),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
    ],
    ids=["whole", "changed", "dropped", "cut at the start", "put in between"],
)
def test_an_altered_record_is_noticed(registry, promote, home, alter, line):
    _, first = promote("a")
    promote("b", against=first)
    registry.rollback(None, "it was slow")
    lines = alter(home.promotions.read_text().splitlines())
    home.promotions.write_text("".join(f"{text}\n" for text in lines))
    assert altered_line(home) == line

import gc
import threading
import weakref

import pytest
from bundle_copies import COUNTS, alter, mistake_labels, sign, variant

from xcflow.artifact import read_manifest
from xcflow.errors import ArtifactError, TrackingError
from xcflow.serving.bundle import SETTINGS
from xcflow.serving.http import models as module
from xcflow.serving.http.models import Follower, Models


@pytest.fixture
def broken(bundle, tmp_path):
    """Another version of the bundle, broken."""

    def make(spoil):
        folder = variant(bundle, tmp_path / "broken", number=2)
        spoil(folder)
        return folder

    return make


def test_a_new_champion_takes_over_and_the_old_one_is_freed(
    models, shelf, bundle, other_bundle, value
):
    assert models.current is None
    assert models.follow()
    assert models.current.version == "1"
    old = weakref.ref(models.current.predictor)
    shelf.put("champion", other_bundle, "2")
    assert models.follow()
    assert models.current.version == "2"
    assert models.current.digest == read_manifest(other_bundle).digest
    assert not models.follow()
    gc.collect()
    assert old() is None
    assert value("xcflow_model_swaps_total") == 2
    for version, folder, shown in (("1", bundle, 0.0), ("2", other_bundle, 1.0)):
        digest = read_manifest(folder).digest
        line = f'xcflow_model{{digest="{digest}",name="xcflow",version="{version}"}}'
        assert value(line) == shown


def test_what_no_alias_names_is_let_go_when_another_model_answers(models, shelf, other_bundle):
    first = shelf.aliases["champion"]
    models.follow()
    assert shelf.kept == {first.digest}
    shelf.aliases["previous"] = first
    shelf.put("champion", other_bundle, "2")
    models.follow()
    assert shelf.kept == {first.digest, read_manifest(other_bundle).digest}
    shelf.kept = set()
    models.follow()
    assert shelf.kept == set()


def test_who_holds_the_old_model_answers_with_it_to_the_end(models, shelf, other_bundle):
    models.follow()
    held = models.current
    shelf.put("champion", other_bundle, "2")
    models.follow()
    assert held.version == "1"
    assert held.predictor.top_k(["amber goat"], 2).labels.shape == (1, 2)


def lose_its_counts(folder):
    (folder / COUNTS).write_bytes(b"")
    sign(folder)


def lose_its_settings(folder):
    (folder / SETTINGS).write_text("{}")
    sign(folder)


def spoil_its_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"model": 1}')
    sign(folder)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (alter, "was altered after it was written"),
        (mistake_labels, "its labels are not those that it was trained with"),
        (lose_its_counts, ""),
        (lose_its_settings, ""),
        (spoil_its_tokenizer, ""),
    ],
)
def test_a_broken_version_is_refused_and_not_tried_again(
    models, shelf, broken, value, capsys, spoil, reason
):
    models.follow()
    good = shelf.aliases["champion"]
    shelf.put("champion", broken(spoil), "2")
    for _ in range(3):
        assert not models.follow()
    assert shelf.fetched == 2
    assert models.current.version == "1"
    assert "version 2 is refused" in models.trouble
    assert reason in models.trouble
    assert value("xcflow_models_refused_total") == 1
    assert capsys.readouterr().err.count("is refused") == 1
    # Gone and come back, it is tried again.
    shelf.aliases["champion"], bad = good, shelf.aliases["champion"]
    models.follow()
    assert models.trouble == ""
    shelf.aliases["champion"] = bad
    models.follow()
    assert shelf.fetched == 3


def test_another_bundle_than_the_registered_one_is_refused(models, shelf, bundle, other_bundle):
    models.follow()
    shelf.put("champion", other_bundle, "2")
    shelf.folders[shelf.aliases["champion"].digest] = bundle
    assert not models.follow()
    assert "holds the bundle" in models.trouble
    assert models.current.version == "1"


@pytest.mark.parametrize("error", [TrackingError("no answer"), OSError("disk"), MemoryError()])
def test_what_may_pass_is_tried_again(models, shelf, other_bundle, value, monkeypatch, error):
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    models.follow()
    shelf.put("champion", other_bundle, "2")
    digest = shelf.aliases["champion"].digest
    shelf.folders[digest], whole = error, shelf.folders[digest]
    assert not models.follow()
    assert not models.follow()
    assert models.current.version == "1"
    assert "cannot be had now" in models.trouble
    assert value("xcflow_registry_errors_total") == 2
    assert value("xcflow_models_refused_total") == 0
    shelf.folders[digest] = whole
    assert models.follow()
    assert models.current.version == "2"
    assert models.trouble == ""


def test_what_failed_is_left_alone_for_a_while(models, shelf, other_bundle, monkeypatch):
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 3600.0)
    models.follow()
    shelf.put("champion", other_bundle, "2")
    shelf.folders[shelf.aliases["champion"].digest] = TrackingError("no answer")
    for _ in range(3):
        models.follow()
    assert shelf.fetched == 2


def test_a_registry_that_is_away_disturbs_nothing(models, shelf, value, capsys):
    models.follow()
    shelf.away = True
    assert not models.follow()
    assert not models.follow()
    assert models.current.version == "1"
    assert models.trouble == "the registry is away"
    assert value("xcflow_registry_errors_total") == 2
    assert capsys.readouterr().err.count("away; the model before goes on") == 1
    shelf.away = False
    models.follow()
    assert models.trouble == ""


def test_without_a_champion_none_answers(models, shelf, value):
    shelf.aliases.clear()
    assert not models.follow()
    assert models.current is None
    assert models.trouble == "the registry has no champion"
    assert value("xcflow_registry_errors_total") == 0


def test_the_model_before_is_loaded_when_it_is_asked_for(models, shelf, bundle, other_bundle):
    models.follow()
    assert not models.has_previous
    assert models.previous() is None
    shelf.put("previous", other_bundle, "0")
    models.follow()
    assert models.has_previous
    assert shelf.fetched == 1
    shelf.away = True  # what is known suffices
    before = models.previous()
    assert (before.version, models.previous()) == ("0", before)
    assert shelf.fetched == 2


def test_the_model_before_may_be_the_one_that_answers(models, shelf, bundle, broken):
    models.follow()
    shelf.put("previous", bundle, "1")
    shelf.put("champion", broken(alter), "2")
    models.follow()
    assert models.previous() is models.current


def test_a_broken_model_before_is_said_to_be_so(models, shelf, broken):
    shelf.put("previous", broken(alter), "0")
    models.follow()
    for _ in range(2):
        with pytest.raises(ArtifactError, match="version 0 is refused"):
            models.previous()
    assert shelf.fetched == 2
    assert models.current.version == "1"


def test_the_model_before_does_not_wait_for_a_champion_that_is_fetched(
    models, shelf, bundle, other_bundle, metrics
):
    class Slow:
        def __init__(self):
            self.asked, self.may = threading.Event(), threading.Event()

        def wanted(self, alias):
            return shelf.wanted(alias)

        def fetch(self, wanted):
            if wanted.version == "2":
                self.asked.set()
                assert self.may.wait(30)
            return shelf.fetch(wanted)

        def forget(self, but):
            shelf.forget(but)

    slow = Slow()
    models = Models(slow, "xcflow", "champion", "previous", metrics)
    models.follow()
    shelf.put("previous", bundle, "1")
    shelf.put("champion", other_bundle, "2")
    follower = threading.Thread(target=models.follow)
    follower.start()
    assert slow.asked.wait(30)
    assert models.previous() is models.current
    slow.may.set()
    follower.join(30)
    assert models.current.version == "2"


def test_the_follower_outlives_what_nobody_thought_of(models, shelf, capsys):
    asked, answered = shelf.wanted, threading.Event()

    def wanted(alias):
        if shelf.away:
            shelf.away = False
            raise RuntimeError("who would have thought")
        return asked(alias)

    shelf.wanted, shelf.away = wanted, True
    follower = Follower(models, 0.01)
    follow = models.follow
    models.follow = lambda: follow() and answered.set()
    follower.start()
    assert answered.wait(30)
    follower.stop()
    assert not follower.is_alive()
    assert "who would have thought" in capsys.readouterr().err

"""The profile of a champion's catalogue, fetched from the store without the model."""

import numpy as np
import pytest

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue.hashing import hash_strings
from xcflow.catalogue.profile import MAX_CHARS, Profile
from xcflow.catalogue.string_table import StringTable
from xcflow.errors import ArtifactError, TrackingError
from xcflow.registry.bundles import fetch_profile

LABELS = ["l1", "l2", "l3"]


def make_profile():
    return Profile(
        catalogue="c" * 64,
        label_ids=StringTable.from_list(LABELS),
        label_texts=StringTable.from_list(["one", "two", "three"]),
        label_counts=np.array([1, 2, 3]),
        document_ids=np.sort(hash_strings(["d1", "d2"])),
        document_lengths=np.zeros(MAX_CHARS + 1, np.int64),
        label_lengths=np.zeros(MAX_CHARS + 1, np.int64),
        tokens=10,
        unknown_tokens=1,
    )


@pytest.fixture
def make_champion(registry, judged, tmp_path):
    """Makes the champion of a bundle with large vectors, maybe with a profile; its digest."""

    def make(profile):
        bundle = tmp_path / "bundle"
        with writing(bundle, "bundle", meta={"catalogue_digest": "c" * 64}) as partial:
            (partial / "vectors.npy").write_bytes(bytes(1 << 20))
            (partial / "labels").mkdir()
            if profile:
                profile.label_ids.save(partial / "labels" / "ids")
                profile.label_texts.save(partial / "labels" / "texts")
                profile.save(partial)
        digest = read_manifest(bundle).digest
        registry.promote(bundle, judged(digest), run=None)
        return digest

    return make


@pytest.fixture
def elsewhere(home, tmp_path):
    """Another machine: the store is the same, the home is empty."""
    return type(home).at(tmp_path / "elsewhere")


def test_only_what_the_profile_is_made_of_is_fetched(make_champion, tracker, elsewhere, tmp_path):
    digest = make_champion(make_profile())
    profile = fetch_profile(tracker, elsewhere, digest, tmp_path / "fetched")
    assert profile.label_ids.to_list() == LABELS
    assert profile.catalogue == "c" * 64
    assert len(profile.document_ids) == 2
    assert not list((tmp_path / "fetched").rglob("vectors.npy"))
    assert not elsewhere.models.exists()


def test_a_bundle_at_hand_is_read_where_it_stands(make_champion, tracker, home, tmp_path):
    digest = make_champion(make_profile())
    assert fetch_profile(tracker, home, digest, tmp_path / "fetched").label_ids.to_list() == LABELS
    assert not (tmp_path / "fetched").exists()


def test_a_bundle_without_a_profile_says_so(make_champion, tracker, home, elsewhere, tmp_path):
    digest = make_champion(None)
    for place in (home, elsewhere):
        with pytest.raises(ArtifactError, match="holds no profile of a catalogue"):
            fetch_profile(tracker, place, digest, tmp_path / "fetched")


def test_an_unknown_bundle_says_so(tracker, elsewhere, tmp_path):
    with pytest.raises(TrackingError, match="no registered model holds the bundle 123412341234"):
        fetch_profile(tracker, elsewhere, "1234" * 16, tmp_path / "fetched")


def test_a_profile_that_was_altered_in_the_store_is_refused(
    make_champion, tracker, elsewhere, home, tmp_path
):
    digest = make_champion(make_profile())
    stored = [path for path in home.artifacts.rglob("texts.data.npy") if path.is_file()]
    assert stored
    for path in stored:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-1] + b"x")
    with pytest.raises(ArtifactError, match="was altered after it was written"):
        fetch_profile(tracker, elsewhere, digest, tmp_path / "fetched")

"""Bundles of registered models, kept on this machine under their digests."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from xcflow.artifact import MANIFEST, read_manifest
from xcflow.catalogue.profile import PARTS, Profile
from xcflow.config import TrackingConfig
from xcflow.disk import claimed, replace_folder, writable
from xcflow.errors import ArtifactError, TrackingError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.tracking import Tracker, tracking_uri

# Kind of the folder that holds a model.
BUNDLE = "bundle"


def quick_version(home: Home, config: TrackingConfig, name: str) -> tuple[str, str] | None:
    """Number and bundle's digest of a version, read straight from a sqlite store.

    Importing mlflow takes longer than loading a model and answering a query.

    Args:
        home: The home folder.
        config: Where models are registered.
        name: An alias or a version's number.

    Returns:
        None where there is no such version, or the store is another.
    """
    try:
        return stored_version(home, config, name)
    except TrackingError:
        return None


def stored_version(home: Home, config: TrackingConfig, name: str) -> tuple[str, str] | None:
    """The same, where it matters why there is none.

    Raises:
        TrackingError: The store cannot be read, or is none of sqlite.
    """
    uri = tracking_uri(config, home)
    scheme, _, path = uri.partition(":///")
    if scheme != "sqlite":
        raise TrackingError(f"{uri}: is no sqlite store")
    alias = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
    tag = "SELECT value FROM model_version_tags WHERE name = ? AND version = ? AND key = ?"
    try:
        with closing(
            sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        ) as store:
            model, number = config.model_name, (name,)
            if not name.isdigit():
                number = store.execute(alias, (model, name)).fetchone() or ("",)
            row = store.execute(tag, (model, number[0], names.BUNDLE_DIGEST)).fetchone()
    except sqlite3.Error as error:
        if not Path(path).exists():
            raise TrackingError(f"there is no tracking store at {path}") from error
        raise TrackingError(f"{uri}: {error}") from error
    return (str(number[0]), str(row[0])) if row else None


def fetch_bundle(tracker: Tracker, home: Home, digest: str) -> Path:
    """The local folder of a recorded bundle, fetched where it is not at hand.

    Raises:
        TrackingError: Neither a registered version nor a run's model has this bundle.
        ArtifactError: What came is not the bundle that was registered.
    """

    def download(folder: Path) -> Path:
        with tracker.trouble():
            from mlflow.artifacts import download_artifacts

            uri = _uri_of(tracker, digest)
            # Into this folder: what mlflow makes by itself in the system's it leaves there.
            source = Path(download_artifacts(uri, dst_path=str(folder), tracking_uri=tracker.uri))
        bundles = [manifest.parent for manifest in source.glob(f"artifacts/*/{MANIFEST}")]
        if not bundles:
            raise ArtifactError(f"{uri}: holds no bundle")
        return bundles[0]

    return _kept(home, digest, download, "the registered model")


def fetch_profile(tracker: Tracker, home: Home, digest: str, folder: Path) -> Profile:
    """The profile of the catalogue that a registered bundle was trained on.

    Of a bundle that is not at hand only what the profile is made of is fetched: a few bytes for
    each label and document, not the model.

    Args:
        tracker: The tracking store.
        home: Keeps whole bundles.
        digest: The bundle's digest.
        folder: Gets what is fetched; must last as long as the profile.

    Raises:
        TrackingError: No registered version has this bundle.
        ArtifactError: What came is not what was registered, or the bundle has no profile.
    """
    place = home.models / digest
    if (place / MANIFEST).is_file():
        return Profile.open(place)
    with tracker.trouble():
        from mlflow.artifacts import download_artifacts

        uri = _uri_of(tracker, digest)
        parts = _parts_of_bundle(tracker, uri)
        if not {MANIFEST, *PARTS} <= parts.keys():
            raise ArtifactError(f"{uri}: holds no profile of a catalogue")
        fetched = [
            Path(download_artifacts(parts[part], dst_path=str(folder), tracking_uri=tracker.uri))
            for part in (MANIFEST, *PARTS)
        ]
    bundle = fetched[0].parent
    found = read_manifest(bundle, BUNDLE, verify=True, only=PARTS).digest
    if found != digest:
        raise ArtifactError(f"{uri}: holds the bundle {found[:12]}, not {digest[:12]}")
    return Profile.load(bundle)


def keep_bundle(home: Home, bundle: Path, digest: str) -> Path:
    """Put a bundle among the home's models, checked; returns its folder there."""

    def copy(folder: Path) -> Path:
        return shutil.copytree(bundle, folder / "bundle", copy_function=_link_or_copy)

    return _kept(home, digest, copy, str(bundle))


def _kept(home: Home, digest: str, bring: Callable[[Path], Path], source: str) -> Path:
    """The folder of a bundle among the home's models, brought where it is not there."""
    place = home.models / digest
    if (place / MANIFEST).is_file():
        return place
    partial = place.with_name(f".{digest}.partial-{os.getpid()}")
    with claimed(place, wait=True), writable(place):
        if (place / MANIFEST).is_file():  # another process was faster
            return place
        try:
            partial.mkdir()
            bundle = bring(partial)
            found = read_manifest(bundle, BUNDLE, verify=True).digest
            if found != digest:
                raise ArtifactError(f"{source}: holds the bundle {found[:12]}, not {digest[:12]}")
            replace_folder(bundle, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place


def _parts_of_bundle(tracker: Tracker, model: str) -> dict[str, str]:
    """Name of each file and folder in the bundle that a model holds -> its URI."""
    from mlflow.artifacts import list_artifacts

    def inside(uri: str) -> list[str]:
        found = list_artifacts(artifact_uri=uri, tracking_uri=tracker.uri)
        return [f"{model}/{entry.path}" for entry in found]

    bundles = inside(f"{model}/artifacts")
    return {uri.rpartition("/")[2]: uri for bundle in bundles for uri in inside(bundle)}


def _uri_of(tracker: Tracker, digest: str) -> str:
    where = f"tags.{names.BUNDLE_DIGEST} = '{digest}'"
    found = tracker.client.search_model_versions(where, max_results=1)
    model = f"{found[0].name}/{found[0].version}" if found else tracker.find_model(digest)
    if model is None:
        raise TrackingError(f"no registered model holds the bundle {digest[:12]}")
    return f"models:/{model}"


def _link_or_copy(source: str, target: str) -> None:
    """Files of a bundle are never changed in place, so copies on one disk may share their bytes."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

"""What a remote folder holds at one moment, found out without reading its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from xcflow.artifact import MANIFEST, json_digest
from xcflow.errors import StorageError
from xcflow.storage.download import Source
from xcflow.storage.files import get, list_remote
from xcflow.storage.places import RemoteFolder, plain_name


@dataclass(frozen=True)
class Snapshot:
    """The files of a remote folder and what each must hold.

    Attributes:
        name: The folder's name with something of its content's identity.
        files: Relative path (POSIX) -> the object. Where the folder has a manifest, just the files
            that it names, and itself.
    """

    name: str
    files: Mapping[str, Source]

    @classmethod
    def of(cls, client: Any, folder: RemoteFolder, *, complete: bool) -> Snapshot:
        """The state of a folder now.

        Args:
            client: The connection.
            folder: The folder.
            complete: Whether it must have a manifest, as what a step wrote has.

        Raises:
            StorageError: Nothing is there, a manifest is missing where one is needed or cannot be
                read, or a file that it names is missing.
        """
        listed = {
            file.name: Source(folder.file(file.name), file.size, file.identity)
            for file in list_remote(client, folder)
        }
        if not listed:
            raise StorageError(f"{folder}: nothing is there: check bucket and prefix")
        content = get(client, folder.file(MANIFEST)) if MANIFEST in listed else None
        named = None if content is None else named_files(content, folder)
        if named is None and complete:
            raise StorageError(
                f"{folder}: is not whole (no {MANIFEST}): it is being written, or its writing was "
                "cut off: write it again"
            )
        if content is None or named is None:
            facts = [[name, str(o.file), o.size, o.etag] for name, o in sorted(listed.items())]
            return cls(_name(folder, json_digest(facts)), listed)
        digest = hashlib.sha256(content).hexdigest()
        files = {}
        for name, sha256 in {**named, MANIFEST: digest}.items():
            if name not in listed:
                raise StorageError(f"{folder.file(name)}: is missing: write the folder again")
            files[name] = replace(listed[name], sha256=sha256)
        return cls(_name(folder, digest), files)


def named_files(manifest: bytes, folder: RemoteFolder) -> dict[str, str] | None:
    """The files that a manifest names, with the sha256 of each; None where it is not xcflow's.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        values = json.loads(manifest)
        if not (isinstance(values, dict) and "schema_version" in values):
            return None  # a catalogue may have a file of that name, which tells other things
        return {str(name): str(sha256) for name, sha256 in values["files"].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise StorageError(
            f"{folder.file(MANIFEST)}: cannot be read ({error}): write the folder again"
        ) from error


def _name(folder: RemoteFolder, digest: str) -> str:
    return f"{plain_name(str(folder))}-{digest[:16]}"

"""What a URI names: a path of this machine, or a bucket and a key under ``s3://``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from xcflow.errors import StorageError

SCHEME = "s3://"


def is_remote(uri: str | Path) -> bool:
    """Whether a URI names something outside this machine's file system.

    Raises:
        StorageError: It is of another kind, which would pass for an odd path.
    """
    if str(uri).startswith(SCHEME):
        return True
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(uri)):
        raise StorageError(f"{uri}: expected a path of this machine, or {SCHEME}bucket/prefix")
    return False


def copy_name(uri: str) -> str:
    """The name of a URI's copy: its own to the eye and to formats that look at it, and unique."""
    return f"{plain_name(uri)}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def plain_name(uri: str) -> str:
    """The last part of a URI as a file name that is harmless everywhere."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", uri.rstrip("/").rpartition("/")[2])[:64]


@dataclass(frozen=True)
class RemoteFolder:
    """A bucket and a prefix that names a folder (empty for the whole bucket)."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str | Path) -> RemoteFolder:
        """The folder that a URI names.

        Raises:
            StorageError: It names none.
        """
        bucket, _, path = str(uri).removeprefix(SCHEME).partition("/")
        if not bucket:
            raise StorageError(f"{uri}: expected s3://bucket/prefix")
        path = path.strip("/")
        return cls(bucket, f"{path}/" if path else "")

    def file(self, name: str) -> RemoteFile:
        """The file ``name`` (POSIX, relative) in the folder."""
        return RemoteFile(self.bucket, self.prefix + name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class RemoteFile:
    """A bucket and the key of one file."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str | Path) -> RemoteFile:
        """The file that a URI names.

        Raises:
            StorageError: It names none.
        """
        bucket, _, key = str(uri).removeprefix(SCHEME).partition("/")
        if not bucket or not key or key.endswith("/"):
            raise StorageError(f"{uri}: expected s3://bucket/key of a file")
        return cls(bucket, key)

    @property
    def place(self) -> dict[str, str]:
        """The file as boto3 names it."""
        return {"Bucket": self.bucket, "Key": self.key}

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

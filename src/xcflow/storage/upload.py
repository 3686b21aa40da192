"""Files to S3: in parts, side by side, each part checked by the server against its sha256."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from xcflow.artifact import sha256_file
from xcflow.errors import StorageError
from xcflow.storage.client import error_code, pauses
from xcflow.storage.parallel import Submit, finish, side_by_side
from xcflow.storage.places import RemoteFile

# A file of at most that many bytes travels whole; larger ones in parts of that size or more.
PART = 8 << 20
_MOST_PARTS = 10_000  # S3's limit
# Stands with each object, so that whoever reads it can check all of it: the checksums that servers
# keep of objects in parts are of the parts.
SHA256 = "sha256"
# How servers say that what arrived is not what the checksum is of.
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"})


@dataclass(frozen=True)
class Sending:
    """A file on its way.

    Attributes:
        path: Where it is read.
        file: Where it goes.
        sha256: What it must hold; None where that is not known before.
    """

    path: Path
    file: RemoteFile
    sha256: str | None = None


def upload(client: Any, files: Iterable[Sending]) -> None:
    """Send files; each appears only when whole, and as what it was read as.

    Raises:
        StorageError: A file does not hold what it must hold.
        OSError: A file cannot be read.
        ClientError, BotoCoreError: The store refuses, or is away for longer than is waited.
    """
    in_parts: list[_InParts] = []
    try:
        with side_by_side() as (submit, _):
            whole = []
            for each in files:
                size = each.path.stat().st_size
                if size <= PART:
                    whole.append(submit(_send_whole, client, each))
                else:
                    in_parts.append(_InParts(client, each, size))
            finish([submit(large.begin) for large in in_parts])
            for large in in_parts:
                large.start(submit)
            finish([*whole, *(call for large in in_parts for call in large.calls)])
    except BaseException:  # and no part is on its way any more, which could outlive this
        for large in in_parts:
            large.give_up()
        raise


def _send_whole(client: Any, sending: Sending) -> None:
    content = sending.path.read_bytes()
    digest = hashlib.sha256(content)
    _require(sending, digest.hexdigest())
    _checked(
        client.put_object,
        **sending.file.place,
        Body=content,
        Metadata={SHA256: digest.hexdigest()},
        ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
    )


class _InParts:
    """A large file on its way, which the store shows as soon as it has all parts."""

    def __init__(self, client: Any, sending: Sending, size: int) -> None:
        self.calls: list[Future[None]] = []
        self._parts: dict[int, dict[str, Any]] = {}
        self._left = 0  # calls that have not ended
        self._lock = Lock()
        self._client = client
        self._sending = sending
        self._size = size
        self._part = max(PART, -(-math.ceil(size / _MOST_PARTS) // PART) * PART)
        self._upload: dict[str, str] = {}
        self._sha256 = ""

    def begin(self) -> None:
        """Open the upload."""
        self._sha256 = self._sending.sha256 or sha256_file(self._sending.path)
        place = self._sending.file.place
        answer = self._client.create_multipart_upload(
            **place, Metadata={SHA256: self._sha256}, ChecksumAlgorithm="SHA256"
        )
        self._upload = {**place, "UploadId": answer["UploadId"]}

    def start(self, submit: Submit) -> None:
        """Send the parts side by side; the last call to end joins them."""
        numbers = range(1, -(-self._size // self._part) + 1)
        self._left = 1 + len(numbers)
        self.calls = [submit(self._check), *(submit(self._send_part, n) for n in numbers)]

    def _check(self) -> None:
        """See that the file is what it must be, while it is sent."""
        if self._sending.sha256:
            _require(self._sending, sha256_file(self._sending.path))
        self._count()

    def _send_part(self, number: int) -> None:
        with self._sending.path.open("rb") as stream:
            content = os.pread(stream.fileno(), self._part, (number - 1) * self._part)
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        answer = _checked(
            self._client.upload_part,
            **self._upload,
            PartNumber=number,
            Body=content,
            ChecksumSHA256=checksum,
        )
        part = {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}
        self._parts[number] = part
        self._count()

    def _count(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._complete()

    def _complete(self) -> None:
        """Join the parts, and see that the store has what was sent."""
        from botocore.exceptions import ClientError

        parts = {"Parts": [part for _, part in sorted(self._parts.items())]}
        try:
            self._client.complete_multipart_upload(**self._upload, MultipartUpload=parts)
        except ClientError as error:
            # boto3 asks again where an answer was lost: then the upload may be over already.
            if error_code(error) != "NoSuchUpload":
                raise
        file = self._sending.file
        stored = self._client.head_object(**file.place)
        if (stored["ContentLength"], stored["Metadata"].get(SHA256)) != (self._size, self._sha256):
            raise StorageError(f"{file}: another file was written there at the same time")

    def give_up(self) -> None:
        """Let the store forget the parts."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._upload:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**self._upload)


def _require(sending: Sending, sha256: str) -> None:
    if sending.sha256 not in (None, sha256):
        raise StorageError(
            f"{sending.path}: was altered after it was written (sha256 differs): write it again"
        )


def _checked(call: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    """Send content once more where it was damaged on its way; boto3 sees to all other trouble."""
    from botocore.exceptions import ClientError

    waits = pauses()
    while True:
        try:
            return call(**arguments)
        except ClientError as error:
            pause = next(waits, None)
            if error_code(error) not in _DAMAGED or pause is None:
                raise
            time.sleep(pause)


def is_there(client: Any, sending: Sending) -> bool:
    """Whether an earlier process sent just this file."""
    from botocore.exceptions import ClientError

    try:
        stored = client.head_object(**sending.file.place)["Metadata"].get(SHA256)
    except ClientError:
        return False
    return sending.sha256 is not None and bool(stored == sending.sha256)

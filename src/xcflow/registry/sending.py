"""Bringing the records of an outbox to their store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xcflow.config import TrackingConfig
from xcflow.errors import AccessError, StoreAwayError, TrackingError
from xcflow.home import Home
from xcflow.registry import operations
from xcflow.registry.outbox import Outbox, Record, Store
from xcflow.registry.store import public_uri
from xcflow.registry.tracking import (
    EXPERIMENT_VARIABLE,
    RUN_ID_VARIABLE,
    Tracker,
    tracking_uri,
)


def store_of_environment(home: Home) -> Store:
    """Where this process records to."""
    return Store(
        uri=public_uri(tracking_uri(TrackingConfig(), home)),
        experiment=os.environ.get(EXPERIMENT_VARIABLE) or TrackingConfig().experiment,
        joined=os.environ.get(RUN_ID_VARIABLE, ""),
    )


def send(outbox: Outbox, store: Store, tracker: Tracker) -> dict[Path, Any]:
    """Send what waits for a store; see ``Outbox.deliver``."""

    def act(record: Record) -> Any:
        with tracker.as_of(record.time):
            return getattr(operations, record.operation)(tracker, **record.arguments)

    with _joined(store.joined):
        return outbox.deliver(store, act)


def send_all(home: Home, config: TrackingConfig) -> int:
    """Send what waits in a home, store by store; returns how many records that were.

    A store that cannot be sent to holds up no other.

    Args:
        home: The home folder.
        config: The home's own store; it may have a password, which records do not keep.

    Raises:
        StoreAwayError: A store does not answer.
        AccessError: A store refuses this user.
    """
    outbox, sent = Outbox(home), 0
    trouble: TrackingError | None = None
    own = tracking_uri(config, home)
    for store in sorted(outbox.stores(), key=str):
        uri = own if public_uri(own) == store.uri else store.uri
        tracker = Tracker.at(TrackingConfig(uri=uri, experiment=store.experiment), home)
        try:
            sent += len(send(outbox, store, tracker))
        except (StoreAwayError, AccessError) as error:
            trouble = trouble or error
    if trouble:
        raise trouble
    return sent


@contextmanager
def _joined(run: str) -> Iterator[None]:
    """The environment in which the records were made."""
    before = os.environ.pop(RUN_ID_VARIABLE, None)
    if run:
        os.environ[RUN_ID_VARIABLE] = run
    try:
        yield
    finally:
        os.environ.pop(RUN_ID_VARIABLE, None)
        if before is not None:
            os.environ[RUN_ID_VARIABLE] = before

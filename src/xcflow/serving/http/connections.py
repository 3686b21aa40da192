"""Connections that hold little: what of a request is no body may be so large and take so long."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_BYTES = 2**16
_MOST_SECONDS = 20.0


class BoundedConnection(HttpToolsProtocol):
    """As uvicorn's, which waits for the end of a request's head for ever and keeps any length."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._beside_bodies = 0
        self._patience: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some bytes, unless there were too many."""
        self._beside_bodies += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._beside_bodies > _MOST_BYTES:
            self.send_400_response("The head of the request is too large.")
        elif self._patience is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()  # of the next request, or for the rest of a refused one

    def on_headers_complete(self) -> None:
        """A request is there."""
        self._wait_no_more()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The guards look at its length."""
        self._beside_bodies -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request has the same room."""
        self._beside_bodies = 0
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(_MOST_SECONDS, self._give_up)

    def _wait_no_more(self) -> None:
        if self._patience:
            self._patience.cancel()
        self._patience = None

    def _give_up(self, *_: Any) -> None:
        if not self.transport.is_closing():
            self.transport.close()

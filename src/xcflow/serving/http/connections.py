"""Connections that hold little: what of a request is no body, and what a client does not take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from xcflow.serving.http.guards import CROWDED

_MOST_BYTES = 2**16
_MOST_SECONDS = 20.0
_MOST_SECONDS_TO_TAKE = 60.0
_TOO_LARGE = "the head of the request is too large"


class BoundedConnection(HttpToolsProtocol):
    """As uvicorn's, which waits for ever for a request's head, and for a client to take an answer.

    Who is one too many is answered by the guards, as everyone is, and not by uvicorn.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._most_connections, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # be told of all that is not taken
        self._beside_bodies = 0
        self._patience: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some bytes, unless there were too many."""
        self._beside_bodies += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._beside_bodies > _MOST_BYTES:
            self.send_400_response("")
        elif self._patience is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()  # of the next request, or for the rest of a refused one

    def on_headers_complete(self) -> None:
        """A request is there."""
        self._wait_no_more()
        # One that came whole in a single read was not looked at yet.
        if len(self.url) + sum(len(name) + len(text) for name, text in self.headers) > _MOST_BYTES:
            raise ValueError  # which ends in ``send_400_response``
        crowded = self._most_connections and len(self.connections) > self._most_connections
        self.scope["state"][CROWDED] = crowded
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The guards look at its length."""
        self._beside_bodies -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request has the same room."""
        self._beside_bodies = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client takes less than it asked for, which it may do for a while."""
        super().pause_writing()
        self._taking = self.loop.call_later(_MOST_SECONDS_TO_TAKE, self.transport.abort)

    def resume_writing(self) -> None:
        """All was taken."""
        if self._taking:
            self._taking.cancel()
        self._taking = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as all else is refused."""
        reason = _TOO_LARGE if self._beside_bodies > _MOST_BYTES else msg
        body = json.dumps({"error": reason}).encode()
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % len(body) + body)
        self.transport.close()

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(_MOST_SECONDS, self._give_up)

    def _wait_no_more(self) -> None:
        if self._patience:
            self._patience.cancel()
        self._patience = None

    def _give_up(self, *_: Any) -> None:
        if not self.transport.is_closing():
            self.transport.close()

"""What stands before the routes: who may ask, how much a body may hold, what is logged."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.settings import ServerSettings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Asked by those who watch over the server, and the page, which holds nothing but itself.
_LIVE = "/v2/health/live"
OPEN = frozenset({"/", _LIVE, "/v2/health/ready"})
_JSON = (b"content-type", b"application/json")
# Where a connection notes that there are too many of them.
CROWDED = "crowded"
_LATER = ((b"retry-after", b"1"), (b"connection", b"close"))
_MOST_DIGITS = 18  # of a length that is looked at as a number
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]


class Guards:
    """The outermost layer of a server.

    Args:
        app: The routes.
        settings: Token and limits.
        metrics: Gets each request.
        local: Whether only this machine reaches the server. Without a token it then answers only
            to the machine's own names, or any page in a browser could reach it under its own name.
    """

    def __init__(
        self, app: App, settings: ServerSettings, metrics: Metrics, *, local: bool
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._only_local_names = local and not settings.token
        self._token = settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "asked": scope["method"]}
        if scope["method"] == "HEAD":  # the head of the answer to GET; the server drops the body
            scope["method"] = "GET"
        if scope["method"] == "POST":  # a body is JSON, whatever curl takes it for
            scope["headers"] = [h for h in scope["headers"] if h[0] != _JSON[0]] + [_JSON]
        start, seen = time.perf_counter(), {"status": 500}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._guarded(scope, receive, sending)
        finally:
            self._note(scope, seen["status"], time.perf_counter() - start)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        most = self._settings.most_bytes
        declared = headers.get(b"content-length", b"0")
        if self._only_local_names and not is_loopback(_host(headers)):
            await _refuse(send, 421, "this server answers to localhost only")
        elif not self._may_ask(scope["path"], headers):
            reason = "the request bears no valid token: Authorization: Bearer ..."
            await _refuse(send, 401, reason, (b"www-authenticate", b"Bearer"))
        elif scope.get("state", {}).get(CROWDED) and scope["path"] != _LIVE:  # crowded is not dead
            await _refuse(send, 503, "too many connections: ask again", *_LATER)
        elif b"inference-header-content-length" in headers:
            await _refuse(send, 400, "binary tensors are not taken: send their data as JSON")
        elif not declared.isdigit():
            await _refuse(send, 400, "Content-Length is no number")
        elif len(declared) > _MOST_DIGITS or int(declared) > most:
            await _refuse(send, 413, _too_large(most))
        else:
            await self._app(scope, _bounded(receive, most, self._settings.timeout_seconds), send)

    def _may_ask(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if not self._token or path in OPEN:
            return True
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The template, not the address: of those anyone could make up any number.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route in OPEN and route != "/":
            return  # asked every few seconds
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": scope["client"][0] if scope.get("client") else "",
            "method": scope["asked"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000.0 * seconds, 2),
            **scope.get("state", {}).get("noted", {}),
        }
        with contextlib.suppress(OSError):  # who read the log may have gone away
            sys.stdout.write(json.dumps(line, ensure_ascii=True) + "\n")
            sys.stdout.flush()


def _bounded(receive: Receive, most: int, seconds: float) -> Receive:
    """The same messages, until they hold too much (a length need not be declared) or are late."""
    left, end = most, asyncio.get_running_loop().time() + seconds

    async def receiving() -> Message:
        nonlocal left
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            reason = f"the body did not come within {seconds:g} s"
            raise HTTPException(408, reason, {"connection": "close"}) from None
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, _too_large(most))
        return message

    return receiving


def _too_large(most: int) -> str:
    return f"a body may hold {most:,} bytes"


def _host(headers: dict[bytes, bytes]) -> str:
    """The name under which the server was asked, without port and brackets."""
    name = headers.get(b"host", b"").decode("latin-1").lower()
    name = name if name.endswith("]") else name.rpartition(":")[0] or name
    return name.removeprefix("[").removesuffix("]")


async def _refuse(send: Send, status: int, reason: str, *further: tuple[bytes, bytes]) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *further]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

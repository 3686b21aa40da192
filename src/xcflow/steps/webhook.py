"""Telling a webhook how a run ended. Whatever goes wrong is a line in the log: the run is over."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from xcflow.config import NotifyConfig
from xcflow.progress import log

# Environment: the address, where it holds a secret and so must not stand in a configuration.
VARIABLE = "XCFLOW_WEBHOOK_URL"
PAUSE_S = 2.0
# Too many requests, and what servers answer that are out of order for a while.
PASSING = (429, 500, 502, 503, 504)


def post(url: str, body: Mapping[str, Any], config: NotifyConfig) -> bool:
    """Send JSON to a webhook, again where it does not take it for the moment.

    Args:
        url: Its address, of which only the host is ever logged.
        body: What to send.
        config: How often, and how long one attempt may take.

    Returns:
        Whether it took it.
    """
    where, reason = urlsplit(url).hostname or "?", ""
    for attempt in range(config.attempts):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            _post(url, body, config.timeout_seconds)
        except urllib.error.HTTPError as error:
            reason = f"it answers {error.code}"
            if error.code not in PASSING:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = " ".join(str(getattr(error, "reason", "") or error).split())
        else:
            return True
    log(f"the webhook at {where} was not told: {reason.replace(url, where)}")
    return False


def _post(url: str, body: Mapping[str, Any], timeout: float) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("its address begins with neither http:// nor https://")
    request = urllib.request.Request(
        url,
        data=json.dumps(body, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "xcflow"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=timeout):
        pass

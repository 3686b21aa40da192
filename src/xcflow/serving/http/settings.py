"""How a server takes requests, and what it refuses."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xcflow.config import build
from xcflow.errors import ConfigError

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class ServerSettings:
    """Limits and habits of a server.

    Attributes:
        model_name: The name under which the model is addressed.
        most_texts: Texts in a request.
        most_characters: Characters in a text.
        most_labels: Labels that a request may ask for (k), and that a filter may name.
        most_answers: Answers to a request: its texts times k.
        most_explained: The same where they come with explanations.
        most_bytes: Bytes of a request's body.
        batch_texts: Texts that share a pass of the encoder.
        passes: Passes of the model at a time, but never more than there are cores. With too many,
            all wait for the interpreter's lock.
        queue_texts: Texts that may wait; with more, requests are sent away (429).
        most_connections: Connections at a time; with more, requests are sent away (503).
        timeout_seconds: A request that has waited longer is given up (503), and so is one whose
            body takes longer to come (408).
        poll_seconds: How often the registry is asked which model is the champion.
        log_texts: Whether the access log holds the texts of requests.
        token: What a request must bear; empty for an open server.
    """

    model_name: str = "xcflow"
    most_texts: int = 256
    most_characters: int = 20_000
    most_labels: int = 1_000
    most_answers: int = 25_600
    most_explained: int = 1_000
    most_bytes: int = 2**21
    batch_texts: int = 64
    passes: int = 4
    queue_texts: int = 1_024
    most_connections: int = 1_024
    timeout_seconds: float = 10.0
    poll_seconds: float = 2.0
    log_texts: bool = False
    token: str = ""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and value <= 0:
                raise ConfigError(f"{name} must be above 0, it is {value}")
        if not _NAME.fullmatch(self.model_name):  # it is a part of addresses
            raise ConfigError(
                f"model_name may hold letters, digits, '.', '_' and '-', not {self.model_name!r}"
            )


def settings_of(overrides: Iterable[str], token: str) -> ServerSettings:
    """The settings with some values changed, each given as ``key=value``.

    Raises:
        ConfigError: An unknown key, or a value of the wrong type or out of range.
    """
    tree: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not (sign and key.strip()):
            raise ConfigError(f"--set {override}: expected key=value")
        try:
            tree[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            tree[key.strip()] = text.strip()  # a bare word is a string
    if "token" in tree:
        raise ConfigError("--set token: others can read a command line; set XCFLOW_SERVE_TOKEN")
    return build(ServerSettings, {**tree, "token": token.strip()}, "server")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    if host in ("localhost", "127.0.0.1"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""How a server takes requests, and what it refuses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from xcflow.errors import ConfigError


@dataclass(frozen=True)
class ServerSettings:
    """Limits and habits of a server.

    Attributes:
        model_name: The name under which the model is addressed.
        most_texts: Texts in a request.
        most_characters: Characters in a text.
        most_labels: Labels that a request may ask for (k), and that a filter may name.
        most_bytes: Bytes of a request's body.
        batch_texts: Texts that share a pass of the encoder.
        queue_texts: Texts that may wait; with more, requests are sent away (429).
        timeout_seconds: A request that has waited longer is given up (503).
        poll_seconds: How often the registry is asked which model is the champion.
        log_texts: Whether the access log holds the texts of requests.
        token: What a request must bear; empty for an open server.
    """

    model_name: str = "xcflow"
    most_texts: int = 256
    most_characters: int = 20_000
    most_labels: int = 1_000
    most_bytes: int = 2**21
    batch_texts: int = 64
    queue_texts: int = 1_024
    timeout_seconds: float = 10.0
    poll_seconds: float = 2.0
    log_texts: bool = False
    token: str = ""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise ConfigError(f"server: {name} must be above 0, it is {value}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

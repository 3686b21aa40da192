"""Who this process is for a tracking server, from the variables and the file that mlflow reads."""

from __future__ import annotations

import base64
import configparser
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from xcflow.errors import TrackingError

USER = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"
TOKEN = "MLFLOW_TRACKING_TOKEN"
INSECURE_TLS = "MLFLOW_TRACKING_INSECURE_TLS"
SERVER_CERTIFICATE = "MLFLOW_TRACKING_SERVER_CERT_PATH"
CLIENT_CERTIFICATE = "MLFLOW_TRACKING_CLIENT_CERT_PATH"


@dataclass(frozen=True)
class Credentials:
    """What a tracking server is told of who asks. As text it names the user and no secret.

    Attributes:
        user: The user's name, empty where none is given.
        password: The user's password.
        token: A token instead of both.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def of_environment(cls, uri: str = "") -> Self:
        """The credentials of this process.

        Args:
            uri: The server, in whose address they may stand; elsewhere they are the same for all.
        """
        address = urlsplit(uri)
        if address.username and address.password:
            return cls(unquote(address.username), unquote(address.password))
        file = configparser.ConfigParser(interpolation=None)
        file.read(Path("~/.mlflow/credentials").expanduser(), encoding="utf-8")
        kept = file["mlflow"] if file.has_section("mlflow") else {}
        user, password = (os.environ.get(x) or kept.get(x.lower(), "") for x in (USER, PASSWORD))
        # As mlflow does it: half a pair is none, and a pair goes before a token.
        if user and password:
            return cls(user, password)
        return cls(token=os.environ.get(TOKEN, ""))

    @property
    def header(self) -> dict[str, str]:
        """The header of a request."""
        if self.user:
            pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def rejection(self) -> str:
        """What a server means that does not accept them, and what to do."""
        if self.user:
            return f"does not accept {self}: check {USER} and {PASSWORD}"
        if self.token:
            return f"does not accept the token: renew {TOKEN}"
        return f"asks for a user: set {USER} and {PASSWORD}"

    def __str__(self) -> str:
        if self.user:
            return f"the user {self.user}"
        return "the owner of the token" if self.token else "a user without a name"


def tls_context() -> ssl.SSLContext:
    """How a server's certificate is checked, and which one it is shown.

    Raises:
        TrackingError: A named certificate cannot be used.
    """
    authority = os.environ.get(SERVER_CERTIFICATE) or os.environ.get("REQUESTS_CA_BUNDLE") or None
    certificate = os.environ.get(CLIENT_CERTIFICATE)
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate:
            context.load_cert_chain(certificate)
    except OSError as error:
        place = f"{authority or ''} {certificate or ''}".strip()
        raise TrackingError(f"certificate {place}: cannot be used: {error}") from error
    if os.environ.get(INSECURE_TLS, "").lower() in ("true", "1"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

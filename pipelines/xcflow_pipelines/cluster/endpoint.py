"""The API of Kubeflow Pipelines: where it stands, and what its refusals mean in one line."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from xcflow.cluster_config import ClusterConfig
from xcflow.errors import ClusterError

if TYPE_CHECKING:
    import kfp_server_api

# The variables that Kubeflow's own client reads, and one for a token that somebody was given.
HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
TOKEN_VARIABLE = "XCFLOW_KFP_TOKEN"
CA_VARIABLE = "SSL_CERT_FILE"
# Where a pod finds the token that Kubeflow's profiles project into it.
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")

TIMEOUT_S = (10, 60)  # to connect, to answer
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
PAGE = 100

T = TypeVar("T")


class EndpointAwayError(ClusterError):
    """No answer, or one that the endpoint is out of order: asked again, it may answer.

    What was asked for may have happened all the same.
    """


class RefusedError(ClusterError):
    """The endpoint answers with a refusal.

    Args:
        message: The one line.
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Endpoint:
    """Kubeflow Pipelines at an address.

    Attributes:
        host: Address of the API.
        ui: Address of its pages.
        namespace: The profile's namespace; empty in a single-user installation.
        ca_file: Certificates to trust, empty for the usual ones.
    """

    host: str
    ui: str
    namespace: str
    ca_file: str

    @classmethod
    def of(cls, cluster: ClusterConfig) -> Self:
        """The endpoint of a configuration, else of the environment.

        Raises:
            ClusterError: Neither says where it is.
        """
        host = (cluster.host or os.environ.get(HOST_VARIABLE, "")).rstrip("/")
        if not host:
            raise ClusterError(
                f"no Kubeflow Pipelines: set cluster.host in the profile, or ${HOST_VARIABLE}"
            )
        host = host if "://" in host else f"https://{host}"
        ca_file = cluster.ca_file or os.environ.get(CA_VARIABLE, "")
        if ca_file and not Path(ca_file).is_file():
            raise ClusterError(f"{ca_file}: no such file of certificates (cluster.ca_file)")
        return cls(host, cluster.ui.rstrip("/") or host, cluster.namespace, ca_file)

    @property
    def in_namespace(self) -> dict[str, str]:
        """The namespace as an argument; a single-user installation refuses to hear of one."""
        return {"namespace": self.namespace} if self.namespace else {}

    def run_page(self, run_id: str) -> str:
        """Where a person sees a run."""
        return f"{self.ui}/#/runs/details/{run_id}"

    @cached_property
    def runs(self) -> kfp_server_api.RunServiceApi:
        """The service of runs."""
        return self._kfp.RunServiceApi(self._client)

    @cached_property
    def recurring_runs(self) -> kfp_server_api.RecurringRunServiceApi:
        """The service of recurring runs."""
        return self._kfp.RecurringRunServiceApi(self._client)

    @cached_property
    def pipelines(self) -> kfp_server_api.PipelineServiceApi:
        """The service of pipelines and their versions."""
        return self._kfp.PipelineServiceApi(self._client)

    @cached_property
    def uploads(self) -> kfp_server_api.PipelineUploadServiceApi:
        """The service that takes compiled pipelines."""
        return self._kfp.PipelineUploadServiceApi(self._client)

    @cached_property
    def experiments(self) -> kfp_server_api.ExperimentServiceApi:
        """The service of experiments."""
        return self._kfp.ExperimentServiceApi(self._client)

    def require_answer(self) -> None:
        """Refuse an address that is no Kubeflow Pipelines, or the wrong namespace, early.

        Raises:
            ClusterError: See above.
        """
        health = self._kfp.HealthzServiceApi(self._client)
        try:
            multi_user = bool(self.ask(health.healthz_service_get_healthz).multi_user)
        except RefusedError as error:
            if error.status != 404:
                raise
            raise self._other("404") from error
        if multi_user and not self.namespace:
            raise ClusterError(
                f"{self.host}: serves several users: set cluster.namespace to your profile's "
                "namespace"
            )
        if self.namespace and not multi_user:
            raise ClusterError(
                f"{self.host}: is a single-user installation: leave cluster.namespace empty, it is "
                f"{self.namespace}"
            )

    def ask(self, operation: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Ask for something that may be asked for twice, again where there is no answer.

        Raises:
            ClusterError: What ``ask_once`` raises, after the last attempt.
        """
        for pause in PAUSES_S:
            try:
                return self.ask_once(operation, *args, **kwargs)
            except EndpointAwayError:
                time.sleep(pause)
        return self.ask_once(operation, *args, **kwargs)

    def ask_once(self, operation: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Ask for something once.

        Raises:
            EndpointAwayError: No answer, or none that tells whether it was done.
            RefusedError: It was refused.
        """
        import urllib3

        try:
            answer = operation(*args, **kwargs, _request_timeout=TIMEOUT_S)
        except self._kfp.ApiException as error:
            raise self._refusal(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EndpointAwayError(
                f"{self.host}: Kubeflow Pipelines cannot be reached ({_reason(error)}): is the "
                f"address right (cluster.host, ${HOST_VARIABLE}), its port forwarded, its "
                "certificate trusted (cluster.ca_file)?"
            ) from error
        kind = self._client.last_response.getheader("Content-Type") or ""
        if "json" not in kind:
            # Such as the page of a proxy where one has to log in.
            raise self._other(kind or "no type")
        return answer

    def settle(self, find: Callable[[], T | None], create: Callable[[], T]) -> tuple[T, bool]:
        """Something that is to exist once: as it is found, else created.

        Where the answer to the request is lost, or somebody else was faster, it is looked for
        again before it is asked for again.

        Args:
            find: Looks for it.
            create: Asks for it, by ``ask_once``.

        Returns:
            It, and whether it was not there before.
        """
        asked = False
        for pause in (*PAUSES_S, None):
            if (found := find()) is not None:
                return found, asked
            try:
                return create(), True
            except EndpointAwayError:
                if pause is None:
                    raise
                asked = True
                time.sleep(pause)
            except RefusedError as error:
                if pause is None or error.status != 409:  # it exists already
                    raise
        raise AssertionError("unreachable")

    def listed(self, operation: Callable[..., Any], field: str, **query: Any) -> Iterator[Any]:
        """All that a listing holds, page by page.

        Args:
            operation: Lists one page.
            field: Which attribute of the page holds it.
            query: What is asked for.
        """
        token = ""
        while True:
            page = self.ask(operation, page_token=token, page_size=PAGE, **query)
            yield from getattr(page, field) or ()
            if not (token := page.next_page_token or ""):
                return

    @property
    def _kfp(self) -> Any:
        # Takes most of a second to import.
        import kfp_server_api

        return kfp_server_api

    @cached_property
    def _client(self) -> Any:
        import urllib3

        settings = self._kfp.Configuration(host=self.host)
        settings.retries = urllib3.Retry(0, redirect=5)
        if self.ca_file:
            settings.ssl_ca_cert = self.ca_file
        if _token():
            settings.api_key_prefix["authorization"] = "Bearer"
            settings.api_key["authorization"] = _token()
            # A projected token is replaced while a long command runs.
            settings.refresh_api_key_hook = _refresh_token
        return self._kfp.ApiClient(settings)

    def _other(self, answer: str) -> RefusedError:
        return RefusedError(
            f"{self.host}: answers, but not as Kubeflow Pipelines does ({answer}): the address is "
            f"wrong, or a token is missing (${TOKEN_VARIABLE})",
            200,
        )

    def _refusal(self, error: Any) -> ClusterError:
        status, said = error.status or 0, _said(error)
        if not status or status in (429, 500, 502, 503, 504):
            return EndpointAwayError(f"{self.host}: Kubeflow Pipelines fails ({status}): {said}")
        if status in (401, 403):
            where = f" in namespace {self.namespace}" if self.namespace else ""
            return RefusedError(
                f"{self.host}: is not allowed{where} ({status}): {said}: check the token "
                f"(${TOKEN_VARIABLE} or ${TOKEN_FILE_VARIABLE}) and cluster.namespace",
                status,
            )
        return RefusedError(f"{self.host}: refused ({status}): {said}", status)


def equals(key: str, value: str) -> str:
    """A filter of a listing: an attribute has exactly this value."""
    return _filter("EQUALS", key, value)


def contains(key: str, value: str) -> str:
    """A filter of a listing: an attribute has this in it."""
    return _filter("IS_SUBSTRING", key, value)


def _filter(operation: str, key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "string_value": value}]})


def _token() -> str:
    """The token to show: the one in the environment, else the one in a file, else none.

    Raises:
        ClusterError: A file that is named cannot be read, or what is given is no token.
    """
    if token := os.environ.get(TOKEN_VARIABLE):
        return _checked(token, f"${TOKEN_VARIABLE}")
    named = os.environ.get(TOKEN_FILE_VARIABLE)
    path = Path(named) if named else POD_TOKEN
    if not named and not path.is_file():
        return ""
    try:
        return _checked(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except OSError as error:
        raise ClusterError(f"{path}: the token cannot be read: {error.strerror}") from error


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not re.fullmatch(r"[!-~]*", token):  # nothing else can stand in a request's header
        raise ClusterError(f"{where}: holds no token: expected one word of ASCII characters")
    return token


def _refresh_token(settings: Any) -> None:
    settings.api_key["authorization"] = _token()


def _said(error: Any) -> str:
    """What a refusal says, without the wrapping."""
    try:
        said = json.loads(error.body or "")
        return str(said.get("message") or said.get("error") or error.reason)
    except (ValueError, AttributeError):
        return str(error.reason)


def _reason(error: Exception) -> str:
    """The innermost cause that says something."""
    cause = getattr(error, "reason", None) or error
    text = " ".join(str(cause).split())
    return text.rpartition(": ")[2] or type(error).__name__

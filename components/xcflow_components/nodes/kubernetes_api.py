"""TrainJobs of one namespace through Kubernetes' API: create, get, delete."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from xcflow.errors import ClusterError
from xcflow.progress import log
from xcflow_components.nodes.train_job import GROUP, PLURAL, VERSION

# An API server that is upgraded is away for minutes; the job goes on meanwhile.
PATIENCE_S = 600.0
PAUSE_S = 10.0
_TIMEOUT_S = 60
_PASSING = (429, 500, 502, 503, 504)


class RefusedError(ClusterError):
    """The cluster refuses what was asked.

    Args:
        line: What to tell of it.
        status: The answer's HTTP status.
    """

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class TrainJobs:
    """The TrainJobs of a namespace.

    Args:
        namespace: The namespace.

    Raises:
        ClusterError: Nothing says where the API is: neither ``$KUBECONFIG`` nor a pod's token.
    """

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        settings = client.Configuration()
        try:
            if path := os.environ.get("KUBECONFIG"):
                config.load_kube_config(path, client_configuration=settings)
            else:
                config.load_incluster_config(client_configuration=settings)
        except ConfigException as error:
            raise ClusterError(
                f"no access to Kubernetes ({error}): the task's service account needs a token "
                "(automountServiceAccountToken)"
            ) from error
        settings.retries = False  # here is decided what is asked again, and for how long
        self._host = settings.host
        self._namespace = namespace
        self._objects = client.CustomObjectsApi(client.ApiClient(settings))

    def get(self, name: str) -> dict[str, Any] | None:
        """A job as it is now, None where there is none.

        Raises:
            ClusterError: The API is away for long, or refuses.
        """
        try:
            found: dict[str, Any] = self._ask(
                "read", name, self._objects.get_namespaced_custom_object
            )
        except RefusedError as refusal:
            if refusal.status != 404:
                raise
            return None
        return dict(found)

    def create(self, document: dict[str, Any]) -> None:
        """Create a job; where one of this name is there, which a lost answer may hide, it stays.

        Raises:
            ClusterError: The API is away for long, or refuses.
        """
        name = document["metadata"]["name"]
        try:
            self._ask("created", name, self._objects.create_namespaced_custom_object, document)
        except RefusedError as refusal:
            if refusal.status == 404:
                raise RefusedError(f"{refusal}: is Kubeflow Trainer 2 installed?", 404) from None
            if refusal.status != 409:
                raise

    def delete(self, name: str) -> None:
        """Delete a job with its pods, where there is one.

        Raises:
            ClusterError: The API is away for long, or refuses.
        """
        try:
            self._ask(
                "deleted",
                name,
                self._objects.delete_namespaced_custom_object,
                propagation_policy="Background",
            )
        except RefusedError as refusal:
            if refusal.status != 404:
                raise

    def _ask(
        self,
        done: str,
        name: str,
        call: Callable[..., Any],
        document: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Ask until there is an answer that will not be another one a little later."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        where, told = f"TrainJob {self._namespace}/{name}", False
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call(
                    GROUP,
                    VERSION,
                    self._namespace,
                    PLURAL,
                    document or name,
                    _request_timeout=_TIMEOUT_S,
                    **options,
                )
            except ApiException as error:
                reason = f"{error.status}: {_message(error.body) or error.reason}"
                if error.status not in _PASSING:
                    line = f"{where} cannot be {done}: the cluster refuses it ({_line(reason)})"
                    raise RefusedError(line, error.status) from error
            except (HTTPError, OSError) as error:
                reason = str(error)
            away = f"the Kubernetes API at {self._host} is away ({_line(reason)})"
            if time.monotonic() > end:
                raise ClusterError(f"{where} cannot be {done}: {away}: start the step again later")
            if not told:
                log(f"{away}: asking again")
                told = True
            time.sleep(PAUSE_S)


def _message(body: str | bytes | None) -> str:
    """What a status object of Kubernetes says; empty where it is none."""
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _line(text: str) -> str:
    return " ".join(text.split())

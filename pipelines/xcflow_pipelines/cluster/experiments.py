"""Experiments on the endpoint: what runs and schedules belong to, and through it to a namespace."""

from __future__ import annotations

from typing import Any

from xcflow.errors import ClusterError
from xcflow_pipelines.cluster.endpoint import Endpoint, equals


def find_experiment(endpoint: Endpoint, name: str) -> str | None:
    """The id of an experiment, None where there is none.

    Raises:
        ClusterError: The endpoint does not answer, or refuses.
    """
    found = _find(endpoint, name)
    return None if found is None else str(found.experiment_id)


def required_experiment(endpoint: Endpoint, name: str) -> str:
    """The id of an experiment that has to be there.

    Raises:
        ClusterError: It is not; or the endpoint does not answer, or refuses.
    """
    if found := find_experiment(endpoint, name):
        return found
    where = f" in namespace {endpoint.namespace}" if endpoint.namespace else ""
    raise ClusterError(
        f"{endpoint.host}: no experiment {name!r}{where}: nothing was submitted there yet, or "
        "tracking.experiment or cluster.namespace is another one"
    )


def made_experiment(endpoint: Endpoint, name: str) -> str:
    """The id of an experiment, which is made where it is missing.

    Raises:
        ClusterError: The endpoint does not answer, or refuses.
    """

    def create() -> Any:
        import kfp_server_api

        wanted = kfp_server_api.V2beta1Experiment(display_name=name, **endpoint.in_namespace)
        return endpoint.ask_once(endpoint.experiments.experiment_service_create_experiment, wanted)

    return str(endpoint.settle(lambda: _find(endpoint, name), create)[0].experiment_id)


def _find(endpoint: Endpoint, name: str) -> Any:
    listing = endpoint.experiments.experiment_service_list_experiments
    chosen = {"filter": equals("display_name", name), **endpoint.in_namespace}
    return next(endpoint.listed(listing, "experiments", **chosen), None)

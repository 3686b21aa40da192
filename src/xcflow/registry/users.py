"""Users of a tracking server with basic-auth, and what each of them may do.

Creating a version and setting an alias need the same right in MLflow, so there is no right to
register without the right to promote: whoever trains logs models in the experiment, and the version
is made when one is promoted. Whoever creates an experiment or a registered model may do anything to
it, so they are made here, by the administrator, before anyone else can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xcflow.errors import TrackingError
from xcflow.registry.claims import ClaimLog
from xcflow.registry.moves import MoveLog
from xcflow.registry.store import public_uri
from xcflow.registry.tracking import Tracker

READ, EDIT = "READ", "EDIT"
# Role -> its rights to the experiment of the runs, to the claims of triggers, to the record of
# moves, and to the registered model with its aliases.
ROLES: Mapping[str, tuple[str, str, str, str]] = {
    "reader": (READ, READ, READ, READ),
    "trigger": (READ, EDIT, READ, READ),
    "trainer": (EDIT, EDIT, READ, READ),
    "promoter": (EDIT, EDIT, EDIT, EDIT),
}


def put_user(tracker: Tracker, model: str, name: str, password: str, role: str) -> None:
    """Make a user, or give one another password and role. Only an administrator may.

    Args:
        tracker: The tracking server with the experiment of the runs.
        model: Name of the registered model.
        name: The user's name.
        password: The user's password, at least 12 characters.
        role: One of ``ROLES``.

    Raises:
        AccessError: This process's user is no administrator.
        TrackingError: The store is no server with users, or does not take the password.
    """
    if not tracker.uri.startswith(("http://", "https://")):
        raise TrackingError(f"{public_uri(tracker.uri)}: is no server: only a server has users")
    with tracker.trouble():
        # First, because only an administrator may.
        _make(tracker, {"username": name, "password": password})
        resources = _resources(tracker, model)
        for (kind, resource), right in zip(resources, ROLES[role], strict=True):
            _grant(tracker, name, {"resource_type": kind, "resource_id": resource}, right)


def _grant(tracker: Tracker, user: str, resource: Mapping[str, str], right: str) -> None:
    """Give a right in the place of the one there may be; MLflow replaces none."""
    from mlflow.exceptions import MlflowException

    path, about = "3.0/mlflow/users/permissions", {"username": user, **resource}
    try:
        _ask(tracker, "POST", f"{path}/grant", {**about, "permission": right})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        _ask(tracker, "POST", f"{path}/revoke", about)
        _ask(tracker, "POST", f"{path}/grant", {**about, "permission": right})


def _resources(tracker: Tracker, model: str) -> tuple[tuple[str, str], ...]:
    """What rights are about, made where it is missing."""
    claims, moves = (log(tracker, model).open() for log in (ClaimLog, MoveLog))
    return (
        ("experiment", tracker.experiment_id()),
        ("experiment", tracker.client.get_run(claims).info.experiment_id),
        ("experiment", tracker.client.get_run(moves).info.experiment_id),
        ("registered_model", model),
    )


def _make(tracker: Tracker, user: Mapping[str, str]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _ask(tracker, "POST", "2.0/mlflow/users/create", user)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        _ask(tracker, "PATCH", "2.0/mlflow/users/update-password", user)


def _ask(tracker: Tracker, method: str, path: str, values: Mapping[str, Any]) -> Any:
    """MLflow's own client of these routes needs all that its server needs."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    host = get_default_host_creds(tracker.uri)  # type: ignore[no-untyped-call]
    answer = http_request(host, f"/api/{path}", method, json=values)  # type: ignore[no-untyped-call]
    try:
        answer = verify_rest_response(answer, f"/api/{path}")
        return answer.json()
    except MlflowException as error:
        if answer.status_code == 404:
            where = public_uri(tracker.uri)
            raise TrackingError(f"{where}: this server has no users: mlflow/README.md") from error
        raise

"""The part of the configuration that only a cluster reads: where tasks run, and with what.

Secrets are named here, never written down: a variable is taken from a key of a Kubernetes secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from xcflow.errors import ConfigError

# An image that is named by its content: the name cannot come to mean another one.
BY_DIGEST = r".+@sha256:[0-9a-f]{64}"
# Names of variables whose values nobody should read in a pipeline's source.
SECRET_NAME = r"(?i).*(passw|secret|token|credential|access_key|api_?key|private_key).*"
# Variables that the placement of a task sets itself.
OWN_VARIABLES = ("HOME", "XCFLOW_HOME", "XCFLOW_RUN_KEY", "XCFLOW_NAMESPACE", "XCFLOW_TRAINER")
_OBJECT_NAME = r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_QUANTITY = r"[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|K|M|G|T)?"


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def require_volume_size(size: str, key: str) -> None:
    """Refuse what Kubernetes would not take for the size of a volume; empty is none."""
    _require(
        not size or re.fullmatch(_QUANTITY, size), f"{key} must be a size such as 1Gi, not {size!r}"
    )


@dataclass(frozen=True)
class Toleration:
    """A taint of nodes that a task may run on nevertheless.

    Attributes:
        key: The taint's key; empty for every key, which needs ``Exists``.
        operator: Whether the taint's value must be ``value``, or any.
        value: The taint's value.
        effect: The taint's effect; empty for every effect.
        seconds: How long a running task may stay once the taint appears; -1 for ever.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    seconds: int = -1

    def __post_init__(self) -> None:
        exists = self.operator == "Exists"
        _require(self.key or exists, "a toleration without key needs operator = 'Exists'")
        _require(not (self.value and exists), "a toleration with operator 'Exists' has no value")


@dataclass(frozen=True)
class RetryConfig:
    """How often a failed task is tried again, and after which pause.

    Attributes:
        count: Attempts after the first; 0 for none.
        backoff_seconds: Pause before the second attempt.
        factor: By this the pause grows from attempt to attempt.
        max_seconds: Longest pause.
    """

    count: int = 2
    backoff_seconds: int = 60
    factor: float = 2.0
    max_seconds: int = 1_800

    def __post_init__(self) -> None:
        _require(self.count >= 0, "cluster.retry.count must not be negative")
        _require(self.backoff_seconds >= 0, "cluster.retry.backoff_seconds must not be negative")
        _require(self.factor >= 1.0, "cluster.retry.factor must be at least 1")
        _require(
            self.max_seconds >= self.backoff_seconds,
            "cluster.retry.max_seconds must be at least cluster.retry.backoff_seconds",
        )


@dataclass(frozen=True)
class ClusterConfig:
    """Where Kubeflow Pipelines stands, and what the pods of each task get.

    Attributes:
        host: Address of the pipelines' API; empty for ``$KF_PIPELINES_ENDPOINT``.
        ui: Address of its pages, for links; empty for ``host``.
        ca_file: Certificates to trust; empty for ``$SSL_CERT_FILE``, else the usual ones.
        namespace: The profile's namespace in a multi-user installation; empty in a single-user one.
        service_account: Under which tasks run; empty for the installation's default.
        pipeline_root: Where outputs go, as ``s3://bucket/prefix``; empty for the default.
        image: Image of the tasks; empty for the one of this version.
        image_pull_policy: ``Always``, ``IfNotPresent``, ``Never``, or empty for Kubernetes' choice.
        image_pull_secrets: Names of secrets for the image's registry.
        require_digests: Refuse what is not fit for production, first of all an image by a tag.
        node_selector: Labels that a node must have.
        tolerations: Taints that do not keep tasks away.
        secrets: Variable -> ``SECRET/KEY`` that it is taken from.
        environment: Variable -> value.
        home_claim: A persistent volume claim (ReadWriteMany) for the home folder; empty for an
            empty folder for each pod, and then checkpoints and waiting records end with it.
        scratch_size: Largest size of a pod's temporary files; empty for what the node has.
        deadline_seconds: Longest duration of a run; 0 for any.
        task_deadline_seconds: Longest duration of one attempt of a task; 0 for any.
        ttl_seconds: How long pods and workflow are kept after the end; 0 for ever.
        retry: What happens after a task failed.
        cache: Whether finished steps may be taken from the cache.
    """

    host: str = ""
    ui: str = ""
    ca_file: str = ""
    namespace: str = ""
    service_account: str = ""
    pipeline_root: str = ""
    image: str = ""
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    require_digests: bool = False
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    home_claim: str = ""
    scratch_size: str = ""
    deadline_seconds: int = 172_800
    task_deadline_seconds: int = 0
    ttl_seconds: int = 604_800
    retry: RetryConfig = field(default_factory=RetryConfig)
    cache: bool = True

    def __post_init__(self) -> None:
        for key in ("namespace", "service_account", "home_claim"):
            self._require_object_name(key, getattr(self, key))
        for name in self.image_pull_secrets:
            self._require_object_name("image_pull_secrets", name)
        require_volume_size(self.scratch_size, "cluster.scratch_size")
        for key in ("deadline_seconds", "task_deadline_seconds", "ttl_seconds"):
            _require(getattr(self, key) >= 0, f"cluster.{key} must not be negative")
        self._require_variables()
        _require(
            not re.search(r"\s", self.image), f"cluster.image is no name of one: {self.image!r}"
        )
        _require(
            not self.require_digests or not self.image or re.fullmatch(BY_DIGEST, self.image),
            f"cluster.image must be named by its digest (NAME@sha256:...), it is {self.image}",
        )

    def _require_object_name(self, key: str, name: str) -> None:
        _require(
            not name or re.fullmatch(_OBJECT_NAME, name),
            f"cluster.{key}: {name!r} is no name of a Kubernetes object",
        )

    def _require_variables(self) -> None:
        for key, values in (("secrets", self.secrets), ("environment", self.environment)):
            for name in values:
                where = f"cluster.{key}.{name}"
                _require(re.fullmatch(_VARIABLE, name), f"{where}: is no name of a variable")
                _require(name not in OWN_VARIABLES, f"{where}: is set by xcflow itself")
        for name, reference in self.secrets.items():
            _require(
                re.fullmatch(rf"{_OBJECT_NAME}/[-._a-zA-Z0-9]+", reference),
                f"cluster.secrets.{name} must name SECRET/KEY, where the value stands, and not "
                "hold it",
            )
        for name in self.environment:
            _require(name not in self.secrets, f"cluster.environment.{name} is a secret too")
            _require(
                not re.fullmatch(SECRET_NAME, name),
                f"cluster.environment.{name} looks like a secret: name its SECRET/KEY in "
                "cluster.secrets instead",
            )

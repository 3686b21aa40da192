"""What a compiled pipeline must be to be fit for production; looks at what the cluster will get."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from xcflow.cluster_config import BY_DIGEST, SECRET_NAME
from xcflow.config import Config
from xcflow.errors import ClusterError


def require_fit_for_production(text: str, config: Config) -> None:
    """Refuse a pipeline whose tasks may change by themselves, lack bounds, or show secrets.

    Args:
        text: The compiled pipeline.
        config: What it was compiled from.

    Raises:
        ClusterError: With all that is to be mended.
    """
    found = sorted({*_findings(text), *_settings(config)})
    if found:
        raise ClusterError(f"not fit for production: {'; '.join(found)}")


def _findings(text: str) -> Iterator[str]:
    import yaml

    pipeline, platform = yaml.safe_load_all(text)
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        yield from _container(name.removeprefix("exec-"), executor["container"])
    limits = platform["platforms"]["kubernetes"].get("pipelineConfig", {})
    if not limits.get("activeDeadlineSeconds"):
        yield "a run may take for ever: set cluster.deadline_seconds"
    if not limits.get("resourceTtlOnCompletion"):
        yield "pods are kept for ever: set cluster.ttl_seconds"


def _container(task: str, container: Mapping[str, Any]) -> Iterator[str]:
    image, resources = container["image"], container.get("resources", {})
    if not re.fullmatch(BY_DIGEST, image):
        yield f"image {image} is not named by its digest: set cluster.image to NAME@sha256:..."
    for key in ("resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"):
        if not resources.get(key):
            yield f"task {task} has no {key}"
    for variable in container.get("env", []):
        if re.fullmatch(SECRET_NAME, variable["name"]):
            yield f"task {task} shows the secret {variable['name']}: use cluster.secrets"
        elif urlsplit(variable.get("value", "")).password:
            yield f"task {task} shows a password in {variable['name']}: use cluster.secrets"


def _settings(config: Config) -> Iterator[str]:
    """What the pipeline's parameters would show."""
    for key, address in (
        ("tracking.uri", config.tracking.uri),
        ("notify.webhook", config.notify.webhook),
        ("cluster.host", config.cluster.host),
    ):
        if urlsplit(address).password:
            yield f"{key} holds a password: use cluster.secrets"

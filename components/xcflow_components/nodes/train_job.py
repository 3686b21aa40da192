"""The TrainJob of a step, as Kubernetes gets it."""

from __future__ import annotations

from typing import Any

from xcflow.config import Config, DistributedConfig, TaskResources
from xcflow.steps.remote_job import RemoteJob
from xcflow_components import IMAGE

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"


def trainer_of(config: Config, step: str) -> dict[str, Any]:
    """What is known of a step's nodes when the pipeline is compiled: image, variables, resources.

    Variables come on top of those that the training runtime brings; secrets are named only.
    """
    secrets = (
        (name, *reference.split("/", 1)) for name, reference in config.cluster.secrets.items()
    )
    return {
        "image": config.cluster.image or IMAGE,
        "env": [
            *({"name": name, "value": value} for name, value in config.cluster.environment.items()),
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
                for name, secret, key in secrets
            ),
        ],
        "resourcesPerNode": _resources(getattr(config.resources, step)),
    }


def train_job(
    job: RemoteJob,
    step: str,
    settings: DistributedConfig,
    trainer: dict[str, Any],
    namespace: str,
) -> dict[str, Any]:
    """The document of the TrainJob that does a job.

    Args:
        job: The job.
        step: The step that it is of.
        settings: Nodes, processes on each, limits.
        trainer: What ``trainer_of`` gave.
        namespace: Where it runs.
    """
    # Kubeflow Trainer tells torchrun by variables how many nodes there are, and where to meet.
    # It restarts no rank: the ranks of the other nodes would have to end with it.
    command = ["torchrun", "-m", "xcflow.steps.remote_rank", job.uri]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": job.name,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": "xcflow-training",
                "app.kubernetes.io/part-of": "xcflow",
                "app.kubernetes.io/component": step,
            },
        },
        "spec": {
            "activeDeadlineSeconds": settings.deadline_seconds,
            "runtimeRef": {
                "apiGroup": GROUP,
                "kind": "TrainingRuntime",
                "name": settings.runtime,
            },
            "trainer": {
                **trainer,
                "command": command,
                "numNodes": settings.nodes,
                "numProcPerNode": settings.processes,
            },
        },
    }


def _resources(wanted: TaskResources) -> dict[str, Any]:
    limits = {"memory": wanted.memory}
    if wanted.accelerators:
        limits[wanted.accelerator] = str(wanted.accelerators)
    return {"requests": {"cpu": wanted.cpu, "memory": wanted.memory}, "limits": limits}

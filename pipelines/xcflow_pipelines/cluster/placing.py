"""What the pod of each task gets on a cluster."""

from __future__ import annotations

import json
from typing import Any

from kfp import dsl, kubernetes

from xcflow.cluster_config import ClusterConfig, Toleration
from xcflow.config import Config, TaskResources
from xcflow.home import VARIABLE as HOME_VARIABLE
from xcflow.registry.names import RUN_KEY_VARIABLE
from xcflow.registry.tracking import tracking_environment
from xcflow.steps import STEPS
from xcflow_components import IMAGE
from xcflow_components.nodes.running import NAMESPACE_VARIABLE, TRAINER_VARIABLE
from xcflow_components.nodes.train_job import trainer_of
from xcflow_pipelines.placement import Placement

# A task finds the tracked run of its pipeline by this label of its pod.
RUN_ID_LABEL = "metadata.labels['pipeline/runid']"
# The image's file system may be read-only and its user a random one, so whatever is written goes
# to a volume: temporary files and what programs keep under $HOME, and xcflow's own state.
SCRATCH = "/tmp"  # the pod's own
HOME = "/xcflow"
SHARED_MEMORY = "/dev/shm"
LABELS = {"app.kubernetes.io/name": "xcflow", "app.kubernetes.io/part-of": "xcflow-pipelines"}


def on_cluster(config: Config) -> Placement:
    """Place tasks as the sections ``cluster``, ``resources`` and ``tracking`` say."""

    def place(task: Any, name: str, cached: bool) -> Any:
        on_nodes = config.distributed.nodes > 1 and name in STEPS and STEPS[name].shared
        wanted = getattr(config.resources, name, config.resources.other)
        if on_nodes:
            _set_nodes(task, config, name)
            wanted = config.resources.other  # the task itself only waits
        task.set_container_image(config.cluster.image or IMAGE)
        task.set_caching_options(enable_caching=cached and config.cluster.cache)
        _set_resources(task, wanted)
        _set_retry(task, config.cluster)
        _set_environment(task, config)
        _set_volumes(task, config.cluster, wanted)
        _set_pod(task, config.cluster, wanted)
        for key, value in (LABELS | {"app.kubernetes.io/component": name}).items():
            kubernetes.add_pod_label(task, key, value)
        return task

    return place


def run_limits(cluster: ClusterConfig) -> dsl.PipelineConfig:
    """How long a run may take, and how long it is kept after its end."""
    return dsl.PipelineConfig(
        ttl_seconds_after_finished=cluster.ttl_seconds or None,
        active_deadline_seconds=cluster.deadline_seconds or None,
    )


def _set_resources(task: Any, wanted: TaskResources) -> None:
    task.set_cpu_request(wanted.cpu)
    task.set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.accelerators:
        task.set_accelerator_type(wanted.accelerator)
        task.set_accelerator_limit(wanted.accelerators)


def _set_retry(task: Any, cluster: ClusterConfig) -> None:
    if cluster.retry.count:
        task.set_retry(
            cluster.retry.count,
            backoff_duration=f"{cluster.retry.backoff_seconds}s",
            backoff_factor=cluster.retry.factor,
            backoff_max_duration=f"{cluster.retry.max_seconds}s",
        )
    if cluster.task_deadline_seconds:
        kubernetes.set_timeout(task, cluster.task_deadline_seconds)


def _set_environment(task: Any, config: Config) -> None:
    variables = tracking_environment(config.tracking) | config.cluster.environment
    for name, value in (variables | {"HOME": SCRATCH, HOME_VARIABLE: HOME}).items():
        task.set_env_variable(name, value)
    for name, reference in config.cluster.secrets.items():
        secret, _, key = reference.partition("/")
        kubernetes.use_secret_as_env(task, secret, {key: name})
    kubernetes.use_field_path_as_env(task, RUN_KEY_VARIABLE, RUN_ID_LABEL)


def _set_nodes(task: Any, config: Config, name: str) -> None:
    """Let a task start nodes: what they get, and where they are."""
    task.set_env_variable(TRAINER_VARIABLE, json.dumps(trainer_of(config, name)))
    kubernetes.use_field_path_as_env(task, NAMESPACE_VARIABLE, "metadata.namespace")


def _set_volumes(task: Any, cluster: ClusterConfig, wanted: TaskResources) -> None:
    kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=cluster.scratch_size or None)
    if cluster.home_claim:
        kubernetes.mount_pvc(task, cluster.home_claim, HOME)
    else:
        kubernetes.empty_dir_mount(task, "home", HOME)
    if wanted.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", SHARED_MEMORY, medium="Memory", size_limit=wanted.shared_memory
        )


def _set_pod(task: Any, cluster: ClusterConfig, wanted: TaskResources) -> None:
    kubernetes.set_security_context(task, run_as_non_root=True)
    if cluster.image_pull_policy:
        kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    for label, value in (cluster.node_selector | wanted.node_selector).items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in (*cluster.tolerations, *wanted.tolerations):
        kubernetes.add_toleration(task, **_toleration(toleration))


def _toleration(toleration: Toleration) -> dict[str, Any]:
    forever = toleration.seconds < 0
    return {
        "key": toleration.key or None,
        "operator": toleration.operator,
        "value": toleration.value or None,
        "effect": toleration.effect or None,
        "toleration_seconds": None if forever else toleration.seconds,
    }

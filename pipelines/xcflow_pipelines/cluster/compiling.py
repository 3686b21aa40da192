"""A pipeline as the YAML that a cluster reads: the same bytes for the same configuration."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from xcflow.config import Config
from xcflow.disk import write_text
from xcflow.errors import ClusterError
from xcflow_pipelines import refreshing, retraining
from xcflow_pipelines.cluster.policy import require_fit_for_production

DIGEST_CHARS = 12
# Name of a pipeline -> what declares it.
_DECLARATIONS: dict[str, Callable[..., Any]] = {
    retraining.NAME: retraining.retraining_pipeline,
    refreshing.NAME: refreshing.refreshing_pipeline,
}
# Kubeflow's compiler keeps the pipeline that it is at in a global variable, and for each setting of
# each task reads the source around all callers. So it works in one thread, whose stack is short.
_COMPILER = ThreadPoolExecutor(1, "compiler")


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        pipeline: Name of the pipeline.
        text: Two YAML documents: the pipeline, and what Kubernetes is to do for its tasks.
    """

    pipeline: str
    text: str

    @property
    def version(self) -> str:
        """The version's name, which follows from the content; unique among all pipelines'."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return f"{self.pipeline}-{digest[:DIGEST_CHARS]}"

    def write(self, path: Path) -> None:
        """Write the YAML file.

        Raises:
            StorageError: It cannot be written.
        """
        write_text(path, self.text)


def compile_package(config: Config, pipeline: str = "") -> Package:
    """Compile a pipeline for the cluster that a configuration describes.

    Args:
        config: The configuration; its section ``cluster`` first of all.
        pipeline: Name of the pipeline; empty for the retraining one.

    Raises:
        ClusterError: There is no such pipeline, or the configuration asks for production and
            something is not fit for it.
    """
    require_known(pipeline)
    name = pipeline or retraining.NAME
    package = Package(name, _COMPILER.submit(_compiled, name, config).result())
    if config.cluster.require_digests:
        require_fit_for_production(package.text, config)
    return package


def _compiled(pipeline: str, config: Config) -> str:
    from kfp import compiler

    from xcflow_pipelines.cluster.placing import on_cluster, run_limits

    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        # Kubeflow warns of settings that an exit handler's task gets like every other one.
        warnings.simplefilter("ignore")
        path = Path(scratch) / "pipeline.yaml"
        declared = _DECLARATIONS[pipeline](on_cluster(config), run_limits(config.cluster))
        compiler.Compiler().compile(declared, str(path))
        return path.read_text(encoding="utf-8")


def require_known(pipeline: str) -> None:
    """Refuse the name of a pipeline that does not exist; an empty one stands for retraining.

    Raises:
        ClusterError: See above.
    """
    if pipeline and pipeline not in _DECLARATIONS:
        raise ClusterError(f"no pipeline {pipeline!r}: known are {', '.join(_DECLARATIONS)}")

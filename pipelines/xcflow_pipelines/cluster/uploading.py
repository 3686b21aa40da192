"""Compiled pipelines on the endpoint: each content is uploaded once, as a version named by it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from xcflow_pipelines.cluster.compiling import Package
from xcflow_pipelines.cluster.endpoint import Endpoint, equals


class Version(NamedTuple):
    """A pipeline's version on the endpoint.

    Attributes:
        pipeline_id: Of the pipeline.
        version_id: Of the version.
        name: The version's name, which follows from its content.
    """

    pipeline_id: str
    version_id: str
    name: str


def upload(endpoint: Endpoint, package: Package) -> Version:
    """The version that holds a compiled pipeline, uploaded where it is not there yet.

    Raises:
        ClusterError: The endpoint does not answer, or refuses.
    """
    pipeline_id = _pipeline_id(endpoint, package.pipeline)

    def find() -> Any:
        listing = endpoint.pipelines.pipeline_service_list_pipeline_versions
        chosen = equals("display_name", package.version)
        found = endpoint.listed(
            listing, "pipeline_versions", pipeline_id=pipeline_id, filter=chosen
        )
        return next(found, None)

    def create() -> Any:
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{package.version}.yaml"
            package.write(path)
            return endpoint.ask_once(
                endpoint.uploads.upload_pipeline_version,
                str(path),
                name=package.version,
                display_name=package.version,
                pipelineid=pipeline_id,
            )

    version, _ = endpoint.settle(find, create)
    return Version(pipeline_id, version.pipeline_version_id, package.version)


def _pipeline_id(endpoint: Endpoint, name: str) -> str:
    def find() -> Any:
        chosen = {"filter": equals("display_name", name), **endpoint.in_namespace}
        listing = endpoint.pipelines.pipeline_service_list_pipelines
        return next(endpoint.listed(listing, "pipelines", **chosen), None)

    def create() -> Any:
        import kfp_server_api

        wanted = kfp_server_api.V2beta1Pipeline(
            name=name, display_name=name, **endpoint.in_namespace
        )
        return endpoint.ask_once(endpoint.pipelines.pipeline_service_create_pipeline, wanted)

    return str(endpoint.settle(find, create)[0].pipeline_id)

"""`xcflow pipeline ...`: the pipelines on a cluster. Each command imports what it needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xcflow_pipelines.options import (
    DEFAULT_PROFILE,
    JsonOption,
    ProfileOption,
    SetOption,
    load_config,
    print_json,
)
from xcflow_pipelines.shell import OK

if TYPE_CHECKING:
    from xcflow.config import Config

pipeline_app = typer.Typer(
    help="Compile the pipelines for a cluster, start and schedule runs, watch them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CatalogueOption = Annotated[
    str, typer.Option("--catalogue", metavar="URI", help="The catalogue, as s3://bucket/prefix.")
]
PipelineOption = Annotated[
    str, typer.Option("--pipeline", metavar="NAME", help="Which one [default: the retraining].")
]
ProductionOption = Annotated[
    bool,
    typer.Option(
        "--production", help="Refuse what is not fit for it, as cluster.require_digests does."
    ),
]


@pipeline_app.command("compile")
def compile_(
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="YAML file to write.")],
    pipeline: PipelineOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006  # typer copies it
    production: ProductionOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write a pipeline as the YAML that a cluster reads; needs no cluster."""
    from xcflow_pipelines.cluster.compiling import compile_package

    package = compile_package(_config(profile, overrides, production), pipeline)
    package.write(output)
    if as_json:
        print_json({"file": str(output), "pipeline": package.pipeline, "version": package.version})
    else:
        typer.echo(f"{output}: {package.version}")
    return OK


@pipeline_app.command()
def submit(
    catalogue: CatalogueOption,
    digest: Annotated[
        str,
        typer.Option(
            "--digest", help="Identity of its content [default: what stands there at the start]."
        ),
    ] = "",
    key: Annotated[str, typer.Option("--key", help="The same key never starts a second run.")] = "",
    pipeline: PipelineOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    production: ProductionOption = False,
    as_json: JsonOption = False,
) -> int:
    """Upload the pipeline where it is not there yet, and start a run."""
    from xcflow_pipelines.cluster.submitting import submit as start

    config = _config(profile, overrides, production)
    run = start(config, profile, catalogue, digest, key=key, pipeline=pipeline)
    if as_json:
        print_json(asdict(run))
    else:
        typer.echo(f"{run.name} {'started' if run.created else 'was started before'}: {run.page}")
        typer.echo(f"next: xcflow pipeline status {run.run_id} --watch")
    return OK


def _config(profile: str, overrides: list[str], production: bool = False) -> Config:
    asked = ["cluster.require_digests=true"] if production else []
    return load_config(profile, [*overrides, *asked])

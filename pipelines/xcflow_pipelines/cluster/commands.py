"""`xcflow pipeline ...`: the pipelines on a cluster. Each command imports what it needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xcflow.home import Home
from xcflow_pipelines.options import (
    DEFAULT_PROFILE,
    HomeOption,
    JsonOption,
    ProfileOption,
    SetOption,
    load_config,
    print_json,
)
from xcflow_pipelines.shell import OK, BadUsageError

if TYPE_CHECKING:
    from xcflow.config import Config
    from xcflow_pipelines.cluster.status import RunState, TaskState

pipeline_app = typer.Typer(
    help="Compile the pipelines for a cluster, start and schedule runs, watch them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CatalogueOption = Annotated[
    str, typer.Option("--catalogue", metavar="URI", help="The catalogue, as s3://bucket/prefix.")
]
PipelineOption = Annotated[
    str,
    typer.Option(
        "--pipeline",
        metavar="NAME",
        help="xcflow-retraining or xcflow-catalogue-refresh [default: the first].",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's name or id.")]
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


@pipeline_app.command()
def schedule(
    cron: Annotated[
        str,
        typer.Option(
            "--cron",
            metavar="TIMES",
            help="Six fields, the seconds first, in UTC: '0 0 3 * * *' is 03:00 each day.",
        ),
    ] = "",
    catalogue: Annotated[
        str, typer.Option("--catalogue", metavar="URI", help="As s3://bucket/prefix.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the schedule.")] = "retraining",
    remove: Annotated[bool, typer.Option("--remove", help="Switch it off.")] = False,
    pipeline: PipelineOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    production: ProductionOption = False,
    as_json: JsonOption = False,
) -> int:
    """Have runs started at certain times; without --cron and --remove: list the schedules.

    Called again it changes the schedule of that name, or finds that nothing is to be done.
    """
    from xcflow_pipelines.cluster import scheduling

    if bool(cron) != bool(catalogue):
        raise BadUsageError("--cron and --catalogue belong together")
    if remove and cron:
        raise BadUsageError("--remove takes neither --cron nor --catalogue")
    config = _config(profile, overrides, production)
    if remove:
        gone = scheduling.unschedule(config, name)
        if as_json:
            print_json({"name": name, "switched_off": list(gone)})
        else:
            typer.echo(f"{name}: {', '.join(gone)} switched off" if gone else f"{name}: was off")
    elif cron:
        done = scheduling.schedule(config, profile, catalogue, cron, name=name, pipeline=pipeline)
        if as_json:
            print_json(asdict(done))
        else:
            what = "in force" if done.changed else "in force already"
            typer.echo(f"{done.schedule.recurring_run}: {what}, at {done.schedule.cron} (UTC)")
            for old in done.replaced:
                typer.echo(f"{old}: switched off")
    else:
        rows = scheduling.schedules(config)
        if as_json:
            print_json([asdict(row) for row in rows])
        for row in rows if not as_json else ():
            state = "in force" if row.enabled else "off"
            typer.echo(f"{row.recurring_run}  {state}  {row.cron} (UTC)  {row.catalogue}")
    return OK


@pipeline_app.command()
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Until it is over.")] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> int:
    """Show how a run and its tasks go; 0: promoted or going on, 1: failed, 3: the champion stays.

    With --watch and --json: one line of JSON for each change.
    """
    from xcflow_pipelines.cluster.status import run_state
    from xcflow_pipelines.cluster.status import watch as watched

    config = _config(profile, overrides)
    if not watch:
        state = run_state(config, run)
        if as_json:
            print_json(asdict(state))
        else:
            for line in (*(_task_line(task) for task in state.tasks), *_run_lines(state)):
                typer.echo(line)
        return state.exit_code
    known: set[tuple[str, str]] = set()
    for state in watched(config, run):
        if as_json:
            typer.echo(json.dumps(asdict(state), ensure_ascii=False))
        for task in state.tasks if not as_json else ():
            if (task.name, task.state) not in known:
                known.add((task.name, task.state))
                typer.echo(_task_line(task))
        if state.ended and not as_json:
            for line in _run_lines(state):
                typer.echo(line)
    return state.exit_code


@pipeline_app.command()
def cancel(
    run: RunArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """End a run; what it has finished stays in the cache."""
    from xcflow_pipelines.cluster.cancelling import cancel as end

    outcome = end(_config(profile, overrides), run, Home.at(home))
    if as_json:
        print_json(asdict(outcome))
    elif outcome.was_over:
        typer.echo(f"{outcome.run.name} is over already: {outcome.run.state}")
    else:
        typer.echo(f"{outcome.run.name} is being ended")
    return OK


def _task_line(task: TaskState) -> str:
    seconds = "" if task.seconds is None else f"{task.seconds:.0f} s"
    line = f"{task.state:<10} {task.name:<20} {seconds:>8}"
    return f"{line}  {task.error}" if task.error else line.rstrip()


def _run_lines(state: RunState) -> list[str]:
    verdict = ""
    if state.state == "SUCCEEDED":
        verdict = ": its model is the champion" if state.promoted else ": the champion stays"
    reason = f": {state.error}" if state.error else ""
    return [f"{state.name}: {state.state}{verdict}{reason}", state.page]


@pipeline_app.command()
def trigger(
    catalogue: CatalogueOption,
    pipeline: PipelineOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    production: ProductionOption = False,
    watch: Annotated[
        float,
        typer.Option("--watch", metavar="SECONDS", min=0.0, help="Look again every so often."),
    ] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done, submit nothing.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Submit another run, once the latest one is over.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Start one run for each catalogue that comes in, and say what is new in it."""
    from xcflow_pipelines.cluster.trigger_command import Request, trigger_run

    config = _config(profile, overrides, production)
    request = Request(catalogue, profile, pipeline, again, dry_run)
    return trigger_run(config, request, Home.at(home), watch_s=watch, as_json=as_json)


def _config(profile: str, overrides: list[str], production: bool = False) -> Config:
    asked = ["cluster.require_digests=true"] if production else []
    return load_config(profile, [*overrides, *asked])

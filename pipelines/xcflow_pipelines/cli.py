"""The `xcflow` command. Each command imports what it needs, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from xcflow.cores import use_cores
from xcflow.home import VARIABLE, Home
from xcflow.interruption import interruptible
from xcflow_pipelines.cluster.commands import pipeline_app
from xcflow_pipelines.options import (
    DEFAULT_PROFILE,
    HomeOption,
    JsonOption,
    ProfileOption,
    SetOption,
)
from xcflow_pipelines.options import load_config as _config
from xcflow_pipelines.options import print_json as _print_json
from xcflow_pipelines.shell import OK, BadUsageError, guarded

app = typer.Typer(
    name="xcflow",
    help="Extreme classification, retrained end to end by a Kubeflow pipeline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would eat "[default: ...]", and costs time
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
profiles_app = typer.Typer(
    help="Show the shipped configurations.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(profiles_app, name="profiles")
app.add_typer(pipeline_app, name="pipeline")

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PATH|URI",
        help="Folder of a catalogue, or its s3:// URI [default: the bundled one].",
    ),
]
KOption = Annotated[int, typer.Option("-k", min=1, help="Number of labels for each text.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME|PATH|URI",
        help="champion, previous, a version's number, a run's name, or a bundle's folder, here or "
        "under s3://.",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


def main() -> None:
    """Run the command line and exit."""
    use_cores()  # before any numeric library is loaded
    with interruptible():
        code = guarded(lambda: app(standalone_mode=False))
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        import xcflow

        typer.echo(f"xcflow {xcflow.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    home: HomeOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    if home is not None:
        os.environ[VARIABLE] = str(home)


@app.command()
def run(
    profile: ProfileOption = DEFAULT_PROFILE,
    data: DataOption = "",
    overrides: SetOption = [],  # noqa: B006  # typer copies it
    fresh: Annotated[bool, typer.Option("--fresh", help="Take nothing from the cache.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Retrain by the whole pipeline, compare with the champion, promote by the gate.

    A second run on the same data and configuration takes its finished steps from the cache.
    """
    from xcflow_pipelines.retrain import retrain

    return retrain(_config(profile, overrides), profile, data, Home.at(home), fresh, as_json)


@app.command()
def refresh(
    data: DataOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    fresh: Annotated[bool, typer.Option("--fresh", help="Take nothing from the cache.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let the champion take in a changed catalogue without training; promote by the gate.

    New labels are found from then on, removed ones are gone, new documents vote.
    """
    from xcflow_pipelines.retrain import refresh as refresh_champion

    return refresh_champion(_config(profile, overrides), data, Home.at(home), fresh, as_json)


@app.command()
def validate(
    data: DataOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    output: Annotated[
        str, typer.Option("--output", metavar="DIR|URI", help="Keep the data set there.")
    ] = "",
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="NAME|DIR|URI",
            help="Tell what differs from a model's catalogue (champion, a run, ...) or a data set.",
        ),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check a catalogue, write the canonical data set and a report that is readable offline."""
    from xcflow_pipelines.measure import validate_catalogue
    from xcflow_pipelines.records import find_catalogue

    config, place = _config(profile, overrides), Home.at(home)
    accepted = find_catalogue(place, config.tracking, against) if against else None
    report, page = validate_catalogue(config, data, place, output, accepted)
    if as_json:
        _print_json({**report, "report": str(page)})
    else:
        for check in report["checks"]:
            if check["status"] != "passed":
                typer.echo(f"{check['status']:<8} {check['title']}: {check['count']:,}")
        typer.echo(f"the catalogue can be used; the report on it: {page}")
    return OK


@app.command()
def seal(
    data: Annotated[str, typer.Option("--data", metavar="PATH|URI", help="Folder of a catalogue.")],
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write catalogue.json beside a catalogue's files: what it holds, to be known at a glance."""
    from xcflow_pipelines.sealing import seal_catalogue

    written = seal_catalogue(_config(profile, overrides).data, data, Home.at(home))
    if as_json:
        counts = {"labels": written.labels, "documents": written.documents}
        _print_json({"digest": written.digest, **counts})
    else:
        counted = f"{written.labels:,} labels, {written.documents:,} documents"
        typer.echo(f"sealed as {written.digest[:12]}: {counted}")
    return OK


@app.command()
def step(
    name: Annotated[str, typer.Argument(help="Name of the step, as in train_encoder.")],
    output: Annotated[
        str, typer.Option("--output", metavar="DIR|URI", help="Folder to write, or s3:// URI.")
    ],
    inputs: Annotated[
        list[str], typer.Option("--input", metavar="NAME=DIR|URI", help="May be repeated.")
    ] = [],  # noqa: B006
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that share the step's work.")
    ] = 1,
    home: HomeOption = None,
) -> int:
    """Run a single step of the pipeline on folders."""
    from xcflow.distributed.world import World
    from xcflow.steps import fetch_inputs, require_inputs, run_step
    from xcflow.storage import delivered

    if processes > 1:
        overrides = [*overrides, f"distributed.processes={processes}"]
    place = Home.at(home)
    os.environ[VARIABLE] = str(place.root)
    folders = {}
    for text in inputs:
        key, sign, folder = text.partition("=")
        if not (key and sign and folder):
            raise BadUsageError(f"--input {text}: expected NAME=DIR")
        folders[key] = folder
    config = _config(profile, overrides)
    require_inputs(name, folders)
    first = World.of_environment().first  # the one that writes, under torchrun
    with delivered(output, place) if first else nullcontext(place.outputs) as folder_here:
        run_step(name, config, fetch_inputs(folders, place.downloads), folder_here)
    if first:
        typer.echo(output)
    return OK


@app.command()
def predict(
    text: Annotated[str, typer.Argument(help="The text; or give --input.")] = "",
    k: KOption = 10,
    source: Annotated[
        str,
        typer.Option(
            "--input", metavar="FILE", help="Rows with id and text; a path or s3://bucket/key."
        ),
    ] = "",
    target: Annotated[
        str, typer.Option("--output", metavar="FILE", help="Gets the answers, in their order.")
    ] = "",
    min_probability: Annotated[
        float,
        typer.Option(
            "--min-probability", min=0.0, max=1.0, help="Leave out labels less likely right."
        ),
    ] = 0.0,
    model: ModelOption = "champion",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Answer a text, or a file of texts, with their best labels.

    Files are .jsonl, .csv (both plain or .gz) or .parquet. Killed, the same command goes on.
    """
    if bool(source) != bool(target):
        raise BadUsageError("--input and --output belong together")
    if bool(text.strip()) == bool(source):
        raise BadUsageError('give either a text or --input, as in: xcflow predict "a text"')
    from xcflow.serving.answers import best_labels
    from xcflow.serving.batch.job import BatchJob
    from xcflow.serving.predictor import Predictor
    from xcflow_pipelines.records import find_bundle, tracking_of

    place = Home.at(home)
    job = BatchJob(source, target, k, min_probability) if source else None
    predictor = Predictor.load(find_bundle(place, tracking_of(place), model))
    if job:
        outcome = job.run(predictor, place)
        if as_json:
            _print_json({**outcome._asdict(), "output": target})
        else:
            typer.echo(f"{outcome}: {target}")
        return OK
    answer = best_labels(predictor, [text], k, min_probability)[0]
    if as_json:
        _print_json({"labels": answer})
        return OK
    texts = predictor.label_texts.take(predictor.label_ids.find([row["id"] for row in answer]))
    for label, name in zip(answer, texts, strict=True):
        shown = "" if name == label["id"] else f"  {name}"
        typer.echo(f"{label['probability']:7.1%}  {label['id']}{shown}")
    return OK


@app.command()
def evaluate(
    model: ModelOption = "champion",
    data: DataOption = "",
    profile: ProfileOption = DEFAULT_PROFILE,
    overrides: SetOption = [],  # noqa: B006
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Measure a model on the test split of a catalogue, beside the baselines."""
    from xcflow_pipelines.measure import evaluate_bundle
    from xcflow_pipelines.records import find_bundle

    place, config = Home.at(home), _config(profile, overrides)
    bundle = find_bundle(place, config.tracking, model)
    evaluation = evaluate_bundle(config, bundle, data, place)
    if as_json:
        _print_json({"models": evaluation.metrics["models"], "folder": str(evaluation.path)})
        return OK
    from xcflow_pipelines.teller import console, metrics_table

    console().print(metrics_table(evaluation.metrics["models"]))
    typer.echo(f"the report: {evaluation.path / 'report.html'}")
    return OK


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Names, MLflow ids, or evaluations' folders or s3:// URIs."
        ),
    ],
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with charts and examples."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Compare runs with the first one, document by document, with confidence intervals."""
    from xcflow_pipelines.comparing import compare_runs

    return compare_runs(Home.at(home), runs, page, as_json)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Profile, data and grid, as TOML.")],
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="The page [default: in the home]."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run the pipeline for each combination of a grid of settings; nothing is promoted.

    Called again it goes on: finished runs are kept, finished steps come from the cache.
    """
    from xcflow_pipelines.sweeping import sweep as sweep_all

    return sweep_all(file, Home.at(home), page, as_json)


@app.command()
def promote(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The run whose model it is, by name or MLflow id."),
    ],
    override: Annotated[
        bool, typer.Option("--override", help="Whatever the verdict was; needs --reason.")
    ] = False,
    reason: ReasonOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make the model of a run the champion, where the gate's verdict allows it."""
    if override and not reason.strip():
        raise BadUsageError("--override needs --reason: it is recorded")
    from xcflow_pipelines.champions import promote_run
    from xcflow_pipelines.records import tracking_of

    place = Home.at(home)
    move = promote_run(place, tracking_of(place), run, reason, override)
    return _told(move, as_json, "it is the champion already")


@app.command()
def rollback(
    to: Annotated[
        str, typer.Option("--to", metavar="VERSION", help="Default: the one before.")
    ] = "",
    reason: ReasonOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make an earlier model the champion again; needs --reason."""
    if not reason.strip():
        raise BadUsageError("rollback needs --reason: it is recorded")
    from xcflow_pipelines.champions import roll_back
    from xcflow_pipelines.records import tracking_of

    place = Home.at(home)
    return _told(roll_back(place, tracking_of(place), to, reason), as_json, "")


@app.command()
def history(
    limit: Annotated[int, typer.Option("-n", min=1, help="Show the latest n moves.")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show who became champion, when and why."""
    from dataclasses import asdict

    from xcflow.registry.moves import altered_line
    from xcflow_pipelines.champions import moves_of
    from xcflow_pipelines.records import tracking_of

    place = Home.at(home)
    rows = [asdict(move) for move in reversed(moves_of(place, tracking_of(place)))][:limit]
    if as_json:
        _print_json(rows)
    elif rows:
        from xcflow_pipelines.teller import console, history_table

        console().print(history_table(rows))
    else:
        typer.echo("no champion yet: xcflow run")
    if line := altered_line(place):
        from xcflow.errors import ArtifactError

        raise ArtifactError(
            f"{place.promotions}, line {line}: does not follow the line before: the record was "
            "altered; the tracking store has it too (docs/gate.md)"
        )
    return OK


@profiles_app.callback()
def profiles(context: typer.Context, as_json: JsonOption = False) -> int:
    """List the shipped profiles; `show NAME` prints one, complete with defaults."""
    if context.invoked_subcommand:
        return OK
    from xcflow.config import profile_names, profile_text

    rows = {name: _first_comment(profile_text(name)) for name in profile_names()}
    if as_json:
        _print_json(rows)
    for name, what in rows.items() if not as_json else ():
        typer.echo(f"{name:<12} {what}")
    return OK


@profiles_app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE")],
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> int:
    """Print a profile as TOML, complete with defaults."""
    tree = _config(name, overrides).to_dict()
    if as_json:
        _print_json(tree)
        return OK
    from xcflow_pipelines.toml_text import to_toml

    typer.echo(to_toml(tree), nl=False)
    return OK


@app.command()
def sync(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Send to MLflow what was recorded while its server was away.

    The next run does so too.
    """
    from xcflow.registry.outbox import Outbox
    from xcflow.registry.sending import send_all
    from xcflow_pipelines.records import tracking_of

    place = Home.at(home)
    sent = send_all(place, tracking_of(place))
    if as_json:
        _print_json({"sent": sent, "waiting": len(Outbox(place).waiting())})
    else:
        typer.echo(f"{sent:,} records sent" if sent else "nothing waits")
    return OK


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME|PATH|URI",
            help="models:/NAME@ALIAS, an alias, a version's number, a run's name, or a bundle's "
            "folder, here or under s3://.",
        ),
    ] = "champion",
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8080,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let others reach a server without a token.")
    ] = False,
    overrides: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="A limit or habit of the server."),
    ] = [],  # noqa: B006
    home: HomeOption = None,
) -> int:
    """Serve a model over HTTP; the champion is followed when it moves.

    Requests must bear the token in $XCFLOW_SERVE_TOKEN, where it is set.
    """
    # Before numeric libraries are loaded: the threads of a lone answer wait for each other longer
    # than they work, and many answers keep the cores busy anyway.
    for variable in ("OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from dataclasses import asdict

    from xcflow.serving.http.settings import is_loopback, settings_of
    from xcflow_pipelines.records import tracking_of
    from xcflow_pipelines.serve import TOKEN, Task
    from xcflow_pipelines.serve import serve as run_server

    place = Home.at(home)
    settings = settings_of(overrides, os.environ.get(TOKEN, ""))
    task = Task(
        model,
        str(place.root),
        asdict(tracking_of(place)),
        is_loopback(host),
        asdict(settings),
    )
    run_server(task, host, port, workers, insecure=insecure)
    return OK


@app.command()
def mlflow(
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    home: HomeOption = None,
) -> int:
    """Open MLflow's pages on the runs of this home, until interrupted."""
    from xcflow_pipelines.champions import serve_mlflow
    from xcflow_pipelines.records import tracking_of

    place = Home.at(home)
    return serve_mlflow(place, tracking_of(place), host, port)


@app.command()
def user(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    role: Annotated[str, typer.Option("--role", help="reader, trigger, trainer or promoter.")],
    home: HomeOption = None,
) -> int:
    """Make a user of the tracking server, or give one another password and role.

    As its administrator. The password is $XCFLOW_USER_PASSWORD, else it is asked for.
    """
    from xcflow.registry.tracking import Tracker
    from xcflow.registry.users import ROLES, put_user
    from xcflow_pipelines.records import tracking_of

    if role not in ROLES:
        raise BadUsageError(f"--role {role}: expected {', '.join(ROLES)}")
    if not name or ":" in name:  # in a request the password follows the first colon
        raise BadUsageError(f"{name!r}: a user's name must not be empty, nor hold a colon")
    place = Home.at(home)
    tracking = tracking_of(place)
    password = os.environ.get("XCFLOW_USER_PASSWORD") or _asked_password(name)
    put_user(Tracker.at(tracking, place), tracking.model_name, name, password, role)
    typer.echo(f"user {name}: {role}")
    return OK


def _asked_password(user: str) -> str:
    try:
        if not sys.stdin.isatty():
            raise typer.Abort
        return str(typer.prompt(f"password of {user}", hide_input=True, confirmation_prompt=True))
    except typer.Abort as error:
        raise BadUsageError("no password: set $XCFLOW_USER_PASSWORD, or type it here") from error


def _told(move: Any, as_json: bool, nothing: str) -> int:
    """Say what a move of the champion was."""
    from dataclasses import asdict

    if as_json:
        _print_json(asdict(move) if move else {})
    elif move:
        before = f" (before: {move.from_version})" if move.from_version else ""
        typer.echo(f"champion: version {move.version}{before}")
    else:
        typer.echo(nothing)
    return OK


def _first_comment(text: str) -> str:
    line = text.partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""

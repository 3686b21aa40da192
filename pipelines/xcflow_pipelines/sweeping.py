"""The command `xcflow sweep`: the pipeline for each combination, a table and a page."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from xcflow.config import Config
from xcflow.errors import XcflowError
from xcflow.home import Home
from xcflow.registry.summary import MAIN_MODEL
from xcflow_pipelines.pages import write_page
from xcflow_pipelines.records import RunRecord
from xcflow_pipelines.shell import OK
from xcflow_pipelines.sweep_plan import Combination, SweepPlan, described, read_plan
from xcflow_pipelines.toml_text import toml_value
from xcflow_pipelines.watcher import CACHED, DONE

if TYPE_CHECKING:
    from rich.table import Table

PLOTTED = ("P@1", "PSP@5")
SHOWN = ("P@1", "P@5", "PSP@5", "R@10", "R@100")
WIDTH = 200

# Runs the pipeline for a configuration, or finds the run that did.
Runner = Callable[[Config], RunRecord]


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds.

    Attributes:
        mean: Its mean.
        deviation: Its standard deviation; ``None`` where there is one seed.
    """

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Over at least one value."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but the seed.

    Attributes:
        values: Swept key without the seed -> its value.
        runs: Names of the runs.
        figures: Model -> metric -> mean and deviation; of the fused model and its encoder alone.
    """

    values: Mapping[str, Any]
    runs: tuple[str, ...]
    figures: Mapping[str, Mapping[str, Spread]]


@dataclass(frozen=True)
class Swept:
    """A finished sweep.

    Attributes:
        groups: What came of each setting.
        from_cache: Step -> in how many of the runs it was taken from the cache.
    """

    groups: tuple[Group, ...]
    from_cache: Mapping[str, int]


def sweep(file: Path, home: Home, page: Path | None, as_json: bool) -> int:
    """Run what a sweep's file declares and tell what came of it; returns the exit code.

    Args:
        file: Profile, data and grid, as TOML.
        home: Gets everything that is written.
        page: The page to write; by default in the home's folder of sweeps.
        as_json: Whether to answer with JSON on standard output.

    Raises:
        ConfigError: The file is wrong; nothing has been run.
        XcflowError: A run failed; the ones before it are kept.
    """
    plan = read_plan(file)
    swept = run_plan(plan, _runner(plan, home))
    place = page or home.sweeps / f"{plan.name}.html"
    from xcflow_pipelines.sweep_page import sweep_page

    write_page(place, sweep_page(plan, swept))
    if as_json:
        tree = {"sweep": plan.name, **asdict(swept), "page": str(place)}
        typer.echo(json.dumps(tree, indent=2, ensure_ascii=False))
        return OK
    from xcflow_pipelines.teller import console

    console(WIDTH).print(sweep_table(plan, swept.groups))
    typer.echo(f"\n{shared_line(plan, swept.from_cache)}\nthe page: {place}")
    return OK


def run_plan(plan: SweepPlan, runner: Runner) -> Swept:
    """Run all combinations one after the other and put the seeds of each setting together."""
    found: dict[str, list[tuple[Combination, RunRecord]]] = {}
    for number, combination in enumerate(plan.combinations, 1):
        words = described(combination.values)
        sys.stderr.write(f"[{number} of {len(plan.combinations)}] {words}\n")
        try:
            record = runner(combination.config)
        except XcflowError as error:
            raise XcflowError(f"{words}: {error}") from error
        found.setdefault(combination.setting, []).append((combination, record))
    groups = [_group(plan, members) for members in found.values()]
    records = [record for members in found.values() for _, record in members]
    return Swept(tuple(groups), _from_cache(records))


def _group(plan: SweepPlan, members: Sequence[tuple[Combination, RunRecord]]) -> Group:
    from xcflow.evaluation.result import CANDIDATE, ENCODER, Evaluation

    evaluations = [Evaluation.open(record.folder("evaluate_model")) for _, record in members]
    figures: dict[str, dict[str, Spread]] = {}
    for model in (CANDIDATE, ENCODER):
        if all(model in evaluation.models for evaluation in evaluations):
            values = [evaluation.metrics["models"][model] for evaluation in evaluations]
            common = [name for name in values[0] if all(name in other for other in values)]
            figures[model] = {name: Spread.of([v[name] for v in values]) for name in common}
    settings = {key: members[0][0].values[key] for key in plan.keys}
    return Group(settings, tuple(record.name for _, record in members), figures)


def _from_cache(records: Sequence[RunRecord]) -> dict[str, int]:
    """Of each step, in how many runs it came from the cache."""
    from xcflow.steps import STEPS

    ends = Counter((task["name"], task["state"]) for record in records for task in record.tasks)
    ended = [step for step in STEPS if ends[step, DONE] or ends[step, CACHED]]
    return {step: ends[step, CACHED] for step in ended}


def shared_line(plan: SweepPlan, from_cache: Mapping[str, int]) -> str:
    """Which steps the runs shared, in words."""
    shared = [f"{step} {count}" for step, count in from_cache.items() if count]
    total = len(plan.combinations)
    return f"taken from the cache, in how many of {total} runs: {', '.join(shared) or 'nothing'}"


def spread_text(spread: Spread) -> str:
    """Mean and deviation in percent."""
    around = (
        "" if spread.deviation is None else f" \N{PLUS-MINUS SIGN} {100 * spread.deviation:.2f}"
    )
    return f"{100 * spread.mean:.2f}{around}"


def sweep_table(plan: SweepPlan, groups: Sequence[Group]) -> Table:
    """A row for each setting, with the figures over its seeds in percent."""
    from rich.table import Table

    figures = [group.figures[MAIN_MODEL] for group in groups]
    shown = [name for name in SHOWN if any(name in known for known in figures)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in plan.keys:
        table.add_column(key)
    for name in ("seeds", *shown):
        table.add_column(name, justify="right")
    for group, known in zip(groups, figures, strict=True):
        cells = [spread_text(known[n]) if n in known else "-" for n in shown]
        values = [toml_value(value) for value in group.values.values()]
        table.add_row(*values, str(len(group.runs)), *cells)
    return table


def _runner(plan: SweepPlan, home: Home) -> Runner:
    from xcflow.catalogue.readers import catalogue_digest
    from xcflow.library import library_digest
    from xcflow_pipelines.measure import catalogue_folder
    from xcflow_pipelines.records import find_identical, run_identity
    from xcflow_pipelines.retrain import run_pipeline

    catalogue = catalogue_folder(plan.data, home)

    def run(config: Config) -> RunRecord:
        digest = catalogue_digest(catalogue, config.data.format)
        if known := find_identical(home, run_identity(config, digest, library_digest())):
            sys.stderr.write(f"finished before: {known.name}\n")
            return known
        return run_pipeline(config, plan.name, plan.data, home)[1]

    return run

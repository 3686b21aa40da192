"""The model card: what a model is, from what it was made, how good it is, and how to use it.

Everything in it is read from the folders that the steps wrote; it measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xcflow.artifact import read_manifest
from xcflow.evaluation.result import TIMINGS
from xcflow.registry.names import CARD_FILE, VERDICT_FILE
from xcflow.registry.notes import MODELS, figures_table
from xcflow.registry.summary import (
    MAIN_MODEL,
    METRICS,
    model_of,
    read_json,
    settings_that_differ,
)
from xcflow.report.page import signed_points
from xcflow.serving.bundle import CONFIG, REFRESH, SETTINGS

SLICE_METRICS = ("R@10", "R@100")
# What MLflow keeps of a model version's description in every database that it supports.
DESCRIPTION_CHARS = 5_000


@dataclass(frozen=True)
class Origin:
    """What a card says that stands in no folder.

    Attributes:
        run: Name of the run that made the model.
        run_id: Its id in MLflow.
        model: Id of the logged model.
        method: The name that the literature has for it.
        catalogue: Name of the catalogue.
        licence: That of the catalogue, empty where it is not known.
        config: The run's configuration, nested.
    """

    run: str
    run_id: str
    model: str
    method: str
    catalogue: str
    licence: str
    config: Mapping[str, Any]


def model_card(origin: Origin, folders: Mapping[str, Path]) -> str:
    """The card as Markdown.

    Args:
        origin: Where the model comes from.
        folders: Name of a step -> what it wrote.

    Raises:
        ArtifactError: A folder is not whole.
    """
    evaluation, bundle = folders["evaluate_model"], model_of(folders)
    metrics, timings = read_json(evaluation / METRICS), read_json(evaluation / TIMINGS)
    verdict = read_json(folders["gate_model"] / VERDICT_FILE)
    settings = read_json(bundle / SETTINGS)
    manifests = {name: read_manifest(folder) for name, folder in folders.items()}
    made = model_of(manifests)
    # How its encoder was trained is for the bundle to say: a refresh trains none.
    trained = {**origin.config, **read_json(bundle / CONFIG)}
    return _render(
        **vars(replace(origin, config=trained)),
        refresh=made.meta.get(REFRESH),
        sizes=manifests["validate_data"].meta,
        warnings=_warnings(folders["validate_data"]),
        counts=metrics["counts"],
        auxiliary=settings["auxiliary_vectors"],
        settings=settings_that_differ(origin.config) or "in nothing",
        bundle=made.meta,
        fusion_units=len(settings["fusion"]["bias"]),
        calibration=settings["calibration"]["method"],
        max_document_tokens=settings["max_document_tokens"],
        verdict=verdict,
        figures=figures_table(metrics["models"]),
        differences=differences_table(verdict["checks"]),
        slice_metrics=SLICE_METRICS,
        slices=list(_slices(metrics)),
        ece=metrics["calibration"][MAIN_MODEL],
        megabytes=metrics["candidate"]["bytes"] / 1e6,
        latency=timings["latency_ms"].get(MAIN_MODEL),
        memory=timings["peak_memory_mb"],
        library_version=made.library_version,
        digests={
            "bundle": made.digest,
            "dataset": manifests["validate_data"].digest,
            "evaluation": manifests["evaluate_model"].digest,
            "test_split": metrics["test_split"],
        },
    )


def shortened(card: str, most: int = DESCRIPTION_CHARS) -> str:
    """The card with as many of its sections as ``most`` characters hold, and where the rest is."""
    if len(card) <= most:
        return card
    note = f"\n## More\n\nThe whole card is the artifact `{CARD_FILE}` of the run.\n"
    first, *sections = card.split("\n## ")
    kept = first
    for section in sections:
        if len(kept) + len(section) + len(note) + 4 > most:
            break
        kept += f"\n## {section}"
    return kept + note


def differences_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """What the gate measured between the model and each other one, in points with bounds."""
    measured = [check for check in checks if check["difference"]]
    metrics = list(dict.fromkeys(check["metric"] for check in measured))
    lines = [f"| minus | {' | '.join(metrics)} |", "| --- |" + " ---: |" * len(metrics)]
    for opponent in dict.fromkeys(check["against"] for check in measured):
        cells = {c["metric"]: _cell(c["difference"]) for c in measured if c["against"] == opponent}
        shown = " | ".join(cells.get(metric, "") for metric in metrics)
        lines.append(f"| {MODELS.get(opponent, opponent)} | {shown} |")
    return "\n".join(lines)


def _cell(difference: Mapping[str, float]) -> str:
    value, low, high = (signed_points(difference[name]) for name in ("difference", "low", "high"))
    return f"{value} ({low} to {high})"


def _slices(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The slices that hold something of the test split."""
    measured = metrics["slices"][MAIN_MODEL]
    for name, facts in metrics["label_slices"].items():
        if name in measured:
            figures = [measured[name][metric] for metric in SLICE_METRICS]
            yield {"name": name, **facts, "figures": figures}


def _warnings(dataset: Path) -> list[str]:
    """What the data report warns of, in its words."""
    checks = read_json(dataset / "report.json").get("checks", [])
    return [
        f"{check['title']}: {check['count']:,} of {check['total']:,} {check['unit']}"
        for check in checks
        if check["status"] == "warning"
    ]


def _render(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # Markdown: MLflow escapes what it shows
        loader=PackageLoader("xcflow.registry"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["points"] = lambda value: f"{100 * value:.1f}"
    return environment.get_template("model_card.md.j2").render(**values).strip() + "\n"

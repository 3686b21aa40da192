"""What of a step's folder is worth a line in MLflow and on Kubeflow's pages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.errors import ArtifactError
from xcflow.registry import names

T = TypeVar("T")

HISTORY = "history.json"
METRICS = "metrics.json"

# Of each measured model these figures are kept; the rest stays in the evaluation's folder.
MAIN_MODEL = "fused"
MAIN_METRICS = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@10", "R@100")
OTHER_METRICS = ("P@1", "PSP@5")

# Curves that stand in the run itself, where runs are compared: name of the step -> what it trains.
TRAINED = {"train_encoder": "encoder", "train_classifier": "classifier"}
SHORTEST_S = 0.001  # phases of less say nothing
RUN_CURVES = ("train/loss", "validation/P@1", "validation/nDCG@5")


def metric_name(name: str) -> str:
    """``name`` as MLflow accepts it: ``P@1`` is ``P_at_1``.

    Of other signs than letters and digits it takes ``_``, ``.``, ``-``, ``/``, ``:`` and the space;
    its own such metrics it calls ``precision_at_1``.
    """
    return name.replace("@", "_at_")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as one level of ``section.key`` -> text, the way ``--set`` takes them."""
    rows: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            rows[prefix + key] = ", ".join(map(str, value))
        else:
            rows[prefix + key] = str(value)
    return rows


def settings_that_differ(config: Mapping[str, Any]) -> str:
    """What of a configuration is not the default, as ``section.key=value`` in one line."""
    usual = flat(Config().to_dict())
    rows = flat(config).items()
    return ", ".join(f"{key}={value}" for key, value in rows if value != usual[key])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that may be absent.

    Raises:
        ArtifactError: The file is there and cannot be read.
    """
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    return tree


def model_step(names_of_steps: Container[str]) -> str:
    """The one of a run's steps that made its model, by training or by a refresh."""
    return next(name for name in names.MODEL_STEPS if name in names_of_steps)


def model_of(folders: Mapping[str, T]) -> T:
    """What the step of a run wrote that made its model.

    Args:
        folders: Name of a step -> what it wrote.
    """
    return folders[model_step(folders)]


def step_metrics(folder: Path) -> dict[str, float]:
    """The main figures of a step's folder and the last values of its curves."""
    last = {metric_name(name): points[-1][1] for name, points in curves(folder).items()}
    return step_figures(folder) | last


def step_figures(folder: Path) -> dict[str, float]:
    """The main figures of a step's folder, by names that both MLflow and Kubeflow accept."""
    manifest = read_manifest(folder)
    if manifest.kind == "evaluation":
        return evaluation_metrics(read_json(folder / METRICS))
    history = read_json(folder / HISTORY)
    numbers = {**manifest.meta, **{k: v for k, v in history.items() if k != "series"}}
    return {metric_name(k): float(v) for k, v in numbers.items() if _is_number(v)}


def evaluation_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Few, well-named figures: ``test/<model>/<metric>``."""
    figures = {}
    for model, values in metrics.get("models", {}).items():
        for name in MAIN_METRICS if model == MAIN_MODEL else OTHER_METRICS:
            if name in values:
                figures[metric_name(f"test/{model}/{name}")] = float(values[name])
    return figures


def curves(folder: Path) -> dict[str, list[list[float]]]:
    """Name of a curve -> its points ``[step, value]``, without empty curves."""
    series = read_json(folder / HISTORY).get("series", {})
    return {name: points for name, points in series.items() if points}


def run_curves(step: str, folder: Path) -> dict[str, list[list[float]]]:
    """The few curves of a training step that its run shows too, as ``encoder/train/loss``."""
    return {
        f"{TRAINED[step]}/{name}": points
        for name, points in curves(folder).items()
        if name in RUN_CURVES
    }


def phase_metrics(step: str, times: Mapping[str, Any]) -> dict[str, float]:
    """Where the time of a step went, as figures ``time/<step>/<phase>``, and its memory."""
    phases = {
        f"time/{step}/{phase}": seconds
        for phase, seconds in times["phases"].items()
        if seconds >= SHORTEST_S
    }
    return {**phases, "peak_memory_mb": times["peak_memory_mb"]}


def times_csv(steps: Sequence[Mapping[str, Any]]) -> str:
    """A row for each phase of each step, longest first.

    Args:
        steps: As ``record_results`` has them, all with times.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("step", "phase", "seconds", "share of step", "from cache"))
    for step in steps:
        seconds = step["times"]["seconds"]
        for phase, spent in sorted(step["times"]["phases"].items(), key=lambda row: -row[1]):
            share = f"{spent / max(seconds, 1e-9):.3f}"
            table.writerow((step["name"], phase, f"{spent:.3f}", share, step["from_cache"]))
    return text.getvalue()


def sampled(points: list[list[float]], most: int) -> Iterator[tuple[int, float]]:
    """At most ``most`` points of a curve, evenly spread, the last one among them."""
    stride = -(-len(points) // most)
    for i, (step, value) in enumerate(points):
        if (len(points) - 1 - i) % stride == 0:
            yield int(step), float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""What of a step's folder is worth a line in MLflow and on Kubeflow's pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xcflow.artifact import read_manifest
from xcflow.errors import ArtifactError

HISTORY = "history.json"
METRICS = "metrics.json"

# Of each measured model these figures are kept; the rest stays in the evaluation's folder.
MAIN_MODEL = "fused"
MAIN_METRICS = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@10", "R@100")
OTHER_METRICS = ("P@1", "PSP@5")


def metric_name(name: str) -> str:
    """``name`` as MLflow accepts it: it refuses the field's own ``P@1``."""
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


def sampled(points: list[list[float]], most: int) -> Iterator[tuple[int, float]]:
    """At most ``most`` points of a curve, evenly spread, the last one among them."""
    stride = -(-len(points) // most)
    for i, (step, value) in enumerate(points):
        if (len(points) - 1 - i) % stride == 0:
            yield int(step), float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""How MLflow's page of an experiment shows our runs: which columns and charts, in which order.

MLflow keeps a shared view of the page as a tag of the experiment and shows it where its address
names the tag's key. Without one, its table has neither parameters nor metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from xcflow.registry import names
from xcflow.registry.summary import metric_name

KEY = "xcflow"

# Columns of the table in their order, and their widths in pixels; MLflow's own table shows neither
# parameters nor metrics.
COLUMNS = {
    ("attributes", "Run Name"): 380,
    ("metrics", "test/fused/P@1"): 145,
    ("metrics", "test/fused/P@5"): 145,
    ("metrics", "test/fused/PSP@5"): 160,
    ("metrics", "test/fused/R@100"): 160,
    ("tags", names.VERDICT): 90,
    ("tags", names.METHOD): 80,
    ("params", "encoder.kind"): 150,
    ("params", "clustering.clusters"): 150,
    ("params", "run.seed"): 100,
    ("metrics", "time/train_encoder"): 160,
    ("tags", names.SETTINGS): 300,
    ("attributes", "Dataset"): 300,
}
PARAMS = ("encoder.kind", "clustering.clusters", "module_one.epochs", "run.seed")
BARS = ("P@1", "P@5", "PSP@5", "R@100")
CURVES = (
    "encoder/train/loss",
    "encoder/validation/P@1",
    "classifier/train/loss",
    "classifier/validation/P@1",
)
# What MLflow wants to know of a line chart besides its metric.
AXES = {
    "xAxisKey": "step",
    "xAxisScaleType": "linear",
    "yAxisKey": "metric",
    "scaleType": "linear",
    "lineSmoothness": 0,
    "range": {},
    "yAxisExpressions": [],
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}
SECTIONS = ("Test split", "Training")


def view_path(experiment: str) -> str:
    """The page's address from the server's on."""
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={KEY}&workflowType=machine_learning"


def _view() -> dict[str, Any]:
    widths = {f"{kind}.`{metric_name(name)}`": width for (kind, name), width in COLUMNS.items()}
    return {
        "selectedColumns": list(widths),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "compareRunCharts": list(_charts()),
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False}
            for name in SECTIONS
        ],
        "isAccordionReordered": True,
        "runsHiddenMode": "FIRST_20_RUNS",
    }


def _charts() -> Iterator[dict[str, Any]]:
    test, training = SECTIONS
    for name in BARS:
        metric = metric_name(f"test/fused/{name}")
        yield _chart("BAR", name, test, metricKey=metric)
    yield _chart(
        "SCATTER",
        "P@1 against K",
        test,
        xaxis={"key": "clustering.clusters", "type": "PARAM"},
        yaxis={"key": metric_name("test/fused/P@1"), "type": "METRIC"},
    )
    yield _chart(
        "PARALLEL",
        "Settings and figures",
        test,
        selectedParams=list(PARAMS),
        selectedMetrics=[metric_name(f"test/fused/{name}") for name in ("P@1", "PSP@5")],
        showAllRuns=False,
    )
    for name in CURVES:
        metric = metric_name(name)
        curve = {"metricKey": metric, "selectedMetricKeys": [metric]}
        yield _chart("LINE", name, training, **curve, **AXES)


def _chart(kind: str, title: str, section: str, **values: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": title,
        "displayName": title,
        "metricSectionId": section,
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
        **values,
    }


VIEW_TAGS = {f"mlflow.sharedViewState.{KEY}": json.dumps(_view())}

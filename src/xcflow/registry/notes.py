"""What stands on top of a run's page in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xcflow.registry.summary import MAIN_METRICS, MAIN_MODEL

# What the measured models are called, in the order of tables.
MODELS = {
    MAIN_MODEL: "this model",
    "encoder": "encoder alone",
    "encoder_without_auxiliary": "encoder without auxiliary vectors",
    "classifier": "classifiers alone",
    "neighbours": "neighbours alone",
    "champion": "champion",
    "baseline_tfidf": "baseline: TF-IDF on label texts",
    "baseline_untrained": "baseline: untrained encoder",
}


def run_note(verdict: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The verdict with its reasons and the main figures of all models, as Markdown.

    Args:
        verdict: The content of the gate's ``verdict.json``.
        metrics: The content of the evaluation's ``metrics.json``.
    """
    reasons = "\n".join(f"- {reason}" for reason in verdict["reasons"])
    return f"## {verdict['verdict']}\n\n{reasons}\n\n{figures_table(metrics['models'])}\n"


def figures_table(models: Mapping[str, Mapping[str, float]]) -> str:
    """The main figures in percent, a row for each model."""
    columns = [name for name in MAIN_METRICS if name in models.get(MAIN_MODEL, {})]
    lines = [f"| test split, % | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name in [m for m in MODELS if m in models] + [m for m in models if m not in MODELS]:
        cells = [f"{100 * models[name][c]:.1f}" for c in columns]
        title = MODELS.get(name, name)
        title = f"**{title}**" if name == MAIN_MODEL else title
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)

"""Judge the candidate of an evaluation by the thresholds of the gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xcflow.artifact import writing
from xcflow.config import Config
from xcflow.evaluation.gate import decide
from xcflow.evaluation.report import gate_page
from xcflow.evaluation.result import REPORT, Evaluation
from xcflow.evaluation.verdict import KIND, VERDICT
from xcflow.phases import phase
from xcflow.progress import log
from xcflow.steps import STEPS


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the verdict on ``inputs["evaluation"]`` with its reasons, as JSON and as a page.

    Raises:
        ArtifactError: The evaluation lacks a metric that the gate asks for.
    """
    evaluation = Evaluation.open(inputs["evaluation"])
    with phase("bootstrap"):
        judgement = decide(evaluation, config.gate)
    with writing(
        output,
        KIND,
        config_digest=config.digest(*STEPS["gate_model"].sections),
        inputs={"evaluation": evaluation.digest},
        meta={"verdict": judgement.verdict, "documents": judgement.documents},
    ) as folder:
        (folder / VERDICT).write_text(judgement.to_json(), encoding="utf-8")
        (folder / REPORT).write_text(gate_page(judgement), encoding="utf-8")
    log(f"gate: {judgement.verdict}")
    for reason in judgement.reasons:
        log(f"  {reason}")

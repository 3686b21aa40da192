"""Make a candidate the champion, where the gate's verdict allows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from xcflow.artifact import read_manifest, writing
from xcflow.config import Config
from xcflow.errors import TrackingError
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.summary import read_json
from xcflow.registry.tracking import Tracker
from xcflow.steps.flow import VERDICT

PROMOTION = "promotion.json"


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Register ``inputs["bundle"]`` and move the alias; ``inputs["verdict"]`` must allow it.

    Raises:
        GateError: The verdict is not PROMOTE, or is about another champion.
    """
    home = Home.at()
    verdict = read_json(inputs["verdict"] / VERDICT)
    digests = {name: read_manifest(folder).digest for name, folder in inputs.items()}
    tracker = Tracker.at(config.tracking, home)
    try:
        run_id = tracker.pipeline_run()
    except TrackingError:  # the step alone, outside a pipeline
        run_id = ""
    registry = Registry(tracker, config.tracking.model_name, home)
    move = registry.promote(
        inputs["bundle"],
        run=run_id,
        verdict=str(verdict["verdict"]),
        compared_with=str(verdict["champion"]),
        reason="; ".join(verdict["reasons"]),
    )
    with writing(output, "promotion", inputs=digests) as folder:
        text = json.dumps(asdict(move) if move else {}, indent=2, ensure_ascii=False)
        (folder / PROMOTION).write_text(text + "\n", encoding="utf-8")

"""Make a candidate the champion, where the gate's verdict allows it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from xcflow.artifact import read_manifest, writing
from xcflow.config import Config
from xcflow.errors import AccessError
from xcflow.progress import log
from xcflow.registry.names import RUN_KEY_VARIABLE
from xcflow.registry.service import connected

PROMOTION = "promotion.json"


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Register ``inputs["bundle"]`` and move the alias; ``inputs["verdict"]`` must allow it.

    Where this user has no right to promote, the run ends well all the same, and someone who has it
    promotes its model later: ``promotion.json`` says so under ``refused``.

    Raises:
        GateError: The verdict is not PROMOTE, or is about another candidate or champion, or about
            another evaluation than ``inputs["evaluation"]``.
    """
    digests = {name: read_manifest(folder).digest for name, folder in inputs.items()}
    with connected() as service:
        try:
            move = service.decide(
                "promote",
                config.tracking.patience_seconds,
                model=config.tracking.model_name,
                bundle=str(inputs["bundle"]),
                verdict=str(inputs["verdict"]),
                evaluation=str(inputs["evaluation"]),
                key=os.environ.get(RUN_KEY_VARIABLE, ""),
            )
        except AccessError as error:
            move = {"refused": str(error)}
    with writing(output, "promotion", inputs=digests) as folder:
        text = json.dumps(move or {}, indent=2, ensure_ascii=False)
        (folder / PROMOTION).write_text(text + "\n", encoding="utf-8")
    log(_told(move))


def _told(move: Mapping[str, str] | None) -> str:
    if move is None:
        return "the model is the champion already"
    return f"champion: version {move['version']}" if "version" in move else move["refused"]

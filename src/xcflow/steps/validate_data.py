"""First step: read and check the catalogue, write the canonical data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xcflow.artifact import writing
from xcflow.catalogue.dataset import KIND
from xcflow.catalogue.ingest import Ingest
from xcflow.catalogue.readers import catalogue_digest, open_catalogue
from xcflow.config import Config
from xcflow.ragged import Ragged


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the data set of ``inputs["catalogue"]``, a local folder.

    Raises:
        DataError: The catalogue cannot be used.
    """
    reader = open_catalogue(inputs["catalogue"])
    digest = catalogue_digest(inputs["catalogue"])
    meta: dict[str, object] = {}
    with writing(
        output,
        KIND,
        config_digest=config.digest("data", "encoder"),
        inputs={"catalogue": digest},
        meta=meta,
    ) as folder:
        ingest = Ingest(reader, config, folder)
        ingest.read()
        labels = Ragged.load(folder / "train" / "labels")
        ingest.split((ingest.facts["train"].text_chars > 0) & (labels.lengths > 0))
        ingest.tokenize()
        meta.update(catalogue_digest=digest, tokenizer=config.encoder.model)

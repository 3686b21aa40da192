"""First step: read and check the catalogue, write the canonical data set and the report on it.

A catalogue that is refused leaves no data set, but the report, in a folder beside the output.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xcflow.artifact import writing
from xcflow.catalogue.dataset import KIND
from xcflow.catalogue.findings import Finding
from xcflow.catalogue.ingest import Ingest
from xcflow.catalogue.readers import catalogue_digest, open_catalogue
from xcflow.catalogue.report import HTML_NAME, Report, tell
from xcflow.catalogue.seal import require_seal_of
from xcflow.catalogue.summary import summarise
from xcflow.catalogue.validation import Validation
from xcflow.config import Config
from xcflow.disk import claimed
from xcflow.errors import DataError
from xcflow.phases import phase
from xcflow.steps import STEPS


class _RefusedError(Exception):
    """Carries the report on a refused catalogue out of the folder that will not be."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the data set of ``inputs["catalogue"]``, a local folder.

    Raises:
        DataError: The catalogue is refused; ``<output>.rejected`` holds the report, unless its
            seal is that of another one.
    """
    catalogue = inputs["catalogue"]
    with phase("digests"):
        digest = catalogue_digest(catalogue, config.data.format)
        require_seal_of(catalogue, digest)
    config_digest = config.digest(*STEPS["validate_data"].sections)
    rejected = output.with_name(f"{output.name}.rejected")
    meta: dict[str, Any] = {"catalogue_digest": digest}
    try:
        with writing(
            output, KIND, config_digest=config_digest, inputs={"catalogue": digest}, meta=meta
        ) as folder:
            report = _write_dataset(config, catalogue, digest, folder, meta)
    except _RefusedError as refusal:
        with (
            claimed(rejected),
            writing(
                rejected, "report", config_digest=config_digest, inputs={"catalogue": digest}
            ) as folder,
        ):
            refusal.report.write(folder)
        raise refusal.report.error(catalogue, rejected / HTML_NAME) from None
    shutil.rmtree(rejected, ignore_errors=True)
    tell(report.findings, output / HTML_NAME)


def _write_dataset(
    config: Config, catalogue: Path, digest: str, folder: Path, meta: dict[str, Any]
) -> Report:
    """Fill ``folder`` and ``meta``.

    Raises:
        _RefusedError: With the report.
    """
    with phase("imports"):  # great-expectations takes seconds
        ingest = Ingest(open_catalogue(catalogue, config.data.format), config, folder)
        files = len(ingest.reader.parts)
        validation = Validation(config.validation, folder, ingest.facts, files)
    try:
        with phase("read"):
            ingest.read()
    except DataError as error:
        findings = validation.of_unreadable_file(error)
        raise _RefusedError(_report(ingest, digest, findings)) from error
    with phase("checks"):
        report = _report(ingest, digest, validation.of_rows(ingest.usable()))
    if report.status == "failed":
        raise _RefusedError(report)
    with phase("split"):
        ingest.split()
    with phase("tokenize"):
        tokenizer = ingest.tokenize()
    with phase("summary"):
        findings = [*report.findings, *validation.of_tokens(ingest.tokens)]
        summary = summarise(folder, ingest.facts, ingest.tokens, config.data.max_document_tokens)
    report = replace(report, findings=findings, summary=summary)
    if report.status == "failed":
        raise _RefusedError(report)
    with phase("report"):
        report.write(folder)
    meta.update(
        summary.sizes,
        tokenizer=config.encoder.model,
        vocabulary=tokenizer.get_vocab_size(),
        status=report.status,
        findings=[
            {"status": finding.status, "sentence": finding.sentence}
            for finding in report.findings
            if finding.status != "passed"
        ],
    )
    return report


def _report(ingest: Ingest, digest: str, findings: Sequence[Finding]) -> Report:
    files = {facts.file: facts.rows_read for facts in ingest.facts.values()}
    return Report(files, digest, findings)

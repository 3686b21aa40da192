"""Beside the others: hold the catalogue against the last accepted one, write the data report anew.

It is a step of its own whose output no other step reads, so that another accepted catalogue means
another report, and not another training.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from xcflow.artifact import writing
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.drift import find_drift
from xcflow.catalogue.findings import Finding
from xcflow.catalogue.profile import Profile
from xcflow.catalogue.report import HTML_NAME, Report, tell
from xcflow.config import Config
from xcflow.progress import log
from xcflow.steps import STEPS
from xcflow.steps.provenance import provenance


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the report on ``inputs["dataset"]``.

    ``inputs["accepted"]`` is the bundle of a model that was trained on the accepted catalogue, or
    that catalogue's data set. Without it the report is that of the step ``validate_data``.

    Raises:
        DataError: More differs than may; ``<output>.rejected`` holds the report.
    """
    dataset = Dataset.open(inputs["dataset"])
    report = Report.load(dataset.path)
    differing: Sequence[Finding] = ()
    if "accepted" in inputs:
        accepted = Profile.open(inputs["accepted"])
        drift = find_drift(accepted, Profile.of(dataset), config.drift)
        report, differing = replace(report, drift=drift), drift.findings
        if drift.is_of_another:
            log(f"the last accepted catalogue ({drift.accepted[:12]}) is another one")
    else:
        log("no accepted catalogue is known: nothing to compare with")
    rejected = output.with_name(f"{output.name}.rejected")
    failed = report.status == "failed"
    place = rejected if failed else output
    kind = "report" if failed else STEPS["check_drift"].produces
    origin = provenance("check_drift", config, inputs)
    meta = {finding.check.name: finding.count for finding in differing}
    with writing(place, kind, **origin, meta={"status": report.status, **meta}) as folder:
        report.write(folder)
    if failed:
        raise report.error(None, rejected / HTML_NAME)
    shutil.rmtree(rejected, ignore_errors=True)
    tell(differing, output / HTML_NAME)

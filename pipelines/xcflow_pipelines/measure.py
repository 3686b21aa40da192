"""Validation and evaluation outside the pipeline, with their results kept by what they are of."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcflow.artifact import MANIFEST, json_digest, read_manifest
from xcflow.config import Config
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.steps import STEPS, run_step
from xcflow.storage import delivered, fetch, is_remote
from xcflow_pipelines.shell import BadUsageError

if TYPE_CHECKING:
    from xcflow.evaluation.result import Evaluation

BUNDLED = "debian-related"


def catalogue_folder(data: str, home: Home) -> Path:
    """The local folder of a catalogue.

    Args:
        data: A folder or an ``s3://`` URI; empty for the bundled catalogue.
        home: Keeps copies of remote catalogues.

    Raises:
        BadUsageError: There is no such folder.
    """
    if not data:
        return Path(str(resources.files("xcflow") / "data" / BUNDLED))
    if is_remote(data):
        return fetch(data, home.downloads)
    path = Path(data).absolute()
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "no such folder"
        raise BadUsageError(f"--data {data}: {what}")
    return path


def validate_catalogue(
    config: Config,
    data: str,
    home: Home,
    output: str = "",
    against: Path | None = None,
) -> tuple[dict[str, Any], str]:
    """Check a catalogue and write its data set.

    Args:
        config: The configuration.
        data: The catalogue's folder or URI; empty for the bundled one.
        home: Keeps the results.
        output: Folder or ``s3://`` URI that keeps the data set instead.
        against: The data set of another catalogue, or a bundle trained on it, to compare with.

    Returns:
        The report's content and where its page stands.

    Raises:
        DataError: The catalogue is refused.
    """
    catalogue = catalogue_folder(data, home)
    with delivered(output or _dataset_folder(config, catalogue, home), home) as dataset:
        if output or not (dataset / MANIFEST).is_file():
            run_step("validate_data", config, {"catalogue": catalogue}, dataset)
        told = dataset if against is None else _drift_folder(config, dataset, against, home)
        report: dict[str, Any] = json.loads((told / "report.json").read_text(encoding="utf-8"))
    place = output.rstrip("/") if is_remote(output) and told == dataset else str(told)
    return report, f"{place}/report.html"


def evaluate_bundle(config: Config, bundle: Path, data: str, home: Home) -> Evaluation:
    """Measure a bundle on the test split of a catalogue; a finished measurement is read again."""
    from xcflow.evaluation.result import Evaluation

    validate_catalogue(config, data, home)
    dataset = _dataset_folder(config, catalogue_folder(data, home), home)
    digests = [read_manifest(folder).digest for folder in (dataset, bundle)]
    key = [*digests, config.digest(*STEPS["evaluate_model"].sections), library_digest()]
    folder = home.evaluations / f"evaluation-{json_digest(key)[:16]}"
    if not (folder / MANIFEST).is_file():
        run_step("evaluate_model", config, {"dataset": dataset, "bundle": bundle}, folder)
    return Evaluation.open(folder)


def _drift_folder(config: Config, dataset: Path, against: Path, home: Home) -> Path:
    """The finished comparison of two catalogues, made where it is missing."""
    digests = [read_manifest(folder).digest for folder in (dataset, against)]
    key = [*digests, config.digest(*STEPS["check_drift"].sections), library_digest()]
    folder = home.evaluations / f"drift-{json_digest(key)[:16]}"
    if not (folder / MANIFEST).is_file():
        run_step("check_drift", config, {"dataset": dataset, "accepted": against}, folder)
    return folder


def _dataset_folder(config: Config, catalogue: Path, home: Home) -> Path:
    from xcflow.catalogue.readers import catalogue_digest

    sections = STEPS["validate_data"].sections
    digest = catalogue_digest(catalogue, config.data.format)
    key = [digest, config.digest(*sections), library_digest()]
    return home.evaluations / f"dataset-{json_digest(key)[:16]}"

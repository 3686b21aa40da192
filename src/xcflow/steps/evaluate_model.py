"""Measure a bundle beside the baselines and, where there is one, the champion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.evaluation.baselines import baselines
from xcflow.evaluation.evaluate import evaluate
from xcflow.evaluation.rankers import BundleRanker
from xcflow.evaluation.report import evaluation_page
from xcflow.evaluation.result import CANDIDATE, CHAMPION, KIND, REPORT, Evaluation
from xcflow.serving.predictor import Predictor
from xcflow.steps import STEPS


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Measure ``inputs["bundle"]`` on the test split of ``inputs["dataset"]``.

    ``inputs["champion"]`` may be an older bundle with other labels, which are matched by id.
    Nothing is chosen here: no figure of the test split flows back into a model.

    Raises:
        DataError: No test document has a label.
    """
    dataset = Dataset.open(inputs["dataset"])
    digests = {name: read_manifest(folder).digest for name, folder in inputs.items()}
    ids = dataset.labels.ids
    predictor = Predictor.load(inputs["bundle"])
    voices = {voice: voice for voice in predictor.voices}
    candidate, champion = BundleRanker(predictor, digests["bundle"], ids, voices), None
    if "champion" in inputs:
        old = Predictor.load(inputs["champion"])
        champion = BundleRanker(old, digests["champion"], ids, {CANDIDATE: CHAMPION})
    with writing(
        output,
        KIND,
        config_digest=config.digest(*STEPS["evaluate_model"].sections),
        inputs=digests,
    ) as folder:
        others = baselines(dataset, inputs["bundle"])
        evaluate(dataset, candidate, champion, others, config.evaluation, folder)
        page = evaluation_page(Evaluation.load(folder))
        (folder / REPORT).write_text(page, encoding="utf-8")

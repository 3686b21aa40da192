"""The bundle as an MLflow pyfunc. MLflow keeps this file with the model and runs it to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from xcflow.serving.predictor import Predictor


class BestLabels(PythonModel):
    """Answers ``text`` with ``labels`` (ids, best first), ``scores`` and ``probabilities``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle."""
        self.predictor = Predictor.load(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The ``params["k"]`` best labels of each text."""
        k = int((params or {}).get("k", 10))
        top = self.predictor.top_k(model_input["text"].tolist(), k)
        likely = self.predictor.probabilities(top.scores)
        rows = [row[row >= 0] for row in top.labels]
        return pd.DataFrame(
            {
                "labels": [self.predictor.label_ids.take(row) for row in rows],
                "scores": [s[: len(r)].tolist() for s, r in zip(top.scores, rows, strict=True)],
                "probabilities": [p[: len(r)].tolist() for p, r in zip(likely, rows, strict=True)],
            }
        )


mlflow.models.set_model(BestLabels())

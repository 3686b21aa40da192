"""The bundle as an MLflow pyfunc. MLflow keeps this file with the model and runs it to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from xcflow.serving.answers import best_labels
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
        answers = best_labels(self.predictor, model_input["text"].tolist(), k)
        return pd.DataFrame(
            {
                "labels": [[label["id"] for label in labels] for labels in answers],
                "scores": [[label["score"] for label in labels] for labels in answers],
                "probabilities": [[label["probability"] for label in labels] for labels in answers],
            }
        )


mlflow.models.set_model(BestLabels())

"""What the models of an evaluation are called on pages, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable

from xcflow.evaluation.result import CANDIDATE, CHAMPION, ENCODER, WITHOUT_AUXILIARY

# Name of a model -> what a reader calls it, and its style on the page.
MODELS = {
    CANDIDATE: ("This model, fused", "s1"),
    CHAMPION: ("Champion", "s2"),
    ENCODER: ("Encoder alone", "s3"),
    WITHOUT_AUXILIARY: ("Encoder without auxiliary vectors", "s8"),
    "classifier": ("Classifiers alone", "s4"),
    "neighbours": ("Neighbours alone", "s5"),
    "baseline_tfidf": ("Label text by words (TF-IDF)", "s6"),
    "baseline_untrained": ("Untrained encoder", "s7"),
}


def reader_name(model: str) -> str:
    """What a reader calls a model."""
    return MODELS.get(model, (model, ""))[0]


def style_of(model: str) -> str:
    """The class of a model's marks in charts."""
    return MODELS.get(model, ("", "s7"))[1]


def in_order(models: Iterable[str]) -> list[str]:
    """Models as a page lists them, unknown ones last."""
    given = list(models)
    return [m for m in MODELS if m in given] + [m for m in given if m not in MODELS]

"""The predictor: a bundle that answers texts with labels.

One object stands behind the command line, batch jobs, servers and the registered model, so that
all give the same answers. It needs neither the pipeline nor the tracking library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.artifact import Manifest, read_manifest
from xcflow.catalogue.string_table import StringTable
from xcflow.errors import ArtifactError
from xcflow.phases import phase
from xcflow.retrieval.calibration import Calibrator
from xcflow.retrieval.exact import search
from xcflow.retrieval.fusion import Fusion
from xcflow.retrieval.ranking import top_of_rows
from xcflow.retrieval.voices import Heard, Questions, Voices
from xcflow.serving.bundle import (
    CLUSTERS,
    DOCUMENT_TEXTS,
    EXAMPLES,
    KIND,
    LABEL_COUNTS,
    SETTINGS,
    label_map_sha256,
)
from xcflow.serving.embedding import Embedder
from xcflow.serving.explanation import Explainer, Explanation
from xcflow.serving.filtering import Filter, only_of, passing_of
from xcflow.topk import NO_LABEL, TopK

VOICES = ("fused", "encoder", "classifier", "neighbours")
WITHOUT_AUXILIARY = "encoder_without_auxiliary"
_BLOCK = 512  # texts encoded and scored at a time: bounds memory


class Predictor:
    """Answers texts with the best labels.

    Attributes:
        manifest: Description of the bundle.
        label_ids: Stable id of each label row.
        label_texts: Text of each label row.
        voices: Names that ``voice`` arguments may take.
        embedder: The bundle's own tokenizer and encoder.
        examples: Texts to try it with, which it did not learn from.
    """

    def __init__(self, folder: Path, manifest: Manifest, settings: dict[str, Any]) -> None:
        self.manifest = manifest
        self.voices: tuple[str, ...] = VOICES
        self.label_ids = StringTable.load(folder / "labels" / "ids")
        self.label_texts = StringTable.load(folder / "labels" / "texts")
        self._settings = settings
        self.embedder = Embedder.load(folder, settings)
        self._voices = Voices.load(folder, settings["voices"])
        self._fusion = Fusion.from_dict(settings["fusion"])
        self._calibrator = Calibrator.from_dict(settings["calibration"])
        self._counts = np.load(folder / LABEL_COUNTS, allow_pickle=False)
        self._plain_labels = np.empty((0, self.embedder.dim), np.float16)
        self._explainer = Explainer(
            self._voices,
            self._fusion,
            self._counts,
            np.load(folder / CLUSTERS, allow_pickle=False),
            StringTable.load(folder / DOCUMENT_TEXTS),
            settings["shortlist"],
        )
        self.examples: list[str] = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))

    @classmethod
    def load(cls, bundle: Path, *, verify: bool = True) -> Predictor:
        """Open a bundle.

        Args:
            bundle: The folder.
            verify: Whether the sha256 of each file is checked first.

        Raises:
            ArtifactError: It is no bundle, was altered, or its label map is not the one it was
                made with.
        """
        bundle = Path(bundle)
        manifest = read_manifest(bundle, KIND, verify=verify)
        settings = json.loads((bundle / SETTINGS).read_text(encoding="utf-8"))
        try:
            predictor = cls(bundle, manifest, settings)
        except (FileNotFoundError, KeyError) as error:
            lacking = Path(error.filename).name if isinstance(error, OSError) else error.args[0]
            raise ArtifactError(
                f"{bundle}: lacks {lacking}, another version of xcflow built it: build the model "
                "again"
            ) from error
        if label_map_sha256(predictor.label_ids) != manifest.meta["label_map_sha256"]:
            raise ArtifactError(f"{bundle}: its labels are not those that it was trained with")
        return predictor

    def top_k(self, texts: Sequence[str], k: int, voice: str = "fused") -> TopK:
        """The ``k`` best labels of each text.

        Args:
            texts: N texts.
            k: Labels wanted; padded with ``NO_LABEL`` where there are fewer.
            voice: One of ``voices``.

        Raises:
            DataError: A text that is none.
            ValueError: No such voice, or ``k`` is not positive.
        """
        if voice not in self.voices:
            raise ValueError(f"no voice named {voice!r}: known are {', '.join(self.voices)}")
        return self._answer(texts, k, (voice,))[voice]

    def top_k_among(self, texts: Sequence[str], k: int, filters: Sequence[Filter]) -> TopK:
        """The ``k`` best labels of each text that its filter lets pass.

        Args:
            texts: N texts.
            k: Labels wanted.
            filters: N filters. Labels that one names alone are judged even where no voice would
                have proposed them.

        Raises:
            DataError: A text that is none.
        """
        return self._answer(texts, k, ("fused",), filters)["fused"]

    def explain(self, text: str, labels: NDArray[np.integer[Any]]) -> list[Explanation]:
        """Why each of some label rows answers a text, in their order.

        Raises:
            DataError: A text that is none.
        """
        questions = self._voices.ask(self.embed([text]), [text])
        return self._explainer.explain(questions, np.asarray(labels, np.int64))

    def top_k_voices(self, texts: Sequence[str], k: int) -> Mapping[str, TopK]:
        """The ``k`` best labels of each text by each voice, from one pass of the encoder."""
        return self._answer(texts, k, self.voices)

    def hear_without_auxiliary(self) -> None:
        """Give the encoder's vectors of the bare label texts a voice, where they are others.

        It is the encoder's own voice without its auxiliary vectors, searched exactly; a model that
        has none gets no further voice.
        """
        if not self._settings.get("auxiliary_vectors", 0):
            return
        self._plain_labels = self.embedder.plain_labels(self.label_texts)
        self.voices = (*VOICES, WITHOUT_AUXILIARY)

    def restricted_to(self, only: NDArray[np.bool_]) -> Predictor:
        """The same model, were the labels marked in [L] the only ones that it can name."""
        restricted = copy(self)
        restricted.voices = VOICES
        restricted._voices = self._voices.restricted_to(only)
        return restricted

    @property
    def shortlist(self) -> int:
        """Labels that each voice proposes at least."""
        return int(self._settings["shortlist"])

    def nearest_labels(self, labels: NDArray[np.integer[Any]], k: int) -> NDArray[np.int32]:
        """[N, k] the other labels whose vectors lie nearest to those of N label rows."""
        vectors = np.asarray(self._voices.labels.vectors[labels], np.float32)
        top = self._voices.by_encoder(vectors, k + 1)
        return top.keep(_allowed(top, np.asarray(labels, np.int64)), k).labels

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability that a label with such a fused score is right; any shape."""
        return self._calibrator(scores)

    def _answer(
        self,
        texts: Sequence[str],
        k: int,
        voices: Sequence[str],
        filters: Sequence[Filter] | None = None,
    ) -> dict[str, TopK]:
        if k < 1:
            raise ValueError(f"k must be at least 1, it is {k}")
        parts: dict[str, list[TopK]] = {voice: [] for voice in voices}
        for start in range(0, max(len(texts), 1), _BLOCK):
            block = texts[start : start + _BLOCK]
            questions = self._voices.ask(self.embed(block), block)
            same_item = self._same_item(block)
            filtered = filters and filters[start : start + _BLOCK]
            for voice, top in self._ranked(questions, k + 1, voices, filtered).items():
                parts[voice].append(top.keep(_allowed(top, same_item), k))
        return {
            voice: TopK(*(np.concatenate(arrays) for arrays in zip(*tops, strict=True)))
            for voice, tops in parts.items()
        }

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [N, D] of texts."""
        with phase("encode"):
            return self.embedder.documents(texts)

    def _same_item(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """[N] the label to leave out of each answer, -1 for none."""
        if not self._settings["excludes_itself"]:
            return np.full(len(texts), -1, np.int64)
        return self.label_texts.find(texts)

    def _ranked(
        self,
        questions: Questions,
        k: int,
        voices: Sequence[str],
        filters: Sequence[Filter] | None,
    ) -> dict[str, TopK]:
        """The ``k`` best labels by each of the asked voices, each heard once."""
        with phase("search"):
            heard = self._voices.listen(questions, max(k, self.shortlist))
        rank: dict[str, Callable[[], TopK]] = {
            "encoder": lambda: heard.encoder,
            "classifier": lambda: heard.classifier,
            "neighbours": lambda: top_of_rows(heard.voted, heard.votes, k),
            "fused": lambda: self._fused(questions, heard, k, filters),
            WITHOUT_AUXILIARY: lambda: search(questions.vectors, self._plain_labels, k),
        }
        return {voice: rank[voice]() for voice in voices}

    def _fused(
        self, questions: Questions, heard: Heard, k: int, filters: Sequence[Filter] | None
    ) -> TopK:
        with phase("fusion"):
            also = only_of(filters) if filters else None
            proposals = self._voices.propose(questions, heard, also)
            labels = proposals.labels
            # By document, because a product rounds by the number of its rows: so company changes
            # no score, to the last bit.
            own = np.split(proposals.features(self._counts), labels.offsets[1:-1])
            fused = np.concatenate([self._fusion.score(features) for features in own])
            scores = self._calibrator.comparable(fused, labels)
            if filters:
                passing = passing_of(filters, labels)
                labels, scores = labels.keep(passing), scores[passing]
            return top_of_rows(labels, scores, k)


def _allowed(top: TopK, same_item: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray((top.labels != NO_LABEL) & (top.labels != same_item[:, None]))

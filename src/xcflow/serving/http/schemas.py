"""Bodies of the plain API, as its OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _valid_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no valid Unicode: half a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_valid_text)]
# Of a hundred thousand that are none, the first one is named.
Texts = Annotated[list[Text], Field(fail_fast=True)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, value: Any) -> Any:
        # Here, for the first one alone is named: a body may hold a hundred thousand.
        names = value if isinstance(value, dict) else ()
        if unknown := next((name for name in names if name not in cls.model_fields), None):
            known = ", ".join(cls.model_fields)
            raise ValueError(f"no field {unknown[:50]!r}: there are {known}")
        return value


class Filters(_Body):
    """Which labels may answer."""

    only: Annotated[
        Texts | None, Field(description="Ids of the labels that may; all if left out.")
    ] = None
    without: Annotated[Texts, Field(description="Ids of labels that may not.")] = []


class PredictRequest(_Body):
    """Texts to answer with labels."""

    texts: Annotated[Texts, Field(min_length=1, examples=[["web server with many modules"]])]
    k: Annotated[int, Field(ge=1, description="At most so many labels for a text.")] = 10
    min_probability: Annotated[Share, Field(description="Leave out labels less likely right.")] = (
        0.0
    )
    filters: Annotated[Filters, Field(default_factory=Filters)]  # a default would be copied deeply
    explain: Annotated[bool, Field(description="Whether each label comes with a reason.")] = False
    model: Annotated[
        Literal["champion", "previous"], Field(description="Which model; the champion by default.")
    ] = "champion"


class Voice(BaseModel):
    """What a voice of the model says of a label."""

    score: Annotated[float, Field(description="A cosine, or a share of votes.")]
    contribution: Annotated[float, Field(description="What it adds to the score (Shapley value).")]


class LabelName(BaseModel):
    """A label."""

    id: str
    text: str


class Evidence(BaseModel):
    """A training document that carries the label."""

    text: str
    similarity: float


class Why(BaseModel):
    """Why a label answers a text."""

    voices: dict[str, Voice]
    documents: Annotated[int, Field(description="Training documents of the label.")]
    siblings: Annotated[list[LabelName], Field(description="The labels most like it.")]
    siblings_share_vector: Annotated[
        bool, Field(description="Whether they share its auxiliary vector.")
    ]
    evidence: list[Evidence]


class Label(BaseModel):
    """A label that answers a text."""

    id: str
    text: str
    score: float
    probability: Annotated[float, Field(description="How likely it is right, calibrated.")]
    why: Why | None = None


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str
    digest: str


class PredictResponse(BaseModel):
    """The labels of each text, in the order of the texts."""

    labels: list[list[Label]]
    model: ModelName


class ModelFacts(ModelName):
    """What is known of the model that answers."""

    labels: int
    encoder: str
    catalogue_digest: str
    since: Annotated[float, Field(description="Seconds since 1970 when it was loaded.")]
    has_previous: Annotated[bool, Field(description="Whether a model before can be asked.")]
    examples: Annotated[list[str], Field(description="Texts to try it with.")]


class Problem(BaseModel):
    """What is wrong."""

    error: str

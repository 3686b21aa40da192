"""The routes of a server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import xcflow
from xcflow.errors import ArtifactError
from xcflow.serving.http import inference_protocol as protocol
from xcflow.serving.http.answering import Answer, Question, answer, is_light
from xcflow.serving.http.batching import Batcher, FullError
from xcflow.serving.http.bodies import BodyRoute
from xcflow.serving.http.guards import App, Guards
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.models import Follower, Models, Served
from xcflow.serving.http.schemas import ModelFacts, PredictRequest, PredictResponse, Problem
from xcflow.serving.http.settings import ServerSettings

_RETRY_SECONDS = 1
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "The body is no JSON, or a tensor is not as it should be."),
        (408, "The body took too long to come."),
        (413, "The body is too large."),
        (422, "A value has another type or is out of range; the error names it."),
        (429, "No room: ask again after Retry-After seconds."),
        (503, "No model yet, or it took too long: ask again after Retry-After seconds."),
    )
}
_ABSENT: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such model."}
}
_EVERYWHERE: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid token."},
    421: {"model": Problem, "description": "Asked for by another name than localhost."},
}
# What a reason is cut to: it may hold a part of the request.
_MOST_REASON = 500


class _RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: The status of the response.
        reason: What is wrong, and what to do.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def create_app(models: Models, settings: ServerSettings, metrics: Metrics, *, local: bool) -> App:
    """A server's application.

    Args:
        models: What answers; the first model is loaded when the application starts.
        settings: Limits and habits.
        metrics: What Prometheus is told.
        local: Whether only this machine reaches the server.
    """
    batcher: Batcher[Question, Answer] = Batcher(
        answer,
        settings.batch_texts,
        settings.queue_texts,
        metrics,
        is_light,
        settings.passes,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # In a thread, so that the server tells that it lives while the first model is loaded.
        follower = Follower(models, settings.poll_seconds)
        batcher.start()
        follower.start()
        yield
        await asyncio.to_thread(follower.stop)
        await batcher.stop()

    bearer = Security(HTTPBearer(auto_error=False))  # for the document; the guards look at it
    app = FastAPI(
        title="xcflow",
        version=xcflow.__version__,
        description="Texts in, their most relevant labels out.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere; the page shows the document
        redoc_url=None,
        redirect_slashes=False,
        responses=_EVERYWHERE,
        dependencies=[bearer] if settings.token else [],
    )
    _handle_errors(app, settings)
    _add_plain_routes(app, batcher, models, settings, metrics)
    _add_protocol_routes(app, batcher, models, settings)
    return Guards(app, settings, metrics, local=local)


async def _ask(
    request: Request,
    batcher: Batcher[Question, Answer],
    questions: Sequence[Question],
    settings: ServerSettings,
) -> list[Answer]:
    """The answers to one question or more, after they were looked at."""
    noted: dict[str, Any] = {"texts": len(questions), "k": questions[0].k}
    if settings.log_texts:
        noted["asked"] = [question.text for question in questions]
    request.state.noted = noted
    _check(questions, settings)
    try:
        answers = await batcher.ask(questions, settings.timeout_seconds)
    except TimeoutError:
        seconds = settings.timeout_seconds
        raise _RefusedError(503, f"not answered within {seconds:g} s: ask again") from None
    noted["version"] = answers[0].model.version
    return answers


def _check(questions: Sequence[Question], settings: ServerSettings) -> None:
    """Refuse what asks for too much."""
    if len(questions) > settings.most_texts:
        raise _RefusedError(422, f"a request may hold {settings.most_texts:,} texts")
    for number, question in enumerate(questions):
        if len(question.text) > settings.most_characters:
            raise _RefusedError(
                422, f"texts.{number}: a text may hold {settings.most_characters:,} characters"
            )
    first = questions[0]  # all else is the same for all of them
    if first.k > settings.most_labels:
        raise _RefusedError(422, f"k may be {settings.most_labels:,} at most")
    if max(len(first.only or ()), len(first.without)) > settings.most_labels:
        raise _RefusedError(422, f"a filter may name {settings.most_labels:,} labels")
    most = settings.most_explained if first.explain else settings.most_answers
    if len(questions) * first.k > most:
        kind = "explained labels" if first.explain else "labels"
        raise _RefusedError(422, f"a request may ask for {most:,} {kind} in all: texts times k")


def _current(models: Models) -> Served:
    if models.current is None:
        raise _RefusedError(503, models.trouble or "no model is ready yet")
    return models.current


async def _previous(models: Models, settings: ServerSettings) -> Served:
    """The model before; who is first to ask waits until it is loaded."""
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            served = await asyncio.to_thread(models.previous)
    except TimeoutError:
        raise _RefusedError(503, "the model before is being loaded: ask again") from None
    except ArtifactError as error:
        raise _RefusedError(503, str(error)) from None
    if served is None:
        raise _RefusedError(404, "no model before the champion")
    return served


def _add_plain_routes(
    app: FastAPI,
    batcher: Batcher[Question, Answer],
    models: Models,
    settings: ServerSettings,
    metrics: Metrics,
) -> None:
    page, policy = _page()

    async def predict(body: PredictRequest, request: Request) -> Response:
        """The labels of each text, best first."""
        only = body.filters.only
        if body.model == "previous":
            model = await _previous(models, settings)
        else:
            model = _current(models)
        questions = [
            Question(
                text,
                model,
                body.k,
                body.min_probability,
                None if only is None else tuple(only),
                tuple(body.filters.without),
                body.explain,
            )
            for text in body.texts
        ]
        answers = await _ask(request, batcher, questions, settings)
        return _json(
            {
                "labels": [answer.labels for answer in answers],
                "model": {
                    "name": model.name,
                    "version": model.version,
                    "digest": model.digest,
                },
            }
        )

    _answer_at(app, "/predict", predict, PredictResponse)

    @app.get("/model", response_model=ModelFacts, responses={503: _PROBLEMS[503]})
    async def model() -> Response:
        """What is known of the model that answers."""
        served = _current(models)
        meta = served.predictor.manifest.meta
        return _json(
            {
                "name": served.name,
                "version": served.version,
                "digest": served.digest,
                "labels": len(served.predictor.label_ids),
                "encoder": meta["encoder"],
                "catalogue_digest": meta["catalogue_digest"],
                "since": served.since,
                "has_previous": models.has_previous,
                "examples": served.predictor.examples,
            }
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Numbers for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(page, headers={"content-security-policy": policy}, media_type="text/html")


def _add_protocol_routes(
    app: FastAPI,
    batcher: Batcher[Question, Answer],
    models: Models,
    settings: ServerSettings,
) -> None:
    name = settings.model_name
    unready: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "Not yet."}}
    absent = {**_ABSENT, 422: _PROBLEMS[422]}  # that one is never the answer: all names are texts

    def known(asked: str, version: str = "") -> None:
        served = models.current
        if asked != name:
            raise _RefusedError(404, f"no such model: {name} answers")
        if version and (served is None or version != served.version):
            now = f"version {served.version} answers" if served else "none is ready yet"
            raise _RefusedError(404, f"no such version: {now}")

    def ready(**which: str) -> Response:
        up = models.current is not None
        trouble = {} if up else {"error": models.trouble or "loading"}
        return JSONResponse({**which, "ready": up, **trouble}, 200 if up else 503)

    @app.get("/v2/", include_in_schema=False)
    @app.get("/v2")
    async def server() -> dict[str, Any]:
        """What this server is."""
        return {"name": "xcflow", "version": xcflow.__version__, "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Whether the server lives."""
        return {"live": True}

    @app.get("/v2/health/ready", responses=unready)
    async def server_ready() -> Response:
        """Whether a model is loaded, verified and warm."""
        return ready()

    @app.get("/v2/models/{model}/ready", responses={**absent, **unready})
    async def model_ready(model: str) -> Response:
        """Whether a model is."""
        known(model)
        return ready(name=name)

    @app.get("/v2/models/{model}/versions/{version}/ready", responses={**absent, **unready})
    async def version_ready(model: str, version: str) -> Response:
        """Whether a version of a model is."""
        known(model, version)
        return ready(name=name)

    def metadata() -> dict[str, Any]:
        served = models.current
        return protocol.metadata(name, [served.version] if served else [])

    @app.get("/v2/models/{model}", responses=absent)
    async def model_metadata(model: str) -> dict[str, Any]:
        """Inputs and outputs of a model."""
        known(model)
        return metadata()

    @app.get("/v2/models/{model}/versions/{version}", responses=absent)
    async def version_metadata(model: str, version: str) -> dict[str, Any]:
        """Inputs and outputs of a version of a model."""
        known(model, version)
        return metadata()

    async def inferred(body: protocol.InferRequest, request: Request) -> Response:
        try:
            k, least = protocol.wishes_of(body)
            texts, outputs = protocol.texts_of(body), protocol.outputs_of(body)
        except protocol.MalformedError as error:
            raise _RefusedError(400, str(error)) from None
        served = _current(models)
        questions = [Question(text, served, k, least) for text in texts]
        answers = await _ask(request, batcher, questions, settings)
        return _json(protocol.response_to(body, outputs, answers, k))

    async def infer(model: str, body: protocol.InferRequest, request: Request) -> Response:
        """The labels of the texts in the tensor ``text``."""
        known(model)
        return await inferred(body, request)

    async def infer_by_version(
        model: str, version: str, body: protocol.InferRequest, request: Request
    ) -> Response:
        """The same, where that version answers."""
        known(model, version)
        return await inferred(body, request)

    answers = protocol.InferResponse
    _answer_at(app, "/v2/models/{model}/infer", infer, answers)
    _answer_at(app, "/v2/models/{model}/versions/{version}/infer", infer_by_version, answers)


def _answer_at(
    app: FastAPI, path: str, endpoint: Callable[..., Any], answers: type[BaseModel]
) -> None:
    """Add a route that answers texts."""
    app.router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        response_model=answers,
        responses={**_ABSENT, **_PROBLEMS},
        route_class_override=BodyRoute,
    )


def _handle_errors(app: FastAPI, settings: ServerSettings) -> None:
    def problem(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
        # Escapes what is no valid Unicode, as it may have come with the request.
        body = json.dumps({"error": reason[:_MOST_REASON]})
        return Response(body, status, headers, media_type="application/json")

    @app.exception_handler(_RefusedError)
    async def refused(_: Request, error: _RefusedError) -> Response:
        retry = {"retry-after": str(_RETRY_SECONDS)} if error.status == 503 else None
        return problem(error.status, error.reason, retry)

    @app.exception_handler(FullError)
    async def full(_: Request, __: FullError) -> Response:
        reason = f"{settings.queue_texts:,} texts wait already: ask again later"
        return problem(429, reason, {"retry-after": str(_RETRY_SECONDS)})

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return problem(500, "a defect of the server: its log says more")


def _json(body: Any) -> Response:
    """A response that is not looked through again: its values are made here."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(), media_type="application/json")


def _page() -> tuple[bytes, str]:
    """The page, and the policy by which a browser runs nothing but its own script and style."""
    page = (resources.files("xcflow.serving.http") / "page.html").read_bytes()

    def hashes(tag: str) -> str:
        parts = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy

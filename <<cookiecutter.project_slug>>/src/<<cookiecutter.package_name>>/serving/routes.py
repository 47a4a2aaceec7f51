"""The addresses that the server answers."""

from __future__ import annotations

import math
from email.message import Message
from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool

from ..settings import Settings
from .messages import (
    BatchRequest,
    BatchResponse,
    HealthResponse,
    LiveResponse,
    Prediction,
    PredictRequest,
    PredictResponse,
    ReadyResponse,
    SingleRequest,
    UserRequest,
)
from .metrics import ServerMetrics
from .middleware import PREDICT_PATH
from .online import UserFeatures
from .problems import documented
from .rows import InvalidRowsError, Rows, ValueProblem, pointer
from .store import Answer, ModelStore, ServedModel

VARIANT = "control"
MOST_ROWS_IN_EVENT_LOOP = 16

router = APIRouter()


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _store(request: Request) -> ModelStore:
    store: ModelStore = request.app.state.store
    return store


async def _metrics(request: Request) -> ServerMetrics:
    metrics: ServerMetrics = request.app.state.metrics
    return metrics


async def _users(request: Request) -> UserFeatures:
    users: UserFeatures = request.app.state.users
    return users


async def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


SettingsDependency = Annotated[Settings, Depends(_settings)]
StoreDependency = Annotated[ModelStore, Depends(_store)]
MetricsDependency = Annotated[ServerMetrics, Depends(_metrics)]
UsersDependency = Annotated[UserFeatures, Depends(_users)]
RequestId = Annotated[str, Depends(_request_id)]


async def _current_model(store: StoreDependency, settings: SettingsDependency) -> ServedModel:
    if store.current is None:
        raise HTTPException(
            503,
            "no model is loaded: promote a version and run `registry sync`",
            headers={"Retry-After": str(math.ceil(settings.model_poll_seconds))},
        )
    return store.current


async def _json_body(request: Request) -> None:
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    if header.get_content_type() != "application/json":
        raise HTTPException(415, "send the body as Content-Type: application/json")


CurrentModel = Annotated[ServedModel, Depends(_current_model)]


@router.post(
    PREDICT_PATH,
    dependencies=[Depends(_json_body)],
    responses=documented(400, 404, 413, 415, 422, 500, 503),
)
async def predict(
    body: PredictRequest,
    model: CurrentModel,
    settings: SettingsDependency,
    metrics: MetricsDependency,
    users: UsersDependency,
    request_id: RequestId,
) -> PredictResponse | BatchResponse:
    """Score one instance, or several at once."""
    started = perf_counter()
    if isinstance(body, UserRequest):
        row = await users.row(body.user_id, model.metadata)
        body = SingleRequest(features=row, user_id=body.user_id)
    rows = _rows(body, settings.max_batch_rows)
    if len(rows) > MOST_ROWS_IN_EVENT_LOOP:
        blocks, answers = await run_in_threadpool(model.answer, rows)
    else:
        blocks, answers = model.answer(rows)
    metrics.count(model.version, blocks, answers, perf_counter() - started)
    if isinstance(body, BatchRequest):
        return BatchResponse(
            predictions=[_prediction(answer) for answer in answers],
            model_version=model.version,
            variant=VARIANT,
            request_id=request_id,
        )
    prediction, confidence = answers[0]
    return PredictResponse(
        prediction=prediction,
        confidence=confidence,
        model_version=model.version,
        variant=VARIANT,
        request_id=request_id,
    )


@router.get("/live")
async def live() -> LiveResponse:
    """Answer as long as the process is up."""
    return LiveResponse()


@router.get("/ready", responses=documented(503))
async def ready(model: CurrentModel) -> ReadyResponse:
    """Answer 200 when a model is loaded, else 503."""
    return ReadyResponse(model_version=model.version)


@router.get("/health", responses={503: {"model": HealthResponse}})
async def health(store: StoreDependency, response: Response) -> HealthResponse:
    """Say whether a model is loaded; 503 without one."""
    model = store.current
    if model is None:
        response.status_code = 503
        return HealthResponse(status="unavailable", model_loaded=False, model_version=None)
    return HealthResponse(status="healthy", model_loaded=True, model_version=model.version)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, server_metrics: MetricsDependency) -> Response:
    """Give Prometheus its metrics, in the format that it accepts."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(server_metrics.registry), headers={"Content-Type": content_type})


def _rows(body: SingleRequest | BatchRequest, most_rows: int) -> Rows:
    if isinstance(body, SingleRequest):
        return [(pointer("features"), body.features)]
    if len(body.instances) > most_rows:
        detail = f"{len(body.instances)} instances are too many: send {most_rows} at most"
        raise InvalidRowsError([ValueProblem(pointer=pointer("instances"), detail=detail)])
    return [(pointer("instances", index), row) for index, row in enumerate(body.instances)]


def _prediction(answer: Answer) -> Prediction:
    return Prediction(prediction=answer[0], confidence=answer[1])

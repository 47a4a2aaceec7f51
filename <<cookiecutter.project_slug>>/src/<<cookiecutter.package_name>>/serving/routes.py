"""The addresses that the server answers."""

from __future__ import annotations

import math
from email.message import Message
from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
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
from .middleware import PREDICT_PATH
from .online import UserFeatures
from .problems import documented
from .recorder import Recorder
from .rows import InvalidRowsError, Rows, ValueProblem, pointer
from .store import Answer, Lineup, ModelStore

VARIANT_HEADER = "X-Variant"
MOST_ROWS_IN_EVENT_LOOP = 16

router = APIRouter()


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _store(request: Request) -> ModelStore:
    store: ModelStore = request.app.state.store
    return store


async def _recorder(request: Request) -> Recorder:
    recorder: Recorder = request.app.state.recorder
    return recorder


async def _users(request: Request) -> UserFeatures:
    users: UserFeatures = request.app.state.users
    return users


async def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


SettingsDependency = Annotated[Settings, Depends(_settings)]
StoreDependency = Annotated[ModelStore, Depends(_store)]
RecorderDependency = Annotated[Recorder, Depends(_recorder)]
UsersDependency = Annotated[UserFeatures, Depends(_users)]
RequestId = Annotated[str, Depends(_request_id)]


async def _lineup(store: StoreDependency, settings: SettingsDependency) -> Lineup:
    if store.current is None:
        raise HTTPException(
            503,
            "no model is loaded: promote a version and run `registry sync`",
            headers={"Retry-After": str(math.ceil(settings.model_poll_seconds))},
        )
    return store.current


async def _forced_variant(
    settings: SettingsDependency,
    variant: Annotated[
        str | None,
        Header(alias=VARIANT_HEADER, description="For tests: the variant to answer; needs a key."),
    ] = None,
) -> str | None:
    if variant is not None and not settings.api_keys.get_secret_value():
        raise HTTPException(403, f"{VARIANT_HEADER} needs an API key, and ML_API_KEYS sets none")
    return variant


async def json_body(request: Request) -> None:
    """Refuse a body of another type."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    if header.get_content_type() != "application/json":
        raise HTTPException(415, "send the body as Content-Type: application/json")


LineupDependency = Annotated[Lineup, Depends(_lineup)]
ForcedVariant = Annotated[str | None, Depends(_forced_variant)]


@router.post(
    PREDICT_PATH,
    dependencies=[Depends(json_body)],
    responses=documented(400, 401, 403, 404, 413, 415, 422, 500, 503),
)
async def predict(
    body: PredictRequest,
    lineup: LineupDependency,
    settings: SettingsDependency,
    recorder: RecorderDependency,
    users: UsersDependency,
    forced: ForcedVariant,
    request_id: RequestId,
) -> PredictResponse | BatchResponse:
    """Score one instance, or several at once."""
    began = perf_counter()
    user_id = None if isinstance(body, BatchRequest) else body.user_id
    route = lineup.router.route(user_id, forced)
    model = lineup.models[route.index]
    if isinstance(body, UserRequest):
        row = await users.row(body.user_id, model.metadata)
        body = SingleRequest(features=row, user_id=body.user_id)
    rows = _rows(body, settings.max_batch_rows)
    if len(rows) > MOST_ROWS_IN_EVENT_LOOP:
        blocks, scores = await run_in_threadpool(model.score, rows)
    else:
        blocks, scores = model.score(rows)
    answers = model.scorer.answers(scores)
    batch = isinstance(body, BatchRequest)
    recorder.record_batch(lineup, route, request_id, began, blocks, scores, user_id, batch)
    if isinstance(body, BatchRequest):
        return BatchResponse(
            predictions=[_prediction(answer) for answer in answers],
            model_version=model.version,
            variant=route.variant,
            request_id=request_id,
        )
    prediction, confidence = answers[0]
    return PredictResponse(
        prediction=prediction,
        confidence=confidence,
        model_version=model.version,
        variant=route.variant,
        request_id=request_id,
    )


@router.get("/live")
async def live() -> LiveResponse:
    """Answer as long as the process is up."""
    return LiveResponse()


@router.get("/ready", responses=documented(503))
async def ready(lineup: LineupDependency) -> ReadyResponse:
    """Answer 200 when a model is loaded, else 503."""
    return ReadyResponse(model_version=lineup.control.version)


@router.get("/health", responses={**documented(401), 503: {"model": HealthResponse}})
async def health(store: StoreDependency, response: Response) -> HealthResponse:
    """Say whether a model is loaded; 503 without one."""
    if store.current is None:
        response.status_code = 503
        return HealthResponse(status="unavailable", model_loaded=False, model_version=None)
    version = store.current.control.version
    return HealthResponse(status="healthy", model_loaded=True, model_version=version)


@router.get("/metrics", response_class=PlainTextResponse, responses=documented(401))
async def metrics(request: Request, recorder: RecorderDependency) -> Response:
    """Give Prometheus its metrics, in the format that it accepts."""
    recorder.flush()
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    content = await run_in_threadpool(encode, request.app.state.exposed)
    return Response(content, headers={"Content-Type": content_type})


def _rows(body: SingleRequest | BatchRequest, most_rows: int) -> Rows:
    if isinstance(body, SingleRequest):
        return [(pointer("features"), body.features)]
    if len(body.instances) > most_rows:
        detail = f"{len(body.instances)} instances are too many: send {most_rows} at most"
        raise InvalidRowsError([ValueProblem(pointer=pointer("instances"), detail=detail)])
    return [(pointer("instances", index), row) for index, row in enumerate(body.instances)]


def _prediction(answer: Answer) -> Prediction:
    return Prediction(prediction=answer[0], confidence=answer[1])

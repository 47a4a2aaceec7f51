"""What came true of an answered request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from ..prediction_log import Feedback, Outcome, SegmentWriter
from ..schema import Signature
from .clock import Clock
from .problems import documented
from .rows import LARGEST, InvalidRowsError, Text, ValueProblem, pointer

FEEDBACK_PATH = "/feedback"
RETRY = {"Retry-After": "1"}


class FeedbackRequest(BaseModel):
    """An outcome, however late; of several for one request the newest counts.

    The rows of a batch are ID/0, ID/1, and so on.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}(/[0-9]{1,9})?$")]
    outcome: int | float | Annotated[Text, Field(max_length=256)] = Field(
        description="One of the model's classes, or the number that a regression predicts."
    )


class FeedbackResponse(BaseModel):
    """The outcome is on its way into the log; whether the request is known shows later."""

    status: Literal["accepted"] = "accepted"


def feedback_router(
    signature: Callable[[], Signature | None],
    log: Callable[[], SegmentWriter | None],
    clock: Clock,
) -> APIRouter:
    """The address that takes outcomes, for the model and the log of the moment."""
    router = APIRouter()

    @router.post(FEEDBACK_PATH, status_code=202, responses=documented(400, 401, 413, 422, 500, 503))
    async def feedback(body: FeedbackRequest) -> FeedbackResponse:
        """Keep what came true of a request."""
        model, writer = signature(), log()
        if model is None:
            raise HTTPException(503, "no model is loaded that the outcome could be of", RETRY)
        if writer is None:
            raise HTTPException(503, "the prediction log is off: see ML_LOG_PREDICTIONS", RETRY)
        outcome = _checked(body.outcome, model)
        if not writer.append(Feedback(body.request_id, outcome, clock.now())):
            raise HTTPException(503, "the prediction log is full: try again later", RETRY)
        return FeedbackResponse()

    return router


def _checked(outcome: Outcome, model: Signature) -> Outcome:
    if model.task == "regression":
        if not isinstance(outcome, str) and abs(outcome) <= LARGEST:
            return float(outcome)
        wanted = "a number"
    else:
        if any(type(outcome) is type(known) and outcome == known for known in model.classes):
            return outcome
        wanted = f"one of {', '.join(map(repr, model.classes[:20]))}"
    detail = f"outcome must be {wanted}, as the model predicts"
    raise InvalidRowsError([ValueProblem(pointer=pointer("outcome"), detail=detail)])

"""What clients send and what they get back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, PlainValidator, Tag
from pydantic_core import PydanticCustomError

from .rows import Row, Text

MOST_FIELDS = 4
LONGEST_USER_ID = 256
NO_FIELD = 'must be an object that has "features", "instances" or "user_id"'


def _row(value: Any) -> Any:
    if not isinstance(value, list | dict):
        raise PydanticCustomError("row", "must be a list of values or an object of named values")
    return value


AnyRow = Annotated[Row, PlainValidator(_row, json_schema_input_type=Row)]
UserId = Annotated[Text, Field(min_length=1, max_length=LONGEST_USER_ID)]


class SingleRequest(BaseModel):
    """One instance, as a list in the order of the model's features or as an object by name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    features: AnyRow
    user_id: UserId | None = None


class BatchRequest(BaseModel):
    """Several instances, answered in their order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instances: Annotated[list[AnyRow], FailFast(), Field(min_length=1)]


class UserRequest(BaseModel):
    """A user, whose features a feature store holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: UserId


def _kind(body: Any) -> str | None:
    if not isinstance(body, dict) or len(body) > MOST_FIELDS:
        return None
    if "instances" in body:
        return "batch"
    if "features" in body:
        return "single"
    return "user" if "user_id" in body else None


PredictRequest = Annotated[
    Annotated[SingleRequest, Tag("single")]
    | Annotated[BatchRequest, Tag("batch")]
    | Annotated[UserRequest, Tag("user")],
    Discriminator(_kind, custom_error_type="request_kind", custom_error_message=NO_FIELD),
]
REQUEST_TAGS = ("single", "batch", "user")


class Prediction(BaseModel):
    """The predicted class and its probability, or a regression's value and null."""

    prediction: int | float | str
    confidence: float | None


class Origin(BaseModel):
    """Who answered what."""

    model_version: str
    variant: str
    request_id: str


class PredictResponse(Origin, Prediction):
    """The answer to one instance."""


class BatchResponse(Origin):
    """The answers to several instances, in their order."""

    predictions: list[Prediction]


class LiveResponse(BaseModel):
    """The process is up."""

    status: Literal["alive"] = "alive"


class ReadyResponse(BaseModel):
    """The server can answer predictions."""

    status: Literal["ready"] = "ready"
    model_version: str


class HealthResponse(BaseModel):
    """Whether a model is loaded, and which."""

    status: Literal["healthy", "unavailable"]
    model_loaded: bool
    model_version: str | None

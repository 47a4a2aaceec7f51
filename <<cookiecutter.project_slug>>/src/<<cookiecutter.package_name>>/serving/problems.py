"""Errors as RFC 9457 problem details, the same form for every status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http.client import responses
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from .messages import REQUEST_TAGS
from .router import UnknownVariantError
from .rows import MOST_ERRORS, InvalidRowsError, ValueProblem, pointer

MEDIA_TYPE = "application/problem+json"
DETAILS = {
    404: "nothing is served at this path; /docs lists what is",
    405: "this path takes the methods of the Allow header",
}


class Problem(BaseModel):
    """What went wrong with a request (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    request_id: str
    errors: list[ValueProblem] | None = Field(
        None, description="The first of the values that are not valid."
    )


class ProblemResponse(JSONResponse):
    """JSON of its own media type."""

    media_type = MEDIA_TYPE


def problem(
    request: Request,
    status: int,
    detail: str,
    errors: list[ValueProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Answer with a problem."""
    content = Problem(
        title=responses.get(status, "Error"),
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.state.request_id,
        errors=errors,
    )
    return ProblemResponse(content.model_dump(exclude_none=True), status, dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these statuses for OpenAPI."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": responses[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(InvalidRowsError)(_invalid_rows)
    app.exception_handler(UnknownVariantError)(_unknown_variant)
    app.exception_handler(Exception)(_unexpected_error)


async def _http_error(request: Request, error: HTTPException) -> ProblemResponse:
    status, detail = error.status_code, error.detail
    if detail == responses.get(status):
        detail = DETAILS.get(status, detail)
    return problem(request, status, detail, headers=error.headers)


async def _validation_error(request: Request, error: RequestValidationError) -> ProblemResponse:
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        position, reason = found[0]["loc"][-1], found[0]["ctx"]["error"]
        return problem(request, 400, f"the body is not JSON: {reason} at character {position}")
    problems = [ValueProblem.of(_location(e["loc"]), e) for e in found[:MOST_ERRORS]]
    return _unprocessable(request, problems)


async def _invalid_rows(request: Request, error: InvalidRowsError) -> ProblemResponse:
    return _unprocessable(request, error.problems)


async def _unknown_variant(request: Request, error: UnknownVariantError) -> ProblemResponse:
    return problem(request, 422, str(error))


async def _unexpected_error(request: Request, _: Exception) -> ProblemResponse:
    """Answer without a detail of the error; GateMiddleware logs it."""
    return problem(request, 500, "the server failed; its log has the request_id")


def _unprocessable(request: Request, errors: list[ValueProblem]) -> ProblemResponse:
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return problem(request, 422, f"{errors[0].detail}{more}", errors)


def _location(loc: Iterable[str | int]) -> str:
    """The JSON pointer of a pydantic location, without FastAPI's and the union's own parts."""
    parts = list(loc)[1:]
    if parts and parts[0] in REQUEST_TAGS:
        parts = parts[1:]
    return pointer(*parts)

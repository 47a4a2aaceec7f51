"""The rows of a request, checked against the signature of the model that is to score them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic_core import PydanticCustomError

from ..schema import Blocks, Feature, Signature

Row = list[Any] | dict[str, Any]
Rows = Sequence[tuple[str, Row]]  # each with the JSON pointer to it in the request

LARGEST = float(np.finfo(np.float32).max)
MOST_ERRORS = 20
SHOWN_CHARACTERS = 40

REASONS = {
    "extra_forbidden": "is no field of this request",
    "finite_number": "must be finite",
    "float_type": "must be a number",
    "greater_than_equal": "does not fit into 32 bits",
    "less_than_equal": "does not fit into 32 bits",
    "missing": "is missing",
    "string_too_long": "is too long",
    "string_too_short": "must not be empty",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "too_short": "must not be empty",
}
WITHOUT_VALUE = {"extra_forbidden", "missing", "string_too_long", "string_too_short", "too_short"}


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("unicode", "must be valid Unicode") from error
    return value


Text = Annotated[str, AfterValidator(_encodable)]


class ValueProblem(BaseModel):
    """One value of a request that is not valid."""

    pointer: str = Field(description="Where in the body: a JSON pointer as a URI fragment.")
    detail: str

    @classmethod
    def of(cls, where: str, error: Mapping[str, Any], name: str | None = None) -> ValueProblem:
        """Put a pydantic error into words; ``name`` is the value's, by default its place's."""
        reason = REASONS.get(error["type"], error["msg"])
        got = "" if error["type"] in WITHOUT_VALUE else f", got {_shown(error['input'])}"
        return cls(pointer=where, detail=f"{name or _place(where)} {reason}{got}")


class InvalidRowsError(Exception):
    """Values that the model cannot score."""

    def __init__(self, problems: list[ValueProblem]) -> None:
        super().__init__("; ".join(problem.detail for problem in problems))
        self.problems = problems


class RowReader:
    """Reads rows, lists in the signature's order or objects by name, into a model's input."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._fields = [f"f{index}" for index in range(len(signature.features))]
        fields: dict[str, Any] = {
            field: (_annotation(feature), Field(alias=feature.name, title=feature.name))
            for field, feature in zip(self._fields, signature.features, strict=True)
        }
        self.model: type[BaseModel] = create_model(
            "Features",
            __config__=ConfigDict(extra="forbid", strict=True),
            __doc__=f"The features of {signature.label}.",
            **fields,
        )

    def read(self, rows: Rows) -> Blocks:
        """Arrange rows as the model's input.

        Raises:
            InvalidRowsError: naming up to MOST_ERRORS values and why they cannot be scored.
        """
        valid: list[BaseModel] = []
        problems: list[ValueProblem] = []
        for where, row in rows:
            try:
                valid.append(self.model.model_validate(self._named(where, row)))
            except ValidationError as error:
                problems += [self._problem(where, row, e) for e in error.errors(include_url=False)]
            except InvalidRowsError as error:
                problems += error.problems
            if len(problems) >= MOST_ERRORS:
                break
        if problems:
            raise InvalidRowsError(problems[:MOST_ERRORS])
        columns = [[getattr(row, field) for row in valid] for field in self._fields]
        return self._signature.blocks(dict(zip(self._signature.names, columns, strict=True)))

    def _named(self, where: str, row: Row) -> dict[str, Any]:
        names = self._signature.names
        if isinstance(row, dict) and len(row) <= len(names) + MOST_ERRORS:
            return row
        if len(row) != len(names):
            expected = f"{len(names)} values ({_listed(names)})"
            detail = f"{where} must hold {expected}, got {len(row)}"
            raise InvalidRowsError([ValueProblem(pointer=where, detail=detail)])
        return dict(zip(names, row, strict=True))

    def _problem(self, where: str, row: Row, error: Mapping[str, Any]) -> ValueProblem:
        names = self._signature.names
        if not error["loc"]:
            return ValueProblem.of(where, error, "every name")
        name = str(error["loc"][0])
        if error["type"] == "extra_forbidden":
            known = f"is no feature of this model, which takes {_listed(names)}"
            return ValueProblem(pointer=f"{where}/{_part(name)}", detail=f"{_shown(name)} {known}")
        part: str | int = names.index(name) if isinstance(row, list) else name
        return ValueProblem.of(f"{where}/{_part(part)}", error, name)


def pointer(*parts: str | int) -> str:
    """A JSON pointer as a URI fragment (RFC 6901, section 6)."""
    return "/".join(["#", *map(_part, parts)])


def _annotation(feature: Feature) -> Any:
    described = Field(description=feature.description or None)
    if feature.type == "string":
        return Annotated[Text, described]
    number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST), described]
    if feature.type == "float":
        return number
    schema = {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST}
    if feature.description:
        schema["description"] = feature.description
    return Annotated[number, AfterValidator(_whole), WithJsonSchema(schema)]


def _whole(value: float) -> float:
    if not value.is_integer():
        raise PydanticCustomError("whole_number", "must be a whole number")
    return value


def _place(where: str) -> str:
    return "the body" if where == "#" else where


def _part(part: str | int) -> str:
    escaped = str(part)[:SHOWN_CHARACTERS].replace("~", "~0").replace("/", "~1")
    return quote(escaped, errors="replace")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_ERRORS]) + (", ..." if len(names) > MOST_ERRORS else "")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    shown = json.dumps(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."

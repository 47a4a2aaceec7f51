"""The OpenAPI document, with the features of the model that is loaded."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from .feedback import FeedbackRequest
from .messages import BatchRequest, SingleRequest, UserRequest
from .middleware import PREDICT_PATH
from .problems import Problem
from .rows import LARGEST
from .store import ServedModel

A_NUMBER = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
REFERENCE = "#/components/schemas/{model}"


def described(
    base: dict[str, Any], model: ServedModel | None, most_rows: int, users: bool
) -> dict[str, Any]:
    """Complete FastAPI's document with the problems, the model's features and an example.

    Without ``users`` nothing could look up a user's features: then no request asks for that.
    """
    document = deepcopy(base)
    schemas = document["components"]["schemas"]
    problem = Problem.model_json_schema(ref_template=REFERENCE)
    schemas.update(problem.pop("$defs"), Problem=problem)
    body = document["paths"][PREDICT_PATH]["post"]["requestBody"]["content"]["application/json"]
    if not users:
        schemas.pop(UserRequest.__name__)
        body["schema"]["oneOf"].remove(_reference(UserRequest.__name__))
    instances = schemas[BatchRequest.__name__]["properties"]["instances"]
    instances["maxItems"] = most_rows
    if model is None:
        return document
    schemas["Features"] = model.reader.model.model_json_schema()
    schemas["FeatureList"] = _as_list(schemas["Features"])
    row = {"anyOf": [_reference("Features"), _reference("FeatureList")]}
    schemas[SingleRequest.__name__]["properties"]["features"] = row
    instances["items"] = row
    signature = model.metadata.signature
    outcome = schemas[FeedbackRequest.__name__]["properties"]["outcome"]
    del outcome["anyOf"]
    outcome.update({"enum": list(signature.classes)} if signature.classes else A_NUMBER)
    body["examples"] = _examples(model)
    return document


def _reference(model: str) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model)}


def _as_list(features: dict[str, Any]) -> dict[str, Any]:
    values = list(features["properties"].values())
    return {
        "type": "array",
        "description": f"In this order: {', '.join(features['properties'])}.",
        "prefixItems": values,
        "minItems": len(values),
        "maxItems": len(values),
    }


def _examples(model: ServedModel) -> dict[str, Any]:
    named = model.example
    listed = list(named.values())
    return {
        "named": {"summary": "Features by name", "value": {"features": named}},
        "list": {"summary": "Features in order", "value": {"features": listed}},
        "batch": {"summary": "Several instances", "value": {"instances": [named, listed]}},
    }

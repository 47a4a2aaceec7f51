from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import CASES, Models, publish, rewritten_bundle


@pytest.mark.parametrize("case", CASES)
def test_the_document_has_the_models_features_and_examples_that_work(
    case: str, models: Models, settings: Settings, start: Any
) -> None:
    signature = models.get(case).bundle.signature
    publish(settings, "1", models.get(case))
    client = start(settings)
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    kinds = {"float": "number", "int": "integer", "string": "string"}
    expected = [(feature.name, kinds[feature.type]) for feature in signature.features]
    named = schemas["Features"]["properties"]
    assert [(name, schema["type"]) for name, schema in named.items()] == expected
    assert schemas["Features"]["required"] == list(signature.names)
    listed = schemas["FeatureList"]
    assert [(schema["title"], schema["type"]) for schema in listed["prefixItems"]] == expected
    assert listed["minItems"] == listed["maxItems"] == len(expected)
    examples = request_body(document)["examples"]
    assert examples.keys() == {"named", "list", "batch"}
    for example in examples.values():
        answer = client.post("/predict", json=example["value"])
        assert answer.status_code == 200, answer.text


def test_every_reference_leads_somewhere(client: TestClient) -> None:
    text = client.get("/openapi.json").text
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert {"Features", "FeatureList", "Problem", "ValueProblem"} <= references
    assert references <= schemas.keys()
    assert "HTTPValidationError" not in schemas
    assert "UserRequest" not in references | schemas.keys()


def test_the_document_follows_the_model(
    settings: Settings, models: Models, start: Any, eventually: Any
) -> None:
    client = start(settings)
    document = client.get("/openapi.json").json()
    assert "Features" not in document["components"]["schemas"]
    assert "examples" not in request_body(document)
    publish(settings, "1", models.get("binary"))
    eventually(lambda: features(client) == ["amount", "visits"])
    publish(settings, "2", models.get("one text"))
    eventually(lambda: features(client) == ["city"])


def test_a_features_description_is_in_the_document(
    settings: Settings, models: Models, start: Any, tmp_path: Any
) -> None:
    model = models.get("binary")
    signature = model.bundle.signature
    described = tuple(
        feature.model_copy(update={"description": f"What {feature.name} means."})
        for feature in signature.features
    )
    metadata = model.bundle.metadata.model_copy(
        update={"signature": signature.model_copy(update={"features": described})}
    )
    publish(settings, "1", rewritten_bundle(tmp_path / "b", model, metadata=metadata))
    document = start(settings).get("/openapi.json").json()
    properties = document["components"]["schemas"]["Features"]["properties"]
    assert properties["amount"]["description"] == "What amount means."
    assert properties["visits"]["description"] == "What visits means."


def test_the_documentation_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 3
    for address in addresses:
        assert address.startswith("/docs/assets/")
        assert len(client.get(address).content) > 1_000
    assert "://" not in page.text


def request_body(document: dict[str, Any]) -> Any:
    return document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]


def features(client: TestClient) -> list[str]:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    return list(schemas.get("Features", {}).get("properties", ()))

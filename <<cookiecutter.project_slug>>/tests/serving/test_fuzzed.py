"""Requests that a fuzzer makes from the OpenAPI document, and hostile ones."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish


@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["binary", "multiclass", "regression"])
def test_the_server_keeps_its_document(
    case: str, examples: int, settings: Settings, models: Models, start: Any
) -> None:
    publish(settings, "1", models.get(case))
    client: TestClient = start(settings)
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    asked = []
    for result in schema.get_all_operations():

        @hypothesis.given(result.ok().as_strategy())
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def ask(case: Any) -> None:
            case.call_and_validate()

        ask()
        asked.append(result.ok().path)
    assert {"/predict", "/live", "/metrics", "/feedback"} <= set(asked)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_bytes_fail_no_request(count: int, mixed_client: TestClient) -> None:
    valid = b'{"features": {"city": "a", "amount": 1.5, "tier": "b", "visits": 2}, "user_id": "u"}'
    headers = {"Content-Type": "application/json"}
    seen = set()

    @hypothesis.given(
        hypothesis.strategies.one_of(
            hypothesis.strategies.binary(max_size=200),
            hypothesis.strategies.tuples(
                hypothesis.strategies.integers(0, len(valid)),
                hypothesis.strategies.binary(max_size=4),
                hypothesis.strategies.integers(0, 6),
            ).map(lambda cut: valid[: cut[0]] + cut[1] + valid[cut[0] + cut[2] :]),
        )
    )
    @hypothesis.settings(max_examples=count, deadline=None, database=None, derandomize=True)
    def ask(body: bytes) -> None:
        answer = mixed_client.post("/predict", content=body, headers=headers)
        seen.add(answer.status_code)
        assert answer.status_code in {200, 400, 422}, (body, answer.text)

    ask()
    assert seen == {200, 400, 422}

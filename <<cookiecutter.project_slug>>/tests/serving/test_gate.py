from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.serving.logs import JsonFormatter
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish

KEYS = "first-key-of-the-tests, second-key-of-the-tests"
BODY = {"features": [1.0, 2]}


@pytest.fixture
def keyed(settings: Settings, models: Models, start: Any) -> TestClient:
    publish(settings, "1", models.get("binary"))
    client: TestClient = start(settings.model_copy(update={"api_keys": SecretStr(KEYS)}))
    return client


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "first-key-of-the-tests"},
        {"X-API-Key": "second-key-of-the-tests"},
        {"Authorization": "Bearer second-key-of-the-tests"},
        {"Authorization": "bearer first-key-of-the-tests"},
    ],
)
def test_every_key_opens_everything(keyed: TestClient, headers: dict[str, str]) -> None:
    assert keyed.post("/predict", json=BODY, headers=headers).status_code == 200
    assert keyed.get("/metrics", headers=headers).status_code == 200
    assert keyed.get("/docs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "first-key-of-the-test"},
        {"X-API-Key": KEYS},
        {"Authorization": "Basic first-key-of-the-tests"},
        {"Authorization": "Bearer"},
    ],
)
def test_without_a_key_only_the_probes_are_open(
    keyed: TestClient, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for method, path in (("POST", "/predict"), ("GET", "/metrics"), ("GET", "/docs")):
        answer = keyed.request(method, path, json=BODY, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert keyed.get("/live").status_code == 200
    assert keyed.get("/ready").status_code == 200
    assert "key-of-the-tests" not in caplog.text


def test_the_keys_are_shown_nowhere(settings: Settings) -> None:
    assert "key-of" not in repr(settings.model_copy(update={"api_keys": SecretStr(KEYS)}))


@pytest.mark.parametrize("path", ["/live", "/nope", "/predict", "/metrics", "/docs"])
def test_security_headers_are_on_every_answer(client: TestClient, path: str) -> None:
    for answer in (client.get(path), client.post("/predict", json=BODY)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"


async def ask(app: Any, path: str, body: bytes, release: asyncio.Event) -> tuple[int, Any]:
    """Send a request whose body comes when it is released."""
    answer: dict[str, Any] = {}

    async def receive() -> Any:
        await release.wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        answer.update(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http"}
    await app(scope, receive, send)
    return answer["status"], {k.decode(): v.decode() for k, v in answer["headers"]}


@pytest.mark.parametrize("limit", [{"max_in_flight": 3}, {"max_in_flight_bytes": 100}])
def test_what_is_too_much_is_refused_before_it_is_read(
    limit: dict[str, int], settings: Settings, models: Models, start: Any
) -> None:
    publish(settings, "1", models.get("binary"))
    app = start(settings.model_copy(update=limit)).app
    body = json.dumps(BODY).encode().ljust(30)

    async def crowd() -> None:
        release, now = asyncio.Event(), asyncio.Event()
        now.set()
        waiting = [asyncio.create_task(ask(app, "/predict", body, release)) for _ in range(3)]
        await asyncio.sleep(0)
        status, headers = await ask(app, "/predict", body, now)
        assert status == 503
        assert headers["retry-after"] == "1"
        assert headers["content-type"] == "application/problem+json"
        release.set()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        assert (await ask(app, "/predict", body, now))[0] == 200

    asyncio.run(crowd())
    metrics = TestClient(app).get("/metrics").text
    assert "model_requests_in_flight 1.0" in metrics  # the scrape itself
    assert 'model_prediction_errors_total{status="503"} 1.0' in metrics


def test_the_log_may_be_json() -> None:
    try:
        raise ValueError("of the test")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "a %s", ("b",), sys.exc_info())
    record.request_id = "r-1"
    found = json.loads(JsonFormatter().format(record))
    assert found["message"] == "a b"
    assert found["level"] == "ERROR"
    assert found["request_id"] == "r-1"
    assert "ValueError: of the test" in found["error"]
    assert found["time"].endswith("+00:00")


def test_a_log_that_cannot_be_written_costs_no_request(
    settings: Settings, models: Models, start: Any, eventually: Any
) -> None:
    publish(settings, "1", models.get("binary"))
    settings.prediction_log_dir.write_text("a file where the folder should be")
    client: TestClient = start(settings)
    for _ in range(5):
        assert client.post("/predict", json=BODY).status_code == 200
    dropped = 'prediction_log_rows_total{result="dropped"} 5.0'
    eventually(lambda: dropped in client.get("/metrics").text)
    settings.prediction_log_dir.unlink()
    assert client.post("/predict", json=BODY).status_code == 200
    written = 'prediction_log_rows_total{result="written"} 1.0'
    eventually(lambda: written in client.get("/metrics").text)

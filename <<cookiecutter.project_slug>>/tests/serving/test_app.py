from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.bundle import Scorer
from <<cookiecutter.package_name>>.serving import create_app
from <<cookiecutter.package_name>>.serving.app import _repeat
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish

IMPORTED = """
import sys
import <<cookiecutter.package_name>>.serving
heavy = {"duckdb", "feast", "kfp", "mlflow", "onnx", "pandas", "pyarrow", "skl2onnx", "sklearn"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_server_imports_no_training_library() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_health_with_and_without_a_model(
    settings: Settings, models: Models, start: Any, eventually: Any
) -> None:
    client = start(settings)
    assert client.get("/live").json() == {"status": "alive"}
    assert client.get("/health").status_code == 503
    assert client.get("/health").json() == {
        "status": "unavailable",
        "model_loaded": False,
        "model_version": None,
    }
    assert client.get("/ready").status_code == 503
    assert client.get("/ready").headers["content-type"] == "application/problem+json"
    publish(settings, "4", models.get("binary"))
    eventually(lambda: client.get("/ready").status_code == 200)
    assert client.get("/ready").json() == {"status": "ready", "model_version": "4"}
    assert client.get("/health").json() == {
        "status": "healthy",
        "model_loaded": True,
        "model_version": "4",
    }


@pytest.mark.parametrize("given", ["a", "0f-9.Z_b", "x" * 64])
def test_a_sane_request_id_is_kept(client: TestClient, given: str) -> None:
    answer = client.post("/predict", json={"features": [1, 2]}, headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "<b>", "a;b", "é", "a\\n"])
def test_any_other_request_id_is_replaced(client: TestClient, given: str) -> None:
    headers = [(b"X-Request-ID", given.encode("latin-1"))]
    answers = [client.get("/live", headers=headers) for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert given not in ids
    assert all(len(request_id) == 32 for request_id in ids)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/predict/", 404),
        ("GET", "/docs/assets/nope.js", 404),
        ("GET", "/docs/assets/../core.py", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/health", 405),
        ("POST", "/predict", 415),
    ],
)
def test_every_error_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, content=b"{}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_only_json_is_read(client: TestClient, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    answer = client.post("/predict", content=b'{"features": [1, 2]}', headers=headers)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_json_may_name_its_charset(client: TestClient) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = client.post("/predict", content=b'{"features": [1, 2]}', headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body", [b"{", b'{"features": [1, 2]', b"\xff\xfe", b"[" * 100_000, b"[" + b"9" * 5_000 + b"]"]
)
def test_what_is_not_json_is_a_problem(client: TestClient, body: bytes) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_body_that_is_too_large_is_refused(
    settings: Settings, models: Models, start: Any
) -> None:
    limited = settings.model_copy(update={"max_body_bytes": 100})
    publish(limited, "1", models.get("binary"))
    client = start(limited)
    headers = {"Content-Type": "application/json"}
    body = b'{"features": [1, 2]}'.ljust(100)
    assert client.post("/predict", content=body, headers=headers).status_code == 200

    def streamed() -> Iterator[bytes]:
        yield body
        yield b" "

    for content in (body + b" ", streamed()):
        answer = client.post("/predict", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == "the body may hold 100 bytes at most"


def test_an_unexpected_error_is_logged_and_not_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(Scorer, "scores", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.post("/predict", json={"features": [1, 2]}, headers={"X-Request-ID": "r1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "r1"
    assert "secret" not in answer.text
    assert "the secret of the house" in caplog.text
    assert "request r1: POST '/predict'" in caplog.text
    assert len(caplog.records) == 1
    monkeypatch.undo()
    assert client.post("/predict", json={"features": [1, 2]}).status_code == 200


def test_added_middleware_is_inside_the_request_id(settings: Settings) -> None:
    app = create_app(settings)

    @app.middleware("http")
    async def refuse(*_: object) -> None:
        raise RuntimeError("middleware of a user")

    with TestClient(app) as client:
        answer = client.get("/live")
    assert answer.status_code == 500
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_work_that_fails_once_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def work() -> None:
        done.append(len(done))
        if len(done) == 1:
            raise OSError("no space left")

    async def for_a_moment() -> None:
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(_repeat(work, 0.001), 0.5)

    asyncio.run(for_a_moment())
    assert len(done) > 2
    assert "work failed" in caplog.text

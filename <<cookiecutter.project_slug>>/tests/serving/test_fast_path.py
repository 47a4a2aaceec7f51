from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.middleware.base import BaseHTTPMiddleware

from <<cookiecutter.package_name>>.serving import create_app
from <<cookiecutter.package_name>>.serving.app import ServingApp
from <<cookiecutter.package_name>>.serving.fast_path import BLOCK_ROWS, FastPath
from <<cookiecutter.package_name>>.serving.routes import predict
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import CASES, Models, overflowing_model, publish, rewritten_bundle, rows_of

REQUEST_ID = {"X-Request-ID": "r"}
KEY = "a-key-of-the-tests"


def plain_app(settings: Settings) -> FastAPI:
    """The same application without the fast path."""
    app = create_app(settings)
    assert isinstance(app, ServingApp)
    app.is_fast = False
    app.choose_path = lambda: None  # type: ignore[method-assign]
    return app


class Both:
    """The two ways through the server, side by side."""

    def __init__(self, settings: Settings, stack: Any) -> None:
        unlogged = settings.model_copy(update={"log_predictions": False})
        self.app = create_app(settings)
        self.fast: TestClient = stack(self.app)
        self.plain: TestClient = stack(plain_app(unlogged))

    def assert_same(self, body: bytes, headers: dict[str, str]) -> int:
        sent = {"Content-Type": "application/json", **REQUEST_ID, **headers}
        found = [c.post("/predict", content=body, headers=sent) for c in (self.fast, self.plain)]
        one, other = found
        assert one.status_code == other.status_code, (body, one.text, other.text)
        assert one.content == other.content, body
        assert dict(one.headers) == dict(other.headers), body
        return one.status_code


@pytest.fixture
def enter() -> Any:
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda app: stack.enter_context(TestClient(app))


def bodies(rows: list[list[Any]], names: tuple[str, ...], seed: int) -> Callable[[], bytes]:
    """Makes requests: most are valid, the others have something odd in a value or a byte."""
    random = np.random.default_rng(seed)
    odd = ["NaN", "1e39", "3.4028235e38", "3.4028234663852887e38", "1e400", "-0.0", "7.0", "7.5"]
    odd += ["true", "null", '""', '"\\ud800"', "[]", "{}", "9" * 400, '"k\\u00f8ge"', "1e-320"]

    def value(found: Any) -> str:
        return str(random.choice(odd)) if random.random() < 0.03 else json.dumps(found)

    def row() -> str:
        found = [value(cell) for cell in rows[random.integers(len(rows))]]
        if random.random() < 0.02:
            found.append("1")
        if random.random() < 0.5:
            return f"[{', '.join(found)}]"
        pairs = [f'"{name}": {cell}' for name, cell in zip(names, found, strict=False)]
        random.shuffle(pairs)
        return f"{{{','.join(pairs)}}}"

    def body() -> bytes:
        kind = random.random()
        if kind < 0.15:
            several = ",".join(row() for _ in range(random.integers(0, 12)))
            text = f'{{"instances": [{several}]}}'
        elif kind < 0.3:
            user = random.choice(['"u-1"', "null", '""', "5", json.dumps("é" * 256), '"\\ud800"'])
            text = f'{{"user_id": {user}, "features": {row()}}}'
        else:
            text = f'{{"features": {row()}}}'
        if random.random() < 0.05:
            text = text[: random.integers(len(text))]
        if random.random() < 0.03:
            text = text.replace('"features"', str(random.choice(['"featres"', '"user_id"'])))
        return text.encode()

    return body


@pytest.mark.parametrize("case", CASES)
def test_both_paths_answer_the_same(
    case: str, models: Models, settings: Settings, enter: Any
) -> None:
    model = models.get(case)
    publish(settings, "3", model)
    both = Both(settings, enter)
    make = bodies(rows_of(model), model.bundle.signature.names, seed=len(case))
    statuses = {both.assert_same(make(), {}) for _ in range(340)}  # more than 2,000 in six cases
    assert statuses == {200, 400, 422}
    assert both.app.is_fast  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "APPLICATION/JSON"},
        {"X-Variant": "control"},
        {"Expect": "nothing"},
        {"Content-Encoding": "gzip"},
        {"X-Request-ID": "r" * 64},
        {"X-API-Key": KEY},
    ],
)
def test_both_paths_treat_headers_the_same(
    headers: dict[str, str], models: Models, settings: Settings, enter: Any
) -> None:
    publish(settings, "3", models.get("binary"))
    for keys in ("", KEY):
        both = Both(settings.model_copy(update={"api_keys": SecretStr(keys)}), enter)
        both.assert_same(b'{"features": [1.0, 2]}', headers)
        both.assert_same(b"{", headers)


def test_an_answer_without_a_finite_or_plain_number_is_the_plain_routes(
    models: Models, settings: Settings, enter: Any, tmp_path: Path
) -> None:
    model = models.get("one number")
    publish(settings, "1", rewritten_bundle(tmp_path / "b", model, model=overflowing_model()))
    both = Both(settings, enter)
    for number in ("2.0", "3e38", "1e11", "-7e10", "1e-7"):
        both.assert_same(f'{{"features": [{number}]}}'.encode(), {})
        both.assert_same(f'{{"instances": [[1], [{number}]]}}'.encode(), {})


def test_more_rows_than_a_block_holds_are_all_counted(
    models: Models, settings: Settings, enter: Any
) -> None:
    publish(settings, "1", models.get("binary"))
    client = enter(create_app(settings))
    for _ in range(BLOCK_ROWS + 3):
        assert client.post("/predict", json={"features": [1.0, 2]}).status_code == 200
    expected = (
        f'model_feature_value_count{{feature_name="visits",model_version="1"}} {BLOCK_ROWS + 3}'
    )
    assert expected in client.get("/metrics").text


async def refuse(request: Request) -> None:
    if request.headers.get("authorization") != "secret":
        raise HTTPException(401, "who are you?")


class RefusingMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        await refuse(request)
        return await call_next(request)


async def guarded_predict(request: Request) -> dict[str, str]:
    await refuse(request)
    return {"answer": "mine"}


def with_middleware(app: FastAPI) -> None:
    app.add_middleware(RefusingMiddleware)


def with_function_middleware(app: FastAPI) -> None:
    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Any:
        await refuse(request)
        return await call_next(request)


def with_router_dependency(app: FastAPI) -> None:
    from <<cookiecutter.package_name>>.serving.routes import router

    app.router.routes.clear()
    app.include_router(router, dependencies=[Depends(refuse)])


def with_application_dependency(app: FastAPI) -> None:
    app.router.routes.clear()
    app.router.dependencies.append(Depends(refuse))
    app.add_api_route("/predict", predict, methods=["POST"])


def with_route_dependency(app: FastAPI) -> None:
    app.router.routes.clear()
    app.add_api_route("/predict", predict, methods=["POST"], dependencies=[Depends(refuse)])


def with_another_route(app: FastAPI) -> None:
    app.router.routes.clear()
    app.add_api_route("/predict", guarded_predict, methods=["POST"])
    app.add_api_route("/predict", predict, methods=["POST"])


def with_an_override(app: FastAPI) -> None:
    from <<cookiecutter.package_name>>.serving import routes

    app.dependency_overrides[routes._settings] = refuse


ADDED = [
    with_middleware,
    with_function_middleware,
    with_router_dependency,
    with_application_dependency,
    with_route_dependency,
    with_another_route,
    with_an_override,
]


@pytest.mark.parametrize("add", ADDED)
def test_an_added_authentication_is_never_skipped(
    add: Callable[[FastAPI], None],
    models: Models,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(settings, "1", models.get("binary"))
    app = create_app(settings)
    add(app)

    async def taken(*_: object) -> None:
        raise AssertionError("the fast path was taken")

    monkeypatch.setattr(FastPath, "__call__", taken)
    with caplog.at_level(logging.INFO), TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/predict", json={"features": [1.0, 2]})
    assert answer.status_code in {401, 500}  # middleware's own exceptions are no answers
    assert "prediction" not in answer.json()
    if add is not with_an_override:
        assert "predictions take the plain route" in caplog.text


def test_the_log_says_that_the_fast_path_is_taken(
    settings: Settings, enter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        enter(create_app(settings))
    assert "predictions take the fast path" in caplog.text

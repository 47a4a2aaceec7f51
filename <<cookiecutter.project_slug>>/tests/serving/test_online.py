from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>> import data, feature_store, features
from <<cookiecutter.package_name>>.serving import online
from <<cookiecutter.package_name>>.settings import PACKAGE, Settings
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER

from ..bundles import publish
from ..feature_stores import home_beside, production_settings
from ..homes import TrainedHome
from ..services import Postgres, Service, free_port
from .conftest import Start

Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture
def home(trained_home: TrainedHome, tmp_path: Path) -> Settings:
    """A home with the trained model in production and a store with nothing in it."""
    settings = home_beside(trained_home.settings, tmp_path / "home")
    publish(settings, "1", trained_home.model.folder / BUNDLE_FOLDER)
    return settings


@pytest.fixture
def filled(home: Settings) -> Settings:
    """The same with the features of now in the online store."""
    feature_store.apply(home)
    feature_store.materialize(home)
    return home


@pytest.fixture
def row(home: Settings) -> dict[str, Any]:
    """One customer's key and features."""
    return features.newest_rows(home, 5)[4]


def predict(client: TestClient, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = client.post("/predict", json=body)
    return answer.status_code, answer.json()


def assert_same_answer(client: TestClient, row: dict[str, Any]) -> None:
    named = {name: value for name, value in row.items() if name != data.KEY}
    explicit, by_user = (
        predict(client, features=named)[1],
        predict(client, user_id=row[data.KEY])[1],
    )
    fields = ("prediction", "confidence", "model_version", "variant")
    assert [by_user[field] for field in fields] == [explicit[field] for field in fields]


def test_a_user_alone_is_scored_with_the_features_of_now(
    filled: Settings, row: dict[str, Any], start: Start, eventually: Eventually
) -> None:
    client = start(filled)
    eventually(lambda: predict(client, user_id=row[data.KEY])[0] == 200)
    assert_same_answer(client, row)
    status, problem = predict(client, user_id="nobody")
    assert (status, problem["status"]) == (404, 404)
    assert "holds nothing of this user" in problem["detail"]
    assert "UserRequest" in client.get("/openapi.json").json()["components"]["schemas"]


def test_while_feast_is_loading_explicit_features_are_served(
    filled: Settings, row: dict[str, Any], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(online.FeastInProcess):
        def __init__(self, settings: Settings) -> None:
            time.sleep(1)
            super().__init__(settings)

    monkeypatch.setattr(online, "FeastInProcess", Slow)
    client = start(filled)
    named = {name: value for name, value in row.items() if name != data.KEY}
    assert predict(client, features=named)[0] == 200
    answer = client.post("/predict", json={"user_id": row[data.KEY]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "is being loaded" in answer.json()["detail"]


def test_values_older_than_the_ttl_are_not_used(
    filled: Settings, row: dict[str, Any], start: Start, eventually: Eventually
) -> None:
    late = filled.model_copy(update={"fixed_clock": filled.as_of + 2 * data.TTL})
    client = start(late)
    eventually(lambda: predict(client, user_id=row[data.KEY])[0] == 404)
    detail = predict(client, user_id=row[data.KEY])[1]["detail"]
    assert f"is of {filled.as_of:%Y-%m-%d %H:%M}, not within 48 hours of now" in detail


def test_a_store_without_anything_applied_is_none(home: Settings, start: Start) -> None:
    client = start(home)
    status, problem = predict(client, user_id="c1")
    assert status == 422
    assert "holds no feature store" in problem["detail"]
    assert not home.feature_registry_file.exists()


def test_a_server_without_feast_refuses_a_user_alone(
    filled: Settings, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "find_spec", lambda _: None)
    client = start(filled)
    assert predict(client, user_id="c1")[0] == 422
    assert "UserRequest" not in client.get("/openapi.json").json()["components"]["schemas"]


def test_redis_may_stop_and_come_back(
    home: Settings,
    row: dict[str, Any],
    start: Start,
    eventually: Eventually,
    tmp_path: Path,
    postgres: Postgres,
    redis_server: Service,
    caplog: pytest.LogCaptureFixture,
) -> None:
    production = production_settings(home, tmp_path / "repo", postgres, redis_server)
    feature_store.apply(production)
    feature_store.materialize(production)
    client = start(production)
    eventually(lambda: predict(client, user_id=row[data.KEY])[0] == 200)
    assert_same_answer(client, row)

    redis_server.stop()
    for _ in range(3):
        answer = client.post("/predict", json={"user_id": row[data.KEY]})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "does not answer" in answer.json()["detail"]
        named = {name: value for name, value in row.items() if name != data.KEY}
        assert predict(client, features=named)[0] == 200
    assert caplog.text.count("the feature store does not answer") == 1

    redis_server.start()
    assert predict(client, user_id=row[data.KEY])[0] == 404  # it came back empty
    feature_store.materialize(production)
    assert_same_answer(client, row)
    assert "answers again" in caplog.text


def test_feasts_own_server_may_be_asked(
    filled: Settings,
    row: dict[str, Any],
    start: Start,
    eventually: Eventually,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(online, "find_spec", lambda _: None)
    port = free_port()
    asking = filled.model_copy(update={"feature_server": f"http://127.0.0.1:{port}"})
    client = start(asking)
    eventually(lambda: "does not answer" in predict(client, user_id=row[data.KEY])[1]["detail"])
    with feature_server(filled, port, tmp_path / "log"):
        deadline = time.monotonic() + 60
        while predict(client, user_id=row[data.KEY])[0] != 200:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert_same_answer(client, row)
        assert predict(client, user_id="nobody")[0] == 404
    assert predict(client, user_id=row[data.KEY])[0] == 503


@contextmanager
def feature_server(settings: Settings, port: int, log: Path) -> Iterator[None]:
    words = ("features", "feast", "serve", "--port", str(port), "--no-access-log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", PACKAGE, *words],
            env={"ML_HOME": str(settings.home)},
            stdout=stream,
            stderr=stream,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

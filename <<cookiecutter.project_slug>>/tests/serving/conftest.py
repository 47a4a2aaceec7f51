from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.serving import create_app
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish, server_settings

Start = Callable[..., TestClient]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return server_settings(tmp_path)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts applications that stop with the test."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(TestClient(create_app(settings)))


@pytest.fixture
def client(settings: Settings, models: Models, start: Start) -> TestClient:
    """A server of version 1, the binary case: amount (float) and visits (int)."""
    publish(settings, "1", models.get("binary"))
    return start(settings)


@pytest.fixture
def mixed_client(settings: Settings, models: Models, start: Start) -> TestClient:
    """A server of the multiclass case: city (string), amount, tier (string), visits (int)."""
    publish(settings, "1", models.get("multiclass"))
    return start(settings)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until something is true."""

    def wait(true: Callable[[], object], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not true within {seconds} s"
            time.sleep(0.01)

    return wait

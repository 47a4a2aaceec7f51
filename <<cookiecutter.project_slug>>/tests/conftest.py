"""Fixtures that many tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from <<cookiecutter.package_name>>.mlflow_client import mlflow
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from .homes import TrainedHome, make_trained_home
from .services import Postgres, Service, redis_service, running, running_postgres


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's environment, .env file or stores."""
    for name in list(os.environ):
        if name.startswith("ML_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty home folder; quick intervals."""
    return Settings(home=tmp_path, bootstrap_resamples=40)


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """Made once; tests only read it."""
    return make_trained_home(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; ``postgres.database()`` is the address of a new database in it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Service]:
    """An empty Redis server; a test may stop and start it."""
    with running(redis_service(tmp_path)) as service:
        yield service


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables, which take a second to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def registry(tmp_path: Path, empty_store: Path) -> Registry:
    """An empty registry of its own."""
    settings = Settings(home=tmp_path / "home", bootstrap_resamples=20)
    settings.home.mkdir()
    shutil.copy(empty_store, settings.home)
    return Registry(settings)


@pytest.fixture
def good(trained_home: TrainedHome, tmp_path: Path) -> Path:
    """A trained model's folder that no store holds yet."""
    folder = tmp_path / "good"
    shutil.copytree(trained_home.model.folder, folder)
    (folder / "model_uri").unlink(missing_ok=True)
    return folder


@pytest.fixture
def noise(trained_home: TrainedHome) -> Path:
    """A model as good as a coin."""
    return trained_home.noise

"""MLflow as in production: PostgreSQL, S3, a server that asks for a password and goes away."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest

import <<cookiecutter.package_name>> as package
from <<cookiecutter.package_name>>.errors import ProjectError
from <<cookiecutter.package_name>>.mlflow_client import connect, mlflow
from <<cookiecutter.package_name>>.promotions import PromotionError
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from .homes import TrainedHome
from .mlflow_server import START_SECONDS, mlflow_service, running_mlflow
from .services import Postgres, Service, free_port, running

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "word",  # pragma: allowlist secret
    "AWS_DEFAULT_REGION": "us-east-1",
}
ADMIN = {
    "MLFLOW_AUTH_ADMIN_USERNAME": "trainer",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "what-only-it-knows",  # pragma: allowlist secret
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs-the-forms",  # pragma: allowlist secret
}
PASSWORD = ADMIN["MLFLOW_AUTH_ADMIN_PASSWORD"]


@pytest.mark.slow
def test_postgresql_s3_passwords_and_the_server_going_away(
    postgres: Postgres,
    trained_home: TrainedHome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with running(Service(command, port, tmp_path / "s3.log")) as s3:
        endpoint = f"http://{s3.address}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="word",  # pragma: allowlist secret
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="models")
        service = mlflow_service(
            tmp_path / "server",
            postgres.database(),
            "--artifacts-destination",
            "s3://models/mlflow",
            "--app-name",
            "basic-auth",
            MLFLOW_S3_ENDPOINT_URL=endpoint,
            MLFLOW_AUTH_CONFIG_PATH=str(auth_config(tmp_path, postgres.database())),
            **ADMIN,
            **KEYS,
        )
        with running_mlflow(service) as server:
            settings = trained_home.settings.model_copy(
                update={"mlflow_tracking_uri": server.uri, "home": tmp_path / "home"}
            )
            shutil.copytree(trained_home.settings.data_dir, settings.data_dir)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            refuse_strangers(settings, monkeypatch)
            training = train(settings, server.uri)
            folder = wait_for_bundle(training, settings)
            server.stop()
            output, _ = training.communicate(timeout=120)
            assert training.returncode == 1, output
            assert "went away" in output
            assert "`registry register` finishes the run" in output
            server.start(server.answers, START_SECONDS)

            registry = Registry(settings)
            version = registry.register()
            run = mlflow.get_run(folder.name)
            assert run.info.status == "FINISHED"
            metadata = registry.bundle("staging").metadata
            assert run.data.metrics.items() >= metadata.summary().items()
            assert registry.validate().passed
            with reading_only(server.uri, monkeypatch):
                assert [v.number for v in registry.versions()] == [version.number]
                with pytest.raises(PromotionError, match="refuses"):
                    registry.promote()
            assert [move.state for move in registry.history()] == ["undone"]
            assert registry.promote().number == version.number
            assert registry.sync() == {"production": "1", "staging": "1"}
            card, _ = registry.write_card("production", tmp_path / "card")
            assert "calibration.png" in card.read_text()
        names = [item["Key"] for item in client.list_objects_v2(Bucket="models")["Contents"]]
        assert any(name.endswith("/extra_files/bundle/model.onnx") for name in names)
        assert any("/verdicts/" in name for name in names)


def auth_config(folder: Path, database: str) -> Path:
    path = folder / "auth.ini"
    function = "mlflow.server.auth:authenticate_request_basic_auth"
    path.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\n"
        f"authorization_function = {function}\n"
    )
    return path


def refuse_strangers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a password, and with a wrong one, an error says so; then the right one is set."""
    with pytest.raises(ProjectError, match="MLFLOW_TRACKING_USERNAME"):
        connect(settings)
    log_in("trainer", "a guess", monkeypatch)
    with pytest.raises(ProjectError, match=r"MLFLOW_TRACKING_USERNAME='trainer'.*refuses"):
        connect(settings)
    training = train(settings, settings.tracking_uri)
    output, _ = training.communicate(timeout=120)
    assert training.returncode == 1
    assert "MLFLOW_TRACKING_PASSWORD" in output
    assert "Traceback" not in output
    log_in("trainer", PASSWORD, monkeypatch)


@contextmanager
def reading_only(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    reader = {"username": "reader", "password": "only-looks-at-it"}  # pragma: allowlist secret
    credentials = base64.b64encode(f"trainer:{PASSWORD}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
    url = f"{server}/api/2.0/mlflow/users/create"
    urlopen(Request(url, json.dumps(reader).encode(), headers), timeout=60).close()
    log_in(reader["username"], reader["password"], monkeypatch)
    yield
    log_in("trainer", PASSWORD, monkeypatch)


def log_in(name: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def train(settings: Settings, server: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "ML_HOME": str(settings.home),
        "MLFLOW_TRACKING_URI": server,
        "ML_BOOTSTRAP_RESAMPLES": "40",
    }
    return subprocess.Popen(
        [sys.executable, "-m", package.__name__, "train"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_bundle(training: subprocess.Popen[str], settings: Settings) -> Path:
    give_up = time.monotonic() + 120
    while not (found := list(settings.models_dir.glob("*/bundle"))):
        assert training.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return found[0].parent

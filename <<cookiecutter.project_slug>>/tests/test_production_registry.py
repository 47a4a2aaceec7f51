"""MLflow as in production: PostgreSQL, S3, a server that asks for a password and goes away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest

import <<cookiecutter.package_name>> as package
from <<cookiecutter.package_name>>.mlflow_client import mlflow
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


@pytest.mark.slow
def test_postgresql_s3_and_the_server_going_away(
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
            MLFLOW_S3_ENDPOINT_URL=endpoint,
            **KEYS,
        )
        with running_mlflow(service) as server:
            settings = trained_home.settings.model_copy(
                update={"mlflow_tracking_uri": server.uri, "home": tmp_path / "home"}
            )
            shutil.copytree(trained_home.settings.data_dir, settings.data_dir)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
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
            assert registry.promote().number == version.number
            assert registry.sync() == {"production": "1", "staging": "1"}
            card, _ = registry.write_card("production", tmp_path / "card")
            assert "calibration.png" in card.read_text()
        names = [item["Key"] for item in client.list_objects_v2(Bucket="models")["Contents"]]
        assert any(name.endswith("/extra_files/bundle/model.onnx") for name in names)
        assert any("/verdicts/" in name for name in names)


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

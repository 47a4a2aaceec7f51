from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from <<cookiecutter.package_name>>.bundle import RunReference, read_bundle
from <<cookiecutter.package_name>>.logged_model import BUNDLE_PATH, EVALUATION_PATH
from <<cookiecutter.package_name>>.mlflow_client import connect, mlflow
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.tracking import start_run, where_to_look

from ..trained import Trained
from .recorded_run import (
    DATA,
    FOLDS,
    METRICS,
    MORE_TAGS,
    PARAMETERS,
    RUN_NAME,
    TAGS,
    break_off,
    only_loopback,
    record,
)

MODEL = "sample-model"


@dataclass(frozen=True)
class Recorded:
    """A tracked run and the store that it lies in."""

    settings: Settings
    client: Any
    reference: RunReference
    trained: Trained
    uri: str

    @property
    def run(self) -> Any:
        return self.client.get_run(self.reference.id)


@pytest.fixture(scope="module", params=["sqlite", "server"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield _record(Settings(home=home, model_name=MODEL))
    else:
        with _server(home / "server") as address:
            yield _record(Settings(home=home, model_name=MODEL, mlflow_tracking_uri=address))


def _record(settings: Settings) -> Recorded:
    with only_loopback():
        reference, trained, uri = record(settings, settings.models_dir / "trained")
    assert uri is not None
    return Recorded(settings, connect(settings), reference, trained, uri)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/health", process, folder / "log")
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(log.read_text())


def test_the_run_is_finished_and_named(recorded: Recorded) -> None:
    info = recorded.run.info
    assert (info.status, info.run_name) == ("FINISHED", RUN_NAME)
    assert recorded.client.get_experiment(info.experiment_id).name == MODEL
    assert recorded.reference.tracker == "mlflow"
    assert recorded.reference.id == info.run_id


def test_the_address_opens_the_run_of_a_server(recorded: Recorded) -> None:
    server, info = recorded.settings.mlflow_tracking_uri, recorded.run.info
    if server:
        page = f"/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        assert recorded.reference.url == server + page
        assert where_to_look(recorded.settings) == server
    else:
        assert recorded.reference.url is None
        assert where_to_look(recorded.settings) == (
            "MLFLOW_DISABLE_TELEMETRY=true "
            f"mlflow ui --backend-store-uri sqlite:///{recorded.settings.home / 'mlflow.db'}"
        )


def test_every_parameter_is_there(recorded: Recorded) -> None:
    assert recorded.run.data.params == {name: str(value) for name, value in PARAMETERS.items()}


def test_every_metric_is_there_with_its_step(recorded: Recorded) -> None:
    for name in FOLDS[1]:
        history = recorded.client.get_metric_history(recorded.reference.id, name)
        steps = {metric.step: metric.value for metric in history}
        assert steps == {step: metrics[name] for step, metrics in FOLDS.items()}
    assert recorded.run.data.metrics == {**FOLDS[3], **METRICS}


def test_every_tag_is_there(recorded: Recorded) -> None:
    tags = recorded.run.data.tags
    assert {name: tags.get(name) for name in TAGS | MORE_TAGS} == TAGS | MORE_TAGS


def test_the_data_set_is_there(recorded: Recorded) -> None:
    (logged,) = recorded.run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in logged.tags} == {
        "mlflow.data.context": "training",
        "rows": str(DATA.rows),
        "fingerprint": DATA.fingerprint,
    }
    assert logged.dataset.name == MODEL
    assert logged.dataset.digest == DATA.fingerprint[:36]
    assert DATA.source in logged.dataset.source
    columns = json.loads(logged.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == list(DATA.sample)


def test_every_report_is_there(recorded: Recorded, tmp_path: Path) -> None:
    uri = f"runs:/{recorded.reference.id}/reports"
    stored = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path)))
    for report in (recorded.trained.folder / "reports").iterdir():
        assert (stored / report.name).read_bytes() == report.read_bytes()
    assert {path.suffix for path in stored.iterdir()} == {".png", ".csv"}


def test_the_model_with_bundle_signature_and_example_is_there(
    recorded: Recorded, tmp_path: Path
) -> None:
    (output,) = recorded.run.outputs.model_outputs
    assert recorded.uri == f"models:/{output.model_id}"
    model = recorded.client.get_logged_model(output.model_id)
    assert (model.status.name, model.source_run_id) == ("READY", recorded.reference.id)
    assert model.params == {name: str(value) for name, value in PARAMETERS.items()}
    assert {metric.key: metric.value for metric in model.metrics} == METRICS

    files = Path(mlflow.artifacts.download_artifacts(recorded.uri, dst_path=str(tmp_path)))
    bundle = read_bundle(files / BUNDLE_PATH)
    assert bundle == recorded.trained.bundle
    assert bundle.metadata.run == recorded.reference
    assert len(pd.read_parquet(files / EVALUATION_PATH)) == len(recorded.trained.rows)

    loaded = mlflow.pyfunc.load_model(recorded.uri)
    names = list(recorded.trained.bundle.signature.names)
    assert loaded.metadata.get_input_schema().input_names() == names
    assert loaded.metadata.get_output_schema().input_names() == ["prediction", "confidence"]
    assert loaded.input_example["city"].tolist() == recorded.trained.rows["city"].head(5).tolist()


def test_an_exception_marks_the_run_as_failed(recorded: Recorded) -> None:
    broken = break_off(recorded.settings, {"roc_auc": 0.5})
    stored = recorded.client.get_run(broken.id)
    assert (stored.info.status, stored.data.metrics) == ("FAILED", {"roc_auc": 0.5})
    with start_run(recorded.settings, "next") as run:
        run.log_metrics({"roc_auc": 0.6})
    assert recorded.client.get_run(run.reference.id).info.status == "FINISHED"

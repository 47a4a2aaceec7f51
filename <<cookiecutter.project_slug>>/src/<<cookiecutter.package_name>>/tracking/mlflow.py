"""Tracking with MLflow: an SQLite file by default, a server by ``MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import RunReference
from ..logged_model import log_model
from ..mlflow_client import connect, is_refusal, mlflow
from ..settings import Settings
from . import Run, Scalar, TrainingData

if TYPE_CHECKING:
    import pandas as pd

    from ..versions import Version

REPORTS_PATH = "reports"
LONGEST_DIGEST = 36


@contextmanager
def start_run(settings: Settings, name: str) -> Iterator[Run]:
    """Open an MLflow run of the project's experiment; an exception inside marks it as failed.

    Raises:
        ConnectionError: the MLflow server does not answer, or went away.
    """
    connect(settings)
    try:
        with mlflow.start_run(run_name=name) as run:
            address = None
            if _is_server(settings):
                server = settings.tracking_uri.rstrip("/")
                address = f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
            yield MlflowRun(
                RunReference(tracker="mlflow", id=run.info.run_id, url=address),
                settings.model_name,
            )
    except mlflow.exceptions.MlflowException as error:
        if is_refusal(error) or not _is_server(settings):
            raise
        raise ConnectionError(
            f"the MLflow server {settings.tracking_uri} went away ({error}): if the model's folder "
            f"in {settings.models_dir} is complete, `registry register` finishes the run once the "
            "server answers again; otherwise train again"
        ) from error


def where_to_look(settings: Settings) -> str:
    """MLflow's user interface: the server's address, or the command that starts one."""
    if _is_server(settings):
        return settings.tracking_uri
    store = shlex.quote(settings.tracking_uri)
    return f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri {store}"


def mirror(_settings: Settings, _version: Version) -> None:
    """Nothing is to be told: versions and aliases are MLflow's own."""


def not_mirrored(_settings: Settings) -> str:
    """No version ever waits."""
    return ""


class MlflowRun:
    """The active MLflow run."""

    def __init__(self, reference: RunReference, data_name: str) -> None:
        self.reference = reference
        self._data_name = data_name

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        """Record what was chosen before the training."""
        mlflow.log_params(dict(parameters))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record what was measured; ``step`` numbers the validation fold."""
        mlflow.log_metrics(dict(metrics), step=step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record lineage, such as the data's fingerprint and the git commit."""
        mlflow.set_tags(dict(tags))

    def log_training_data(self, data: TrainingData) -> None:
        """Record which data set the run was trained on."""
        # A source in words is none that MLflow could open, which is what its other sources promise.
        source = mlflow.data.code_dataset_source.CodeDatasetSource({"source": data.source})
        dataset = mlflow.data.from_pandas(
            data.sample,
            source=source,
            targets=data.label,
            name=self._data_name,
            digest=data.fingerprint[:LONGEST_DIGEST],
        )
        with warnings.catch_warnings():
            # The columns are complete: the data was checked before it came here.
            warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer")
            mlflow.log_input(
                dataset,
                context="training",
                tags={"rows": str(data.rows), "fingerprint": data.fingerprint},
            )

    def log_reports(self, folder: Path) -> None:
        """Store the pictures (PNG) and tables (CSV) of a folder below ``reports``."""
        mlflow.log_artifacts(str(folder), REPORTS_PATH)

    def log_model(self, folder: Path, input_example: pd.DataFrame) -> str:
        """Store a trained model's folder as an MLflow model; returns its address."""
        return log_model(folder, input_example)


def _is_server(settings: Settings) -> bool:
    return settings.tracking_uri.startswith(("http://", "https://"))

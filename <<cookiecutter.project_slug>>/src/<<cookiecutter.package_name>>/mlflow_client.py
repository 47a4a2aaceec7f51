"""MLflow, imported in one place and pointed at the project's store.

Every other module takes ``mlflow`` from here: MLflow reads the variables below while it is
imported, so whoever imports it first decides, telemetry included.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .errors import ProjectError
from .settings import Settings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow

__all__ = ["connect", "is_refusal", "mlflow"]

# It warns at each model that the environment has no pip, which uv does not install.
logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)

REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
FIRST_REQUEST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def connect(settings: Settings) -> Any:
    """Point MLflow at the project's store and experiment; the experiment is made if missing.

    Returns:
        An ``mlflow.MlflowClient`` of that store.

    Raises:
        ConnectionError: the server does not answer, or not as an MLflow server does.
        ProjectError: the server refuses the user, or the experiment was deleted.
    """
    uri = settings.tracking_uri
    # MLflow writes the store and experiment into the environment, where the next Settings() would
    # take them for the user's wish; and it retries for minutes where nobody listens.
    kept = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", *FIRST_REQUEST)
    with _environment_restored(kept):
        os.environ.update(FIRST_REQUEST)
        if not settings.mlflow_tracking_uri:
            _create_database(Path(uri.removeprefix("sqlite:///")))
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        try:
            experiment = _experiment_id(client, settings)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code in REFUSALS:
                user = os.environ.get("MLFLOW_TRACKING_USERNAME")
                raise ProjectError(
                    f"the MLflow server {uri} with MLFLOW_TRACKING_USERNAME={user!r} refuses the "
                    f"request ({error.error_code}): set the name and MLFLOW_TRACKING_PASSWORD, or "
                    "MLFLOW_TRACKING_TOKEN, in the environment to what the server knows"
                ) from error
            if _is_database(uri) or is_refusal(error):
                raise
            raise ConnectionError(
                f"MLFLOW_TRACKING_URI={uri} does not answer as an MLflow server ({error}): "
                "start the server, correct the address, or unset it to use a local SQLite file"
            ) from error
        mlflow.set_experiment(experiment_id=experiment)
    return client


def is_refusal(error: Exception) -> bool:
    """Whether MLflow answered, and said no; otherwise it may have gone away."""
    rest = mlflow.exceptions.RestException
    return isinstance(error, rest) or getattr(error, "error_code", None) in REFUSALS


def _create_database(path: Path) -> None:
    """Make MLflow's tables aside and put the file in place in one step.

    MLflow itself leaves a broken file when two processes make it at once, or one is stopped.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        made, closed = Path(folder) / "made.db", Path(folder) / "closed.db"
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments()
        shutil.copy(made, closed)
        with suppress(FileExistsError):  # another process was quicker: its file is as good
            os.link(closed, path)


def _experiment_id(client: Any, settings: Settings) -> Any:
    name = settings.model_name
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            raise ProjectError(
                f"the MLflow experiment {name!r} was deleted: restore it with `mlflow experiments "
                f"restore --experiment-id {experiment.experiment_id}` or change ML_MODEL_NAME"
            )
        return experiment.experiment_id
    # A database by itself has no place for files: MLflow would put them below the current folder.
    location = settings.artifacts_dir.as_uri() if _is_database(settings.tracking_uri) else None
    try:
        return client.create_experiment(name, artifact_location=location)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_experiment_by_name(name).experiment_id


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in DATABASES


@contextmanager
def _environment_restored(names: tuple[str, ...]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

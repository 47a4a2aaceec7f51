"""A real MLflow server on a free port, for tests that need one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from .services import Service, free_port

START_SECONDS = 120


class MlflowServer(Service):
    """The server with the processes that it starts."""

    @property
    def uri(self) -> str:
        return f"http://{self.address}"

    def answers(self) -> None:
        try:
            urlopen(f"{self.uri}/health", timeout=5).close()
        except HTTPError as error:
            raise ConnectionError(str(error)) from error

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(START_SECONDS)
            self.process = None


def mlflow_service(folder: Path, store: str, *options: str, **environment: str) -> MlflowServer:
    """A server over this database, not yet started."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", *options]
    if "--artifacts-destination" not in options:
        command += ["--artifacts-destination", str(folder / "artifacts")]
    variables = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **environment,
    }
    started = {"env": variables, "cwd": folder, "start_new_session": True}
    return MlflowServer(command, port, folder / "mlflow.log", started)


@contextmanager
def running_mlflow(service: MlflowServer) -> Iterator[MlflowServer]:
    """The server, started; it is stopped at the end."""
    try:
        service.start(service.answers, START_SECONDS)
        yield service
    finally:
        service.stop()

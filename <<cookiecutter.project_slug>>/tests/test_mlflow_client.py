from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from <<cookiecutter.package_name>> import mlflow_client
from <<cookiecutter.package_name>>.errors import ProjectError
from <<cookiecutter.package_name>>.mlflow_client import connect, mlflow
from <<cookiecutter.package_name>>.settings import Settings


def test_telemetry_is_off_where_nothing_else_switches_it_off() -> None:
    code = (
        f"from {mlflow_client.__name__} import mlflow; import mlflow.telemetry; "
        "print(mlflow.telemetry.get_telemetry_client())"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"


def test_only_one_module_imports_mlflow() -> None:
    source = Path(mlflow_client.__file__).parent
    importing = [
        path.relative_to(folder).as_posix()
        for folder in (source, Path(__file__).parent)
        for path in folder.rglob("*.py")
        if "mlflow" in _imported(path)
    ]
    assert importing == ["mlflow_client.py"]


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_each_home_has_its_own_store_and_nothing_else_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    environment = dict(os.environ)
    for name in ("first", "second home"):
        home = tmp_path / name
        client = connect(Settings(home=home, model_name="sample"))
        with mlflow.start_run() as run:
            mlflow.log_text("hello", "greeting.txt")
        experiment = client.get_experiment_by_name("sample")
        assert run.info.experiment_id == experiment.experiment_id
        assert len(client.search_runs([experiment.experiment_id])) == 1
        assert len(list((home / "mlartifacts").rglob("greeting.txt"))) == 1
        assert (home / "mlflow.db").exists()
    assert dict(os.environ) == environment
    assert not list((tmp_path / "elsewhere").iterdir())


def test_connecting_again_keeps_the_experiment(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, model_name="sample")
    first, second = (
        connect(settings).get_experiment_by_name("sample").experiment_id for _ in range(2)
    )
    assert first == second


def test_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    code = (
        f"from {mlflow_client.__name__} import *; from {Settings.__module__} import Settings; "
        "connect(Settings(home='new home', model_name='sample'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path)
        for _ in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    client = connect(Settings(home=tmp_path / "new home", model_name="sample"))
    assert sorted(e.name for e in client.search_experiments()) == ["Default", "sample"]
    assert {path.name for path in (tmp_path / "new home").iterdir()} == {"mlflow.db"}


def test_a_deleted_experiment_is_an_error(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, model_name="sample")
    client = connect(settings)
    client.delete_experiment(client.get_experiment_by_name("sample").experiment_id)
    with pytest.raises(ProjectError, match="experiment 'sample' was deleted: restore it"):
        connect(settings)


def test_a_server_that_is_away_is_an_error_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=f"MLFLOW_TRACKING_URI={address} does not answer"):
            connect(Settings(home=tmp_path, mlflow_tracking_uri=address))
    assert time.monotonic() - begun < 30


def test_a_server_that_never_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mlflow_client.FIRST_REQUEST, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="does not answer as an MLflow server"):
            connect(Settings(home=tmp_path, mlflow_tracking_uri=address))


class NotMlflow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""


@pytest.fixture
def other_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), NotMlflow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_another_server_is_an_error(tmp_path: Path, other_server: str) -> None:
    with pytest.raises(ConnectionError, match="404"):
        connect(Settings(home=tmp_path, mlflow_tracking_uri=other_server))

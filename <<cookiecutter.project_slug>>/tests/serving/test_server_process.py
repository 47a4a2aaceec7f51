from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish
from ..services import free_port

RUN = """
from <<cookiecutter.package_name>>.serving import serve
from <<cookiecutter.package_name>>.settings import Settings

if __name__ == "__main__":
    serve(Settings())
"""


@dataclass
class Server:
    """A server process and where it listens."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        content = body if isinstance(body, bytes) else body and json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)

    def wait_for(self, path: str, status: int, seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                found, content = self.call("GET", path)
            except OSError:
                found = 0
            if found == status:
                return content
            time.sleep(0.02)
        raise AssertionError(f"{path} was not {status} within {seconds} s")


@contextmanager
def running(settings: Settings, workers: int = 1) -> Iterator[Server]:
    port = free_port()
    home = settings.home
    script = home / "run_server.py"
    script.write_text(RUN)
    environment = {
        **os.environ,
        "ML_HOME": str(home),
        "ML_PORT": str(port),
        "ML_WORKERS": str(workers),
        "ML_MODEL_POLL_SECONDS": "0.02",
    }
    log = home / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, cwd=home, stderr=stream, text=True
        )
        try:
            yield Server(process, port, log)
        finally:
            process.kill()
            process.wait()


def stop(server: Server) -> str:
    """Ask the server to stop; its log."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) in {0, -signal.SIGTERM}
    return server.log.read_text()


def test_start_ready_predict_reload_and_stop(settings: Settings, models: Models) -> None:
    with running(settings) as server:
        assert server.wait_for("/live", 200) == {"status": "alive"}
        assert server.call("POST", "/predict", {"features": [1.0, 2]})[0] == 503
        publish(settings, "1", models.get("binary"))
        server.wait_for("/ready", 200)
        answer = server.call("POST", "/predict", {"features": [1.0, 2]})[1]
        assert answer["model_version"] == "1"
        assert_reload_fails_no_request(server, settings, models)
        status, problem = server.call("POST", "/predict", b" " * 2_000_000)
        assert (status, problem["status"]) == (413, 413)
        assert server.call("GET", "/live")[0] == 200
        log = stop(server)
    assert "version 1 of sample-model is loaded" in log
    assert "version 2 of sample-model is loaded" in log
    assert "Finished server process" in log
    assert "Traceback" not in log


def assert_reload_fails_no_request(server: Server, settings: Settings, models: Models) -> None:
    found: list[tuple[int, str]] = []
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            status, answer = server.call("POST", "/predict", {"features": [1.0, 2]})
            found.append((status, answer.get("model_version")))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        publish(settings, "2", models.get("binary", seed=1))
        end = time.monotonic() + 10
        while (200, "2") not in found[-5:]:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        done.set()
        thread.join()
    assert {status for status, _ in found} == {200}
    versions = [version for _, version in found]
    assert versions == sorted(versions)


def test_several_workers_start_and_stop(settings: Settings, models: Models) -> None:
    publish(settings, "1", models.get("binary"))
    with running(settings, workers=2) as server:
        server.wait_for("/ready", 200)
        assert server.call("POST", "/predict", {"features": [1.0, 2]})[0] == 200
        log = stop(server)
        with pytest.raises(OSError, match="refused"):
            server.call("GET", "/live")
    assert "Traceback" not in log
    assert log.count("Started server process") == 2
    assert log.count("Finished server process") == 2

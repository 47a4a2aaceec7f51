from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import <<cookiecutter.package_name>> as package
from <<cookiecutter.package_name>>.bundle import read_bundle
from <<cookiecutter.package_name>>.holdout import read_holdout
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER, EVALUATION_FILE

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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_in_use_is_told_with_what_to_do(workers: str, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        serve = ["-m", package.__name__, "serve", "--workers", workers]
        result = subprocess.run(
            [sys.executable, *serve, "--port", str(port)],
            env={**os.environ, "ML_HOME": str(settings.home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    said = " ".join(result.stderr.split())
    assert f"end what listens on 127.0.0.1:{port}, or choose another port by --port" in said
    assert "Traceback" not in said


def test_a_command_that_is_told_to_end_says_so(settings: Settings) -> None:
    port = free_port()
    command = [sys.executable, "-m", package.__name__, "serve", "--port", str(port)]
    environment = {**os.environ, "ML_HOME": str(settings.home)}
    log = settings.home / "server.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(command, env=environment, stderr=stream, text=True) as process,
    ):
        server = Server(process, port, log)
        server.wait_for("/live", 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in {128 + signal.SIGTERM, -signal.SIGTERM}
    assert "did not start" not in log.read_text()


def test_a_rollback_reaches_the_server_without_a_restart(registry: Registry, good: Path) -> None:
    row = {"features": one_row(good)}
    for _ in range(2):
        registry.promote(registry.register(good).number, reason="a test", force=True)
    registry.sync()
    with running(registry._settings) as server:
        server.wait_for("/ready", 200)
        before = server.call("POST", "/predict", row)[1]
        assert registry.rollback("slower").number == "1"
        registry.sync()
        end = time.monotonic() + 10
        while (after := server.call("POST", "/predict", row)[1])["model_version"] != "1":
            assert time.monotonic() < end
            time.sleep(0.01)
        assert stop(server).count("Started server process") == 1
    assert before["model_version"] == "2"
    assert after["confidence"] == before["confidence"]


def one_row(folder: Path) -> list[Any]:
    bundle = read_bundle(folder / BUNDLE_FOLDER)
    rows = read_holdout(folder / EVALUATION_FILE, bundle.signature).features
    return rows[list(bundle.signature.names)].astype(object).iloc[0].tolist()


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


def metric(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def scraped(server: Server) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def worker_ids(server: Server) -> list[int]:
    """The processes that answer: the server's children that are no helpers of multiprocessing."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in found if b"spawn_main" in command_of(pid)]


def command_of(pid: int) -> bytes:
    """Its words; none of a process that is gone by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_every_scrape_shows_all_workers_and_the_dead_are_kept(
    settings: Settings, models: Models, eventually: Any
) -> None:
    publish(settings, "1", models.get("binary"))
    predicted, counted = "model_prediction_total{", "model_prediction_latency_seconds_count"

    def shows(number: int) -> bool:
        text = scraped(server)
        return metric(text, predicted) == metric(text, counted) == number

    with running(settings, workers=2) as server:
        server.wait_for("/ready", 200)
        for _ in range(40):
            assert server.call("POST", "/predict", {"features": [1.0, 2]})[0] == 200
        eventually(lambda: shows(40))
        assert "model_info" in scraped(server)
        before = worker_ids(server)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(set(worker_ids(server)) - set(before)) == 1, seconds=20)
        server.wait_for("/ready", 200)
        assert shows(40)
        for _ in range(10):
            assert server.call("POST", "/predict", {"features": [1.0, 2]})[0] == 200
        eventually(lambda: shows(50))
        stop(server)


@pytest.mark.parametrize(
    ("requests", "promotions"),
    [(1_500, 4), pytest.param(100_000, 20, marks=pytest.mark.slow)],
)
def test_promotions_under_load_fail_and_mix_no_request(
    requests: int, promotions: int, settings: Settings, models: Models
) -> None:
    trained = [models.get("binary", seed=seed) for seed in range(2)]
    row = np.array([[1.0, 2.0]], np.float32)
    scores = [model.bundle.scorer().scores({"numbers": row}).max() for model in trained]
    publish(settings, "1", trained[0])
    found: list[tuple[int, str, float]] = []
    with running(settings) as server:
        server.wait_for("/ready", 200)

        def send(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            body = json.dumps({"features": [1.0, 2]})
            for _ in range(number):
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = json.loads(answer.read())
                found.append((answer.status, content["model_version"], content["confidence"]))
            connection.close()

        threads = [threading.Thread(target=send, args=(requests // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(promotions):
            while len(found) < requests * (number + 1) // (promotions + 2):
                time.sleep(0.002)
            publish(settings, str(number + 2), trained[(number + 1) % 2])
        for thread in threads:
            thread.join()
        log = stop(server)
    assert len(found) == requests
    assert {status for status, _, _ in found} == {200}
    for _, version, confidence in found:
        assert confidence == pytest.approx(scores[(int(version) - 1) % 2], abs=1e-6)
    assert len({version for _, version, _ in found}) > promotions // 2
    assert "Traceback" not in log

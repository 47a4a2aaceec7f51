"""The whole loop on this machine: the commands a user would type, one after the other.

It works in a folder of its own (``demo/``), so that it neither reads nor touches real data.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from rich.table import Table

from .console import out
from .data import KEY
from .errors import ProjectError
from .features import newest_rows
from .registry import Registry
from .served_models import PRODUCTION
from .settings import PACKAGE, Settings
from .tracking import where_to_look

FOLDER = Path("demo")
MARKER = ".made-by-demo"
START_SECONDS = 30


class DemoError(ProjectError):
    """A step of the demonstration failed."""


def run(customers: int) -> None:
    """Run the loop and print where to look.

    Raises:
        DemoError: a step failed, or the folder holds something else.
    """
    started = time.monotonic()
    folder = _empty_folder(FOLDER)
    settings = Settings(home=folder, mlflow_tracking_uri="", promotion_database="")
    _command(settings, "data", "simulate", "--customers", str(customers))
    _command(settings, "features", "build")
    _command(settings, "features", "materialize")
    _command(settings, "pipeline", "run")
    _command(settings, "registry", "promote", "--reason", "demo")
    _command(settings, "registry", "sync")
    request, answer = _serve_and_predict(settings)
    _summarize(settings, request, answer, time.monotonic() - started)


def _empty_folder(folder: Path) -> Path:
    if folder.exists():
        if not (folder / MARKER).exists():
            raise DemoError(f"{folder.resolve()} was not made by the demo: move it away first")
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / MARKER).touch()
    return folder


def _environment(settings: Settings) -> dict[str, str]:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("ML_")}
    return {
        **inherited,
        "ML_HOME": str(settings.home),
        "ML_PROMOTION_DATABASE": settings.promotions_uri,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }


def _command(settings: Settings, *words: str) -> None:
    out.rule(f"[bold]{' '.join(words)}", align="left")
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-m", PACKAGE, *words], env=_environment(settings), check=False
    )
    if result.returncode != 0:
        raise DemoError(f"`{' '.join(words)}` ended with exit code {result.returncode}")


def _serve_and_predict(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    [features] = newest_rows(settings, 1)
    request = {"user_id": features.pop(KEY)}
    with _server(settings) as port:
        explicit = _call(port, "POST", "/predict", {"features": features})
        give_up = time.monotonic() + START_SECONDS
        while (answer := _call(port, "POST", "/predict", request)) is None:  # Feast is loading
            if time.monotonic() > give_up:
                raise DemoError("the server did not answer for a user_id alone")
            time.sleep(0.1)
    if explicit is None or explicit["confidence"] != answer["confidence"]:
        raise DemoError(f"explicit features give {explicit}, the feature store gives {answer}")
    return request, answer


@contextmanager
def _server(settings: Settings) -> Iterator[int]:
    """A model server on a free port, ready; it is stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = ("serve", "--port", str(port))
    out.rule(f"[bold]{' '.join(words)}", align="left")
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", PACKAGE, *words], env=_environment(settings)
    )
    try:
        give_up = time.monotonic() + START_SECONDS
        while _call(port, "GET", "/ready") is None:
            if process.poll() is not None or time.monotonic() > give_up:
                raise DemoError(f"the server was not ready within {START_SECONDS} s")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _call(port: int, method: str, path: str, body: object = None) -> dict[str, Any] | None:
    """The JSON answer, or None where the server is not there or does not answer with 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        content = response.read()
    except ConnectionError:
        return None
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        return None
    answer: dict[str, Any] = json.loads(content)
    return answer


def _summarize(
    settings: Settings, request: dict[str, Any], answer: dict[str, Any], seconds: float
) -> None:
    registry = Registry(settings)
    version = registry.version(PRODUCTION)
    metadata = registry.bundle(PRODUCTION).metadata
    table = Table("hold-out", "model", "baseline", title="What the demo did")
    for name, value in metadata.metrics.items():
        table.add_row(name, f"{value:.4f}", f"{metadata.baseline_metrics[name]:.4f}")
    out.print()
    out.print(table)
    run = metadata.run
    lines = {
        "project": Path.cwd(),
        "data, models, stores": settings.home.resolve(),
        "tracked run": f"{run.tracker} {run.id}" if run else "none",
        "look at the runs": where_to_look(settings),
        "model version": f"{version.number} ({', '.join(version.aliases)})",
        "gain over baseline": f"{metadata.gain_over_baseline} in {metadata.primary_metric}",
        "request": f"POST /predict {json.dumps(request)}",
        "answer": json.dumps(answer),
        "time": f"{seconds:.0f} s",
    }
    width = max(map(len, lines))
    for name, line in lines.items():
        out.print(f"[bold]{name:<{width}}[/]  ", end="")
        out.print(str(line), markup=False)
    out.print(
        "\nnext: `source .venv/bin/activate` brings the commands onto your path; README.md says "
        "how to import your own data and which two files to edit for another problem"
    )

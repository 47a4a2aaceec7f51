"""The whole loop on this machine: the commands a user would type, one after the other.

Simulated customers change their habits on SHIFT. A model is trained before that day, served, tested
against a second version, and found out of date months later by the drift job, which alerts and
retrains. All in a folder of its own (``demo/``), so that real data is neither read nor touched.
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
from datetime import datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from rich.table import Table

from . import data
from .console import out
from .database import connect
from .errors import ProjectError
from .features import newest_rows
from .monitoring.drift import DriftReport
from .monitoring.outputs import JSON_FILE
from .registry import Registry
from .served_models import PRODUCTION
from .settings import PACKAGE, Settings
from .tracking import where_to_look

FOLDER = Path("demo")
MARKER = ".made-by-demo"
START_SECONDS = 60
SHIFT = datetime(2025, 6, 1)
BEFORE, AFTER = datetime(2025, 5, 31), datetime(2025, 12, 1)
USERS = 1_000
DRIFT = 3
UNDECIDED = 0


class DemoError(ProjectError):
    """A step of the demonstration failed."""


class Demo:
    """A folder with its commands, at one instant after the other."""

    def __init__(self, folder: Path) -> None:
        self.base = Settings(home=folder, mlflow_tracking_uri="", promotion_database="")
        self.alerts: list[dict[str, Any]] = []
        self._variables: dict[str, str] = {}
        self.go_to(BEFORE)

    def go_to(self, instant: datetime) -> None:
        """Let another instant be now."""
        self.settings = self.base.model_copy(update={"fixed_clock": instant})

    @property
    def environment(self) -> dict[str, str]:
        """Of every command: the folder, the instant, and who is told of drift."""
        inherited = {name: v for name, v in os.environ.items() if not name.startswith("ML_")}
        return {
            **inherited,
            "ML_HOME": str(self.settings.home),
            "ML_AS_OF": self.settings.as_of.isoformat(),
            "ML_PROMOTION_DATABASE": self.settings.promotions_uri,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            "ML_SEARCH_BUDGET": "2",
            "ML_BOOTSTRAP_RESAMPLES": "100",
            "ML_RETRAIN_WAIT_DAYS": "0",
            "ML_RETRAIN_RECENT_TIMES": "0",
            **self._variables,
        }

    def command(self, *words: str, expected: int = 0) -> None:
        """Run a command.

        Raises:
            DemoError: it ends with another exit code than expected.
        """
        out.rule(f"[bold]{' '.join(words)}", align="left")
        command = [sys.executable, "-m", PACKAGE, *words]
        code = subprocess.run(command, env=self.environment, check=False).returncode  # noqa: S603
        if code != expected:
            raise DemoError(f"`{' '.join(words)}` ended with exit code {code}, not {expected}")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Take alerts at an address of this machine, as a chat or a pager would."""
        alerts = self.alerts

        class Webhook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing: the alert is shown at the end."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
        Thread(target=server.serve_forever, daemon=True).start()
        self._variables["ML_ALERT_WEBHOOK_URL"] = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield
        finally:
            server.shutdown()

    @contextmanager
    def server(self) -> Iterator[int]:
        """A model server on a free port, ready; it is stopped at the end."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        words = ("serve", "--port", str(port))
        out.rule(f"[bold]{' '.join(words)}", align="left")
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", PACKAGE, *words], env=self.environment
        )
        try:
            _until(lambda: _call(port, "GET", "/ready"), "the server did not get ready")
            yield port
        finally:
            process.terminate()
            process.wait(START_SECONDS)

    def serve_users(self, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask for users by their id alone, and give back what came true.

        Returns:
            A request with its answer.
        """
        outcomes = self._outcomes()
        users = [row[data.KEY] for row in newest_rows(self.settings, USERS)]
        request = {"user_id": users[0]}
        wait = f"the server did not answer {request}"
        answer = _until(lambda: _call(port, "POST", "/predict", request), wait)  # Feast is loading
        for user in users[1:]:
            answered = _until(lambda u=user: _call(port, "POST", "/predict", {"user_id": u}), wait)
            feedback = {"request_id": answered["request_id"], "outcome": outcomes[user]}
            if _call(port, "POST", "/feedback", feedback) is None:
                raise DemoError(f"the server does not take {feedback}")
        out.print(f"{len(users):,} users answered, {len(users) - 1:,} outcomes given back")
        return request, answer

    def drift_reports(self) -> list[DriftReport]:
        """Every run of the drift job, oldest first."""
        paths = self.settings.drift_dir.glob(f"*/{JSON_FILE}")
        found = sorted(paths, key=lambda path: path.stat().st_mtime)
        return [DriftReport.model_validate_json(path.read_text(encoding="utf-8")) for path in found]

    def _outcomes(self) -> dict[str, Any]:
        """What the simulation knows already: each customer's label as of now."""
        now = self.settings.as_of
        later = self.settings.model_copy(update={"fixed_clock": now + data.HORIZON})
        with connect(later) as db:
            data.prepare(db, later)
            return dict(data.labels_at(db, now).fetchall())


def run(customers: int) -> None:
    """Run the loop and print where to look.

    Raises:
        DemoError: a step failed, or the folder holds something else.
    """
    started = time.monotonic()
    demo = Demo(_empty_folder(FOLDER))
    with demo.told():
        _first_model(demo, customers)
        request, answer = _drift_and_recover(demo)
    _summarize(demo, request, answer, time.monotonic() - started)


def _first_model(demo: Demo, customers: int) -> None:
    shift = f"{SHIFT:%Y-%m-%d}"
    demo.command("data", "simulate", "--customers", str(customers), "--shift-on", shift)
    demo.command("features", "build")
    demo.command("features", "materialize")
    demo.command("pipeline", "run")
    demo.command("registry", "promote", "--reason", "demo")
    demo.command("train", "--param", "max_leaf_nodes=3")
    demo.command("registry", "register")
    arms = ("control=production:0.5", "treatment=staging:0.5")
    variants = [word for arm in arms for word in ("--variant", arm)]
    demo.command("experiment", "start", "--name", "smaller-trees", *variants)
    demo.command("registry", "sync")
    with demo.server() as port:
        demo.serve_users(port)
    demo.command("log", "compact")
    demo.command("experiment", "report", expected=UNDECIDED)
    demo.command("experiment", "stop")
    demo.command("drift", "run", "--no-html")


def _drift_and_recover(demo: Demo) -> tuple[dict[str, Any], dict[str, Any]]:
    """The second half; returns a request with its answer by the retrained model."""
    demo.go_to(AFTER)
    demo.command("features", "build")
    demo.command("features", "materialize")
    with demo.server() as port:
        demo.serve_users(port)
        before = _call(port, "GET", "/health") or {}
        demo.command("log", "compact", "--now")
        demo.command("drift", "run", "--retrain", expected=DRIFT)

        def newer() -> dict[str, Any] | None:
            now = _call(port, "GET", "/health") or before
            return now if now["model_version"] != before["model_version"] else None

        _until(newer, "the server did not take up the retrained model")
        request, answer = demo.serve_users(port)
    demo.command("log", "compact")
    demo.command("drift", "run", "--no-html")
    return request, answer


def _empty_folder(folder: Path) -> Path:
    if folder.exists():
        if not (folder / MARKER).exists():
            raise DemoError(f"{folder.resolve()} was not made by the demo: move it away first")
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / MARKER).touch()
    return folder


def _until(ask: Any, complaint: str) -> dict[str, Any]:
    """Ask until there is an answer.

    Raises:
        DemoError: with the complaint, after START_SECONDS.
    """
    give_up = time.monotonic() + START_SECONDS
    while (answer := ask()) is None:
        if time.monotonic() > give_up:
            raise DemoError(f"{complaint} within {START_SECONDS} s")
        time.sleep(0.1)
    found: dict[str, Any] = answer
    return found


def _call(port: int, method: str, path: str, body: object = None) -> dict[str, Any] | None:
    """The JSON answer, or None where the server is not there or refuses."""
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
    if response.status >= 300:
        return None
    answer: dict[str, Any] = json.loads(content)
    return answer


def _summarize(demo: Demo, request: dict[str, Any], answer: dict[str, Any], seconds: float) -> None:
    settings = demo.settings
    registry = Registry(settings)
    version = registry.version(PRODUCTION)
    metadata = registry.bundle(PRODUCTION).metadata
    columns = ("as of", "version", "served", "hold-out", "drift", "columns that moved")
    table = Table(*columns, title="What the demo did")
    for report in demo.drift_reports():
        found = report.performance
        table.add_row(
            f"{report.as_of:%Y-%m-%d}",
            report.version,
            f"{found.metric} {found.current.estimate:.4f}" if found else "unknown",
            f"{found.reference:.4f}" if found else "unknown",
            report.status,
            ", ".join(report.drifted) or "none",
        )
    out.print()
    out.print(table)
    run = metadata.run
    lines = {
        "project": Path.cwd(),
        "data, models, stores": settings.home.resolve(),
        "tracked run": f"{run.tracker} {run.id}" if run else "none",
        "look at the runs": where_to_look(settings),
        "drift reports": settings.drift_dir,
        "alert": demo.alerts[0]["summary"] if demo.alerts else "none",
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

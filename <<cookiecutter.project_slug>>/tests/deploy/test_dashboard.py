"""Every query of the dashboard is asked of a real Prometheus that scrapes the real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml

from <<cookiecutter.package_name>>.monitoring.drift import compare
from <<cookiecutter.package_name>>.monitoring.outputs import publish_metrics
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish, rows_of
from ..monitoring.conftest import Drifting
from ..services import Service, free_port, require_program
from ..serving.test_server_process import running as running_server
from .files import DEPLOY, load

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "model.json").read_text("utf-8"))
OF_THE_CLUSTER = "kube_"  # kube-state-metrics is not here: these queries need no answer
SECONDS = 30


def queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [query.replace("$namespace", ".*").replace("$__rate_interval", "10s") for query in found]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def drift_metrics(tmp_path: Path) -> Iterator[int]:
    """A port where what a drift job handed over can be scraped."""
    folder = tmp_path / "drift"
    folder.mkdir()
    settings = Settings(home=folder, drift_textfile=folder / "metrics")
    drifting = Drifting(tmp_path / "drifting", "multiclass")
    drifting.draw(1_000, seed=4).to_parquet(folder / "current.parquet")
    report, _ = compare(settings, drifting.reference, str(folder / "current.parquet"))
    publish_metrics(settings, report)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def configuration(folder: Path, ports: dict[str, int]) -> Path:
    """The rules as shipped, evaluated each second, and a scrape of each port."""
    rules = load(DEPLOY / "prometheus" / "rules.yml")
    for group in rules["groups"]:
        group.pop("interval", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in ports.items()
    ]
    content = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def get(prometheus: Service, path: str) -> bytes:
    with build_opener(ProxyHandler({})).open(
        f"http://{prometheus.address}{path}", timeout=10
    ) as answer:
        content: bytes = answer.read()
    return content


def ask(prometheus: Service, query: str) -> list[Any]:
    answer = json.loads(get(prometheus, f"/api/v1/query?{urlencode({'query': query})}"))
    result: list[Any] = answer["data"]["result"]
    return result


def test_every_query_has_an_answer(tmp_path: Path, drift_metrics: int) -> None:
    program = require_program("prometheus")
    model = Models(tmp_path / "models").get("binary")
    settings = Settings(home=tmp_path / "home")
    settings.home.mkdir()
    publish(settings, "3", model)
    row = rows_of(model)[0]
    with running_server(settings) as server:
        server.wait_for("/ready", 200)
        port = free_port()
        scraped = configuration(tmp_path, {"server": server.port, "drift": drift_metrics})
        command = [program, f"--config.file={scraped}", f"--web.listen-address=127.0.0.1:{port}"]
        command += [f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        prometheus = Service(command, port, tmp_path / "prometheus.log")
        try:
            prometheus.start(lambda: get(prometheus, "/-/ready"))
            wanted = {query for query in queries() if OF_THE_CLUSTER not in query}
            give_up = time.monotonic() + SECONDS
            while wanted and time.monotonic() < give_up:
                assert server.call("POST", "/predict", {"features": row})[0] == 200
                assert server.call("POST", "/predict", {"features": []})[0] == 422
                wanted = {query for query in wanted if not ask(prometheus, query)}
                time.sleep(0.2)
            assert wanted <= {query for query in queries() if " unless " in query}
            for query in queries():
                ask(prometheus, query)
            alerts = {rule["metric"]["alertname"] for rule in ask(prometheus, "ALERTS")}
            assert alerts <= {"DriftDetected"}
        finally:
            prometheus.stop()


def test_it_shows_what_it_has_to() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Serving",
        "Predictions and features",
        "Drift",
        "Experiment",
        "Jobs and pipeline",
    ]
    sources = {
        panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if panel["type"] != "row"
    }
    provisioned = load(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")
    assert sources == {source["uid"] for source in provisioned["datasources"]}

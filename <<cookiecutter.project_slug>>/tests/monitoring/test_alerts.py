from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from pydantic import SecretStr

from <<cookiecutter.package_name>>.monitoring import alerts
from <<cookiecutter.package_name>>.monitoring.alerts import AlertError, announce
from <<cookiecutter.package_name>>.monitoring.drift import ColumnVerdict, DriftReport, Status
from <<cookiecutter.package_name>>.settings import Settings, utc_now

from ..services import Service, free_port, require_program, running

NOW = datetime(2026, 3, 1, 12)


@dataclass
class Receiver:
    """A web server that keeps what is posted and answers with the statuses given, then 200."""

    address: str
    statuses: list[int] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.bodies.append(body)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook", list(statuses))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def settings_of(home: Path, **changes: Any) -> Settings:
    return Settings(home=home, fixed_clock=NOW, alert_retry_seconds=0.01, **changes)


def report_of(status: Status, *drifted: str) -> DriftReport:
    columns = tuple(
        ColumnVerdict(name=name, kind="number", status="drifted", psi=0.4) for name in drifted
    )
    return DriftReport(
        model_name="sample", version="3", as_of=NOW, source="a test", status=status,
        reasons=("1 of 2 columns have <drifted>",), rows=900, reference_rows=4_000,
        threshold=0.1, columns=columns,
    )  # fmt: skip


def test_an_alert_is_sent_once_until_it_changes_or_is_old(tmp_path: Path) -> None:
    with receiving() as hook:
        settings = settings_of(tmp_path, alert_webhook_url=SecretStr(hook.address))
        later = settings.model_copy(update={"fixed_clock": NOW + timedelta(hours=25)})
        assert announce(settings, report_of("steady"), tmp_path) == []
        first = report_of("drifted", "amount")
        assert announce(settings, first, tmp_path) == ["ModelDrift (firing) sent to webhook"]
        other_figure = first.model_copy(update={"rows": 950})
        assert announce(settings, other_figure, tmp_path) == []
        assert announce(settings, report_of("drifted", "amount", "city"), tmp_path)
        assert announce(later, report_of("drifted", "amount", "city"), tmp_path)
        assert announce(later, report_of("too few rows"), tmp_path) == []
        assert announce(later, report_of("steady"), tmp_path) == [
            "ModelDrift (resolved) sent to webhook"
        ]
        assert announce(later, report_of("steady"), tmp_path) == []
    assert [body["state"] for body in hook.bodies] == ["firing", "firing", "firing", "resolved"]
    sent = hook.bodies[0]
    assert sent["report"] == f"{tmp_path}/drift.json"
    assert "drift retrain" in sent["to_do"]
    assert "amount: PSI 0.400" in sent["details"]


def test_an_alert_is_repeated_while_the_data_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as hook:
        settings = Settings(home=tmp_path, alert_webhook_url=SecretStr(hook.address))
        settings.data_dir.mkdir()
        settings.data_manifest.write_text('{"newest_event": "1998-06-30T00:00:00"}')
        report = report_of("drifted", "amount")
        assert announce(settings, report, tmp_path)
        assert announce(settings, report, tmp_path) == []
        tomorrow = utc_now() + timedelta(hours=25)
        monkeypatch.setattr(alerts, "utc_now", lambda: tomorrow)
        assert announce(settings, report, tmp_path)


def test_broken_data_and_drift_are_alerts_of_their_own(tmp_path: Path) -> None:
    with receiving() as hook:
        settings = settings_of(
            tmp_path, alert_webhook_url=SecretStr(hook.address), report_url="https://reports/"
        )
        announce(settings, report_of("drifted", "amount"), tmp_path / "1")
        announce(settings, report_of("broken"), tmp_path / "2")
    assert [(body["name"], body["state"]) for body in hook.bodies] == [
        ("ModelDrift", "firing"),
        ("ModelDrift", "resolved"),
        ("BrokenData", "firing"),
    ]
    assert hook.bodies[2]["report"] == "https://reports/2/drift.json"


def test_slack_gets_its_own_form(tmp_path: Path) -> None:
    with receiving() as hook:
        settings = settings_of(tmp_path, alert_slack_url=SecretStr(hook.address))
        announce(settings, report_of("drifted", "amount"), tmp_path)
    [body] = hook.bodies
    assert list(body) == ["text"]
    assert body["text"].startswith("*ModelDrift of sample version 3: 1 of 2 columns have &lt;dr")


def test_a_channel_that_stumbles_is_tried_again(tmp_path: Path) -> None:
    with receiving(503, 429, 500) as hook:
        settings = settings_of(tmp_path, alert_webhook_url=SecretStr(hook.address))
        assert announce(settings, report_of("drifted", "amount"), tmp_path)
    assert len(hook.bodies) == 4


def test_a_failed_delivery_is_an_error_and_is_made_up_for(tmp_path: Path) -> None:
    with receiving(*[503] * 5) as slack, receiving() as hook:
        settings = settings_of(
            tmp_path,
            alert_slack_url=SecretStr(slack.address),
            alert_webhook_url=SecretStr(hook.address),
        )
        with pytest.raises(AlertError, match="not delivered to Slack: status 503"):
            announce(settings, report_of("drifted", "amount"), tmp_path)
        assert announce(settings, report_of("drifted", "amount"), tmp_path) == [
            "ModelDrift (firing) sent to Slack"
        ]
    assert len(hook.bodies) == 1


def test_a_refusal_is_not_repeated_and_no_secret_is_shown(tmp_path: Path) -> None:
    with receiving(403) as hook:
        settings = settings_of(tmp_path, alert_slack_url=SecretStr(f"{hook.address}/s3cret"))
        with pytest.raises(AlertError, match="Slack: status 403"):
            announce(settings, report_of("drifted", "amount"), tmp_path)
    assert len(hook.bodies) == 1
    gone = settings_of(
        tmp_path, alert_slack_url=SecretStr(f"http://127.0.0.1:{free_port()}/s3cret")
    )
    with pytest.raises(AlertError, match=r"Slack: no answer") as caught:
        announce(gone, report_of("drifted", "amount"), tmp_path)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(gone)


def test_alertmanager_takes_and_ends_an_alert(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "alertmanager.yml"
    with receiving() as hook:
        config.write_text(
            "route: {receiver: hook, group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: hook, webhook_configs: [{{url: '{hook.address}'}}]}}]\n",
            encoding="utf-8",
        )
        command = [
            require_program("prometheus-alertmanager"), f"--config.file={config}",
            f"--storage.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]  # fmt: skip
        with running(Service(command, port, tmp_path / "log")) as manager:
            address = f"http://{manager.address}"
            settings = settings_of(tmp_path, alertmanager_url=f"{address}/")
            assert announce(settings, report_of("drifted", "amount"), tmp_path)
            [alert] = alerts_of(address)
            assert alert["labels"] == {
                "alertname": "ModelDrift", "model_name": "sample", "severity": "warning"
            }  # fmt: skip
            assert alert["status"]["state"] != "suppressed"
            assert alert["annotations"]["report"].endswith("drift.json")
            assert "drift retrain" in alert["annotations"]["runbook"]
            assert announce(settings, report_of("steady"), tmp_path)
            assert alerts_of(address) == []


def alerts_of(address: str) -> list[Any]:
    opener = build_opener(ProxyHandler({}))
    with opener.open(f"{address}/api/v2/alerts", timeout=10) as answer:
        found: list[Any] = json.load(answer)
    return found

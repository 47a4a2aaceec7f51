"""Alerts: to Alertmanager, to any webhook as JSON, to Slack; each delivered or an error."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..errors import ProjectError
from ..settings import Settings, utc_now
from .drift import DriftReport
from .memory import remembered
from .outputs import HTML_FILE, JSON_FILE

ATTEMPTS = 5
TIMEOUT_SECONDS = 10
TO_DO = {
    "ModelDrift": "Look at the report: is the change real? Retrain with `drift retrain`, or roll "
    "back with `registry rollback` if a promotion came before it.",
    "BrokenData": "Mend what feeds the named columns; do not retrain on this data. Run `drift run` "
    "again afterwards.",
}


class AlertError(ProjectError):
    """An alert could not be delivered."""


class Alert(BaseModel):
    """What is sent, to every channel alike; a webhook gets it as it is."""

    model_config = ConfigDict(frozen=True)

    name: Literal["ModelDrift", "BrokenData"]
    state: Literal["firing", "resolved"]
    model_name: str
    model_version: str
    summary: str
    details: tuple[str, ...] = ()
    to_do: str = ""
    report: str = ""
    as_of: datetime

    @property
    def content(self) -> str:
        """What makes it worth sending again: another state, version or column, not the figures."""
        words = (self.state, self.model_version, *(line.partition(":")[0] for line in self.details))
        return hashlib.sha256("\n".join(words).encode()).hexdigest()


def announce(settings: Settings, report: DriftReport, folder: Path) -> list[str]:
    """Send what a run found; what has been sent and has not changed is not sent again.

    Returns:
        A line for each delivery.

    Raises:
        AlertError: a channel did not take an alert; the others have it.
    """
    if report.status == "too few rows":
        return []
    firing = {"drifted": "ModelDrift", "broken": "BrokenData"}.get(report.status)
    lines, failures = [], []
    for name in TO_DO:
        alert = _alert(settings, report, folder, name, name == firing)
        for channel, send in channels(settings).items():
            try:
                if _deliver_once(settings, alert, channel, send):
                    lines.append(f"{alert.name} ({alert.state}) sent to {channel}")
            except OSError as error:
                failures.append(f"{channel}: {error}")
    if failures:
        raise AlertError(
            f"an alert was not delivered to {'; '.join(failures)}. The report is in {folder}; "
            "check the channel's address in the settings and run the job again: what was delivered "
            "is not repeated"
        )
    return lines


def channels(settings: Settings) -> dict[str, Callable[[Alert], None]]:
    """The channels that the settings name, with what sends to them."""
    webhook = settings.alert_webhook_url.get_secret_value()
    slack = settings.alert_slack_url.get_secret_value()
    manager = settings.alertmanager_url.rstrip("/")
    ways: dict[str, tuple[str, Callable[[Alert], Any]]] = {
        "Alertmanager": (
            manager and f"{manager}/api/v2/alerts",
            lambda a: [_for_manager(settings, a)],
        ),
        "webhook": (webhook, lambda alert: alert.model_dump(mode="json")),
        "Slack": (slack, _for_slack),
    }
    return {
        name: lambda alert, url=url, shape=shape: _post(settings, url, shape(alert))  # type: ignore[misc]
        for name, (url, shape) in ways.items()
        if url
    }


def _alert(settings: Settings, report: DriftReport, folder: Path, name: Any, firing: bool) -> Alert:
    page = HTML_FILE if (folder / HTML_FILE).exists() else JSON_FILE
    place = f"{settings.report_url.rstrip('/')}/{folder.name}" if settings.report_url else folder
    columns = [
        f"{column.name}: PSI {column.psi:.3f}" + (f", {column.note}" if column.note else "")
        for column in report.columns
        if column.status == "drifted" and column.psi is not None
    ]
    what = "; ".join(report.reasons) if firing else "it is over"
    return Alert(
        name=name,
        state="firing" if firing else "resolved",
        model_name=report.model_name,
        model_version=report.version,
        summary=f"{name} of {report.model_name} version {report.version}: {what}",
        details=(*report.reasons, *columns) if firing else (),
        to_do=TO_DO[name] if firing else "",
        report=f"{place}/{page}",
        as_of=report.as_of,
    )


def _deliver_once(
    settings: Settings, alert: Alert, channel: str, send: Callable[[Alert], None]
) -> bool:
    """Send what is new, has changed or is to be repeated; remember it once it is delivered."""
    key = (alert.model_name, alert.name, channel)
    with remembered(settings) as db:
        row = db.execute(
            "SELECT content, sent_at FROM alerts WHERE (model, name, channel) = (?, ?, ?)", key
        ).fetchone()
        if alert.state == "resolved" and row is None:
            return False
        # Not the data's clock: it stands still without new data, while alerts elsewhere expire.
        now = settings.fixed_clock or utc_now()
        age = now - datetime.fromisoformat(row[1]) if row else None
        repeated = age is not None and age >= timedelta(hours=settings.alert_repeat_hours)
        if row and row[0] == alert.content and not repeated:
            return False
        send(alert)
        if alert.state == "resolved":
            db.execute("DELETE FROM alerts WHERE (model, name, channel) = (?, ?, ?)", key)
        else:
            values = (*key, alert.content, now.isoformat())
            db.execute("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?)", values)
    return True


def _for_manager(settings: Settings, alert: Alert) -> dict[str, Any]:
    """Alertmanager's form; an alert ends by itself when the job has stopped repeating it."""
    now = datetime.now(timezone.utc)
    ends = now + timedelta(hours=2 * settings.alert_repeat_hours)
    labels = {"alertname": alert.name, "model_name": alert.model_name, "severity": "warning"}
    texts = {
        "summary": alert.summary,
        "description": "\n".join(alert.details),
        "runbook": alert.to_do,
        "report": alert.report,
    }
    return {
        "labels": labels,
        "annotations": {name: text for name, text in texts.items() if text},
        "endsAt": (ends if alert.state == "firing" else now).isoformat(),
        **({"generatorURL": alert.report} if "://" in alert.report else {}),
    }


def _for_slack(alert: Alert) -> dict[str, Any]:
    lines = [f"*{alert.summary}*", *alert.details, alert.to_do, f"Report: {alert.report}"]
    escaped = "\n".join(line for line in lines if line)
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        escaped = escaped.replace(sign, name)
    return {"text": escaped}


def _post(settings: Settings, url: str, content: Any) -> None:
    """Post JSON; what may pass is tried again, with pauses that double."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(
        total=ATTEMPTS - 1,
        backoff_factor=settings.alert_retry_seconds,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        try:
            answer = session.post(url, json=content, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            # The address may be a secret: requests' own message would show it.
            raise ConnectionError(f"no answer ({type(error).__name__})") from None
    if not answer.ok:
        raise ConnectionError(f"status {answer.status_code}")

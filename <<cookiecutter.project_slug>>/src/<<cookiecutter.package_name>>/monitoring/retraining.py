"""Drift starts a training, under a cool-down and a budget; the gate decides what follows."""

from __future__ import annotations

from datetime import datetime, timedelta

from .. import data
from ..pipeline import run as run_pipeline
from ..registry import Registry
from ..settings import Settings
from .memory import remembered

BUDGET_DAYS = 90
RUNNING = "running"


def retrain_on_drift(settings: Settings, version: str, reason: str) -> str:
    """Retrain when the outcomes since drift was first seen at a version can teach another one.

    Drift that comes back after a horizon without any is another one.

    Raises:
        PipelineError: a step failed; nothing was registered.
        SubmitError: Kubeflow does not take the run.
    """
    seen = _first_seen(settings, version)
    begins = seen + _wait(settings)
    if settings.as_of < begins:
        return (
            f"not retrained before {begins:%Y-%m-%d}: drift was first seen on {seen:%Y-%m-%d}, and "
            "outcomes since then are needed (ML_RETRAIN_WAIT_DAYS)"
        )
    return retrain(settings, reason)


def _first_seen(settings: Settings, version: str) -> datetime:
    """Since when a version drifts; today's sight is noted."""
    key, now = (settings.model_name, version), settings.as_of
    with remembered(settings) as db:
        query = "SELECT first_at, last_at FROM drifting WHERE (model, version) = (?, ?)"
        row = db.execute(query, key).fetchone()
        first, last = map(datetime.fromisoformat, row) if row else (now, now)
        if now - last > data.HORIZON:
            first = now
        values = (*key, first.isoformat(), now.isoformat())
        db.execute("INSERT OR REPLACE INTO drifting VALUES (?, ?, ?, ?)", values)
    return first


def _wait(settings: Settings) -> timedelta:
    if settings.retrain_wait_days is None:
        return (settings.holdout_times + 1) * data.HORIZON
    return timedelta(days=settings.retrain_wait_days)


def retrain(settings: Settings, reason: str, force: bool = False) -> str:
    """Train a new version, and promote it where it is better than production.

    A second attempt learns from the newest times alone, and is held against what the first one
    left in production.

    Args:
        settings: cool-down, budget, where to train, and whether to promote.
        reason: why; it goes into the record of promotions.
        force: whether to pass over cool-down and budget.

    Returns:
        What happened, in words.

    Raises:
        PipelineError: a step failed; nothing was registered.
        SubmitError: Kubeflow does not take the run.
    """
    number, refusal = _claim(settings, reason, force)
    if number is None:
        return refusal
    outcome, version = "failed", None
    try:
        if settings.retrain_on == "kubeflow":
            from ..kubeflow import submit

            outcome = f"submitted to Kubeflow as {submit(settings)}; its version waits in staging"
            return outcome
        outcomes = []
        for attempt in _attempts(settings):
            trained = run_pipeline(attempt)
            outcomes.append(_decide(attempt, trained, reason))
            version = trained or version
        outcome = "; ".join(outcomes)
        return outcome
    finally:
        with remembered(settings) as db:
            values = (outcome, version, number)
            db.execute("UPDATE retrainings SET outcome = ?, version = ? WHERE id = ?", values)


def _claim(settings: Settings, reason: str, force: bool) -> tuple[int | None, str]:
    """Take one retraining from the budget; two jobs at once cannot both have it."""
    now = settings.as_of
    with remembered(settings) as db:
        rows = db.execute(
            "SELECT begun_at FROM retrainings WHERE model = ? AND begun_at > ? ORDER BY begun_at",
            (settings.model_name, (now - timedelta(days=BUDGET_DAYS)).isoformat()),
        ).fetchall()
        begun = [row[0] for row in rows]
        earliest = (now - timedelta(days=settings.retrain_cooldown_days)).isoformat()
        if not force and begun and begun[-1] > earliest:
            return (
                None,
                f"not retrained: the last one was begun at {begun[-1]}, within the cool-down",
            )
        if not force and len(begun) >= settings.retrain_budget:
            return None, f"not retrained: {len(begun)} in {BUDGET_DAYS} days, the budget is spent"
        cursor = db.execute(
            "INSERT INTO retrainings (model, begun_at, reason, outcome) VALUES (?, ?, ?, ?)",
            (settings.model_name, now.isoformat(), reason, RUNNING),
        )
        return cursor.lastrowid, ""


def _attempts(settings: Settings) -> list[Settings]:
    """On all times, and on the newest ones."""
    if not settings.retrain_recent_times:
        return [settings]
    recent = settings.model_copy(update={"training_times": settings.retrain_recent_times})
    return [settings, recent]


def _decide(settings: Settings, version: str | None, reason: str) -> str:
    if version is None:
        return "the retrained model is not better than production, which stays as it is"
    registry = Registry(settings)
    verdict = registry.validate(version)
    if not verdict.passed:
        failed = ", ".join(verdict.failed)
        return f"version {version} failed the gate ({failed}): production stays as it is"
    if not settings.retrain_promotes:
        return f"version {version} passed the gate and waits in staging: `registry promote` it"
    registry.promote(version, reason=f"drift: {reason}")
    registry.sync()
    return f"version {version} passed the gate and is in production"

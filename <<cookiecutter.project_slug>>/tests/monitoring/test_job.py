"""The commands, from a version in production to the exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from <<cookiecutter.package_name>> import cli
from <<cookiecutter.package_name>>.features import build
from <<cookiecutter.package_name>>.monitoring import retraining
from <<cookiecutter.package_name>>.monitoring.outputs import OutputError
from <<cookiecutter.package_name>>.monitoring.retraining import retrain
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.served_models import read_aliases
from <<cookiecutter.package_name>>.settings import Settings

from ..homes import TrainedHome
from ..services import free_port
from .test_alerts import receiving

NOW = datetime(2026, 1, 1)


@pytest.fixture(scope="module")
def production(trained_home: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a version in production."""
    home = tmp_path_factory.mktemp("production")
    shutil.copytree(trained_home.settings.data_dir, home / "data")
    folder = home / "models" / "good"
    shutil.copytree(trained_home.model.folder, folder)
    (folder / "model_uri").unlink(missing_ok=True)
    registry = Registry(Settings(_env_file=None, home=home, bootstrap_resamples=40))
    registry.register(folder)
    registry.validate()
    registry.promote()
    return home


@pytest.fixture
def home(production: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ML_HOME", str(production))
    monkeypatch.setenv("ML_BOOTSTRAP_RESAMPLES", "40")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield production
    shutil.rmtree(production / "drift", ignore_errors=True)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["drift", *words])


def simulate(path: Path, *words: str) -> str:
    result = run("simulate", "--rows", "2000", "--to", str(path), *words)
    assert result.exit_code == 0, result.output
    return str(path)


def test_exit_codes_tell_what_was_found(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = simulate(tmp_path / "steady.parquet", "--shift", "none")
    drifted = simulate(tmp_path / "drifted.parquet", "--shift", "mean", "--size", "0.6")
    broken = simulate(tmp_path / "broken.parquet", "--shift", "missing", "--size", "0.3")
    few = simulate(tmp_path / "few.parquet", "--shift", "none", "--rows", "20")

    result = run("run", "--current", steady, "--no-html")
    assert result.exit_code == 0, result.output
    assert "steady: 2,000 rows" in result.output

    result = run("run", "--current", drifted)
    assert result.exit_code == 3, result.output
    assert "next: drift retrain" in result.output
    assert "nobody is told" in result.output
    [page] = (home / "drift").glob("*/evidently.html")
    report = json.loads((page.parent / "drift.json").read_text(encoding="utf-8"))
    assert report["status"] == "drifted"
    assert report["sample_rows"] == 2_000

    assert run("run", "--current", broken, "--no-html").exit_code == 4
    assert run("run", "--current", few).exit_code == 5
    monkeypatch.setenv("ML_ALERT_WEBHOOK_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ML_ALERT_RETRY_SECONDS", "0.01")
    result = run("run", "--current", drifted, "--no-html")
    assert result.exit_code == 6
    assert "not delivered to webhook: no answer" in result.output
    assert run("run", "--current", drifted, "--no-html", "--no-alert").exit_code == 3


def test_somebody_is_told_while_the_metrics_have_nowhere_to_go(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifted = simulate(tmp_path / "drifted.parquet", "--shift", "mean", "--size", "0.6")
    monkeypatch.setenv("ML_DRIFT_PUSHGATEWAY", f"127.0.0.1:{free_port()}")
    with receiving() as hook:
        monkeypatch.setenv("ML_ALERT_WEBHOOK_URL", hook.address)
        result = run("run", "--current", drifted, "--no-html")
    assert isinstance(result.exception, OutputError)
    assert [body["name"] for body in hook.bodies] == ["ModelDrift"]
    assert list((home / "drift").glob("*/drift.json"))


@pytest.mark.usefixtures("home")
def test_parts_are_judged_like_the_whole(tmp_path: Path) -> None:
    whole = simulate(tmp_path / "whole.parquet", "--shift", "mean", "--size", "0.6")
    rows = pd.read_parquet(whole)
    parts = []
    for number, part in enumerate((rows[:300], rows[300:])):
        part.to_parquet(tmp_path / f"{number}.parquet")
        parts += ["--profiles", str(tmp_path / f"{number}.json")]
        counted = run("profile", "--current", f"{tmp_path}/{number}.parquet", "--to", parts[-1])
        assert counted.exit_code == 0, counted.output
    one = run("run", "--current", whole, "--no-html")
    two = run("run", *parts)
    assert one.exit_code == two.exit_code == 3
    assert one.output.partition("drifted: ")[0] == two.output.partition("drifted: ")[0]
    same = run("run", "--current", whole, "--reference", whole, "--no-html")
    assert same.exit_code == 0, same.output


@pytest.mark.usefixtures("home")
def test_without_a_log_there_are_too_few_rows() -> None:
    result = run("run")
    assert result.exit_code == 5
    assert "0 rows, 300 are needed" in result.output
    assert "the log holds no rows; now is 2025-12-31" in result.output


def test_the_window_of_the_log_is_judged(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings()
    rows = pd.read_parquet(simulate(tmp_path / "rows.parquet", "--shift", "none"))
    rows = rows.assign(
        request_id=[str(number) for number in range(len(rows))],
        at=settings.as_of - timedelta(hours=1),
        model_version="1", variant="production", experiment="", shadow=False,
        user_id=None, latency_seconds=0.001, prediction=0, confidence=0.9,
    )  # fmt: skip
    rows.loc[:199, "at"] = settings.as_of - timedelta(days=8)
    rows.loc[200:299, "model_version"] = "2"
    rows.loc[300:399, "shadow"] = True
    rows["shadow"] = rows["shadow"].astype(bool)
    folder = home / "prediction_log" / "days" / f"{settings.as_of:%Y-%m-%d}"
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "rows.parquet")
    (home / "prediction_log" / "segments").mkdir()
    (home / "prediction_log" / "segments" / "one.segment").touch()
    try:
        result = run("run", "--no-html")
        monkeypatch.setenv("ML_AS_OF", "2026-03-01")
        later = run("run", "--no-html")
    finally:
        shutil.rmtree(home / "prediction_log")
    assert "1,600 rows (the prediction log since" in result.output
    assert "wait for" not in result.output
    day = folder.name
    assert f"the log holds rows of {day} to {day}, 1 segments wait" in later.output
    assert "now is 2026-03-01 00:00" in later.output


@pytest.mark.slow
def test_drift_retrains_under_a_cooldown_and_a_budget(
    trained_home: TrainedHome, tmp_path: Path
) -> None:
    shutil.copytree(trained_home.settings.data_dir, tmp_path / "data")
    settings = Settings(
        home=tmp_path,
        bootstrap_resamples=40,
        fixed_clock=NOW,
        retrain_budget=2,
        freshness_days=60,
        retrain_recent_times=0,
    )
    build(settings)
    registry = Registry(settings)
    registry.register(trained_home.noise)
    registry.promote(reason="a model that learned noise", force=True)

    assert "version 2 passed the gate and is in production" in retrain(settings, "a test")
    assert registry.history()[-1].reason == "drift: a test"
    assert read_aliases(settings.served_dir)["production"] == "2"
    assert "within the cool-down" in retrain(settings, "a test")

    later = settings.model_copy(update={"fixed_clock": NOW + timedelta(days=15)})
    assert "not better than production" in retrain(later, "the same data")
    latest = settings.model_copy(update={"fixed_clock": NOW + timedelta(days=30)})
    assert "the budget is spent" in retrain(latest, "a test")
    assert registry.version("production").number == "2"


def test_drift_waits_for_outcomes_from_when_it_was_first_seen(settings: Settings) -> None:
    def on(day: int, version: str = "1", **changes: Any) -> str:
        now = NOW + timedelta(days=day)
        later = settings.model_copy(
            update={"fixed_clock": now, "holdout_times": 1, "retrain_budget": 0, **changes}
        )
        return retraining.retrain_on_drift(later, version, "a test")

    until = f"not retrained before {NOW + timedelta(days=60):%Y-%m-%d}"
    for day in (0, 30, 59):
        assert on(day).startswith(until)
    assert "the budget is spent" in on(60)
    assert on(60, version="2").startswith("not retrained before")
    assert "the budget is spent" in on(60, version="3", retrain_wait_days=0)
    again = f"not retrained before {NOW + timedelta(days=151):%Y-%m-%d}"
    assert on(91).startswith(again), "drift after a horizon without any is another one"


def test_two_jobs_cannot_begin_the_same_retraining(settings: Settings) -> None:
    now = settings.model_copy(update={"fixed_clock": NOW})
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: retraining._claim(now, "a test", False), range(8)))
    assert [number for number, _ in claims if number is not None] == [1]
    assert sum("within the cool-down" in refusal for _, refusal in claims) == 7
    forced, _ = retraining._claim(now, "a test", True)
    assert forced == 2

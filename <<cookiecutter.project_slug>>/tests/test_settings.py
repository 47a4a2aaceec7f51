from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from <<cookiecutter.package_name>>.serving.clock import Clock
from <<cookiecutter.package_name>>.settings import Settings, environment_file

PROJECT = Path(__file__).parents[1]


def test_the_example_file_lists_every_setting() -> None:
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    assert example.startswith(environment_file()), "write it anew with the command `settings`"


def test_a_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PORT", "9001")
    monkeypatch.setenv("ML_MODEL_PARAMETERS", '{"max_iter": 3}')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    settings = Settings()
    assert settings.port == 9001
    assert settings.model_parameters == {"max_iter": 3}
    assert settings.tracking_uri == "http://mlflow:5000"


def test_a_setting_comes_from_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ML_PORT=9002\n", encoding="utf-8")
    assert Settings().port == 9002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ML_PORT", "70000"),
        ("ML_FOLDS", "0"),
        ("ML_AS_OF", "soon"),
        ("ML_DUCKDB_MEMORY_LIMIT", "3"),
    ],
)
def test_a_bad_setting_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_now_is_what_is_set_else_the_newest_event_else_the_clock(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = datetime.now(timezone.utc).replace(tzinfo=None)
    assert abs((settings.as_of - clock).total_seconds()) < 5
    settings.data_dir.mkdir()
    settings.data_manifest.write_text('{"newest_event": "1998-06-30T00:00:00"}', encoding="utf-8")
    assert settings.as_of == datetime(1998, 6, 30)
    monkeypatch.setenv("ML_AS_OF", "1998-01-01T12:00:00+02:00")
    assert Settings(home=settings.home).as_of == datetime(1998, 1, 1, 10)


def test_the_servers_clock_follows_the_data(settings: Settings) -> None:
    assert settings.clock_offset == timedelta()
    fixed = settings.model_copy(update={"fixed_clock": datetime(1998, 6, 30)})
    now = datetime.now(timezone.utc).replace(tzinfo=None) + fixed.clock_offset
    assert abs(now - datetime(1998, 6, 30)) < timedelta(seconds=5)


def test_a_running_servers_clock_follows_new_data(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def tells(instant: datetime) -> bool:
        said = datetime.fromtimestamp(clock.now(), timezone.utc).replace(tzinfo=None)
        return abs(said - instant) < timedelta(seconds=5)

    clock = Clock(settings)
    assert tells(datetime.now(timezone.utc).replace(tzinfo=None))
    settings.data_dir.mkdir()
    settings.data_manifest.write_text('{"newest_event": "1998-06-30T00:00:00"}', encoding="utf-8")
    clock.refresh()
    assert tells(datetime(1998, 6, 30))
    clock.offset += 3600  # as if an hour had passed, which the same data does not take back
    clock.refresh()
    assert tells(datetime(1998, 6, 30, 1))
    settings.data_manifest.write_text("{", encoding="utf-8")
    clock.refresh()
    assert tells(datetime(1998, 6, 30, 1))
    assert "cannot be read, the clock goes on" in caplog.text


def test_the_stores_are_inside_the_home_folder(settings: Settings) -> None:
    home = settings.home.resolve()
    assert settings.tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert settings.promotions_uri == f"sqlite:///{home}/promotions.db"
    folders = (settings.data_dir, settings.models_dir, settings.served_dir)
    for path in (*folders, settings.prediction_log_dir):
        assert path.is_relative_to(home)

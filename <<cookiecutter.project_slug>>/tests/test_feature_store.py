from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from feast.data_source import PushMode

from <<cookiecutter.package_name>> import data, feature_store, features
from <<cookiecutter.package_name>>.feature_store import FeatureStoreError
from <<cookiecutter.package_name>>.purchases import LOG_FILE, simulate
from <<cookiecutter.package_name>>.settings import PACKAGE, Settings

from .feature_stores import NAMES, online_rows, own_repo, production_settings
from .services import Postgres, Service

CUSTOMERS = 1_000


@pytest.fixture
def built(settings: Settings) -> Settings:
    simulate(settings, 300, seed=5, until=date(2026, 1, 1), replace=False)
    features.build(settings)
    return settings


def registered(settings: Settings) -> list[Any]:
    with closing(sqlite3.connect(settings.feature_registry_file)) as db:
        return db.execute("SELECT * FROM feature_views").fetchall()


def online_values(settings: Settings) -> list[Any]:
    """Everything but when it was written."""
    with closing(sqlite3.connect(settings.home / "feature_online.db")) as db:
        table = f"{PACKAGE}_{feature_store.VIEW}"
        return db.execute(
            f"SELECT entity_key, feature_name, value, event_ts FROM {table} ORDER BY 1, 2"
        ).fetchall()


def test_definitions_follow_the_declared_features(built: Settings) -> None:
    view = feature_store.feature_view(feature_store.open_store(built))
    declared = {(feature.name, feature.description) for feature in data.FEATURES}
    assert {(field.name, field.description) for field in view.features} == declared
    assert (view.ttl, view.join_keys) == (data.TTL, [data.KEY])


def test_applying_again_changes_nothing(built: Settings) -> None:
    feature_store.materialize(built)
    before = registered(built)
    assert len(before) == 1
    assert feature_store.apply(built) == []
    assert registered(built) == before
    for seed in "12":  # which orders Feast's sets
        command = [sys.executable, "-m", PACKAGE, "features", "apply"]
        environment = {"ML_HOME": str(built.home), "PYTHONHASHSEED": seed}
        answer = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert answer.stdout.startswith(b"nothing changed")
        assert registered(built) == before


def test_what_is_no_longer_declared_is_removed(built: Settings, tmp_path: Path) -> None:
    changed = own_repo(built, tmp_path / "repo")
    definitions = tmp_path / "repo" / feature_store.DEFINITIONS_FILE
    text = definitions.read_text(encoding="utf-8")
    definitions.write_text(f"{text}\nother = FeatureService(name='other', features=[view])\n")
    assert feature_store.apply(changed) == ["new: feature_services other"]
    definitions.write_text(text)
    assert feature_store.apply(changed) == ["removed: feature_services other"]


def test_materialized_values_are_those_of_now(built: Settings) -> None:
    rows = features.newest_rows(built, CUSTOMERS)
    done = feature_store.materialize(built)
    assert (done.entities, done.end - done.start) == (len(rows), data.TTL)
    assert done.end == built.as_of.replace(tzinfo=timezone.utc)
    keys = [row.pop(data.KEY) for row in rows]
    assert online_rows(built, keys) == rows
    assert set(online_rows(built, ["nobody"])[0].values()) == {None}


def test_materializing_again_changes_nothing(built: Settings) -> None:
    feature_store.materialize(built)
    before = online_values(built)
    assert feature_store.materialize(built).entities > 0
    assert online_values(built) == before
    incremental = feature_store.materialize(built, incremental=True)
    assert (incremental.entities, incremental.start) == (0, incremental.end)


def test_an_incremental_run_brings_what_is_new(built: Settings) -> None:
    feature_store.materialize(built)
    later = built.model_copy(update={"fixed_clock": built.as_of + timedelta(days=1)})
    features.build(later)
    done = feature_store.materialize(later, incremental=True)
    assert done.end - done.start == timedelta(days=1)
    row = features.newest_rows(later, 1)[0]
    assert online_rows(later, [row.pop(data.KEY)]) == [row]


def killed_amid(built: Settings, slow: Settings) -> int:
    """How many values a materialization from nothing had written when it was killed."""
    with closing(sqlite3.connect(built.home / "feature_online.db")) as db, db:
        db.execute(f"DELETE FROM {PACKAGE}_{feature_store.VIEW}")
    process = subprocess.Popen(
        [sys.executable, "-m", PACKAGE, "features", "materialize"],
        env={"ML_HOME": str(built.home), "ML_FEATURE_REPO": str(slow.feature_repo)},
    )
    end = time.monotonic() + 60
    while process.poll() is None and not online_values(built):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    return len(online_values(built))


def test_a_killed_run_is_safe_to_repeat(built: Settings, tmp_path: Path) -> None:
    slow = own_repo(built, tmp_path / "repo")
    path = feature_store.repo_file(slow)
    path.write_text(path.read_text().replace("batch_size: 5000", "batch_size: 2"))
    rows = features.newest_rows(built, CUSTOMERS)
    # On a busy machine the kill may come when all is written: then once more.
    assert any(0 < killed_amid(built, slow) < len(rows) * len(NAMES) for _ in range(5))
    assert feature_store.materialize(built).entities == len(rows)
    keys = [row.pop(data.KEY) for row in rows]
    assert online_rows(built, keys) == rows


def test_training_and_serving_read_the_same_and_nothing_from_later(settings: Settings) -> None:
    """Online values come from a log that ends before the instant, offline ones from all of it."""
    simulate(settings, CUSTOMERS, seed=3, until=date(2026, 1, 1), replace=False)
    features.build(settings)
    frame = features.training_frame(settings)
    for number, at in enumerate(data.example_times(settings)[4::3]):
        past = settings.model_copy(
            update={"home": settings.home / f"past-{number}", "fixed_clock": at}
        )
        past.data_dir.mkdir(parents=True)
        shutil.copy(settings.data_manifest, past.data_manifest)
        duckdb.sql(f"""
            COPY (FROM '{settings.data_dir / LOG_FILE}' WHERE purchased_at < '{at}')
            TO '{past.data_dir / LOG_FILE}'""")
        features.build(past)
        feature_store.materialize(past)
        offline = frame[frame[features.TIMESTAMP] == at]
        online = pd.DataFrame(online_rows(past, list(offline[data.KEY])))
        assert len(online) > CUSTOMERS / 3
        pd.testing.assert_frame_equal(
            online.astype("float32"), offline[NAMES].reset_index(drop=True)
        )


def test_a_log_of_1998_works_as_well(settings: Settings) -> None:
    simulate(settings, 100, seed=1, until=date(1998, 7, 1), replace=False)
    features.build(settings)
    done = feature_store.materialize(settings, incremental=True)
    assert (done.entities, done.end.year) == (100, 1998)
    row = features.newest_rows(settings, 1)[0]
    assert online_rows(settings, [row.pop(data.KEY)]) == [row]


def test_pushed_values_replace_the_materialized(built: Settings) -> None:
    feature_store.materialize(built)
    row = features.newest_rows(built, 1)[0]
    store = feature_store.open_store(built)
    later = pd.Timestamp(built.as_of + timedelta(hours=1), tz="UTC")
    pushed = pd.DataFrame([{**row, NAMES[0]: 99.5, feature_store.TIMESTAMP: later}])
    store.push(feature_store.PUSH_SOURCE, pushed, to=PushMode.ONLINE)
    key = row.pop(data.KEY)
    assert online_rows(built, [key]) == [{**row, NAMES[0]: 99.5}]


def test_before_anything_is_applied_the_command_is_named(settings: Settings) -> None:
    with pytest.raises(FeatureStoreError, match="features apply"):
        feature_store.materialize(settings)


def test_unset_variables_of_production_are_named(settings: Settings) -> None:
    production = settings.model_copy(
        update={"feature_store": "production", "feature_redis": "redis:6379"}
    )
    with pytest.raises(FeatureStoreError) as caught:
        feature_store.repo_config(production)
    message = str(caught.value)
    assert "ML_FEATURE_REGISTRY, ML_REDSHIFT_CLUSTER" in message
    assert "ML_FEATURE_REDIS" not in message


def test_an_unknown_variant_is_refused(settings: Settings) -> None:
    with pytest.raises(FeatureStoreError, match=r"no .*feature_store\.nowhere\.yaml"):
        feature_store.open_store(settings.model_copy(update={"feature_store": "nowhere"}))


def test_postgres_holds_the_registry_and_redis_the_values(
    built: Settings, tmp_path: Path, postgres: Postgres, redis_server: Service
) -> None:
    production = production_settings(built, tmp_path / "repo", postgres, redis_server)
    assert "new: feature_services model_inputs" in feature_store.apply(production)
    assert feature_store.apply(production) == []
    rows = features.newest_rows(built, CUSTOMERS)
    keys = [row.pop(data.KEY) for row in rows]
    for _ in range(2):
        assert feature_store.materialize(production).entities == len(rows)
        assert online_rows(production, keys) == rows
    assert feature_store.materialize(production, incremental=True).entities == 0
    pd.testing.assert_frame_equal(
        features.training_frame(production), features.training_frame(built)
    )


def test_the_production_file_is_one_that_feast_takes(
    settings: Settings, postgres: Postgres, redis_server: Service
) -> None:
    production = settings.model_copy(
        update={
            "feature_store": "production",
            "feature_registry": postgres.database(),
            "feature_redis": f"{redis_server.address},db=1",
            "redshift_cluster": "feature-store",
            "redshift_user": "loader",
            "redshift_database": "features",
            "redshift_region": "us-east-1",
            "redshift_staging": "s3://feature-store/staging",
            "redshift_role": "arn:aws:iam::1:role/redshift",
        }
    )
    assert "new: data_sources feature_table" in feature_store.apply(production)
    store = feature_store.open_store(production)
    source = feature_store.feature_view(store).batch_source
    assert (type(source).__name__, source.table) == ("RedshiftSource", "features")
    assert store.config.offline_store.type == "redshift"


def test_a_fixed_start_is_taken(built: Settings) -> None:
    done = feature_store.materialize(built, datetime(2024, 1, 1))
    assert done.start == datetime(2024, 1, 1, tzinfo=timezone.utc)

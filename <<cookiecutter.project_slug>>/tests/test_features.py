from __future__ import annotations

from datetime import date, datetime
from typing import Any

import duckdb
import pandas as pd
import pytest

from <<cookiecutter.package_name>> import data, features
from <<cookiecutter.package_name>>.database import connect
from <<cookiecutter.package_name>>.purchases import DataError, simulate
from <<cookiecutter.package_name>>.settings import Settings

NAMES = [feature.name for feature in data.FEATURES]


@pytest.fixture
def simulated(settings: Settings) -> Settings:
    simulate(settings, 400, seed=5, until=date(2026, 1, 1), replace=False)
    return settings


def test_the_training_frame_holds_what_was_known_at_each_instant(simulated: Settings) -> None:
    built = features.build(simulated)
    frame = features.training_frame(simulated)
    assert len(frame) == built.examples
    assert sorted(frame[features.TIMESTAMP].unique()) == data.example_times(simulated)
    at = data.example_times(simulated)[4]
    with connect(simulated) as db:
        data.prepare(db, simulated)
        expected = data.features_at(db, at).df().set_index(data.KEY).sort_index()[NAMES]
    found = frame[frame[features.TIMESTAMP] == at].set_index(data.KEY)[NAMES]
    found.index = found.index.astype(str)
    pd.testing.assert_frame_equal(
        found.sort_index(), expected.astype("float32"), check_names=False, check_index_type=False
    )


def test_the_newest_examples_may_be_had_alone(simulated: Settings) -> None:
    features.build(simulated)
    whole = features.training_frame(simulated)
    *_, last_but_one, newest = data.example_times(simulated)
    expected = whole[whole[features.TIMESTAMP] == newest]
    frame = features.training_frame(simulated, features.examples(simulated, after=last_but_one))
    assert len(frame) == len(expected) > 0
    for name in (features.TIMESTAMP, *NAMES, data.LABEL):
        assert frame[name].tolist() == expected[name].tolist()
    assert features.examples(simulated, after=newest).num_rows == 0


def test_building_again_changes_nothing(simulated: Settings) -> None:
    features.build(simulated)
    first = features.training_frame(simulated)
    features.build(simulated)
    pd.testing.assert_frame_equal(features.training_frame(simulated), first)
    assert not list(simulated.data_dir.glob(".*"))


def test_a_build_that_fails_leaves_the_old_tables(
    simulated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    features.build(simulated)
    before = features.training_frame(simulated)

    def broken(*_: Any) -> duckdb.DuckDBPyRelation:
        raise duckdb.Error("disk full")

    monkeypatch.setattr(data, "features_at", broken)
    with pytest.raises(duckdb.Error, match="disk full"):
        features.build(simulated)
    pd.testing.assert_frame_equal(features.training_frame(simulated), before)
    assert not list(simulated.data_dir.glob(".*"))


def test_too_many_examples_are_sampled_by_key(simulated: Settings) -> None:
    everything = features.build(simulated).examples
    fewer = simulated.model_copy(update={"training_rows": everything // 3})
    built = features.build(fewer)
    assert built.sampled_share == pytest.approx(1 / 3, abs=0.01)
    assert 0.2 < built.examples / everything < 0.5
    assert built.entities_now == 400
    frame = features.training_frame(fewer)
    oldest = frame.loc[frame[features.TIMESTAMP].idxmin(), data.KEY]
    whole_history = frame[frame[data.KEY] == oldest]
    assert len(whole_history) == len(data.example_times(fewer))


def test_a_missing_value_names_the_feature(
    simulated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = data.features_at

    def incomplete(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
        return complete(db, at).project(
            "* REPLACE (CASE WHEN purchase_count = 1 THEN NULL ELSE gap_variation END "
            "AS gap_variation)"
        )

    monkeypatch.setattr(data, "features_at", incomplete)
    features.build(simulated)
    with pytest.raises(DataError, match=r"gap_variation \([\d,]+ rows\).*features_at"):
        features.training_frame(simulated)


def test_large_whole_numbers_become_the_models_float32(
    simulated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = data.features_at

    def large(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
        return small(db, at).project("* REPLACE (purchase_count + 20000001 AS purchase_count)")

    monkeypatch.setattr(data, "features_at", large)
    features.build(simulated)
    assert features.training_frame(simulated)["purchase_count"].min() >= 20_000_000


def test_too_short_data_says_so(simulated: Settings) -> None:
    short = simulated.model_copy(update={"fixed_clock": datetime(2024, 1, 20)})
    with pytest.raises(DataError, match="too short for a training example"):
        features.build(short)


def test_reading_before_building_says_what_to_run(simulated: Settings) -> None:
    with pytest.raises(DataError, match="features build"):
        features.training_frame(simulated)


def test_the_newest_rows_are_those_of_now(simulated: Settings) -> None:
    features.build(simulated)
    row = features.newest_rows(simulated, 3)[2]
    with connect(simulated) as db:
        data.prepare(db, simulated)
        now = data.features_at(db, simulated.as_of).df().set_index(data.KEY)
    assert row == pytest.approx({**now.loc[row[data.KEY], NAMES], data.KEY: row[data.KEY]})

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.repo_config import RepoConfig
from feast.types import Float32, Int64, String

from <<cookiecutter.package_name>>.offline_store import AsOfOfflineStore

START = datetime(2024, 1, 1)
ENTITIES = 60


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


def instants(random: np.random.Generator, count: int, days: int) -> list[datetime]:
    hours = random.integers(0, 24 * days, count)
    return [START + timedelta(hours=int(hour)) for hour in hours]


@pytest.fixture
def definitions(tmp_path: Path, random: np.random.Generator) -> list[Any]:
    """Two views of different keys and ttls; one renames a column, one holds repeated rows."""
    keys = [f"c{number}" for number in random.integers(0, ENTITIES, 900)]
    visits = pd.DataFrame({"customer": keys, "at": instants(random, 900, 80)})
    visits = visits.drop_duplicates()
    visits["visits"] = np.arange(len(visits))
    visits["city_name"] = random.choice(["Köln", None, ""], len(visits))
    pq.write_table(pa.Table.from_pandas(visits), tmp_path / "visits.parquet")
    shops = pd.DataFrame({"shop": random.integers(0, 5, 200), "at": instants(random, 200, 80)})
    shops["turnover"] = random.random(200).astype("float32")
    shops["written"] = shops["at"] + pd.to_timedelta(np.arange(200), unit="h")
    shops = pd.concat([shops, shops.assign(turnover=-1.0, written=START)])
    pq.write_table(pa.Table.from_pandas(shops), tmp_path / "shops.parquet")

    def source(name: str, **more: Any) -> FileSource:
        path = str(tmp_path / f"{name}.parquet")
        return FileSource(
            name=name, path=path, file_format=ParquetFormat(), timestamp_field="at", **more
        )

    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.STRING)
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
    one = FeatureView(
        name="customer_view",
        entities=[customer],
        ttl=timedelta(days=3),
        schema=[
            Field(name="customer", dtype=String),
            Field(name="visits", dtype=Int64),
            Field(name="city", dtype=String),
        ],
        source=source("visits", field_mapping={"city_name": "city"}),
    )
    other = FeatureView(
        name="shop_view",
        entities=[shop],
        ttl=timedelta(0),
        schema=[Field(name="shop", dtype=Int64), Field(name="turnover", dtype=Float32)],
        source=source("shops", created_timestamp_column="written"),
    )
    service = FeatureService(name="both", features=[one, other[["turnover"]]])
    return [customer, shop, one, other, service]


def store(folder: Path, offline: Any, definitions: list[Any]) -> FeatureStore:
    folder.mkdir()
    config = RepoConfig(
        project="compared",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        offline_store=offline,
        online_store={"type": "sqlite", "path": f"{folder}/online.db"},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    made = FeatureStore(config=config)
    made.apply(definitions)
    return made


@pytest.fixture
def ours(tmp_path: Path, definitions: list[Any]) -> FeatureStore:
    kind = f"{AsOfOfflineStore.__module__}.{AsOfOfflineStore.__qualname__}"
    offline = {"type": kind, "home": str(tmp_path), "memory_limit": "1GB", "threads": 2}
    return store(tmp_path / "ours", offline, definitions)


@pytest.fixture
def feasts(tmp_path: Path, definitions: list[Any]) -> FeatureStore:
    return store(tmp_path / "feasts", {"type": "duckdb"}, definitions)


def asked(random: np.random.Generator, rows: int = 500) -> pd.DataFrame:
    """Some entities are unknown, some instants before everything, some long after."""
    keys = [f"c{number}" for number in random.integers(0, ENTITIES + 5, rows)]
    frame = pd.DataFrame({"customer": keys, "shop": random.integers(0, 7, rows)})
    frame["event_timestamp"] = [at - timedelta(days=5) for at in instants(random, rows, 100)]
    return frame.assign(number=np.arange(rows))


@pytest.mark.parametrize("full_names", [False, True])
def test_the_answers_are_those_of_feasts_own_store(
    ours: FeatureStore, feasts: FeatureStore, random: np.random.Generator, full_names: bool
) -> None:
    rows = asked(random)
    answers = [
        feature_store.get_historical_features(
            rows.copy(), feature_store.get_feature_service("both"), full_feature_names=full_names
        )
        .to_df()
        .sort_values("number", ignore_index=True)
        for feature_store in (ours, feasts)
    ]
    assert len(answers[0]) == len(rows)
    values = answers[0].columns[4:]
    assert 0.1 < answers[0][values].isna().to_numpy().mean() < 0.9
    assert set(values) == set(answers[1].columns[4:])
    pd.testing.assert_frame_equal(
        *(answer[sorted(answer.columns)] for answer in answers), check_dtype=False
    )


def test_the_newest_values_are_those_of_feasts_own_store(
    ours: FeatureStore, feasts: FeatureStore
) -> None:
    for feature_store in (ours, feasts):
        feature_store.materialize(START + timedelta(days=5), START + timedelta(days=60))
    keys = [{"customer": f"c{number}", "shop": number % 7} for number in range(ENTITIES + 3)]
    found = [
        feature_store.get_online_features(feature_store.get_feature_service("both"), keys).to_df(
            include_event_timestamps=True
        )
        for feature_store in (ours, feasts)
    ]
    assert found[0]["visits"].notna().sum() > ENTITIES / 2
    pd.testing.assert_frame_equal(*(frame[sorted(frame.columns)] for frame in found))


def test_rows_that_are_equal_are_all_kept(ours: FeatureStore, random: np.random.Generator) -> None:
    rows = pd.concat([asked(random, 20)] * 3, ignore_index=True)
    job = ours.get_historical_features(rows, ours.get_feature_service("both"))
    assert len(job.to_df()) == 60
    assert set(job.metadata.features) >= {"customer_view:visits", "shop_view:turnover"}

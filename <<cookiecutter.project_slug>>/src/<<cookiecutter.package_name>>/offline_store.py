"""An offline store for Feast: DuckDB's as-of join, within the memory of the settings.

Feast's own DuckDB store pairs every row with every value before it and ranks the pairs. This one
gives the same answers (a test compares them) and finds the one value by an as-of join.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from .database import connect, identifier, literal
from .settings import Settings

ENTITY_ROWS = "entity_rows"


class AsOfOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Where the store may spill to, and how much memory and how many threads it may take."""

    type: str = f"{__name__}.AsOfOfflineStore"
    home: Path
    memory_limit: str
    threads: int

    @property
    def settings(self) -> Settings:
        """The same as settings of a database."""
        return Settings(
            home=self.home, duckdb_memory_limit=self.memory_limit, duckdb_threads=self.threads
        )


class QueryJob(RetrievalJob):
    """A query that runs when its answer is asked for."""

    def __init__(
        self,
        config: AsOfOfflineStoreConfig,
        query: str,
        entity_rows: pa.Table | None = None,
        **described: Any,
    ) -> None:
        self._config, self._query, self._entity_rows = config, query, entity_rows
        self._described = described

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        with connect(self._config.settings) as db:
            if self._entity_rows is not None:
                db.register(ENTITY_ROWS, self._entity_rows)
            return db.sql(self._query).to_arrow_table()

    @property
    def full_feature_names(self) -> bool:
        """Whether a feature's column is named after its view as well."""
        return bool(self._described.get("full_feature_names"))

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What is to be computed from the answer."""
        return list(self._described.get("on_demand", ()))

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._described.get("metadata")


class AsOfOfflineStore(DuckDBOfflineStore):
    """Reads Parquet files; writes are those of Feast's DuckDB store."""

    supports_filter_by_created_timestamp = False

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
    ) -> QueryJob:
        """Give each row of a data frame the newest values that were known at its timestamp."""
        at = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        columns, joins = [f"{ENTITY_ROWS}.*"], [f"FROM {ENTITY_ROWS}"]
        for number, view in enumerate(feature_views):
            names = [
                ref.partition(":")[2]
                for ref in feature_refs
                if ref.partition(":")[0] == view.projection.name_to_use()
            ]
            alias = f"view{number}"
            columns += _values(view, names, alias, at, full_feature_names)
            joins.append(_join(view, names, alias, at))
        asked = RetrievalMetadata(
            feature_refs,
            [name for name in entity_df.columns if name != at],
            entity_df[at].min(),
            entity_df[at].max(),
        )
        return QueryJob(
            config.offline_store,
            f"SELECT {', '.join(columns)} {' '.join(joins)}",
            pa.Table.from_pandas(entity_df, preserve_index=False),
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=asked,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> QueryJob:
        """Give each entity's newest values between two instants."""
        ranks = [timestamp_field] + ([created_timestamp_column] if created_timestamp_column else [])
        start, end = (
            literal(at.astimezone(timezone.utc).replace(tzinfo=None))
            for at in (start_date, end_date)
        )
        return QueryJob(
            config.offline_store,
            f"""
            SELECT {_listed(join_key_columns + feature_name_columns + ranks)}
            FROM {_table(data_source)}
            WHERE {identifier(timestamp_field)} BETWEEN {start}::TIMESTAMP AND {end}::TIMESTAMP
            QUALIFY row_number() OVER (
                PARTITION BY {_listed(join_key_columns)}
                ORDER BY {", ".join(f"{identifier(rank)} DESC" for rank in ranks)}) = 1
            """,
        )


def _values(view: FeatureView, names: list[str], alias: str, at: str, full: bool) -> list[str]:
    """The features of one view as columns, empty where the newest value is older than the ttl."""
    fresh = "true"
    if view.ttl:
        newest = f"{alias}.{identifier(view.batch_source.timestamp_field)}"
        seconds = view.ttl.total_seconds()
        fresh = f"{_instant(at)} <= {newest} + to_seconds({seconds})"
    prefix = f"{view.projection.name_alias or view.name}__" if full else ""
    return [
        f"CASE WHEN {fresh} THEN {alias}.{identifier(name)} END AS {identifier(prefix + name)}"
        for name in names
    ]


def _join(view: FeatureView, names: list[str], alias: str, at: str) -> str:
    source = view.batch_source
    original = {new: old for old, new in source.field_mapping.items()}
    keys = view.projection.join_key_map or {key.name: key.name for key in view.entity_columns}
    columns = ", ".join(
        f"{identifier(original.get(name, name))} AS {identifier(name)}" for name in [*keys, *names]
    )
    stamp = identifier(source.timestamp_field)
    rows = f"SELECT {columns}, {stamp}::TIMESTAMPTZ AS {stamp} FROM {_table(source)}"
    if source.created_timestamp_column:
        rows += (
            f" QUALIFY row_number() OVER (PARTITION BY {_listed([*keys])}, {stamp} "
            f"ORDER BY {identifier(source.created_timestamp_column)} DESC) = 1"
        )
    matches = [
        f"{ENTITY_ROWS}.{identifier(theirs)} = {alias}.{identifier(ours)}"
        for ours, theirs in keys.items()
    ]
    matches.append(f"{_instant(at)} >= {alias}.{stamp}")
    return f"ASOF LEFT JOIN ({rows}) AS {alias} ON {' AND '.join(matches)}"


def _instant(at: str) -> str:
    """When an entity row is asked for; pandas may count in nanoseconds."""
    return f"{ENTITY_ROWS}.{identifier(at)}::TIMESTAMPTZ"


def _table(source: FileSource) -> str:
    return f"read_parquet({literal(source.path)})"


def _listed(names: list[str]) -> str:
    return ", ".join(map(identifier, names))

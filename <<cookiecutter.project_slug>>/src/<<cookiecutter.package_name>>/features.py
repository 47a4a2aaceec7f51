"""Features: the feature table, the labels and the training frame.

``build`` writes two tables below ``data/``: ``features/`` (key, event_timestamp, features), one
Parquet file for each instant, and ``labels.parquet`` (key, event_timestamp, label).
``training_frame`` asks the feature store for the features as known at each label's instant.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import data, feature_store
from .console import track
from .database import connect, identifier, literal, write_parquet
from .online_features import FEATURE_SERVICE
from .purchases import DataError
from .settings import Settings

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

TIMESTAMP = feature_store.TIMESTAMP
ORDER = "example_number"
LABELS_FILE = "labels.parquet"
SAMPLE_BUCKETS = 1_000_000
COLUMN_TYPES = {"float": "FLOAT", "int": "BIGINT", "string": "VARCHAR"}


@dataclass(frozen=True)
class Build:
    """What a build of the feature table wrote."""

    instants: int
    examples: int
    sampled_share: float
    entities_now: int


def build(settings: Settings) -> Build:
    """Compute features and labels at every example time, and the features as of now; register.

    With more than ``settings.training_rows`` examples, those of a fixed sample of keys are kept.

    Raises:
        DataError: there is no raw data, or it is too short for one example time.
    """
    times = data.example_times(settings)
    if not times:
        raise DataError(
            f"the data up to {settings.as_of} is too short for a training example: it must cover "
            f"some history and then {data.HORIZON.days} days in which the outcome shows. (Now is "
            "the newest event of the log in data/; remove an old log, or set ML_AS_OF)"
        )
    with connect(settings) as db:
        data.prepare(db, settings)
        share, examples = _write_labels(db, settings, times)
        with _replaced_folder(settings.feature_table) as folder:
            for at in track(times, "computing features"):
                _write_instant(db, folder, at, only_examples=True)
            entities = _write_instant(db, folder, settings.as_of, only_examples=False)
    feature_store.apply(settings)
    return Build(len(times) + 1, examples, share, entities)


def examples(settings: Settings, after: datetime | None = None) -> pa.Table:
    """The key, instant and label of every example, or of those after an instant.

    Raises:
        DataError: there is no table of them.
    """
    newer = None if after is None else [(TIMESTAMP, ">", after)]
    return pq.read_table(_labels_path(settings), filters=newer)


def training_frame(settings: Settings, labels: pa.Table | None = None) -> pd.DataFrame:
    """Labelled examples with their features as known at their instants.

    Args:
        settings: where the tables and the feature store are.
        labels: some of the examples; default: every one.

    Returns:
        One row an example, ordered by instant: the key (categorical), event_timestamp, the
        features (float32, or text) and the label.

    Raises:
        DataError: the tables are missing or nothing is registered, or an example lacks a
            feature's value.
    """
    labels = examples(settings) if labels is None else labels
    order = pa.array(np.arange(labels.num_rows))
    entity_rows = labels.append_column(ORDER, order).to_pandas(types_mapper=_text_as_arrow)
    store = feature_store.open_store(settings)
    from feast.errors import FeatureServiceNotFoundException

    try:
        service = store.get_feature_service(FEATURE_SERVICE)
    except FeatureServiceNotFoundException as error:
        raise DataError(
            f"the feature store of {settings.home.resolve()} does not know {FEATURE_SERVICE}: run "
            "`features apply`"
        ) from error
    table = store.get_historical_features(entity_rows, service).to_arrow()
    if table.num_rows != labels.num_rows:
        raise DataError(
            f"the feature store gave {table.num_rows:,} rows for {labels.num_rows:,} examples: its "
            "offline engine loses rows (see feature_store.yaml)"
        )
    frame: pd.DataFrame = _typed(table.take(pc.sort_indices(table[ORDER]))).to_pandas()
    _require_complete(frame)
    return frame


def newest_rows(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """Some rows of the feature table as of now, in the order of their keys."""
    names = ", ".join([data.KEY, *(identifier(feature.name) for feature in data.FEATURES)])
    table = settings.feature_table / "*.parquet"
    with connect(settings) as db:
        rows = db.execute(
            f"SELECT {names} FROM read_parquet({literal(table)}) "
            f"WHERE {TIMESTAMP} = ? ORDER BY {data.KEY} LIMIT ?",
            [settings.as_of, limit],
        )
        columns = [column[0] for column in rows.description]
        return [dict(zip(columns, row, strict=True)) for row in rows.fetchall()]


def _write_labels(
    db: duckdb.DuckDBPyConnection, settings: Settings, times: list[datetime]
) -> tuple[float, int]:
    for at in track(times, "computing labels"):
        rows = data.labels_at(db, at).project(
            f"{data.KEY}::VARCHAR AS {data.KEY}, {literal(at)}::TIMESTAMP AS {TIMESTAMP}, "
            f"{data.LABEL}"
        )
        verb = "INSERT INTO labels" if at != times[0] else "CREATE TABLE labels AS"
        db.execute(f"{verb} {rows.sql_query()}")
    (total,) = db.execute("SELECT count(*) FROM labels").fetchone() or (0,)
    share = min(1.0, settings.training_rows / max(total, 1))
    if share < 1:
        kept = int(share * SAMPLE_BUCKETS)
        db.execute(
            f"DELETE FROM labels WHERE md5_number_lower({data.KEY}) % {SAMPLE_BUCKETS} >= {kept}"
        )
    query = f"FROM labels ORDER BY {TIMESTAMP}, {data.KEY}"
    return share, write_parquet(db, query, _labels_path(settings, exists=False))


def _write_instant(
    db: duckdb.DuckDBPyConnection, folder: Path, at: datetime, only_examples: bool
) -> int:
    query = data.features_at(db, at).sql_query()
    columns = ", ".join(
        f"{identifier(f.name)}::{COLUMN_TYPES[f.type]} AS {identifier(f.name)}"
        for f in data.FEATURES
    )
    wanted = (
        f"WHERE {data.KEY}::VARCHAR IN "
        f"(SELECT {data.KEY} FROM labels WHERE {TIMESTAMP} = {literal(at)})"
        if only_examples
        else ""
    )
    return write_parquet(
        db,
        f"SELECT {data.KEY}::VARCHAR AS {data.KEY}, {literal(at)}::TIMESTAMP AS {TIMESTAMP}, "
        f"{columns} FROM ({query}) {wanted} ORDER BY {data.KEY}",
        folder / f"{at:%Y%m%dT%H%M%S}.parquet",
    )


@contextmanager
def _replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of the old one when the block ends well."""
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield staging
        if folder.exists():
            folder.rename(retired / folder.name)
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(retired)
        shutil.rmtree(staging, ignore_errors=True)


def _text_as_arrow(kind: pa.DataType) -> pd.ArrowDtype | None:
    """Keep text out of Python objects, of which there would be one for each row."""
    import pandas as pd

    return pd.ArrowDtype(kind) if pa.types.is_string(kind) else None


def _typed(table: pa.Table) -> pa.Table:
    """The columns of a training frame, numbers as the float32 that the model reads."""
    columns = {
        data.KEY: table[data.KEY].dictionary_encode(),
        TIMESTAMP: table[TIMESTAMP].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")),
    }
    for feature in data.FEATURES:
        column = table[feature.name]
        # Whole numbers beyond 2**24 are rounded, as the server rounds them.
        number = feature.type != "string"
        columns[feature.name] = column.cast(pa.float32(), safe=False) if number else column
    return pa.table({**columns, data.LABEL: table[data.LABEL]})


def _require_complete(frame: pd.DataFrame) -> None:
    missing = frame[[f.name for f in data.FEATURES]].isna().sum()
    if missing.any():
        worst = ", ".join(f"{name} ({rows:,} rows)" for name, rows in missing[missing > 0].items())
        raise DataError(
            f"features without a value: {worst}; the server refuses missing values, so give one "
            "in features_at() of data.py"
        )


def _labels_path(settings: Settings, exists: bool = True) -> Path:
    path = settings.data_dir / LABELS_FILE
    if exists and not path.exists():
        raise DataError(f"no labels in {settings.data_dir}: run `features build` first")
    return path

"""The feature store: the feature table, the labels and the training frame.

``build`` writes two tables below ``data/``: ``features/`` (key, event_timestamp, features), one
Parquet file for each instant, and ``labels.parquet`` (key, event_timestamp, label).
``training_frame`` joins them as they were known at each label's instant.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import data
from .console import track
from .database import connect, identifier, literal, write_parquet
from .purchases import DataError
from .settings import Settings

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

TIMESTAMP = "event_timestamp"
FEATURES_FOLDER = "features"
LABELS_FILE = "labels.parquet"
SAMPLE_BUCKETS = 1_000_000


@dataclass(frozen=True)
class Build:
    """What a build of the feature table wrote."""

    instants: int
    examples: int
    sampled_share: float
    entities_now: int


def build(settings: Settings) -> Build:
    """Compute features and labels at every example time, and the features as of now.

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
        with _replaced_folder(settings.data_dir / FEATURES_FOLDER) as folder:
            for at in track(times, "computing features"):
                _write_instant(db, folder, at, only_examples=True)
            entities = _write_instant(db, folder, settings.as_of, only_examples=False)
    return Build(len(times) + 1, examples, share, entities)


def training_frame(settings: Settings) -> pd.DataFrame:
    """Every labelled example with its features as known at its instant.

    Returns:
        One row an example, ordered by instant: the key (categorical), event_timestamp, the
        features (float32, or text) and the label.

    Raises:
        DataError: the tables are missing, or an example lacks a feature's value.
    """
    columns = ", ".join(
        f"{identifier(f.name)}::{'VARCHAR' if f.type == 'string' else 'FLOAT'} AS "
        f"{identifier(f.name)}"
        for f in data.FEATURES
    )
    with connect(settings) as db:
        table = db.sql(f"""
            SELECT labels.{data.KEY}, labels.{TIMESTAMP}, {columns}, {data.LABEL}
            FROM read_parquet({literal(_labels_path(settings))}) AS labels
            ASOF LEFT JOIN {_features_table(settings)} AS features
                ON labels.{data.KEY} = features.{data.KEY}
                AND labels.{TIMESTAMP} >= features.{TIMESTAMP}
            ORDER BY labels.{TIMESTAMP}, labels.{data.KEY}
        """).to_arrow_table()
    position = table.column_names.index(data.KEY)
    table = table.set_column(position, data.KEY, table[data.KEY].dictionary_encode())
    frame: pd.DataFrame = table.to_pandas()
    _require_complete(frame)
    return frame


def latest(settings: Settings, key: str) -> dict[str, float | int | str] | None:
    """One entity's features as of now, or None where it is unknown."""
    names = ", ".join(identifier(f.name) for f in data.FEATURES)
    with connect(settings) as db:
        row = db.execute(
            f"SELECT {names} FROM {_features_table(settings)} "
            f"WHERE {data.KEY}::VARCHAR = ? ORDER BY {TIMESTAMP} DESC LIMIT 1",
            [key],
        ).fetchone()
    return None if row is None else dict(zip((f.name for f in data.FEATURES), row, strict=True))


def known_keys(settings: Settings, limit: int) -> list[str]:
    """Some keys of the feature table as of now, in order."""
    with connect(settings) as db:
        rows = db.execute(
            f"SELECT {data.KEY}::VARCHAR FROM {_features_table(settings)} "
            f"WHERE {TIMESTAMP} = ? ORDER BY 1 LIMIT ?",
            [settings.as_of, limit],
        ).fetchall()
    return [str(row[0]) for row in rows]


def _write_labels(
    db: duckdb.DuckDBPyConnection, settings: Settings, times: list[datetime]
) -> tuple[float, int]:
    for at in track(times, "computing labels"):
        rows = data.labels_at(db, at).project(
            f"{data.KEY}, {literal(at)}::TIMESTAMP AS {TIMESTAMP}, {data.LABEL}"
        )
        verb = "INSERT INTO labels" if at != times[0] else "CREATE TABLE labels AS"
        db.execute(f"{verb} {rows.sql_query()}")
    (total,) = db.execute("SELECT count(*) FROM labels").fetchone() or (0,)
    share = min(1.0, settings.training_rows / max(total, 1))
    if share < 1:
        kept = int(share * SAMPLE_BUCKETS)
        db.execute(
            f"DELETE FROM labels WHERE md5_number_lower({data.KEY}::VARCHAR) "
            f"% {SAMPLE_BUCKETS} >= {kept}"
        )
    return share, write_parquet(db, "FROM labels", _labels_path(settings, exists=False))


def _write_instant(
    db: duckdb.DuckDBPyConnection, folder: Path, at: datetime, only_examples: bool
) -> int:
    query = data.features_at(db, at).sql_query()
    names = ", ".join(identifier(f.name) for f in data.FEATURES)
    wanted = (
        f"WHERE {data.KEY} IN (SELECT {data.KEY} FROM labels WHERE {TIMESTAMP} = {literal(at)})"
        if only_examples
        else ""
    )
    return write_parquet(
        db,
        f"SELECT {data.KEY}, {literal(at)}::TIMESTAMP AS {TIMESTAMP}, {names} "
        f"FROM ({query}) {wanted} ORDER BY {data.KEY}",
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


def _features_table(settings: Settings) -> str:
    folder = settings.data_dir / FEATURES_FOLDER
    if not folder.is_dir():
        raise DataError(f"no features in {settings.data_dir}: run `features build` first")
    return f"read_parquet({literal(folder / '*.parquet')})"

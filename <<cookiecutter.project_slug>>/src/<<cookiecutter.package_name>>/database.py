"""DuckDB as this project uses it: embedded, in UTC, within the memory of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from .settings import Settings


@contextmanager
def connect(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in memory that spills to a temporary folder of its own."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".spill-", dir=settings.data_dir) as spill,
        duckdb.connect(":memory:") as db,
    ):
        db.execute("SET memory_limit = ?", [settings.duckdb_memory_limit])
        db.execute("SET temp_directory = ?", [spill])
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET enable_progress_bar = false")
        if settings.duckdb_threads is not None:
            db.execute("SET threads = ?", [settings.duckdb_threads])
        yield db


def write_parquet(db: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """Write a query's rows to a Parquet file that is replaced in one step.

    Returns:
        How many rows were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    (rows,) = db.execute(
        f"COPY ({query}) TO {literal(partial)} (FORMAT parquet, COMPRESSION zstd)"
    ).fetchone() or (0,)
    partial.replace(path)
    return int(rows)


def literal(value: object) -> str:
    """Quote a value as an SQL string, for statements that take no parameters."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quote a column's name."""
    return '"' + name.replace('"', '""') + '"'

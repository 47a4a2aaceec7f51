"""What the drift job remembers: alerts sent, since when there is drift, retrainings begun."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..settings import Settings

FILE = "monitoring.db"
BUSY_SECONDS = 30
TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    model TEXT, name TEXT, channel TEXT, content TEXT, sent_at TEXT,
    PRIMARY KEY (model, name, channel));
CREATE TABLE IF NOT EXISTS retrainings (
    id INTEGER PRIMARY KEY, model TEXT, begun_at TEXT, reason TEXT, outcome TEXT, version TEXT);
CREATE TABLE IF NOT EXISTS drifting (
    model TEXT, version TEXT, first_at TEXT, last_at TEXT, PRIMARY KEY (model, version));
"""


@contextmanager
def remembered(settings: Settings) -> Iterator[sqlite3.Connection]:
    """The job's database, in one transaction that no other run can enter."""
    settings.drift_dir.mkdir(parents=True, exist_ok=True)
    path = settings.drift_dir / FILE
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as db:
        db.executescript(TABLES)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

"""Is a tumour benign? Images of biopsies, read in one week after the other."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
from sklearn.datasets import load_breast_cancer

from .database import literal
from .schema import Feature
from .settings import Settings

KEY = "biopsy_id"
LABEL = "diagnosis"
HORIZON = timedelta(days=7)
TTL = timedelta(days=2)

FEATURES = tuple(
    Feature(name=name.replace(" ", "_")) for name in load_breast_cancer().feature_names
)

FIRST_WEEK = datetime(2024, 1, 1)
WEEKS = 8


def example_times(settings: Settings) -> list[datetime]:
    """The end of every week."""
    ends = [FIRST_WEEK + week * HORIZON for week in range(1, WEEKS + 1)]
    return [at for at in ends if at + HORIZON <= settings.as_of]


def prepare(db: duckdb.DuckDBPyConnection, settings: Settings) -> None:  # noqa: ARG001
    """Load the biopsies and spread them over the weeks."""
    bunch = load_breast_cancer(as_frame=True)
    biopsies = bunch.frame.rename(columns=lambda name: name.replace(" ", "_"))
    biopsies[LABEL] = bunch.target_names[bunch.target]
    db.execute(f"""
        CREATE TABLE biopsies AS
        SELECT
            row_number() OVER () AS {KEY},
            {literal(FIRST_WEEK)}::TIMESTAMP
                + to_days(7 * (row_number() OVER () % {WEEKS})::INTEGER) AS read_on,
            *
        FROM biopsies
    """)


def features_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """Every biopsy read before ``at``."""
    names = ", ".join(feature.name for feature in FEATURES)
    return db.sql(f"SELECT {KEY}, {names} FROM biopsies WHERE read_on < {literal(at)}")


def labels_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """The diagnoses of the week before ``at``."""
    return db.sql(f"""
        SELECT {KEY}, {LABEL} FROM biopsies
        WHERE read_on < {literal(at)} AND read_on >= {literal(at - HORIZON)}
    """)

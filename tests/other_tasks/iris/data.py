"""Which species is an iris? Measured flowers, some of them every day."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
from sklearn.datasets import load_iris

from .database import literal
from .schema import Feature
from .settings import Settings

KEY = "flower_id"
LABEL = "species"
HORIZON = timedelta(days=1)
TTL = timedelta(days=2)

FEATURES = (
    Feature(name="sepal_length", description="In cm."),
    Feature(name="sepal_width", description="In cm."),
    Feature(name="petal_length", description="In cm."),
    Feature(name="petal_width", description="In cm."),
    Feature(name="sepal_shape", type="string", description="Slender or wide."),
)

FIRST_DAY = datetime(2024, 5, 1)
DAYS = 10


def example_times(settings: Settings) -> list[datetime]:
    """Every morning after a day of measuring."""
    mornings = [FIRST_DAY + timedelta(days=n) for n in range(1, DAYS + 1)]
    return [at for at in mornings if at + HORIZON <= settings.as_of]


def prepare(db: duckdb.DuckDBPyConnection, settings: Settings) -> None:  # noqa: ARG001
    """Load the flowers; the same number of each species is measured every day."""
    bunch = load_iris(as_frame=True)
    flowers = bunch.frame.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    flowers[LABEL] = bunch.target_names[bunch.target]
    db.execute(f"""
        CREATE TABLE flowers AS
        SELECT
            'flower-' || row_number() OVER () AS {KEY},
            {literal(FIRST_DAY)}::TIMESTAMP + to_days((row_number() OVER () % {DAYS})::INTEGER)
                AS measured_on,
            CASE WHEN sepal_length > 2 * sepal_width THEN 'slender' ELSE 'wide' END AS sepal_shape,
            *
        FROM flowers
    """)


def features_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """Every flower measured before ``at``."""
    names = ", ".join(feature.name for feature in FEATURES)
    return db.sql(f"SELECT {KEY}, {names} FROM flowers WHERE measured_on < {literal(at)}")


def labels_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """The species of the flowers measured the day before ``at``."""
    return db.sql(f"""
        SELECT {KEY}, {LABEL} FROM flowers
        WHERE measured_on < {literal(at)} AND measured_on >= {literal(at - HORIZON)}
    """)

"""How far does a patient's diabetes progress within a year? A regression with a category."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
from sklearn.datasets import load_diabetes

from .database import literal
from .schema import Feature
from .settings import Settings

KEY = "patient_id"
LABEL = "progression"
HORIZON = timedelta(days=365)
TTL = timedelta(days=2)

FEATURES = (
    Feature(name="age", type="int", description="In years."),
    Feature(name="sex", type="string"),
    Feature(name="bmi", description="Body mass index."),
    Feature(name="bp", description="Mean blood pressure."),
    Feature(name="s1", description="Total serum cholesterol."),
    Feature(name="s2", description="Low-density lipoproteins."),
    Feature(name="s3", description="High-density lipoproteins."),
    Feature(name="s4", description="Total cholesterol over HDL."),
    Feature(name="s5", description="Logarithm of serum triglycerides."),
    Feature(name="s6", description="Blood sugar."),
)

FIRST_YEAR = datetime(2010, 1, 1)
YEARS = 8


def example_times(settings: Settings) -> list[datetime]:
    """The end of every year of admissions."""
    ends = [FIRST_YEAR + year * HORIZON for year in range(1, YEARS + 1)]
    return [at for at in ends if at + HORIZON <= settings.as_of]


def prepare(db: duckdb.DuckDBPyConnection, settings: Settings) -> None:  # noqa: ARG001
    """Load the patients and spread them over the years."""
    patients = load_diabetes(as_frame=True, scaled=False).frame
    db.execute(f"""
        CREATE TABLE patients AS
        SELECT
            'p' || row_number() OVER () AS {KEY},
            {literal(FIRST_YEAR)}::TIMESTAMP
                + to_days({HORIZON.days} * (row_number() OVER () % {YEARS})::INTEGER) AS admitted,
            * REPLACE (CASE WHEN sex = 1 THEN 'female' ELSE 'male' END AS sex),
            target AS {LABEL}
        FROM patients
    """)


def features_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """Every patient admitted before ``at``."""
    names = ", ".join(feature.name for feature in FEATURES)
    return db.sql(f"SELECT {KEY}, {names} FROM patients WHERE admitted < {literal(at)}")


def labels_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """The progression of the patients admitted in the year before ``at``."""
    return db.sql(f"""
        SELECT {KEY}, {LABEL} FROM patients
        WHERE admitted < {literal(at)} AND admitted >= {literal(at - HORIZON)}
    """)

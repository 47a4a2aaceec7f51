"""YOUR DATA: the key, the features, the label, and how both are computed at an instant.

This is the first of the two files to edit for a problem of your own (the other is model.py).
The rest of the project reads from here

- ``KEY``, ``FEATURES`` and ``TTL`` (how long a computed feature may be used),
- ``LABEL`` and ``HORIZON``,
- ``example_times``: the instants at which training examples are taken,
- ``prepare``, then ``features_at`` and ``labels_at`` for each instant.

Two rules keep a model honest. ``features_at(at)`` uses nothing from ``at`` onwards; ``labels_at``
looks only at what happens from ``at`` until ``at + HORIZON``.

The sample: will a customer buy within the next 30 days?
"""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb

from .database import literal
from .purchases import log_path, read_manifest
from .schema import Feature
from .settings import Settings

KEY = "customer_id"
LABEL = "buys_within_30_days"
HORIZON = timedelta(days=30)

FEATURES = (
    Feature(name="avg_purchase_amount", minimum=0, description="Mean amount of a purchase day."),
    Feature(name="purchase_count", type="int", minimum=1, description="Days with purchases."),
    Feature(name="days_since_last_purchase", type="int", minimum=1, description="Recency."),
    Feature(name="days_since_first_purchase", type="int", minimum=1, description="Tenure."),
    Feature(
        name="purchases_last_30_days",
        type="int",
        minimum=0,
        maximum=30,
        description="Of the days before, those with purchases.",
    ),
    Feature(
        name="purchases_last_90_days",
        type="int",
        minimum=0,
        maximum=90,
        description="Of the days before, those with purchases.",
    ),
    Feature(name="amount_last_90_days", minimum=0, description="Sum of the days before."),
    Feature(name="avg_days_between_purchases", description="The customer's rhythm so far."),
    Feature(name="gap_variation", description="Deviation of the gaps over their mean; 0: regular."),
    Feature(name="recency_over_usual_gap", description="Above 1: later than the rhythm has it."),
)

TTL = timedelta(days=2)

MOST_EXAMPLE_TIMES = 12
LEAST_HISTORY = timedelta(days=60)


def example_times(settings: Settings) -> list[datetime]:
    """The instants, oldest first, at which training examples are taken.

    They lie one horizon apart, so no label window reaches into the next one's, and the newest
    window has just ended at ``settings.as_of``.
    """
    oldest = read_manifest(settings).oldest_event + LEAST_HISTORY
    today = settings.as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    times = [today - n * HORIZON for n in range(1, MOST_EXAMPLE_TIMES + 1)]
    return sorted(at for at in times if at >= oldest)


def prepare(db: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Merge each customer's purchases of a day and measure the gap to the day before it."""
    db.execute(f"""
        CREATE TABLE purchase_days AS
        SELECT *, day - lag(day) OVER (PARTITION BY customer_id ORDER BY day) AS gap
        FROM (
            SELECT customer_id, purchased_at::DATE AS day, sum(amount) AS amount
            FROM read_parquet({literal(log_path(settings))})
            WHERE purchased_at < {literal(settings.as_of)}::TIMESTAMP + INTERVAL 1 MICROSECOND
            GROUP BY ALL)
    """)


def features_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """The key and the features of every customer known before ``at``."""
    return db.sql(f"""
        WITH known AS (
            SELECT
                customer_id,
                avg(amount) AS avg_purchase_amount,
                count(*) AS purchase_count,
                {_date(at)} - max(day) AS days_since_last_purchase,
                {_date(at)} - min(day) AS days_since_first_purchase,
                count(*) FILTER (day >= {_date(at)} - 30) AS purchases_last_30_days,
                count(*) FILTER (day >= {_date(at)} - 90) AS purchases_last_90_days,
                coalesce(sum(amount) FILTER (day >= {_date(at)} - 90), 0)
                    AS amount_last_90_days,
                coalesce(avg(gap), {_date(at)} - min(day)) AS avg_days_between_purchases,
                coalesce(stddev_samp(gap) / avg(gap), 1) AS gap_variation
            FROM purchase_days
            WHERE day < {_date(at)}
            GROUP BY customer_id)
        SELECT *, days_since_last_purchase / avg_days_between_purchases AS recency_over_usual_gap
        FROM known
    """)


def labels_at(db: duckdb.DuckDBPyConnection, at: datetime) -> duckdb.DuckDBPyRelation:
    """The key of every customer known before ``at`` and whether it bought until the horizon."""
    return db.sql(f"""
        SELECT
            customer_id,
            bool_or(day >= {_date(at)})::INTEGER AS {LABEL}
        FROM purchase_days
        WHERE day < {_date(at + HORIZON)}
        GROUP BY customer_id
        HAVING min(day) < {_date(at)}
    """)


def _date(at: datetime) -> str:
    return f"DATE {literal(at.date())}"

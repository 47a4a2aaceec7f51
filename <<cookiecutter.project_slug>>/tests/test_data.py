from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from <<cookiecutter.package_name>> import data
from <<cookiecutter.package_name>>.database import connect
from <<cookiecutter.package_name>>.purchases import ColumnMapping, import_log, log_path, simulate
from <<cookiecutter.package_name>>.settings import Settings

AT = datetime(2025, 3, 1)
MAPPING = ColumnMapping("customer_id", "purchased_at", "amount")


def take_in(settings: Settings, *purchases: str) -> Settings:
    source = settings.home / "log.csv"
    source.write_text("\n".join(("customer_id,purchased_at,amount", *purchases)), encoding="utf-8")
    import_log(settings, source, MAPPING, keep_duplicates=True, replace=True)
    return settings


def rows_at(settings: Settings, what: Any, at: datetime) -> dict[str, dict[str, Any]]:
    with connect(settings) as db:
        data.prepare(db, settings)
        relation = what(db, at)
        rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    return {row.pop(data.KEY): row for row in rows}


def test_features_of_a_customer_worked_out_by_hand(settings: Settings) -> None:
    take_in(
        settings,
        "a,2024-11-01,10",  # 120 days before
        "a,2025-01-10 09:00,20",  # 50 days before, in two purchases
        "a,2025-01-10 17:00,10",
        "a,2025-02-19,50",  # 10 days before
        "a,2025-03-01,1000",  # at the instant itself: not known yet
        "b,2025-02-28,7",
    )
    features = rows_at(settings, data.features_at, AT)
    assert features["a"] == pytest.approx(
        {
            "avg_purchase_amount": 30,
            "purchase_count": 3,
            "days_since_last_purchase": 10,
            "days_since_first_purchase": 120,
            "purchases_last_30_days": 1,
            "purchases_last_90_days": 2,
            "amount_last_90_days": 80,
            "avg_days_between_purchases": 55,
            "gap_variation": 450**0.5 / 55,
            "recency_over_usual_gap": 10 / 55,
        }
    )
    assert features["b"] == pytest.approx(
        {
            "avg_purchase_amount": 7,
            "purchase_count": 1,
            "days_since_last_purchase": 1,
            "days_since_first_purchase": 1,
            "purchases_last_30_days": 1,
            "purchases_last_90_days": 1,
            "amount_last_90_days": 7,
            "avg_days_between_purchases": 1,
            "gap_variation": 1,
            "recency_over_usual_gap": 1,
        }
    )


def test_every_declared_feature_is_computed(settings: Settings) -> None:
    take_in(settings, "a,2025-02-01,1")
    computed = rows_at(settings, data.features_at, AT)["a"]
    assert set(computed) == {feature.name for feature in data.FEATURES}


@pytest.mark.parametrize(
    ("day", "bought"),
    [("2025-02-28", 0), ("2025-03-01", 1), ("2025-03-30", 1), ("2025-03-31", 0)],
)
def test_the_label_looks_at_the_horizon_alone(settings: Settings, day: str, bought: int) -> None:
    take_in(settings, "a,2024-12-01,1", f"a,{day},1", "b,2025-05-01,1")
    assert rows_at(settings, data.labels_at, AT) == {"a": {data.LABEL: bought}}


def test_no_feature_sees_what_happens_from_its_instant_on(tmp_path: Path) -> None:
    whole = Settings(home=tmp_path / "whole")
    simulate(whole, 500, seed=3, until=datetime(2026, 1, 1).date(), replace=False)
    for at in data.example_times(whole)[::4]:
        past = Settings(home=tmp_path / f"until-{at:%Y%m%d}")
        past.data_dir.mkdir(parents=True)
        with connect(past) as db:
            db.execute(
                f"COPY (FROM read_parquet('{log_path(whole)}') WHERE purchased_at < '{at}') "
                f"TO '{past.data_dir / log_path(whole).name}' (FORMAT parquet)"
            )
        # With as_of set, the past needs no manifest.
        past = past.model_copy(update={"fixed_clock": at})
        known = rows_at(past, data.features_at, at)
        assert len(known) > 100
        assert rows_at(whole, data.features_at, at) == known


def test_every_label_window_ends_by_now(settings: Settings) -> None:
    simulate(settings, 100, seed=1, until=datetime(2026, 1, 1).date(), replace=False)
    times = data.example_times(settings)
    assert len(times) == data.MOST_EXAMPLE_TIMES
    assert max(times) + data.HORIZON <= settings.as_of
    assert all(b - a >= data.HORIZON for a, b in pairwise(times))


def test_an_earlier_now_gives_earlier_examples(settings: Settings) -> None:
    simulate(settings, 100, seed=1, until=datetime(2026, 1, 1).date(), replace=False)
    earlier = settings.model_copy(update={"fixed_clock": settings.as_of - timedelta(days=100)})
    assert max(data.example_times(earlier)) + data.HORIZON <= earlier.as_of

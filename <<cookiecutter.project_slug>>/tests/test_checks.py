from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from <<cookiecutter.package_name>> import data, model
from <<cookiecutter.package_name>>.checks import DataCheckError, check_frame, check_freshness
from <<cookiecutter.package_name>>.features import TIMESTAMP
from <<cookiecutter.package_name>>.settings import Settings

NOW = datetime(2025, 6, 1)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Rows that pass: 40 keys at two times, whatever data.py declares."""
    times = [pd.Timestamp(NOW) - n * data.HORIZON for n in (2, 1)]
    rows = pd.DataFrame(
        [(f"k{key}", time) for time in times for key in range(40)], columns=[data.KEY, TIMESTAMP]
    )
    rows[data.KEY] = rows[data.KEY].astype("category")
    for feature in data.FEATURES:
        value = "some" if feature.type == "string" else feature.minimum or 0
        rows[feature.name] = value if feature.type == "string" else np.float32(value)
    labels = [0.5, 1.5] if model.TASK == "regression" else [0, 1]
    return rows.assign(**{data.LABEL: np.resize(labels, len(rows))})


@pytest.fixture
def now(settings: Settings) -> Settings:
    return settings.model_copy(update={"fixed_clock": NOW})


def test_good_rows_pass_and_are_counted(now: Settings, frame: pd.DataFrame) -> None:
    measured = check_frame(now, frame)
    assert (measured["rows"], measured["times"]) == (80, 2)
    assert measured["share_1"] == 0.5


def test_a_value_out_of_range_is_shown_with_its_row(now: Settings, frame: pd.DataFrame) -> None:
    frame.loc[3, "purchases_last_30_days"] = 31
    with pytest.raises(
        DataCheckError, match=r"purchases_last_30_days: above 30 \(1 found\)"
    ) as one:
        check_frame(now, frame)
    assert "k3" in str(one.value)
    assert "31.0" in str(one.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="purchase_count"), "column_in_dataframe"),
        (lambda f: f.assign(purchase_count=f["purchase_count"].astype(str)), "purchase_count"),
        (lambda f: f.assign(purchase_count=np.float32("nan")), "purchase_count: not_nullable"),
        (lambda f: f.assign(unknown=1), "column_in_schema"),
        (lambda f: pd.concat([f, f.head(2)], ignore_index=True), "multiple_fields_uniqueness"),
        (lambda f: f.assign(**{TIMESTAMP: pd.Timestamp(NOW)}), "outcome is not known"),
        (lambda f: f.assign(**{data.LABEL: None}), "not_nullable"),
        (lambda f: f.assign(**{data.LABEL: 0}), "too one-sided"),
    ],
)
def test_what_is_not_fit_stops(now: Settings, frame: pd.DataFrame, change, message: str) -> None:
    with pytest.raises(DataCheckError, match=message):
        check_frame(now, change(frame))


def test_a_rare_class_is_refused_by_its_limit(now: Settings, frame: pd.DataFrame) -> None:
    frame[data.LABEL] = [1, *[0] * 79]
    assert check_frame(now, frame)["share_1"] == 1 / 80
    strict = now.model_copy(update={"rarest_class": 0.02})
    with pytest.raises(DataCheckError, match=r"at least 2\.0000% \(ML_RAREST_CLASS\)"):
        check_frame(strict, frame)


def test_old_data_is_refused(now: Settings, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    assert check_freshness(now, manifest) == {}
    manifest.write_text(json.dumps({"newest_event": "2025-05-30T00:00:00"}))
    assert check_freshness(now, manifest) == {"newest_event_age_days": 2.0}
    manifest.write_text(json.dumps({"newest_event": "2025-05-01T00:00:00"}))
    with pytest.raises(DataCheckError, match=r"31\.0 days before 2025-06-01"):
        check_freshness(now, manifest)

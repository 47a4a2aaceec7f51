"""What data must be like before a model is trained on it: schema, ranges, freshness, labels."""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from . import data, model
from .errors import ProjectError
from .features import TIMESTAMP
from .settings import Settings

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

SHOWN_ROWS = 5


class DataCheckError(ProjectError):
    """The data is not fit to be trained on; the message shows the rows."""


def check_frame(settings: Settings, frame: pd.DataFrame) -> dict[str, float]:
    """Check a training frame.

    Returns:
        What was measured: rows, example times, and each class's share.

    Raises:
        DataCheckError: with the rows that fail each check.
    """
    from pandera.errors import SchemaErrors

    try:
        _schema(settings).validate(frame, lazy=True)
    except SchemaErrors as error:
        raise DataCheckError(_described(frame, error.failure_cases)) from error
    shares = _shares(frame)
    if model.TASK != "regression":
        _check_shares(settings, frame, shares)
    elif frame[data.LABEL].nunique() == 1:
        raise DataCheckError(f"{data.LABEL} has one value in all {len(frame):,} examples")
    times = float(frame[TIMESTAMP].nunique())
    return {"rows": float(len(frame)), "times": times, **shares}


def check_freshness(settings: Settings, manifest: Path) -> dict[str, float]:
    """Check the age of the newest raw event, where a manifest says when it was.

    Raises:
        DataCheckError: it is older than the settings allow.
    """
    if not manifest.exists():
        return {}
    content = json.loads(manifest.read_text(encoding="utf-8"))
    newest = datetime.fromisoformat(content["newest_event"])
    days = (settings.as_of - newest).total_seconds() / 86_400
    if days > settings.freshness_days:
        raise DataCheckError(
            f"the newest event is of {newest}, {days:.1f} days before {settings.as_of}: take in "
            f"newer data, or raise ML_FRESHNESS_DAYS={settings.freshness_days:g}"
        )
    return {"newest_event_age_days": days}


def _schema(settings: Settings) -> DataFrameSchema:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandera.pandas as pa

    known = pa.Check.le(pd.Timestamp(settings.as_of) - data.HORIZON, error="outcome is not known")
    columns = {
        data.KEY: pa.Column(nullable=False),
        TIMESTAMP: pa.Column("datetime64[us]", known, coerce=True),
        data.LABEL: pa.Column(nullable=False),
    }
    for feature in data.FEATURES:
        checks = []
        if feature.minimum is not None:
            checks.append(pa.Check.ge(feature.minimum, error=f"below {feature.minimum:g}"))
        if feature.maximum is not None:
            checks.append(pa.Check.le(feature.maximum, error=f"above {feature.maximum:g}"))
        kind = str if feature.type == "string" else "float32"
        columns[feature.name] = pa.Column(kind, checks)
    return pa.DataFrameSchema(columns, strict=True, unique=[data.KEY, TIMESTAMP])


def _described(frame: pd.DataFrame, cases: pd.DataFrame) -> str:
    lines = []
    for (column, check), failed in cases.groupby(["column", "check"], sort=False, dropna=False):
        lines.append(f"{column}: {check} ({len(failed):,} found)")
        places = failed["index"].dropna().astype(int).unique()[:SHOWN_ROWS]
        if len(places):
            names = dict.fromkeys((data.KEY, TIMESTAMP, column))
            shown = frame.loc[places, [name for name in names if name in frame.columns]]
            lines.append(shown.to_string(index=False))
    return "the training data fails its checks:\n" + "\n".join(lines)


def _shares(frame: pd.DataFrame) -> dict[str, float]:
    if model.TASK == "regression":
        return {}
    counts: dict[Any, float] = frame[data.LABEL].value_counts(normalize=True).to_dict()
    return {f"share_{label}": float(share) for label, share in counts.items()}


def _check_shares(settings: Settings, frame: pd.DataFrame, shares: dict[str, float]) -> None:
    least = settings.rarest_class
    if len(shares) > 1 and min(shares.values()) >= least:
        return
    found = ", ".join(
        f"{name.removeprefix('share_')}: {share:.4%}" for name, share in shares.items()
    )
    by_time = frame.groupby(TIMESTAMP)[data.LABEL].value_counts(normalize=True).unstack()
    raise DataCheckError(
        f"{data.LABEL} is too one-sided ({found}): each class needs a share of at least "
        f"{least:.4%} (ML_RAREST_CLASS)\n{by_time.to_string()}"
    )
